"""Parting touching cells: a watershed of a map of depths, in which basins that are hardly apart are one cell.

Every pixel belongs to the peak that it climbs to: by its highest neighbour, and over plateaus to the nearest
pixel from which they rise. So the line between two cells follows the valley, and where the valley is flat it
lies half way. A peak is a cell of its own if it stands out by the persistence above the highest pass to a
higher one (Edelsbrunner, Letscher and Zomorodian 2002); else it belongs to the cell behind that pass. Levels
are bytes: sorting is counting, and the time grows with the pixels only.

The kernels work on heights, which are levels and 1, with 0 outside and a border of one pixel of outside around
the image: so a pixel as high as an inside one is inside, and no look at a neighbour needs a check.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Heights = NDArray[np.uint16]
Ints = NDArray[np.int32]

HIGHEST = 256
"""Height of the highest level; from there nothing rises."""


def flood(level: NDArray[np.uint8], inside: NDArray[np.bool_], persistence: int) -> tuple[Ints, int]:
    """Return the cells of a map of depths.

    Parameters
    ----------
    level
        (y, x) uint8: low along outlines, high in the middle of cells.
    inside
        (y, x) bool: which pixels belong to cells. Neighbours of a pixel are the eight around it.
    persistence
        Levels by which a peak must stand above the pass to a higher one to be a cell of its own; at 0 and 1
        every peak is one.

    Returns
    -------
    (labels, count)
        (y, x) int32: 0 outside, 1..count inside, numbered by the first pixel from the top left. Equal choices
        are settled by the order of the pixels.

    Raises
    ------
    ValueError
        If the two images have different shapes.
    """
    if level.shape != inside.shape:
        raise ValueError(f"levels of shape {level.shape} for a mask of shape {inside.shape}")
    height = np.zeros((level.shape[0] + 2, level.shape[1] + 2), np.uint16)
    np.add(level, np.uint16(1), out=height[1:-1, 1:-1], where=inside)
    return flood_heights(height, persistence)


def warm_up() -> None:
    """Compile the kernels, or load them if they were compiled before."""
    flood(np.zeros((2, 2), np.uint8), np.ones((2, 2), np.bool_), 1)


@njit(cache=True, nogil=True)
def flood_heights(height: Heights, persistence: int) -> tuple[Ints, int]:
    """Return labels and count as :func:`flood` does, from (y + 2, x + 2) heights."""
    labels = np.empty((height.shape[0] - 2, height.shape[1] - 2), np.int32)
    up, flat = np.empty(height.size, np.int32), np.empty(height.size, np.int32)
    return labels, flood_into(labels, height, persistence, up, flat)


@njit(cache=True, nogil=True)
def flood_into(labels: Ints, height: Heights, persistence: int, up: Ints, flat: Ints) -> int:
    """Fill ``labels`` and return the count; ``up`` and ``flat`` are memory of the size of ``height``, overwritten."""
    stride = height.shape[1]
    level = height.reshape(-1)
    flat = flat[: _climb(height, up, flat)]
    _cross_plateaus(level, up, flat, stride)
    top = _basins(level, up, flat)
    root = _merged(top, _passes(level, up, top, stride, persistence), persistence)
    number = np.zeros(root.size, np.int32)
    count = 0
    for y in range(labels.shape[0]):
        row = (y + 1) * stride + 1
        for x in range(labels.shape[1]):
            basin = ~up[row + x]
            if basin < 0:
                labels[y, x] = 0
                continue
            cell = root[basin]
            if number[cell] == 0:
                count += 1
                number[cell] = count
            labels[y, x] = number[cell]
    return count


@njit(cache=True, nogil=True)
def _steps(stride: int) -> Ints:
    """Return the ways to the eight neighbours; the straight ones, which are nearer, come first."""
    return np.array([-stride, -1, 1, stride, -stride - 1, -stride + 1, stride - 1, stride + 1], np.int32)


@njit(cache=True, nogil=True)
def _climb(height: Heights, up: Ints, flat: Ints) -> int:
    """Point each inside pixel to its highest neighbour or to itself; list the latter, and return how many they are.

    Pixels outside point to 0, which is one of them.
    """
    stride = height.shape[1]
    steps = _steps(stride)
    up[:] = 0
    flats = 0
    best = np.empty(stride - 2, np.uint16)
    for y in range(1, height.shape[0] - 1):
        best[:] = 0
        above, here, below = height[y - 1], height[y], height[y + 1]
        # The height and, in the last three bits, the rank of the way: the first of the highest is the largest.
        _raise(best, above[1:-1], 7)
        _raise(best, here[:-2], 6)
        _raise(best, here[2:], 5)
        _raise(best, below[1:-1], 4)
        _raise(best, above[:-2], 3)
        _raise(best, above[2:], 2)
        _raise(best, below[:-2], 1)
        _raise(best, below[2:], 0)
        for x in range(stride - 2):
            own = here[x + 1]
            if own:
                p = y * stride + x + 1
                if best[x] >> 3 > own:
                    up[p] = p + steps[7 - (best[x] & 7)]
                else:
                    up[p] = p
                    flat[flats] = p
                    flats += 1
    return flats


@njit(cache=True, nogil=True)
def _raise(best: Heights, height: Heights, rank: int) -> None:
    for x in range(best.size):
        best[x] = max(best[x], np.uint16(height[x] << 3 | rank))


@njit(cache=True, nogil=True)
def _cross_plateaus(level: Heights, up: Ints, flat: Ints, stride: int) -> None:
    """Point pixels of plateaus the shortest way to where it rises, those of peaks on to the first of them."""
    steps = _steps(stride)
    queue, over = np.empty(flat.size, np.int32), np.empty(flat.size, np.int32)
    filled = 0
    # Pixels beside one that rises from the same level come first, then their neighbours, and so on.
    for i in range(flat.size):
        p = flat[i]
        own = level[p]
        if own == HIGHEST:
            continue
        for k in range(8):
            q = p + steps[k]
            if level[q] == own and up[q] != q:
                queue[filled], over[filled] = p, q
                filled += 1
                break
    for k in range(filled):
        up[queue[k]] = over[k]
    at = 0
    while at < filled:
        p = queue[at]
        own = level[p]
        at += 1
        for k in range(8):
            q = p + steps[k]
            if level[q] == own and up[q] == q:
                up[q] = p
                queue[filled] = q
                filled += 1
    # What is left are peaks, some of them wide: each pixel is joined to those before it.
    for p in flat:
        if up[p] != p:
            continue
        own = level[p]
        for k in range(4):
            q = p - 1 if k == 3 else p - stride - 1 + k
            if level[q] == own:
                one, other = _root(up, p), _root(up, q)
                up[max(one, other)] = min(one, other)


@njit(cache=True, nogil=True)
def _basins(level: Heights, up: Ints, flat: Ints) -> Heights:
    """Replace the pointers by the basins 0, 1, ... written as -1, -2, ...; return the heights of their peaks."""
    top = np.empty(flat.size, np.uint16)
    peaks = 0
    for p in flat:
        if up[p] == p:
            up[p], top[peaks] = ~peaks, level[p]
            peaks += 1
    for p in range(up.size):
        if up[p] > 0:
            q = p
            while up[q] > 0:
                q = up[q]
            basin, q = up[q], p
            while up[q] > 0:
                after = up[q]
                up[q] = basin
                q = after
    return top[:peaks]


@njit(cache=True, nogil=True)
def _passes(level: Heights, basin: Ints, top: Heights, stride: int, persistence: int) -> Ints:
    """Return (n, 3) basins that touch, and how high, where one of them may not be a cell of its own."""
    passes = np.empty((8 * stride, 3), np.int32)
    found = 0
    meets = np.empty(stride - 2, np.int32)
    for y in range(1, level.size // stride - 1):
        found = _passes_of_row(level, basin, top, y, stride, persistence, meets, passes, found)
        if found + 4 * stride > len(passes):
            passes = np.concatenate((passes, np.empty_like(passes)))
    return passes[:found]


@njit(cache=True, nogil=True)
def _passes_of_row(
    level: Heights,
    basin: Ints,
    top: Heights,
    y: int,
    stride: int,
    persistence: int,
    meets: Ints,
    passes: Ints,
    found: int,
) -> int:
    """Append the passes within a row and to the row above; return how many there are now."""
    rows = basin.reshape(-1, stride)
    here, above = rows[y, 1:-1], rows[y - 1]
    meets[:] = 0
    _meet(meets, here, rows[y, :-2])
    _meet(meets, here, above[:-2])
    _meet(meets, here, above[1:-1])
    _meet(meets, here, above[2:])
    for x in range(meets.size):
        if meets[x] == 0:
            continue
        p = y * stride + x + 1
        one = ~basin[p]
        own, own_top = np.int32(level[p]), np.int32(top[one])
        for k in range(4):
            q = p - 1 if k == 3 else p - stride - 1 + k
            other = ~basin[q]
            if other >= 0 and other != one:
                saddle = min(own, np.int32(level[q]))
                if min(own_top, np.int32(top[other])) - saddle < persistence:
                    passes[found, 0], passes[found, 1], passes[found, 2] = one, other, saddle
                    found += 1
    return found


@njit(cache=True, nogil=True)
def _meet(meets: Ints, one: Ints, other: Ints) -> None:
    """Make ``meets`` other than 0 where two basins touch; with bits only, so that many are done at a time."""
    for x in range(meets.size):
        meets[x] |= (one[x] ^ other[x]) & ((one[x] & other[x]) >> 31)


@njit(cache=True, nogil=True)
def _merged(top: Heights, passes: Ints, persistence: int) -> Ints:
    """Return for each basin the one that stands for its cell: passes from the highest down, then as found."""
    start = np.zeros(258, np.int64)
    for k in range(len(passes)):
        start[257 - passes[k, 2]] += 1
    start = np.cumsum(start)
    order = np.empty(len(passes), np.int64)
    for k in range(len(passes)):
        depth = 256 - passes[k, 2]
        order[start[depth]] = k
        start[depth] += 1
    root = np.arange(top.size).astype(np.int32)
    for k in order:
        one, other = _root(root, passes[k, 0]), _root(root, passes[k, 1])
        if top[one] > top[other] or (top[one] == top[other] and one < other):
            one, other = other, one  # `one` is the lower peak, or the later of two equals
        if one != other and top[one] - passes[k, 2] < persistence:
            root[one] = other
    for basin in range(root.size):
        root[basin] = _root(root, basin)
    return root


@njit(cache=True, nogil=True)
def _root(root: Ints, basin: int) -> int:
    while root[basin] != basin:
        root[basin] = root[root[basin]]
        basin = root[basin]
    return basin
