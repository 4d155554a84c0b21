"""Finding divisions: which cell has become which two, and how much that explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..models.kernels import frozen
from .alive import Alive, squared
from .assignment import Edges
from .columns import Columns
from .scales import Scales

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SMALLEST, LARGEST = 0.08, 1.3
"""A daughter's area as a share of her mother's."""
LEAST_SUM, MOST_SUM = 0.4, 2.5
"""That of both together."""


MOST_LOST = 17.0
"""Cells whose links explain so much have not become others; spares the looks of nearly all of a crowd."""


@dataclass(frozen=True, slots=True, eq=False)
class Linked:
    """The links of a frame: (n,) gain of each track's, 0 for none, and (m,) the track of each detection or -1."""

    gain: Floats
    row_of: Ints

    def lost(self, triples: Triples) -> Floats:
        """Return (t,) what the links of each mother and of both detections explain, each link once."""
        gain = np.append(self.gain, 0.0)  # row -1: none
        one, other = (self.row_of[each] for each in (triples.one, triples.other))
        lost = gain[triples.mother] + np.where(one != triples.mother, gain[one], 0.0)
        return lost + np.where(other != triples.mother, gain[other], 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Triples(Columns):
    """Cells that may have become two: (t,) row of each mother, rows of both detections."""

    mother: Ints
    one: Ints
    other: Ints


def candidates(near: Edges, mothers: Alive, found: Alive, linked: Linked, slack_px: float) -> Triples:
    """Return every two detections that could, by place and area, be the daughters of one cell.

    Parameters
    ----------
    near
        Detections near each mother.
    mothers, found
        The cells where they are expected, and the detections.
    linked
        What the links explain that a division would replace.
    slack_px
        How far a cell may stray.
    """
    reach = np.maximum(1.1 * mothers.half_length, 1.8 * mothers.radius) + slack_px
    given = (mothers.place, np.exp(mothers.area), reach, found.place, np.exp(found.area), linked.gain)
    return Triples(*_triples(near.start, near.column, linked.row_of, *map(frozen, given)))


def warm_up() -> None:
    """Compile the kernel, or load it if it was compiled before."""
    edge, one, place = np.zeros(1, np.int64), frozen(np.ones(1)), frozen(np.zeros((1, 2)))
    _triples(np.array([0, 1]), edge, edge, place, one, one, place, one, one)


@njit(cache=True, nogil=True)
def _triples(
    start: Ints,
    column: Ints,
    row_of: Ints,
    place: Floats,
    area: Floats,
    reach: Floats,
    found: Floats,
    size: Floats,
    gain: Floats,
) -> tuple[Ints, Ints, Ints]:
    triples, count = np.empty((64, 3), np.int64), 0
    d = place.shape[1]
    near, near_cost = np.empty(64, np.int64), np.empty(64)
    for i in range(start.size - 1):
        n = 0
        for e in range(start[i], start[i + 1]):
            j = column[e]
            share, row = size[j] / area[i], row_of[j]
            # Of the links of the mother and of both detections, each counts once.
            cost = gain[row] if row >= 0 and row != i else 0.0
            if share < SMALLEST or share > LARGEST or gain[i] + cost > MOST_LOST:
                continue
            square = 0.0
            for axis in range(d):
                square += (found[j, axis] - place[i, axis]) ** 2
            if square > reach[i] * reach[i]:
                continue
            if n == near.size:
                near = np.concatenate((near, np.empty_like(near)))
                near_cost = np.concatenate((near_cost, np.empty_like(near_cost)))
            near[n], near_cost[n] = j, cost
            n += 1
        for a in range(n):
            for b in range(a + 1, n):
                j, k = near[a], near[b]
                both = size[j] + size[k]
                if both < LEAST_SUM * area[i] or both > MOST_SUM * area[i]:
                    continue
                if gain[i] + near_cost[a] + near_cost[b] > MOST_LOST:
                    continue
                square = 0.0  # of the way from the mother to the middle of both
                for axis in range(d):
                    middle = (size[j] * found[j, axis] + size[k] * found[k, axis]) / both
                    square += (middle - place[i, axis]) ** 2
                if 4 * square > reach[i] * reach[i]:
                    continue
                if count == len(triples):
                    triples = np.concatenate((triples, np.empty_like(triples)))
                triples[count, 0], triples[count, 1], triples[count, 2] = i, j, k
                count += 1
    triples = triples[:count]
    return triples[:, 0].copy(), triples[:, 1].copy(), triples[:, 2].copy()


def features(triples: Triples, mothers: Alive, found: Alive, scales: Scales) -> dict[str, Floats]:
    """Return what is measured of each triple, (t,) each, none with a unit.

    Parameters
    ----------
    triples
        t of them.
    mothers, found
        The cells where they are expected, and the detections.
    scales
        What the movie has taught.

    Returns
    -------
    dict
        ``sum``: log of both areas over the mother's. ``ratio``: log of the larger over the smaller area. ``middle``:
        way from the mother to the middle of both, in what a step and a part of her radius allow. ``apart``: log of
        the distance of both over her radius. ``along``: cosine between that and her long axis, times how long she
        is. ``stretch``: log of the second moments of both together over hers. ``turned``: how far their shape
        together is from hers. ``alike``: difference of brightness, in its usual change. ``grown``: log of her area over
        her usual one. ``young``: 1 right after her own birth, falling. ``large``: the same over that of all.
    """
    m, j, k = triples.mother, triples.one, triples.other
    area, a, b = np.exp(mothers.area[m]), np.exp(found.area[j]), np.exp(found.area[k])
    radius = mothers.radius[m]
    share = (a / (a + b))[:, np.newaxis]
    apart = found.place[j] - found.place[k]
    length = np.maximum(np.sqrt(squared(apart)), 1e-3)
    middle = share * found.place[j] + (1 - share) * found.place[k] - mothers.place[m]
    allowed = np.sqrt(scales.step_px**2 + (0.35 * radius) ** 2)
    flat = apart[:, -2:]
    spread = (share[:, 0] * (1 - share[:, 0]))[:, np.newaxis]
    both = share * found.moments[j] + (1 - share) * found.moments[k]
    both = both + spread * np.stack([flat[:, 0] ** 2, flat[:, 1] ** 2, flat[:, 0] * flat[:, 1]], axis=1)
    total, before = both[:, 0] + both[:, 1], mothers.moments[m, 0] + mothers.moments[m, 1]
    shape = (
        np.stack([both[:, 0] - both[:, 1], 2 * both[:, 2]], axis=1) / np.maximum(total, 1e-9)[:, np.newaxis]
    )
    own = mothers.shape[m]
    axis = np.arctan2(own[:, 1], -own[:, 0]) / 2  # of the long axis, from x towards y
    unit = flat / np.maximum(np.hypot(flat[:, 0], flat[:, 1]), 1e-3)[:, np.newaxis]
    cosine = np.abs(unit[:, 1] * np.cos(axis) + unit[:, 0] * np.sin(axis))
    extent = sum(2 * np.sqrt(np.maximum(_along(found.moments[each], unit), 1e-3)) for each in (j, k))
    return {
        "sum": np.log((a + b) / area),
        "ratio": np.abs(found.area[j] - found.area[k]),
        "middle": np.sqrt(squared(middle)) / allowed,
        "apart": np.log(length / radius),
        "along": cosine * np.hypot(own[:, 0], own[:, 1]),
        "long": np.hypot(own[:, 0], own[:, 1]),
        "stretch": np.log(np.maximum(total, 1e-9) / np.maximum(before, 1e-9)),
        "turned": np.hypot(*(shape - own).T),
        "gap": np.log(np.hypot(*flat.T) / extent + 1e-3),
        "alike": np.abs(found.brightness[j] - found.brightness[k]) / (scales.brightness + 0.02),
        "grown": mothers.area[m] - mothers.usual_area[m],
        "young": np.where(mothers.parent[m] > 0, np.exp(-mothers.age[m] / 3.0), 0.0),
        "large": mothers.area[m] - float(np.median(found.area)),
    }


def _along(moments: Floats, unit: Floats) -> Floats:
    """Return (t,) second moment along a direction."""
    y, x = unit.T
    return moments[:, 0] * y * y + moments[:, 1] * x * x + 2 * moments[:, 2] * x * y


def division_gains(
    triples: Triples,
    of: Mapping[str, Floats],
    mothers: Alive,
    found: Alive,
    scales: Scales,
    prior: Floats,
    births: Floats,
) -> Floats:
    """Return the log-likelihood ratio of each division against an end and two cells from nowhere.

    The parts: the daughters' midpoint lies where the mother was; they lie apart along her long axis by about
    two radii; each has about half her area; they are equally large and equally bright. Widths are set
    to hold for nuclei and for rods alike.

    Parameters
    ----------
    triples, of
        t of them, and their :func:`features`.
    mothers, found, scales
        As for these.
    prior
        (n,) log of the odds of a division against an end of each mother.
    births
        (m,) log density in 1/px of cells from nowhere at each detection.
    """
    m, j, k = triples.mother, triples.one, triples.other
    radius = mothers.radius[m]
    variance = scales.step_px**2 + (0.35 * radius) ** 2
    gain = prior[m] - of["middle"] ** 2 / 2 - np.log(2 * np.pi * variance)
    gain += _log_normal(of["apart"] - np.log(1.95), 0.3) - 2 * (of["apart"] + np.log(radius))
    gain += _log_direction(of["along"], of["long"])
    gain -= births[j] + births[k]
    mean, sd = float(found.area.mean()), max(float(found.area.std()), 0.3)
    for daughter in (j, k):
        gain += _log_normal(found.area[daughter] - mothers.area[m] + np.log(2), 0.35)
        gain -= np.maximum(_log_normal(found.area[daughter] - mean, sd), -6.0)
    gain += _log_normal(of["ratio"], 0.3) - _log_normal(np.zeros(1), 0.6)
    return gain - np.minimum((of["alike"] / 2) ** 2 / 2, 4.0)


def _log_normal(x: Floats, sd: float) -> Floats:
    return -np.square(x / sd) / 2 - np.log(sd * np.sqrt(2 * np.pi))


def _log_direction(along: Floats, long: Floats) -> Floats:
    """Return the log density per radian of a direction, peaked along the long axis of a long mother."""
    across = np.arccos(np.clip(along / np.maximum(long, 1e-6), 0, 1))
    trust = 0.9 * np.minimum(1.0, 2.5 * long)  # a round mother has no axis
    peak = np.exp(-np.square(across / 0.3) / 2) / (0.3 * np.sqrt(2 * np.pi))
    return np.log(trust * peak + (1 - trust) / np.pi)
