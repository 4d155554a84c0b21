"""The gate: which detections a track could have become, found through a grid of cells as wide as the reach."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..models.kernels import frozen

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def near_pairs(one: Floats, other: Floats, reach: float) -> tuple[Ints, Ints, Floats]:
    """Return the pairs of points that are at most a reach apart, sorted by the first, then by the second.

    Time and memory grow with the points and the pairs.

    Parameters
    ----------
    one, other
        (n, 2), (m, 2) float64, finite.
    reach
        Above 0, in the same unit.

    Returns
    -------
    (rows, columns, distances)
        (e,) each.
    """
    if len(one) == 0 or len(other) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    return _near(frozen(one, np.float64), frozen(other, np.float64), float(reach))


def warm_up() -> None:
    """Compile the kernel, or load it if it was compiled before."""
    near_pairs(np.zeros((1, 2)), np.zeros((1, 2)), 1.0)


@njit(cache=True, nogil=True)
def _near(one: Floats, other: Floats, reach: float) -> tuple[Ints, Ints, Floats]:
    low_y, low_x = other[:, 0].min(), other[:, 1].min()
    high_y, high_x = other[:, 0].max(), other[:, 1].max()
    edge = reach
    while ((high_y - low_y) / edge + 1) * ((high_x - low_x) / edge + 1) > 4 * len(other) + 64:
        edge *= 1.5  # far fewer points than places: wider cells serve as well
    height, width = int((high_y - low_y) / edge) + 1, int((high_x - low_x) / edge) + 1
    # The others by cell, in their order within each.
    start = np.zeros(height * width + 1, np.int64)
    place = np.empty(len(other), np.int64)
    for j in range(len(other)):
        y, x = int((other[j, 0] - low_y) / edge), int((other[j, 1] - low_x) / edge)
        place[j] = min(y, height - 1) * width + min(x, width - 1)
        start[place[j] + 1] += 1
    start = np.cumsum(start)
    filled = start[:-1].copy()
    member, ordered = np.empty(len(other), np.int64), np.empty((len(other), 2))
    for j in range(len(other)):
        at = filled[place[j]]
        member[at], ordered[at, 0], ordered[at, 1] = j, other[j, 0], other[j, 1]
        filled[place[j]] += 1
    rows, columns = np.empty(8 * len(one) + 64, np.int64), np.empty(8 * len(one) + 64, np.int64)
    squares = np.empty(rows.size)
    found = 0
    for i in range(len(one)):
        first = found
        y, x = np.floor((one[i, 0] - low_y) / edge), np.floor((one[i, 1] - low_x) / edge)
        for cell_y in range(int(max(y - 1, 0)), int(min(y + 2, height))):
            for cell_x in range(int(max(x - 1, 0)), int(min(x + 2, width))):
                cell = cell_y * width + cell_x
                for k in range(start[cell], start[cell + 1]):
                    dy, dx = ordered[k, 0] - one[i, 0], ordered[k, 1] - one[i, 1]
                    square = dy * dy + dx * dx
                    if square > reach * reach:
                        continue
                    j = member[k]
                    if found == rows.size:
                        rows = np.concatenate((rows, np.empty_like(rows)))
                        columns = np.concatenate((columns, np.empty_like(columns)))
                        squares = np.concatenate((squares, np.empty_like(squares)))
                    # Few fall into one row: each is put where it belongs.
                    at = found
                    while at > first and columns[at - 1] > j:
                        columns[at], squares[at] = columns[at - 1], squares[at - 1]
                        at -= 1
                    rows[found], columns[at], squares[at] = i, j, square
                    found += 1
    return rows[:found].copy(), columns[:found].copy(), np.sqrt(squares[:found])
