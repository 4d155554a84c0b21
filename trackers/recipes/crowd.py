"""A crowd of cells that is never seen: what a segmenter would have measured of them, and who each one was.

Cells walk at random, keep apart, grow, divide and die on a square whose edges meet; a window on its middle is
looked at. The whole sample drifts below the window, so cells leave through one edge of it and others come in at the
opposite one. There are no pixels: only centroids, areas, brightness and second moments, with errors, with cells
missed and with detections of nothing. One frame of 10 000 cells takes a few hundredths of a second, and a movie may
be as long as one likes: only the present state is kept.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ...acquire.errors import FrameError
from ...models.detections import Detections
from ..columns import Columns

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Density = Literal["easy", "hard"]

FRAME_S = 300.0
"""Time between two frames in s."""
_SETTLING = 40
"""Passes of pushing apart before the first frame."""
_COUNTS_PER_LEVEL = 2000.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """What is assumed of the cells and of how they are measured; per frame, lengths in px.

    Attributes
    ----------
    spacing_px
        One cell for each square with this edge.
    step_px
        Standard deviation of a cell's step along one axis, before cells push each other apart.
    persistence
        Correlation of a cell's successive steps.
    drift_px, drift_persistence
        Standard deviation of the step of the whole field along one axis, and correlation of its successive steps:
        the drift turns about once in ten frames.
    divisions, deaths
        Share of the cells in a frame. Of the cells that are too many then, as many more come off and are gone as
        keep the number where it is.
    cycle_spread
        Variation of the time between two divisions, as a share of its mean.
    area_px, area_spread
        Median area of a cell that is about to divide, and its standard deviation between cells, as a logarithm.
    condensed, condensed_frames
        A cell rounds up before it divides: its area is this share of what it was for so many frames; its brightness
        rises by as much. Daughters spread from this share in as many frames.
    uneven
        Standard deviation of a daughter's share in her mother's area, as a logarithm.
    inherited
        Correlation of the adult size and the brightness of mother and daughter, as logarithms.
    apart_radii, scatter_px
        Distance of two newborn daughters in their radii; and by how much the place between them misses the mother's,
        as a standard deviation along one axis, beside the step.
    brightness_spread
        Standard deviation of brightness between cells, as a logarithm.
    aspect
        Least and largest ratio of the axes of a cell that is not about to divide.
    gap
        Cells push each other apart until their centroids are this share of their mean diameter apart.
    missed, false
        Share of the cells that are not detected, and detections of nothing per cell.
    place_error_px, area_error, brightness_error, moment_error
        Standard deviations of what is measured; of the last three as logarithms.
    """

    spacing_px: float
    step_px: float
    persistence: float = 0.2
    drift_px: float = 2.5
    drift_persistence: float = 0.9
    divisions: float = 0.01
    deaths: float = 0.006
    cycle_spread: float = 0.12
    area_px: float = 200.0
    area_spread: float = 0.2
    condensed: float = 0.8
    condensed_frames: float = 3.0
    uneven: float = 0.05
    inherited: float = 0.7
    apart_radii: float = 2.2
    scatter_px: float = 2.0
    brightness_spread: float = 0.25
    aspect: tuple[float, float] = (1.1, 1.6)
    gap: float = 0.7
    missed: float = 0.03
    false: float = 0.02
    place_error_px: float = 0.3
    area_error: float = 0.07
    brightness_error: float = 0.08
    moment_error: float = 0.1

    @property
    def cycle_frames(self) -> float:
        """Mean time between two divisions of a crowd whose number stays, in frames."""
        return float(np.log(2) / self.divisions)


CROWDS: dict[Density, Crowd] = {"easy": Crowd(30.0, 2.5), "hard": Crowd(18.0, 3.0)}


@dataclass(frozen=True, slots=True, eq=False)
class CrowdFrame:
    """What was measured in one frame, and the truth.

    Attributes
    ----------
    detections
        As a segmenter and :func:`~cytoloop.models.measure.measure` give them, without a mask.
    identity
        (n,) int64, who each detection is, from 1; 0 if it is of nothing.
    born
        (d, 3) int64, mother and two daughters of each division whose daughters are there for the first time, one of
        them in view at least, whether it was detected or not.
    """

    detections: Detections
    identity: Ints
    born: Ints


def crowd(
    objects: int, density: Density, *, seed: int = 0, habits: Crowd | None = None
) -> Generator[CrowdFrame]:
    """Yield frame after frame without end; the same arguments give the same movie.

    Parameters
    ----------
    objects
        How many cells are in view, on average.
    density
        How crowded they are: key of ``CROWDS``.
    seed
        Of all that is random.
    habits
        What is assumed, instead of what belongs to ``density``.

    Raises
    ------
    FrameError
        Without objects, or for another density.
    """
    if objects < 1:
        raise FrameError(f"1 object or more is needed, got {objects}")
    if density not in CROWDS:
        raise FrameError(f"density {density!r}: allowed are {', '.join(get_args(Density))}")
    return _Sample(objects, habits or CROWDS[density], np.random.default_rng(seed)).frames()


@dataclass(slots=True, eq=False)
class _Cells(Columns):
    """The cells as columns of equal length; logarithms of areas and of brightness."""

    identity: Ints
    seen: NDArray[np.bool_]  # since it has this identity
    yx: Floats
    step: Floats
    age: Floats  # in frames
    cycle: Floats  # in frames
    newborn: Floats  # log area when born
    adult: Floats  # log area when about to divide
    level: Floats  # log brightness
    angle: Floats
    aspect: Floats


class _Sample:
    """The cells on their square, and the window on it."""

    def __init__(self, objects: int, habits: Crowd, random: np.random.Generator) -> None:
        self._habits, self._random = habits, random
        self._window = habits.spacing_px * objects**0.5
        # Cells are known again if they come back from less far than half of this.
        self._margin = 2 * habits.spacing_px
        self._width = self._window + 2 * self._margin
        self._count = max(round((self._width / habits.spacing_px) ** 2), 2)
        self._next = 1
        self._drift = random.normal(0, habits.drift_px, 2)
        self._cells = self._founders(self._count)
        for _ in range(_SETTLING):
            self._push_apart(0.7)

    def frames(self) -> Generator[CrowdFrame]:
        number, born = 0, np.empty((0, 3), np.int64)
        while True:
            yield self._look(number, born)
            self._move()
            self._thin_out()
            born = self._divide()
            self._push_apart(0.7)
            number += 1

    def _founders(self, n: int) -> _Cells:
        h, random = self._habits, self._random
        cycle = h.cycle_frames * np.clip(random.normal(1, h.cycle_spread, n), 0.6, 1.4)
        adult = np.log(h.area_px) + random.normal(0, h.area_spread, n)
        return _Cells(
            identity=self._new_identities(n),
            seen=np.zeros(n, bool),
            yx=random.uniform(0, self._width, (n, 2)),
            step=random.normal(0, h.step_px, (n, 2)),
            # In a crowd whose number stays twice as many are newborn as are about to divide.
            age=-np.log2(1 - random.uniform(0, 0.5, n)) * cycle,
            cycle=cycle,
            newborn=adult - np.log(2),
            adult=adult,
            level=random.normal(0, h.brightness_spread, n),
            angle=random.uniform(0, np.pi, n),
            aspect=random.uniform(*h.aspect, n),
        )

    def _new_identities(self, n: int) -> Ints:
        self._next += n
        return np.arange(self._next - n, self._next)

    def _move(self) -> None:
        h, cells, random = self._habits, self._cells, self._random
        n, keep = len(cells), h.persistence
        cells.step = keep * cells.step + (1 - keep**2) ** 0.5 * random.normal(0, h.step_px, (n, 2))
        keep = h.drift_persistence
        self._drift = keep * self._drift + (1 - keep**2) ** 0.5 * random.normal(0, h.drift_px, 2)
        cells.yx = np.mod(cells.yx + cells.step + self._drift, self._width)
        cells.age = cells.age + 1
        cells.angle = cells.angle + random.normal(0, 0.1, n)
        outside = self._outside(cells.yx)
        far = cells.seen & (outside > self._margin / 2)
        cells.identity[far] = self._new_identities(int(far.sum()))
        cells.seen[far] = False

    def _outside(self, yx: Floats) -> Floats:
        """Return (n,) how far outside of the window each place is, at most 0 within."""
        return np.abs(yx - self._width / 2).max(axis=1) - self._window / 2

    def _thin_out(self) -> None:
        """Let cells die, and as many more be gone as keep the number with the divisions that are due."""
        cells, random = self._cells, self._random
        alive = cells.take(random.random(len(cells)) >= self._habits.deaths)
        too_many = len(alive) + int((alive.age >= alive.cycle).sum()) - self._count
        if too_many > 0:
            alive = alive.take(np.sort(random.permutation(len(alive))[too_many:]))
        self._cells = alive

    def _divide(self) -> Ints:
        """Put two daughters where each cell was that is due; return (d, 3) mothers and daughters."""
        h, random = self._habits, self._random
        due = self._cells.age >= self._cells.cycle
        mothers, others = self._cells.take(due), self._cells.take(~due)
        if len(mothers) == 0:
            return np.empty((0, 3), np.int64)
        n = len(mothers)
        first, second = self._founders(n), self._founders(n)
        share = np.log(0.5) + random.normal(0, h.uneven, n)
        angle = mothers.angle + random.normal(0, 0.2, n)
        middle = mothers.yx + random.normal(0, h.scatter_px, (n, 2))
        for daughters, part, side in ((first, share, 0.5), (second, np.log1p(-np.exp(share)), -0.5)):
            daughters.newborn = mothers.adult + part
            daughters.adult = np.log(h.area_px) + self._inherited(
                mothers.adult - np.log(h.area_px), h.area_spread
            )
            daughters.level = self._inherited(mothers.level, h.brightness_spread)
            daughters.age = np.zeros(n)
            daughters.angle = angle + np.pi / 2
            radius = np.sqrt(np.exp(_log_area(daughters, h)[0]) / np.pi)
            offset = np.stack([np.sin(angle), np.cos(angle)], axis=1) * radius[:, np.newaxis]
            daughters.yx = np.mod(middle + side * h.apart_radii * offset, self._width)
            daughters.step = np.zeros((n, 2))
        self._cells = others.joined(first).joined(second)
        return np.stack([mothers.identity, first.identity, second.identity], axis=1)

    def _inherited(self, mother: Floats, spread: float) -> Floats:
        """Return logarithms for daughters, such that the spread between all cells stays."""
        keep = self._habits.inherited
        return keep * mother + (1 - keep**2) ** 0.5 * self._random.normal(0, spread, len(mother))

    def _push_apart(self, strength: float) -> None:
        """Move cells that are too near to each other apart, by a share of what is missing."""
        cells, h = self._cells, self._habits
        radius = np.sqrt(np.exp(_log_area(cells, h)[0]) / np.pi)
        for _ in range(2):
            tree = KDTree(cells.yx, boxsize=self._width)
            # The largest cells are few: pairs of them are pushed a little late.
            reach = 2 * h.gap * float(np.quantile(radius, 0.95))
            one, other = tree.query_pairs(min(reach, 0.49 * self._width), output_type="ndarray").T
            between = cells.yx[one] - cells.yx[other]
            between -= self._width * np.round(between / self._width)
            distance = np.maximum(np.hypot(between[:, 0], between[:, 1]), 1e-3)
            lacking = np.maximum(h.gap * (radius[one] + radius[other]) - distance, 0.0)
            push = between * (strength * lacking / distance / 2)[:, np.newaxis]
            for axis in range(2):
                moved = np.bincount(one, push[:, axis], len(cells)) - np.bincount(
                    other, push[:, axis], len(cells)
                )
                cells.yx[:, axis] = np.mod(cells.yx[:, axis] + moved, self._width)

    def _look(self, number: int, born: Ints) -> CrowdFrame:
        h, cells, random = self._habits, self._cells, self._random
        inside = self._outside(cells.yx) < 0
        cells.seen |= inside
        born = born[np.isin(born[:, 1:], cells.identity[inside]).any(axis=1)]
        found = cells.take(inside & (random.random(len(cells)) >= h.missed))
        n = len(found)
        area, condensed = _log_area(found, h)
        yx = found.yx - self._margin + random.normal(0, h.place_error_px, (n, 2))
        nothing = self._places_of_nothing(
            int(random.poisson(h.false * inside.sum())), yx, float(np.exp(area).mean())
        )
        m = len(nothing)
        # Detections of nothing are smaller and dimmer than most cells.
        area = np.concatenate([area, np.log(0.4 * h.area_px) + random.normal(0, 0.35, m)])
        level = np.concatenate([found.level - condensed, random.normal(-0.4, 0.4, m)])
        rounded = np.exp(2 * condensed)
        aspect = np.concatenate([1 + (found.aspect - 1) * rounded, random.uniform(*h.aspect, m)])
        angle = np.concatenate([found.angle, random.uniform(0, np.pi, m)])
        area = np.exp(area + random.normal(0, h.area_error, n + m))
        aspect = np.maximum(aspect * np.exp(random.normal(0, h.moment_error, n + m)), 1.0)
        mean = _COUNTS_PER_LEVEL * np.exp(level + random.normal(0, h.brightness_error, n + m))
        size = max(int(np.ceil(self._window)), 1)
        yx = np.clip(np.concatenate([yx, nothing]), 0, size - 1)
        moments = _moments(area, aspect, angle)
        extent = 2 * np.sqrt(moments[:, :2])
        box = np.concatenate([np.floor(yx - extent), np.ceil(yx + extent) + 1], axis=1)
        order = np.argsort(box[:, 0], kind="stable")  # as a mask is read, from the top
        detections = Detections(
            sequence=number,
            time_s=number * FRAME_S,
            shape=(size, size),
            yx=yx[order],
            area=area[order],
            bbox=np.clip(box, 0, size).astype(np.int32)[order],
            mean=mean[order, np.newaxis],
            maximum=1.6 * mean[order, np.newaxis],
            moments=moments[order],
        )
        return CrowdFrame(detections, np.concatenate([found.identity, np.zeros(m, np.int64)])[order], born)

    def _places_of_nothing(self, count: int, yx: Floats, mean_area: float) -> Floats:
        """Return (m, 2) places in the window that are on no cell; ``count`` of them where there is room."""
        places = self._random.uniform(0, self._window, (8 * count, 2))
        if count == 0 or len(yx) == 0:
            return places[:count]
        distance, _ = KDTree(yx).query(places, distance_upper_bound=1.2 * np.sqrt(mean_area / np.pi))
        return places[np.isinf(distance)][:count]


def _log_area(cells: _Cells, habits: Crowd) -> tuple[Floats, Floats]:
    """Return (n,) log area; and the part of it that is due to rounding up, at most 0."""
    grown = np.clip(cells.age / cells.cycle, 0, 1)
    near = np.minimum(cells.age, cells.cycle - cells.age - 1)  # frames from a division
    condensed = np.log(habits.condensed) * np.clip(1 - near / habits.condensed_frames, 0, 1)
    return cells.newborn + grown * (cells.adult - cells.newborn) + condensed, condensed


def _moments(area: Floats, aspect: Floats, angle: Floats) -> Floats:
    """Return (n, 3) second central moments yy, xx, yx of ellipses whose long axis has this angle to x."""
    long, short = area * aspect / (4 * np.pi), area / aspect / (4 * np.pi)
    sine, cosine = np.sin(angle), np.cos(angle)
    return np.stack(
        [
            long * sine**2 + short * cosine**2,
            long * cosine**2 + short * sine**2,
            (long - short) * sine * cosine,
        ],
        axis=1,
    )
