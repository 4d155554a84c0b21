"""How many cells are near each cell, and how far away the nearest is: a grid, so that 10 000 cells take about 1 ms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ....models.kernels import frozen

_MOST_BINS = 1 << 20


def neighbours(yx: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Return (n,) how many other cells lie within a radius in px; NaN if the radius is no length.

    Parameters
    ----------
    yx
        (n, 2) float64, finite, in px.
    radius
        In px.
    """
    if not len(yx) or not 0 <= radius < math.inf:
        return np.full(len(yx), np.nan)
    return _count(*_grid(yx, max(radius, 1e-6)), radius * radius)


def nearest(yx: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n,) the distance in px to the nearest other cell; infinite for a cell alone."""
    if len(yx) < 2:
        return np.full(len(yx), np.inf)
    y, x = yx[:, 0], yx[:, 1]
    extent = float((y.max() - y.min() + 1) * (x.max() - x.min() + 1))
    return _nearest(*_grid(yx, math.sqrt(2 * extent / len(yx))))


def warm_up() -> None:
    """Compile the kernels, so that no frame waits for them."""
    two = np.zeros((2, 2))
    neighbours(two, 1.0)
    nearest(two)


def _grid(
    yx: NDArray[np.float64], side: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], int, int, float]:
    """Return positions ordered by square, the rows they are of, where each square begins, and the squares."""
    y, x = yx[:, 0], yx[:, 1]
    low_y, low_x = float(y.min()), float(x.min())
    height, width = float(y.max()) - low_y, float(x.max()) - low_x
    side = max(side, math.sqrt((height + 1) * (width + 1) / _MOST_BINS))
    down, across = int(height // side) + 1, int(width // side) + 1
    placed, order, starts = _place(frozen(yx, np.float64), low_y, low_x, down, across, side)
    return frozen(placed), frozen(order), frozen(starts), down, across, side


@njit(cache=True, nogil=True)
def _place(
    yx: NDArray[Any], low_y: float, low_x: float, down: int, across: int, side: float
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Sort cells by square, by counting."""
    n = len(yx)
    square = np.empty(n, np.int64)
    starts = np.zeros(down * across + 1, np.int64)
    for one in range(n):
        i = min(down - 1, int((yx[one, 0] - low_y) // side))
        square[one] = i * across + min(across - 1, int((yx[one, 1] - low_x) // side))
        starts[square[one] + 1] += 1
    for each in range(down * across):
        starts[each + 1] += starts[each]
    place = starts[:-1].copy()
    placed, order = np.empty((n, 2)), np.empty(n, np.int64)
    for one in range(n):
        at = place[square[one]]
        place[square[one]] += 1
        placed[at, 0], placed[at, 1], order[at] = yx[one, 0] - low_y, yx[one, 1] - low_x, one
    return placed, order, starts


@njit(cache=True, nogil=True)
def _count(
    yx: NDArray[Any],
    order: NDArray[Any],
    starts: NDArray[Any],
    down: int,
    across: int,
    side: float,
    within: float,
) -> NDArray[np.float64]:
    found = np.zeros(len(yx))
    for one in range(len(yx)):
        y, x = yx[one, 0], yx[one, 1]
        i, j = min(down - 1, int(y // side)), min(across - 1, int(x // side))
        count = 0
        left, right = max(0, j - 1), min(across - 1, j + 1)
        for row in range(max(0, i - 1), min(down - 1, i + 1) + 1):
            for other in range(starts[row * across + left], starts[row * across + right + 1]):
                count += (yx[other, 0] - y) ** 2 + (yx[other, 1] - x) ** 2 <= within
        found[order[one]] = count - 1
    return found


@njit(cache=True, nogil=True)
def _nearest(
    yx: NDArray[Any], order: NDArray[Any], starts: NDArray[Any], down: int, across: int, side: float
) -> NDArray[np.float64]:
    found = np.empty(len(yx))
    for one in range(len(yx)):
        y, x = yx[one, 0], yx[one, 1]
        i, j = min(down - 1, int(y // side)), min(across - 1, int(x // side))
        best = np.inf
        for ring in range(1, down + across + 2):
            top, bottom = max(0, i - ring), min(down - 1, i + ring)
            left, right = max(0, j - ring), min(across - 1, j + ring)
            for row in range(top, bottom + 1):
                for other in range(starts[row * across + left], starts[row * across + right + 1]):
                    if other != one:
                        best = min(best, (yx[other, 0] - y) ** 2 + (yx[other, 1] - x) ** 2)
            # All that is not looked at lies further away than this.
            if best <= (ring * side) ** 2:
                break
        found[order[one]] = np.sqrt(best)
    return found
