"""How many cells are near each cell, and how far the nearest is: by a grid, 10 000 cells in less than 0.5 ms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ....models.kernels import frozen

_CELLS_PER_SQUARE = 3  # or more; squares cost time too
_SURELY = 1 - 1e-9  # positions in squares are rounded


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
    return _count(*_grid(yx, radius / _SURELY), radius * radius)


def nearest(yx: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n,) the distance in px to the nearest other cell; infinite for a cell alone."""
    if len(yx) < 2:
        return np.full(len(yx), np.inf)
    return _nearest(*_grid(yx, 0.0))


def warm_up() -> None:
    """Compile the kernels, so that no frame waits for them."""
    two = np.zeros((2, 2))
    neighbours(two, 1.0)
    nearest(two)


def _grid(
    yx: NDArray[np.float64], side: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], int, int, float]:
    """Return y, x and rows of the cells in the order of their squares, where each square begins, and the squares.

    They are as small as is sensible, but not smaller than ``side``.
    """
    y, x = yx[:, 0], yx[:, 1]
    low_y, low_x = float(y.min()), float(x.min())
    height, width = float(y.max()) - low_y, float(x.max()) - low_x
    side = max(side, math.sqrt(_CELLS_PER_SQUARE * (height + 1) * (width + 1) / len(yx)))
    down, across = int(height / side) + 1, int(width / side) + 1
    placed_y, placed_x, order, starts = _place(frozen(yx, np.float64), low_y, low_x, down, across, side)
    return frozen(placed_y), frozen(placed_x), frozen(order), frozen(starts), down, across, side


@njit(cache=True, nogil=True)
def _place(
    yx: NDArray[Any], low_y: float, low_x: float, down: int, across: int, side: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint32], NDArray[np.uint32]]:
    """Sort cells by square, by counting."""
    n, per_px = len(yx), 1 / side
    square = np.empty(n, np.uint32)  # numbers with a sign are checked each time they are an index
    starts = np.zeros(down * across + 1, np.uint32)
    for one in range(n):
        i = min(down - 1, int((yx[one, 0] - low_y) * per_px))
        square[one] = i * across + min(across - 1, int((yx[one, 1] - low_x) * per_px))
        starts[square[one] + 1] += 1
    for each in range(down * across):
        starts[each + 1] += starts[each]
    place = starts[:-1].copy()
    y, x, order = np.empty(n), np.empty(n), np.empty(n, np.uint32)
    for one in range(n):
        at = place[square[one]]
        place[square[one]] += 1
        y[at], x[at], order[at] = yx[one, 0] - low_y, yx[one, 1] - low_x, one
    return y, x, order, starts


@njit(cache=True, nogil=True)
def _count(
    y: NDArray[Any],
    x: NDArray[Any],
    order: NDArray[Any],
    starts: NDArray[Any],
    down: int,
    across: int,
    side: float,
    within: float,
) -> NDArray[np.float64]:
    """Count those within a distance, squared, which lie in the squares beside."""
    found, near_y, near_x = np.empty(len(y)), np.empty(len(y)), np.empty(len(y))
    for i in range(down):
        for j in range(across):
            first, last = starts[i * across + j], starts[i * across + j + 1]
            if first == last:
                continue
            # Side by side they are compared faster.
            left, right, many = max(0, j - 1), min(across - 1, j + 1), 0
            for row in range(max(0, i - 1), min(down - 1, i + 1) + 1):
                for other in range(starts[row * across + left], starts[row * across + right + 1]):
                    near_y[many], near_x[many] = y[other], x[other]
                    many += 1
            for one in range(first, last):
                count = 0
                for other in range(many):
                    count += (near_y[other] - y[one]) ** 2 + (near_x[other] - x[one]) ** 2 <= within
                found[order[one]] = count - 1
    return found


@njit(cache=True, nogil=True)
def _nearest(
    y: NDArray[Any],
    x: NDArray[Any],
    order: NDArray[Any],
    starts: NDArray[Any],
    down: int,
    across: int,
    side: float,
) -> NDArray[np.float64]:
    """Return the distance to the nearest: of nearly all it is in a square beside; each pair is looked at once."""
    best = np.full(len(y), np.inf)
    for i in range(down):
        for j in range(across):
            row_end, below, below_end = _half_around(starts, down, across, i, j)
            for one in range(starts[i * across + j], starts[i * across + j + 1]):
                mine = best[one]
                for other in range(one + 1, row_end):
                    away = (y[other] - y[one]) ** 2 + (x[other] - x[one]) ** 2
                    mine, best[other] = min(mine, away), min(best[other], away)
                for other in range(below, below_end):
                    away = (y[other] - y[one]) ** 2 + (x[other] - x[one]) ** 2
                    mine, best[other] = min(mine, away), min(best[other], away)
                best[one] = mine
    found = np.empty(len(y))
    for i in range(down):
        for j in range(across):
            for one in range(starts[i * across + j], starts[i * across + j + 1]):
                ring = 1
                # All that is not looked at lies further away than this.
                while best[one] > (ring * side * _SURELY) ** 2 and ring <= down + across:
                    ring += 1
                    best[one] = _nearest_within(y, x, starts, down, across, i, j, ring, one)
                found[order[one]] = np.sqrt(best[one])
    return found


@njit(cache=True, nogil=True)
def _half_around(starts: NDArray[Any], down: int, across: int, i: int, j: int) -> tuple[int, int, int]:
    """Return where the squares beside one on its right end, and where those below it begin and end."""
    left, right = max(0, j - 1), min(across - 1, j + 1)
    row_end = starts[i * across + right + 1]
    if i + 1 == down:
        return row_end, 0, 0
    return row_end, starts[(i + 1) * across + left], starts[(i + 1) * across + right + 1]


@njit(cache=True, nogil=True)
def _nearest_within(
    y: NDArray[Any],
    x: NDArray[Any],
    starts: NDArray[Any],
    down: int,
    across: int,
    i: int,
    j: int,
    ring: int,
    one: int,
) -> float:
    """Return the squared distance of a cell to the nearest other in its square and so many rings around it."""
    best = np.inf
    left, right = max(0, j - ring), min(across - 1, j + ring)
    for row in range(max(0, i - ring), min(down - 1, i + ring) + 1):
        for other in range(starts[row * across + left], starts[row * across + right + 1]):
            if other != one:
                best = min(best, (y[other] - y[one]) ** 2 + (x[other] - x[one]) ** 2)
    return best
