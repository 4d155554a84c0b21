"""Which cells of two masks share px, and how many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..models.kernels import frozen

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """Which of the n cells before and the m cells now share px, sorted by the former, then by the latter.

    Attributes
    ----------
    rows, columns, px
        (e,) int64 each: cell before, cell now, how many px they share.
    before, now
        (n,), (m,) int64, areas in px.
    """

    rows: Ints
    columns: Ints
    px: Ints
    before: Ints
    now: Ints

    @property
    def iou(self) -> Floats:
        """(e,) intersection over union."""
        return self.px / (self.before[self.rows] + self.now[self.columns] - self.px)


def warm_up() -> None:
    """Compile the kernel, or load it if it was compiled before."""
    one = np.ones((1, 1), np.int32)
    overlaps_of(one, one, 1, 1)


def overlaps_of(before: Mask, now: Mask, n: int, m: int) -> Overlaps:
    """Return the overlaps of two masks; masks of different shapes have none."""
    if before.shape != now.shape:
        none = np.empty(0, np.int64)
        return Overlaps(none, none, none, np.zeros(n, np.int64), np.zeros(m, np.int64))
    area_before, area_now = np.zeros(n, np.int64), np.zeros(m, np.int64)
    keys, px = _runs(frozen(before, np.int32), frozen(now, np.int32), area_before, area_now)
    keys, of = np.unique(keys, return_inverse=True)
    px = np.bincount(of, px, minlength=len(keys)).astype(np.int64)
    return Overlaps(keys // max(m, 1), keys % max(m, 1), px, area_before, area_now)


@njit(cache=True, nogil=True)
def _runs(before: Mask, now: Mask, area_before: Ints, area_now: Ints) -> tuple[Ints, Ints]:
    """Return the pair of cells (row x m + column) and length in px of each horizontal run that two cells share.

    Adds up the areas of both; labels beyond them are no cells.
    """
    n, m = area_before.size, area_now.size
    keys, lengths = np.empty(1024, np.int64), np.empty(1024, np.int64)
    found = 0
    for y in range(now.shape[0]):
        last = -1
        for x in range(now.shape[1]):
            old, new = before[y, x], now[y, x]
            here_before, here_now = 0 < old <= n, 0 < new <= m
            if here_before:
                area_before[old - 1] += 1
            if here_now:
                area_now[new - 1] += 1
            if not (here_before and here_now):
                last = -1
                continue
            key = (np.int64(old) - 1) * m + new - 1
            if key == last:
                lengths[found - 1] += 1
                continue
            if found == keys.size:
                keys = np.concatenate((keys, np.empty_like(keys)))
                lengths = np.concatenate((lengths, np.empty_like(lengths)))
            keys[found], lengths[found] = key, 1
            found, last = found + 1, key
    return keys[:found].copy(), lengths[:found].copy()
