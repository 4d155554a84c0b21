"""Which of many star-convex outlines are kept: the likeliest, then the likeliest of the rest, and so on.

Each outline is first compared with the one that covers its middle, which is nearly always the one that rules it out,
and then with those that are nearby (:mod:`.bins`): so the time grows with the outlines, not with their square.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from . import bins, polygons

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

LINES = 24
"""The area that two outlines share is summed over so many lines: right to about 1 % of the smaller."""
COARSE = 3
"""At first, over each third line only, ..."""
CLEAR = 0.25
"""... which settles it if the area is more than this share of the limit away from it."""


class Outlines(NamedTuple):
    """Star-convex outlines, from the likeliest down.

    Attributes
    ----------
    y, x
        (n,) float64, their middles in px.
    distance
        (n, rays) float32, px from there to the outline, at even angles from the x axis towards y.
    """

    y: Doubles
    x: Doubles
    distance: Floats


class _Sizes(NamedTuple):
    """Of each outline: its area, and the radii of a circle around it and of one within it."""

    area: Doubles
    outer: Doubles
    inner: Doubles


class _Cuts(NamedTuple):
    """Where the outlines that are kept cross lines: LINES each, from its highest to its lowest point.

    ``line`` holds (start, step) of each outline; ``first`` where the places on each of its lines begin in ``place``.
    """

    line: Doubles
    first: Longs
    place: Doubles


class _Room(NamedTuple):
    """Memory that is used again for each comparison."""

    sine: Doubles
    cosine: Doubles
    corner: Doubles
    crossing: Doubles
    crossings: Ints


@njit(cache=True, nogil=True)
def suppress(outlines: Outlines, shape: tuple[int, int], step: float, limit: float) -> Longs:
    """Return the positions of the outlines that are kept, in their order.

    Parameters
    ----------
    outlines
        All of them; those without an area are not kept.
    shape, step
        The grid that middles lie on: (rows, columns), and px between them.
    limit
        Share of the smaller of two outlines, 0 to 1, above which the later one is ruled out.
    """
    sizes, room = _measure(outlines.distance), _make_room(outlines.distance.shape[1], shape[0])
    shapes, head = bins.build(shape[0] * step, shape[1] * step)
    used = np.zeros(len(shapes), np.bool_)
    kept, following = np.empty(1024, np.int64), np.empty(1024, np.int64)  # and the next one in its bin
    cuts = _Cuts(np.empty((1024, 2)), np.zeros(1024 * LINES + 1, np.int64), np.empty(4096 * LINES))
    count = 0
    cover = np.zeros(shape, np.int32)  # 1 + the one that covers a point of the grid
    for k in range(outlines.y.size):
        if sizes.area[k] <= 0:
            continue
        y, x = outlines.y[k], outlines.x[k]
        middle = cover[round(y / step), round(x / step)] - 1
        over = middle >= 0 and _exceeds(outlines, sizes, cuts, kept[middle], middle, k, limit, room)
        for layer in range(len(shapes)):
            if over or not used[layer]:
                continue
            top, bottom, left, right = bins.window(shapes, layer, y, x, sizes.outer[k])
            for i in range(top, bottom + 1):
                for j in range(left, right + 1):
                    other = head[shapes[layer, 2] + i * shapes[layer, 1] + j]
                    while other >= 0 and not over:
                        if other != middle:
                            over = _exceeds(outlines, sizes, cuts, kept[other], other, k, limit, room)
                        other = following[other]
        if over:
            continue
        if count == kept.size:
            kept, following = _longer(kept, count), _longer(following, count)
        layer, place = bins.bin_of(shapes, y, x, sizes.outer[k])
        kept[count], following[count], head[place], used[layer] = k, head[place], count, True
        cuts = _cut(outlines, k, count, cuts, room)
        count += 1
        polygons.corners(y, x, outlines.distance[k], room.sine, room.cosine, room.corner)
        room.corner[:] /= step
        polygons.paint(cover, room.corner, count, room.crossing, room.crossings)
    return kept[:count].copy()


@njit(cache=True, nogil=True)
def _exceeds(
    outlines: Outlines,
    sizes: _Sizes,
    cuts: _Cuts,
    one: int,
    number: int,
    other: int,
    limit: float,
    room: _Room,
) -> bool:
    """Return whether an outline shares more than the limit with one that is kept; circles settle it for many."""
    apart = math.hypot(outlines.y[one] - outlines.y[other], outlines.x[one] - outlines.x[other])
    overlap = sizes.outer[one] + sizes.outer[other] - apart
    if overlap <= 0:
        return False
    wanted = limit * min(sizes.area[one], sizes.area[other])
    within = min((sizes.inner[one] + sizes.inner[other] - apart) / 2, sizes.inner[one], sizes.inner[other])
    if within > 0 and math.pi * within * within > wanted:  # a circle that is in both
        return True
    if polygons.lens(apart, sizes.outer[one], sizes.outer[other]) <= wanted:
        return False
    polygons.corners(
        outlines.y[other], outlines.x[other], outlines.distance[other], room.sine, room.cosine, room.corner
    )
    shared = _shared(cuts, number, COARSE, room)
    if abs(shared - wanted) <= CLEAR * wanted:
        shared = _shared(cuts, number, 1, room)
    return shared > wanted


@njit(cache=True, nogil=True)
def _shared(cuts: _Cuts, number: int, every: int, room: _Room) -> float:
    """Return the area that an outline that is kept shares with the one whose corners are given."""
    start, step = cuts.line[number]
    polygons.cross(
        room.corner, start + (every // 2) * step, every * step, LINES // every, room.crossing, room.crossings
    )
    total = 0.0
    for k in range(LINES // every):
        line = number * LINES + k * every + every // 2
        i, end = cuts.first[line], cuts.first[line + 1]
        j, last = 0, room.crossings[k]
        while i < end and j < last:
            right, right_of_other = cuts.place[i + 1], room.crossing[k, j + 1]
            total += max(min(right, right_of_other) - max(cuts.place[i], room.crossing[k, j]), 0.0)
            if right < right_of_other:
                i += 2
            else:
                j += 2
    return total * step * every


@njit(cache=True, nogil=True)
def _cut(outlines: Outlines, k: int, number: int, cuts: _Cuts, room: _Room) -> _Cuts:
    """Return the cuts with those of one more outline that is kept."""
    line, first, place = cuts
    if number == len(line):
        longer = np.empty((2 * number, 2))
        longer[:number] = line
        line, first = longer, _longer(first, number * LINES + 1)
    polygons.corners(outlines.y[k], outlines.x[k], outlines.distance[k], room.sine, room.cosine, room.corner)
    top, bottom = room.corner[0].min(), room.corner[0].max()
    step = (bottom - top) / LINES
    line[number, 0], line[number, 1] = top + step / 2, step
    polygons.cross(room.corner, top + step / 2, step, LINES, room.crossing, room.crossings)
    at = first[number * LINES]
    for k in range(LINES):
        if at + room.crossings[k] > place.size:
            more = np.empty(2 * place.size)
            more[:at] = place[:at]
            place = more
        for i in range(room.crossings[k]):
            place[at + i] = room.crossing[k, i]
        at += room.crossings[k]
        first[number * LINES + k + 1] = at
    return _Cuts(line, first, place)


@njit(cache=True, nogil=True)
def _measure(distance: Floats) -> _Sizes:
    rays = distance.shape[1]
    outer, inner = np.empty(len(distance)), np.empty(len(distance))
    within = math.cos(math.pi / rays)
    for k in range(len(distance)):
        largest = smallest = distance[k, 0]
        for ray in range(1, rays):
            largest, smallest = max(largest, distance[k, ray]), min(smallest, distance[k, ray])
        outer[k], inner[k] = largest, smallest * within
    return _Sizes(polygons.areas(distance), outer, inner)


@njit(cache=True, nogil=True)
def _make_room(rays: int, rows: int) -> _Room:
    sine, cosine = polygons.directions(rays)
    lines = max(rows, LINES)
    return _Room(sine, cosine, np.empty((2, rays + 1)), np.empty((lines, rays)), np.empty(lines, np.int32))


@njit(cache=True, nogil=True)
def _longer(array: Longs, filled: int) -> Longs:
    longer = np.zeros(2 * array.size, np.int64)
    longer[:filled] = array[:filled]
    return longer
