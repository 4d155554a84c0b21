"""How well the flows of a cell agree with its shape: Cellpose's check of what its nets say.

Cellpose lets heat spread from the centre of a cell, with the outside kept cold, and compares the flow of heat with
what the net says. Here the steady state of it is solved, by over-relaxation, on a grid of about NODES nodes in the
cell, or one for each px of a small one, and the direction of the flow is interpolated between them.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

NODES = 200
SWEEPS = 24
RELAXATION = 1.5


@njit(cache=True, nogil=True)
def flow_errors(cells: Ints, count: int, flow: Floats) -> Doubles:
    """Return (count + 1,) mean squared differences between the flows of each cell and those of its shape.

    Parameters
    ----------
    cells
        (y, x) int32, 0 is background; numbers may be missing, their error is 0.
    count
        The largest number.
    flow
        (y, x, 2) of the net, as unit vectors.
    """
    box, centre, area = _extents(cells, count)
    error = np.zeros(count + 1)
    # Of each node, with a border: how many px, its heat, and the direction in which it becomes warmer.
    px, heat, slope = np.empty((64, 64), np.int64), np.empty((64, 64)), np.empty((64, 64, 2))
    for cell in range(1, count + 1):
        if area[cell] == 0:
            continue
        top, bottom, left, right = box[cell]
        side = max(int(math.sqrt(area[cell] / NODES) + 0.5), 1)
        rows, columns = (bottom - top) // side + 3, (right - left) // side + 3
        if max(rows, columns) > len(heat):
            n = max(rows, columns)
            px, heat, slope = np.empty((n, n), np.int64), np.empty((n, n)), np.empty((n, n, 2))
        px[:rows, :columns] = 0
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                if cells[y, x] == cell:
                    px[(y - top) // side + 1, (x - left) // side + 1] += 1
        first = 0.5 + 0.5 / side  # on the grid of nodes: the middle of the first px
        y, x = first + (centre[cell, 0] - top) / side, first + (centre[cell, 1] - left) / side
        _spread(px, heat, rows, columns, side * side / 2, y, x)
        _slopes(px, heat, slope, rows, columns)
        total = 0.0
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                if cells[y, x] == cell:
                    down, over = _slope_at(slope, first + (y - top) / side, first + (x - left) / side)
                    total += (flow[y, x, 0] - down) ** 2 + (flow[y, x, 1] - over) ** 2
        error[cell] = total / area[cell]
    return error


@njit(cache=True, nogil=True)
def _extents(cells: Ints, count: int) -> tuple[Ints, Doubles, NDArray[np.int64]]:
    """Return (count + 1, 4) first and last row and column, (count + 1, 2) mean y and x, and the px of each cell."""
    box = np.empty((count + 1, 4), np.int32)
    box[:, 0], box[:, 1], box[:, 2], box[:, 3] = cells.shape[0], -1, cells.shape[1], -1
    centre, area = np.zeros((count + 1, 2)), np.zeros(count + 1, np.int64)
    for y in range(cells.shape[0]):
        for x in range(cells.shape[1]):
            cell = cells[y, x]
            if cell:
                box[cell, 0], box[cell, 1] = min(box[cell, 0], y), max(box[cell, 1], y)
                box[cell, 2], box[cell, 3] = min(box[cell, 2], x), max(box[cell, 3], x)
                centre[cell, 0] += y
                centre[cell, 1] += x
                area[cell] += 1
    for cell in range(count + 1):
        centre[cell] /= max(area[cell], 1)
    return box, centre, area


@njit(cache=True, nogil=True)
def _spread(
    px: NDArray[np.int64], heat: Doubles, rows: int, columns: int, least: float, y: float, x: float
) -> None:
    """Fill the heat of the nodes: each is the mean of the eight around it; the nine in the centre are sources."""
    heat[:rows, :columns] = 0
    source_row, source_column, nearest = 0, 0, math.inf
    for i in range(1, rows - 1):
        for j in range(1, columns - 1):
            # A thin cell may fill no node by half: then all that it touches are its nodes.
            far = (i - y) ** 2 + (j - x) ** 2 + (0.0 if px[i, j] >= least else 1e6)
            if px[i, j] > 0 and far < nearest:
                source_row, source_column, nearest = i, j, far
    if nearest >= 1e6:
        least = 1.0
    for sweep in range(SWEEPS):
        for row in range(1, rows - 1):
            i = row if sweep % 2 == 0 else rows - 1 - row  # so that heat spreads up as well as down
            for column in range(1, columns - 1):
                j = column if sweep % 2 == 0 else columns - 1 - column
                if px[i, j] < least:
                    continue
                around = heat[i - 1, j - 1] + heat[i - 1, j] + heat[i - 1, j + 1] + heat[i, j - 1]
                around += heat[i, j + 1] + heat[i + 1, j - 1] + heat[i + 1, j] + heat[i + 1, j + 1]
                source = 1.0 if abs(i - source_row) <= 1 and abs(j - source_column) <= 1 else 0.0
                heat[i, j] += RELAXATION * (around / 8 + source - heat[i, j])


@njit(cache=True, nogil=True)
def _slopes(px: NDArray[np.int64], heat: Doubles, slope: Doubles, rows: int, columns: int) -> None:
    """Fill the directions as unit vectors, 0 where there is none and at nodes without px."""
    slope[:rows, :columns] = 0
    for i in range(1, rows - 1):
        for j in range(1, columns - 1):
            if px[i, j]:
                down, over = heat[i + 1, j] - heat[i - 1, j], heat[i, j + 1] - heat[i, j - 1]
                size = math.hypot(down, over)
                if size > 0:
                    slope[i, j, 0], slope[i, j, 1] = down / size, over / size


@njit(cache=True, nogil=True)
def _slope_at(slope: Doubles, y: float, x: float) -> tuple[float, float]:
    """Return the direction between nodes."""
    i, j = int(y), int(x)
    v, u = y - i, x - j
    if v == 0 and u == 0:
        return slope[i, j, 0], slope[i, j, 1]
    a, b, c, d = (1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u
    down = a * slope[i, j, 0] + b * slope[i, j + 1, 0] + c * slope[i + 1, j, 0] + d * slope[i + 1, j + 1, 0]
    over = a * slope[i, j, 1] + b * slope[i, j + 1, 1] + c * slope[i + 1, j, 1] + d * slope[i + 1, j + 1, 1]
    size = math.sqrt(down * down + over * over)
    return (down / size, over / size) if size > 0 else (0.0, 0.0)
