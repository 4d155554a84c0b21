"""Connected parts of a mask, and their growth over the rest of it; from runs of px in each row."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Ints = NDArray[np.int32]


def label(mask: Mask, diagonal: bool) -> tuple[Ints, int]:
    """Return the connected parts of a mask.

    Parameters
    ----------
    mask
        (y, x) bool.
    diagonal
        Whether px that touch at a corner only are connected.

    Returns
    -------
    (labels, count)
        (y, x) int32: 0 outside, 1..count by the first px from the top left.
    """
    labels = np.zeros(mask.shape, np.int32)
    return labels, _label(mask, diagonal, labels)


def grow(labels: Ints, mask: Mask) -> None:
    """Spread labels, in place, over the px of a mask that can be reached from them, ring by ring.

    A px belongs to the label that is fewest steps away, in eight directions; of equals, to one that it shares a
    side with, then to the one that comes first.

    Parameters
    ----------
    labels
        (y, x) int32, 0 where there is none.
    mask
        (y, x) bool.
    """
    _grow(labels, mask)


@njit(cache=True, nogil=True)
def _label(mask: Mask, diagonal: bool, labels: Ints) -> int:
    height, width = mask.shape
    start, end = np.empty((2, height * ((width + 1) // 2)), np.int32)
    first = np.empty(height + 1, np.int64)  # of the runs of a row
    runs = 0
    for y in range(height):
        first[y] = runs
        x = 0
        while x < width:
            if mask[y, x]:
                start[runs] = x
                while x < width and mask[y, x]:
                    x += 1
                end[runs] = x
                runs += 1
            x += 1
    first[height] = runs
    root = np.arange(runs).astype(np.int32)
    reach = 1 if diagonal else 0
    for y in range(1, height):
        one, other = first[y - 1], first[y]
        while one < first[y] and other < first[y + 1]:
            if start[one] < end[other] + reach and start[other] < end[one] + reach:
                a, b = find(root, one), find(root, other)
                root[max(a, b)] = min(a, b)
            if end[one] < end[other]:
                one += 1
            else:
                other += 1
    number = np.zeros(runs, np.int32)
    count = 0
    for y in range(height):
        for run in range(first[y], first[y + 1]):
            top = find(root, run)
            if top == run:  # the first run of a part is its root
                count += 1
                number[run] = count
            labels[y, start[run] : end[run]] = number[top]
    return count


@njit(cache=True, nogil=True)
def find(root: Ints, run: int) -> int:
    """Return the one that stands for a run, or for whatever is joined, by following who points to whom."""
    while root[run] != run:
        root[run] = root[root[run]]
        run = root[run]
    return run


@njit(cache=True, nogil=True)
def _grow(labels: Ints, mask: Mask) -> None:
    height, width = labels.shape
    free = 0
    for y in range(height):
        for x in range(width):
            free += mask[y, x] and labels[y, x] == 0
    ring, following = np.empty((free, 3), np.int32), np.empty((free, 3), np.int32)
    count = _first_ring(labels, mask, ring)
    for k in range(count):
        labels[ring[k, 0], ring[k, 1]] = ring[k, 2]
    while count:
        filled = 0
        for corner in range(2):
            for k in range(count):
                y, x, own = ring[k]
                for step in range(4):
                    if corner:
                        i, j = y - 1 + 2 * (step >> 1), x - 1 + 2 * (step & 1)
                    else:
                        i, j = y + (step == 3) - (step == 0), x + (step == 2) - (step == 1)
                    if 0 <= i < height and 0 <= j < width and mask[i, j] and labels[i, j] == 0:
                        labels[i, j] = own
                        following[filled, 0], following[filled, 1], following[filled, 2] = i, j, own
                        filled += 1
        ring, following, count = following, ring, filled


@njit(cache=True, nogil=True)
def _first_ring(labels: Ints, mask: Mask, ring: Ints) -> int:
    """Write the free px beside labels, and which; return how many they are."""
    height, width = labels.shape
    count = 0
    for y in range(height):
        for x in range(width):
            if labels[y, x] or not mask[y, x]:
                continue
            beside = 0
            for i, j in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
                if beside == 0 and 0 <= i < height and 0 <= j < width:
                    beside = labels[i, j]
            for i, j in ((y - 1, x - 1), (y - 1, x + 1), (y + 1, x - 1), (y + 1, x + 1)):
                if beside == 0 and 0 <= i < height and 0 <= j < width:
                    beside = labels[i, j]
            if beside:
                ring[count, 0], ring[count, 1], ring[count, 2] = y, x, beside
                count += 1
    return count
