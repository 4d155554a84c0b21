"""Joining parts of cells that the flows do not part: where two cells touch, flows on both sides point apart."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .components import find

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]


def join(parts: Ints, count: int, flow: Floats, apart: float) -> Ints:
    """Return (count + 1,) for each part the one that stands for its cell.

    Parameters
    ----------
    parts
        (y, x) int32, 0 is background.
    count
        The largest number.
    flow
        (y, x, 2) unit vectors.
    apart
        Parts that touch are two cells if, from one side of their common line to the other, the flow across it
        changes by more than this on average: 2 where it points straight away on both sides, 0 where it goes along.
    """
    keys, changes = _borders(parts, flow, _count_borders(parts))
    pairs, which = np.unique(keys, return_inverse=True)
    mean = np.bincount(which, changes, len(pairs)) / np.maximum(np.bincount(which, minlength=len(pairs)), 1)
    one_cell = pairs[mean <= apart]
    return _roots(one_cell >> 32, one_cell & 0xFFFFFFFF, count)


@njit(cache=True, nogil=True)
def _count_borders(parts: Ints) -> int:
    """Return how many times two px side by side belong to different parts."""
    borders = 0
    for y in range(parts.shape[0]):
        for x in range(parts.shape[1]):
            own = parts[y, x]
            if own:
                if x + 1 < parts.shape[1]:
                    borders += parts[y, x + 1] != own and parts[y, x + 1] != 0
                if y + 1 < parts.shape[0]:
                    borders += parts[y + 1, x] != own and parts[y + 1, x] != 0
    return borders


@njit(cache=True, nogil=True)
def _borders(parts: Ints, flow: Floats, borders: int) -> tuple[Longs, Floats]:
    """Return for each of these places the two parts, in one number, and how much the flow across it changes."""
    keys, changes = np.empty(borders, np.int64), np.empty(borders, np.float32)
    at = 0
    for y in range(parts.shape[0]):
        for x in range(parts.shape[1]):
            own = np.int64(parts[y, x])
            if own == 0:
                continue
            for axis in range(2):
                i, j = y + 1 - axis, x + axis
                if i == parts.shape[0] or j == parts.shape[1]:
                    continue
                other = np.int64(parts[i, j])
                if other != own and other != 0:
                    keys[at] = min(own, other) << 32 | max(own, other)
                    changes[at] = flow[i, j, axis] - flow[y, x, axis]
                    at += 1
    return keys, changes


@njit(cache=True, nogil=True)
def _roots(ones: Longs, others: Longs, count: int) -> Ints:
    root = np.arange(count + 1).astype(np.int32)
    for k in range(ones.size):
        one, other = find(root, ones[k]), find(root, others[k])
        root[max(one, other)] = min(one, other)
    for part in range(count + 1):
        root[part] = find(root, part)
    return root
