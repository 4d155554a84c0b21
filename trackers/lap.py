"""The default tracker: exact gated assignment on log-likelihood ratios, with divisions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..acquire.reply import Division
from ..models.detections import Detections
from . import assignment, gate
from .assignment import Edges, link_probabilities, match
from .divisions import Mothers, candidate_pairs, division_gains
from .drift import best_stage_shift, common_shift, stage_shifts
from .gate import near_pairs
from .neighbours import nearest
from .tracks import Ended, Tracks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ODD_STEPS = 0.06
"""Share of steps that are much longer than the usual ones."""
END = 0.02
"""Probability that a cell is gone or missed in the next frame."""
VELOCITY_GAIN, VELOCITY_DECAY = 0.25, 0.9
"""Share of a surprise that becomes velocity, and of a velocity that lasts to the next frame."""
MEMORY_FRAMES = 8.0
"""How long a cell's own unrest is remembered."""
DIVISION_MARGIN = 3.0
"""How much more a division must explain than the links it replaces: the log of an odds ratio."""
JUST_BORN_FRAMES = 3
"""A cell that was born by division divides again at once only very rarely."""


@dataclass(frozen=True, slots=True, eq=False)
class _Alive:
    """The n tracks that may go on, as columns."""

    track: Ints
    parent: Ints
    age: NDArray[np.int32]
    missed: NDArray[np.int32]
    yx: Floats
    velocity: Floats
    variance: Floats  # (n,) of one step along one axis, px^2
    area: Floats
    brightness: Floats
    moments: Floats

    def __len__(self) -> int:
        return len(self.track)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> _Alive:
        return _Alive(*(getattr(self, name)[rows] for name in self.__slots__))

    def joined(self, other: _Alive) -> _Alive:
        return _Alive(
            *(np.concatenate([getattr(self, name), getattr(other, name)]) for name in self.__slots__)
        )


@dataclass(frozen=True, slots=True)
class _Scales:
    """What has been learned from the movie so far."""

    step_px: float
    area: float = 0.15
    brightness: float = 0.15
    links: int = 10


class LapTracker:
    """Links cells by the assignment of greatest likelihood; declares divisions in the frame where they show.

    A link is scored by motion (constant velocity, two-Gaussian innovation), change of area and of brightness,
    each as a log-likelihood ratio against an end and a beginning; the scales are learned from the movie. Shifts
    of the whole field are estimated first. A division ends the mother and begins two tracks. One missed frame
    is bridged.

    Parameters
    ----------
    max_distance_px
        The farthest step that may be linked, in px; None lets the movie say.
    max_gap
        How many frames in a row a cell may be missed.
    divisions
        Whether cells may divide.
    """

    def __init__(
        self, *, max_distance_px: float | None = None, max_gap: int = 1, divisions: bool = True
    ) -> None:
        if max_distance_px is not None and not max_distance_px > 0:
            raise ValueError(f"max_distance_px must be above 0, got {max_distance_px}")
        if max_gap < 0:
            raise ValueError(f"max_gap must be 0 or more, got {max_gap}")
        self._reach, self._max_gap, self._divide = max_distance_px, max_gap, divisions
        assignment.warm_up()
        gate.warm_up()
        self._alive: _Alive | None = None
        self._before: Detections | None = None
        self._scales: _Scales | None = None
        self._next = 1

    def update(self, detections: Detections) -> Tracks:
        """Take the next frame's detections and return their identities."""
        found = _beginnings(detections)
        if self._alive is None or self._before is None:
            self._alive = _Alive(*(getattr(found, name)[:0] for name in found.__slots__))
            self._before = detections
        alive = self._expected(self._alive, detections)
        scales = self._scales
        if scales is None:
            scales = _first_scales(alive, found)
            alive = replace(alive, variance=np.full(len(alive), scales.step_px**2))
        graph = self._graph(alive, found, scales, detections.shape)
        column_of = graph.best(len(alive), len(found))
        triples: Ints = np.empty((0, 3), np.int64)
        if self._divide and len(alive) and len(found) > 1:
            triples = self._find_divisions(alive, found, graph, column_of, scales)
        if len(triples):  # the others are matched again without the mothers and daughters
            free = ~np.isin(graph.rows, triples[:, 0]) & ~np.isin(graph.columns, triples[:, 1:])
            graph = replace(
                graph, rows=graph.rows[free], columns=graph.columns[free], gains=graph.gains[free]
            )
            column_of = graph.best(len(alive), len(found))
        return self._commit(detections, alive, found, graph, column_of, triples, scales)

    def _expected(self, alive: _Alive, detections: Detections) -> _Alive:
        """Return the tracks where they are expected in the new frame."""
        assert self._before is not None
        yx = alive.yx + alive.velocity
        if len(alive) == 0 or len(detections) == 0:
            return replace(alive, yx=yx)
        radius = float(np.sqrt(np.median(detections.area) / np.pi))
        moves = stage_shifts(self._before, detections)
        if len(moves):
            yx = yx + best_stage_shift(yx, detections.yx, moves, radius)
        step = self._scales.step_px if self._scales else 0.0
        tolerance = max(0.5 * radius, 1.5 * step, 1.0)
        shift = common_shift(yx, detections.yx, tolerance, np.log(alive.area), np.log(detections.area))
        return replace(alive, yx=yx + shift)

    def _graph(self, alive: _Alive, found: _Alive, scales: _Scales, shape: tuple[int, int]) -> _Graph:
        n, m = len(alive), len(found)
        new_per_px = max(0.02 * max(n, m), 0.5) / (shape[0] * shape[1])
        if n == 0 or m == 0:
            none = np.empty(0, np.int64)
            return _Graph(none, none, np.empty(0), new_per_px)
        radius = np.sqrt(float(np.median(found.area)) / np.pi)
        reach = self._reach or 4 * scales.step_px + 2.5 * radius
        rows, columns, distances = near_pairs(alive.yx, found.yx, reach)
        gains = _log_steps(distances, alive.variance[rows] * (1 + alive.missed[rows]), radius)
        gains += _log_change(found.area[columns], alive.area[rows], found.area, scales.area)
        gains += _log_change(
            np.exp(found.brightness[columns]),
            np.exp(alive.brightness[rows]),
            np.exp(found.brightness),
            scales.brightness,
        )
        gains += np.log((1 - END) / END) - np.log(new_per_px) + np.log(0.5) * alive.missed[rows]
        return _Graph(rows, columns, gains, new_per_px)

    def _find_divisions(
        self, alive: _Alive, found: _Alive, graph: _Graph, column_of: Ints, scales: _Scales
    ) -> Ints:
        """Return (d, 3) mother row and daughter columns of the divisions that explain clearly more than links."""
        # Cells seldom divide; those just born, hardly ever.
        prior = (
            np.log(0.02)
            - np.log(END)
            - np.where((alive.parent > 0) & (alive.age < JUST_BORN_FRAMES), 3.0, 0.0)
        )
        mothers = Mothers(alive.yx, alive.area, alive.moments, prior - 2.0 * alive.missed)
        mother, one, other = candidate_pairs(graph.rows, graph.columns, mothers, found.yx, found.area)
        if len(mother) == 0:
            return np.empty((0, 3), np.int64)
        log_area = np.log(found.area)
        gain = division_gains(
            mother,
            one,
            other,
            mothers,
            found.yx,
            found.area,
            found.brightness,
            spread_px=scales.step_px,
            brightness_spread=scales.brightness,
            new_per_px=graph.new_per_px,
            log_area_population=(float(log_area.mean()), max(float(log_area.std()), 0.3)),
        )
        # What the links that would be given up explain.
        linked_gain = np.zeros(len(alive) + 1)
        row_of = np.full(len(found), -1, np.int64)
        linked = np.flatnonzero(column_of >= 0)
        row_of[column_of[linked]] = linked
        chosen = column_of[graph.rows] == graph.columns
        linked_gain[graph.rows[chosen]] = graph.gains[chosen]
        lost = linked_gain[mother]
        for daughter in (one, other):
            lost = lost + np.where(row_of[daughter] != mother, linked_gain[row_of[daughter]], 0.0)
        better = gain - lost
        picked: list[tuple[int, int, int]] = []
        used_rows: set[int] = set()
        used_columns: set[int] = set()
        for index in np.argsort(-better, kind="stable"):
            if better[index] < DIVISION_MARGIN:
                break
            i, j, k = int(mother[index]), int(one[index]), int(other[index])
            if i in used_rows or j in used_columns or k in used_columns:
                continue
            used_rows.add(i)
            used_columns.update((j, k))
            picked.append((i, j, k))
        return np.array(picked, np.int64).reshape(-1, 3)

    def _commit(
        self,
        detections: Detections,
        alive: _Alive,
        found: _Alive,
        graph: _Graph,
        column_of: Ints,
        triples: Ints,
        scales: _Scales,
    ) -> Tracks:
        linked = np.flatnonzero(column_of >= 0)
        columns = column_of[linked]
        confidence = np.ones(len(found))
        if len(graph.rows):
            share = link_probabilities(graph.rows, graph.columns, graph.gains, (len(alive), len(found)))
            chosen = column_of[graph.rows] == graph.columns
            confidence[graph.columns[chosen]] = share[chosen]
        track, parent = np.zeros(len(found), np.int64), np.zeros(len(found), np.int64)
        age = np.zeros(len(found), np.int32)
        velocity = np.zeros((len(found), 2))
        variance = np.full(len(found), scales.step_px**2)
        track[columns], parent[columns] = alive.track[linked], alive.parent[linked]
        age[columns] = alive.age[linked] + 1 + alive.missed[linked]
        residual = found.yx[columns] - alive.yx[linked]
        velocity[columns] = VELOCITY_DECAY * alive.velocity[linked] + VELOCITY_GAIN * residual
        square = np.square(residual).sum(axis=1) / 2
        pull = np.minimum(square, 9 * alive.variance[linked])
        own = alive.variance[linked] + (pull - alive.variance[linked]) / MEMORY_FRAMES
        if len(linked):
            self._scales = scales = _learn(scales, alive, found, linked, columns, np.sqrt(2 * square))
        variance[columns] = np.clip(own, 0.25 * scales.step_px**2, 9 * scales.step_px**2)
        new = np.flatnonzero(track == 0)
        track[new] = self._next + np.arange(len(new))
        self._next += len(new)
        divisions: list[Division] = []
        for i, j, k in triples.tolist():
            parent[[j, k]] = alive.track[i]
            divisions.append(Division(int(alive.track[i]), (int(track[j]), int(track[k]))))
        now = replace(found, track=track, parent=parent, age=age, velocity=velocity, variance=variance)
        waiting = column_of < 0
        waiting[triples[:, 0]] = False
        given_up = waiting & (alive.missed >= self._max_gap)
        kept = alive.take(waiting & ~given_up)
        kept = replace(kept, missed=kept.missed + 1)
        self._alive, self._before = now.joined(kept), detections
        return Tracks(
            detections=detections,
            track=track,
            parent=parent,
            age=age,
            velocity=velocity,
            covariance=np.stack([variance, variance, np.zeros_like(variance)], axis=1),
            confidence=confidence,
            divisions=tuple(divisions),
            ended=tuple(map(Ended, alive.track[given_up].tolist())),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Graph:
    """Possible links: (e,) rows of tracks, columns of detections, gain of each; and the density of new cells.

    Sorted by row, then by column.
    """

    rows: Ints
    columns: Ints
    gains: Floats
    new_per_px: float

    def best(self, tracks: int, detections: int) -> Ints:
        """Return (tracks,) the detection of each in the links of greatest gain, or -1."""
        return match(Edges.of(self.rows, self.columns, (tracks, detections)), self.gains).column_of


def _beginnings(detections: Detections) -> _Alive:
    """Return the detections as tracks without a past."""
    n = len(detections)
    return _Alive(
        track=np.zeros(n, np.int64),
        parent=np.zeros(n, np.int64),
        age=np.zeros(n, np.int32),
        missed=np.zeros(n, np.int32),
        yx=detections.yx,
        velocity=np.zeros((n, 2)),
        variance=np.ones(n),
        area=detections.area,
        brightness=np.log(detections.mean[:, detections.channel] + 1.0),
        moments=detections.moments,
    )


def _first_scales(alive: _Alive, found: _Alive) -> _Scales:
    """Return scales before any link is known: steps from mutual nearest neighbours, bounded by the cells' size."""
    cells = found if len(found) else alive
    radius = float(np.sqrt(np.median(cells.area) / np.pi)) if len(cells) else 5.0
    if len(alive) < 3 or len(found) < 3:
        return _Scales(step_px=max(0.5 * radius, 1.0))
    distance, there = nearest(found.yx, alive.yx)
    _, back = nearest(alive.yx, found.yx)
    mutual = back[there] == np.arange(len(alive))
    step = float(np.median(distance[mutual])) / 1.177 if mutual.any() else radius
    return _Scales(step_px=float(np.clip(step, 0.15 * radius, 2 * radius)))


def _learn(
    scales: _Scales, alive: _Alive, found: _Alive, linked: Ints, columns: Ints, step: Floats
) -> _Scales:
    """Return the scales after one frame's links: robust spreads, slower to change as links add up."""
    links = scales.links + len(linked)
    rate = max(len(linked) / links, min(1.0, len(linked) / 200.0), 0.02)
    size = np.abs(np.log(found.area[columns] / alive.area[linked]))
    light = np.abs(found.brightness[columns] - alive.brightness[linked])
    return _Scales(
        step_px=_toward(scales.step_px, max(float(np.median(step)) / 1.177, 0.3), rate),
        area=_toward(scales.area, max(float(np.median(size)) / 0.674, 0.03), rate),
        brightness=_toward(scales.brightness, max(float(np.median(light)) / 0.674, 0.03), rate),
        links=min(links, 1000),
    )


def _log_steps(distance: Floats, variance: Floats, radius: float) -> Floats:
    """Return the log density in 1/px^2 of steps: mostly usual ones, a few as long as the cells are wide."""
    wide = variance + radius**2
    square = np.square(distance)
    usual = (1 - ODD_STEPS) * np.exp(-square / (2 * variance)) / variance
    odd = ODD_STEPS * np.exp(-square / (2 * wide)) / wide
    return np.log((usual + odd) / (2 * np.pi) + 1e-300)


def _log_change(now: Floats, before: Floats, population: Floats, spread: float) -> Floats:
    """Return the log-likelihood ratio of a change of size against two unrelated cells, bounded."""
    logs = np.log(population)
    sd = max(float(logs.std()), 0.2)
    change = np.log(now / before)
    broad = 4 * spread + 0.5
    same = 0.9 * np.exp(-np.square(change / spread) / 2) / spread
    same += 0.1 * np.exp(-np.square(change / broad) / 2) / broad
    apart = np.exp(-np.square((np.log(now) - logs.mean()) / sd) / 2) / sd
    return np.clip(np.log(same + 1e-12) - np.log(apart + 1e-3), -6.0, 3.0)


def _toward(old: float, new: float, rate: float) -> float:
    return float(np.exp((1 - rate) * np.log(old) + rate * np.log(new)))
