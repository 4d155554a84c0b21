"""How much each possible link explains: the log-likelihood ratio of "the same cell" against an end and a beginning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..acquire.errors import nearest_name
from .alive import Alive, squared
from .assignment import Edges
from .scales import Scales

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ODD_STEPS = 0.06
"""Share of steps that are much longer than the usual ones (two-Gaussian innovation)."""
ODD_LOOKS = 0.1
"""Share of changes of area, brightness or shape that are much larger than the usual ones."""
_LEAST_DENSITY = 1e-3
LEAST, MOST = -6.0, 3.5
"""Bounds of what one look can say: even the most unlikely change happens, to a mask if not to a cell."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each look counts; 0 leaves it out, 1 takes it at its word.

    ``likeness`` is that of appearance vectors, if the segmenter gives any, and ``overlap`` that of masks.
    """

    area: float = 1.0
    brightness: float = 1.0
    shape: float = 1.0
    likeness: float = 1.0
    overlap: float = 0.0

    @staticmethod
    def of(given: Mapping[str, float]) -> Weights:
        """Return the usual weights but for those that are given.

        Raises
        ------
        ValueError
            Names a look that there is not, or a weight below 0.
        """
        names = [each.name for each in fields(Weights)]
        for name, weight in given.items():
            if name not in names:
                hint = nearest_name(name, names)
                raise ValueError(
                    f"weights: there is no look {name!r}; allowed: {', '.join(names)}"
                    + (f". Did you mean {hint!r}?" if hint else "")
                )
            if not 0 <= weight < np.inf:
                raise ValueError(f"weights: {name} must be 0 or more, got {weight}")
        return Weights(**given)


@dataclass(frozen=True, slots=True)
class Population:
    """What cells of a frame are like, so that a track can be told from any of them.

    Attributes
    ----------
    radius, extent
        Median radius of a disc of the same area, and median half of the long axis, in px.
    area, brightness
        Mean and standard deviation of these.
    shape
        Standard deviation of each component of ``Alive.shape`` about a disc.
    """

    radius: float = 5.0
    extent: float = 5.0
    area: tuple[float, float] = (4.0, 0.2)
    brightness: tuple[float, float] = (0.0, 0.2)
    shape: float = 0.05

    @staticmethod
    def of(found: Alive) -> Population:
        """Return it of a frame's detections."""
        if not len(found):
            return Population()
        return Population(
            float(np.median(found.radius)),
            float(np.median(found.half_length)),
            (float(found.area.mean()), max(float(found.area.std()), 0.2)),
            (float(found.brightness.mean()), max(float(found.brightness.std()), 0.2)),
            max(float(np.sqrt(squared(found.shape).mean() / 2)), 0.05),
        )


@dataclass(frozen=True, slots=True)
class Usual:
    """What links are weighed with: what the frame's cells are like, what the movie has taught, how much looks count."""

    population: Population
    scales: Scales
    weights: Weights


@dataclass(frozen=True, slots=True, eq=False)
class Possible:
    """The possible links of a frame.

    Attributes
    ----------
    near
        Detections near each track.
    edges, gains
        e of them that are not out of the question, and (e,) how much each explains.
    unlike, overlap
        (e,) distance of their appearance vectors, and overlap of their masks; NaN where nothing is known.
    """

    near: Edges
    edges: Edges
    gains: Floats
    unlike: Floats
    overlap: Floats


def link_gains(
    edges: Edges, distances: Floats, alive: Alive, found: Alive, usual: Usual, stays: Floats, comes: Floats
) -> Floats:
    """Return the (e,) gain of each edge.

    Motion is a mixture of two Gaussians about the expected place; area, brightness and shape are each a mixture of
    a usual and a large change, against the spread of that look over all cells.

    Parameters
    ----------
    edges, distances
        e of them, and (e,) how far each detection is from where the track is expected, in px.
    alive, found
        The n tracks where they are expected, and the m detections.
    usual
        What they are weighed with.
    stays
        (n,) log of the odds that the track goes on and is seen.
    comes
        (m,) log of the density in 1/px^d of cells that appear from nowhere, at each detection.
    """
    population, scales, weights = usual.population, usual.scales, usual.weights
    settings = np.array(
        [
            *(weights.area, scales.growth, scales.area),
            *(weights.brightness, scales.area_of_light, scales.brightness),
            *(weights.shape, scales.shape),
        ]
    )
    variance = scales.step_px**2 * alive.unrest * (1 + alive.missed)
    broad, half_d = variance + population.radius**2, alive.place.shape[1] / 2
    steps = np.column_stack(
        [
            variance,
            (1 - ODD_STEPS) * (2 * np.pi * variance) ** -half_d,
            broad,
            ODD_STEPS * (2 * np.pi * broad) ** -half_d,
            stays,
        ]
    )
    before, after = (np.column_stack([each.area, each.brightness, each.shape]) for each in (alive, found))
    apart = np.column_stack(
        [
            _unlike(np.square((found.area - population.area[0]) / population.area[1]), population.area[1]),
            _unlike(
                np.square((found.brightness - population.brightness[0]) / population.brightness[1]),
                population.brightness[1],
            ),
            _unlike(
                squared(found.shape) / max(population.shape, scales.shape) ** 2,
                max(population.shape, scales.shape) ** 2,
            ),
        ]
    )
    return _gains(edges.row, edges.column, distances, steps, comes, before, after, apart, settings)


def _unlike(square: Floats, scale: float) -> Floats:
    """Return the log density of a look over all cells, from below; the constant is left out here and in the kernel."""
    return np.log(np.exp(-square / 2) / scale + _LEAST_DENSITY)


def warm_up() -> None:
    """Compile the kernel, or load it if it was compiled before."""
    edge, one, look = np.zeros(1, np.int64), np.ones(1), np.ones((1, 4))
    _gains(edge, edge, one, np.ones((1, 5)), one, look, look, np.ones((1, 3)), np.ones(8))


@njit(cache=True, nogil=True)
def _gains(
    rows: Ints,
    columns: Ints,
    distances: Floats,
    steps: Floats,
    comes: Floats,
    before: Floats,
    after: Floats,
    apart: Floats,
    settings: Floats,
) -> Floats:
    gains = np.empty(rows.size)
    hopeless = -(settings[0] + settings[3] + settings[6]) * MOST
    area, light = (settings[2], 4 * settings[2] + 0.5, 1.0), (settings[5], 4 * settings[5] + 0.5, 1.0)
    shape = settings[7], 3 * settings[7] + 0.2, 2.0
    # How dense a change is at its usual size and at a large one, where it is none at all.
    at_area, at_light, at_shape = _peaks(*area), _peaks(*light), _peaks(*shape)
    for e in range(rows.size):
        i, j = rows[e], columns[e]
        square = distances[e] * distances[e] / 2
        step = steps[i, 3] * np.exp(-square / steps[i, 2])
        if square < 30 * steps[i, 0]:
            step += steps[i, 1] * np.exp(-square / steps[i, 0])
        gain = np.log(step + 1e-300) + steps[i, 4] - comes[j]
        if gain > hopeless:  # else it is, whatever it looks like: spares the looks of most edges
            change = after[j, 0] - before[i, 0] - settings[1]
            gain += settings[0] * _bounded(_same(change * change, area, at_area) - apart[j, 0])
            change = after[j, 1] - before[i, 1] - settings[4]
            gain += settings[3] * _bounded(_same(change * change, light, at_light) - apart[j, 1])
            dy, dx = after[j, 2] - before[i, 2], after[j, 3] - before[i, 3]
            gain += settings[6] * _bounded(_same(dy * dy + dx * dx, shape, at_shape) - apart[j, 2])
        gains[e] = gain
    return gains


@njit(cache=True, nogil=True)
def _peaks(spread: float, broad: float, d: float) -> tuple[float, float]:
    return (1 - ODD_LOOKS) * spread ** (-d), ODD_LOOKS * broad ** (-d)


@njit(cache=True, nogil=True)
def _same(square: float, widths: tuple[float, float, float], peaks: tuple[float, float]) -> float:
    """Return the log density of a change of the same cell: mostly a usual one, at times a large one."""
    large = peaks[1] * np.exp(-square / (2 * widths[1] * widths[1]))
    return np.log(peaks[0] * np.exp(-square / (2 * widths[0] * widths[0])) + large + 1e-12)


@njit(cache=True, nogil=True)
def _bounded(gain: float) -> float:
    return min(max(gain, LEAST), MOST)
