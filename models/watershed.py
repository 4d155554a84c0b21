"""Parting touching cells: a watershed of the distance from the edge, by steepest ascent.

Every pixel points to its highest neighbour; pointers are followed by doubling; basins that meet on a high
saddle are one cell. numpy only, no queue, no step that is quadratic in anything.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
Image = NDArray[np.int32]

NECK = 0.78
"""Two basins are two cells if the neck between them is narrower than this share of the narrower one."""
STEP_PX = 0.75
"""A neck must also be narrower by this much, in px, than the narrower cell's half width."""


def part(mask: Mask, diameter_px: float) -> tuple[Image, NDArray[np.float64]]:
    """Return an instance mask of the cells in a mask, and the half width of each in px.

    Parameters
    ----------
    mask
        (y, x); the image's border is no edge of a cell.
    diameter_px
        Width of a cell in px; sets the smoothing.
    """
    width = mask.shape[1] + 2
    inside = np.pad(mask, 1)
    place = np.flatnonzero(inside)
    labels = np.zeros(inside.size, np.int32)
    if len(place) == 0:
        return labels.reshape(inside.shape)[1:-1, 1:-1], np.empty(0)
    distance = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge")).astype(np.float32)
    height = ndimage.gaussian_filter(distance, max(0.6, 0.04 * diameter_px), truncate=3)
    height[~inside] = -1
    level = height.reshape(-1)
    summit = _follow_up(level, place, width)
    peaks, basin = np.unique(summit, return_inverse=True)
    top = level[place[peaks]].astype(np.float64)
    cell_of_basin = _merge(basin, place, level, top, width)
    cells, number = np.unique(cell_of_basin, return_inverse=True)
    labels[place] = number[basin] + 1
    return np.ascontiguousarray(labels.reshape(inside.shape)[1:-1, 1:-1]), top[cells]


def _follow_up(level: NDArray[np.float32], place: Ints, width: int) -> Ints:
    """Return, for each of the n pixels at ``place``, the index (0..n-1) of the summit that it climbs to."""
    up, best = place.copy(), level[place]
    for step in (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1):
        there = level[place + step]
        higher = there > best
        up[higher] = place[higher] + step
        best[higher] = there[higher]
    index = np.zeros(level.size, np.int64)
    index[place] = np.arange(len(place))
    pointer = index[up]
    while True:
        further = pointer[pointer]
        if np.array_equal(further, pointer):
            return pointer
        pointer = further


def _merge(
    basin: Ints, place: Ints, level: NDArray[np.float32], top: NDArray[np.float64], width: int
) -> Ints:
    """Return for each basin the basin that stands for its cell, highest saddles first."""
    basin_at = np.full(level.size, -1, np.int64)
    basin_at[place] = basin
    ones, others, saddles = [], [], []
    for step in (1, width - 1, width, width + 1):
        there = basin_at[place + step]
        meet = np.flatnonzero((there >= 0) & (there != basin))
        ones.append(np.minimum(basin[meet], there[meet]))
        others.append(np.maximum(basin[meet], there[meet]))
        saddles.append(np.minimum(level[place[meet]], level[place[meet] + step]))
    a, b, saddle = np.concatenate(ones), np.concatenate(others), np.concatenate(saddles).astype(np.float64)
    order = np.lexsort((-saddle, b, a))
    a, b, saddle = a[order], b[order], saddle[order]
    highest = np.ones(len(a), bool)  # of all places where two basins meet
    highest[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    a, b, saddle = a[highest], b[highest], saddle[highest]
    possible = _one_cell(np.minimum(top[a], top[b]), saddle)
    order = np.flatnonzero(possible)[np.argsort(-saddle[possible], kind="stable")]
    root = list(range(len(top)))

    def find(item: int) -> int:
        while root[item] != item:
            root[item] = root[root[item]]
            item = root[item]
        return item

    for one, other, neck in zip(a[order].tolist(), b[order].tolist(), saddle[order], strict=True):
        low, high = sorted((find(one), find(other)), key=lambda item: (top[item], item))
        if low != high and _one_cell(top[low], neck):
            root[low] = high
    return np.array([find(item) for item in range(len(top))], np.int64)


def _one_cell(lower_top: NDArray[np.float64], saddle: NDArray[np.float64]) -> NDArray[np.bool_]:
    return lower_top - saddle <= np.maximum((1 - NECK) * lower_top, STEP_PX)


def fill_holes(mask: Mask, largest_px: float) -> Mask:
    """Return the mask with its holes filled up to an area; what touches the image's border is no hole."""
    holes, n = ndimage.label(~mask)
    small = np.bincount(holes.reshape(-1), minlength=n + 1) <= largest_px
    small[0] = False
    for side in (holes[0], holes[-1], holes[:, 0], holes[:, -1]):
        small[side] = False
    return mask | small[holes]


def grow(labels: Image, mask: Mask, steps: int) -> Image:
    """Return labels spread over the rest of a mask, a pixel at a time in the four directions."""
    cross = ndimage.generate_binary_structure(2, 1)
    for _ in range(steps):
        free = mask & (labels == 0)
        if not free.any():
            break
        labels = np.where(free, ndimage.maximum_filter(labels, footprint=cross), labels)
    return labels
