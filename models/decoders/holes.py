"""Filling the holes of cells, from the runs of background in each row."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int32]


def warm_up() -> None:
    """Compile the kernels, or load them if they were compiled before."""
    fill_holes(np.zeros((2, 2), np.int32), np.zeros(1, np.int64))


@njit(cache=True, nogil=True)
def fill_holes(cells: Ints, area: NDArray[np.int64]) -> None:
    """Fill, in place, each hole that lies within one cell and is no larger than the rest of it.

    Parameters
    ----------
    cells
        (y, x) int32, 0 is background. What touches the border of the image, or two cells, is no hole.
    area
        (count + 1,) int64, px of each number in ``cells``; what is filled is added.
    """
    height, width = cells.shape
    start, end = np.empty((2, height * (width // 2 + 1)), np.int32)
    first = np.empty(height + 1, np.int64)  # of the runs of a row
    runs = 0
    for y in range(height):
        first[y] = runs
        runs = _runs(cells[y], start, end, runs)
    first[height] = runs
    root = np.arange(runs).astype(np.int32)
    for y in range(1, height):
        _join(first[y - 1], first[y], first[y + 1], start, end, root)
    for run in range(runs):
        root[run] = _root(root, run)
    owner = np.full(runs, -1, np.int32)  # of each root: the cell around it, 0 if it is no hole
    size = np.zeros(runs, np.int64)
    for y in range(height):
        for run in range(first[y], first[y + 1]):
            size[root[run]] += end[run] - start[run]
            if y == 0 or y == height - 1 or start[run] == 0 or end[run] == width:
                owner[root[run]] = 0
            else:
                _own(owner, root[run], cells[y, start[run] - 1])
                _own(owner, root[run], cells[y, end[run]])
    for run in range(runs):
        if owner[run] > 0 and size[run] > area[owner[run]]:
            owner[run] = 0
    for y in range(1, height - 1):
        for run in range(first[y], first[y + 1]):
            if owner[root[run]] > 0:
                for x in range(start[run], end[run]):
                    _own(owner, root[run], cells[y - 1, x])
                    _own(owner, root[run], cells[y + 1, x])
    for y in range(1, height - 1):
        for run in range(first[y], first[y + 1]):
            if owner[root[run]] > 0:
                cells[y, start[run] : end[run]] = owner[root[run]]
                area[owner[root[run]]] += end[run] - start[run]


@njit(cache=True, nogil=True)
def _runs(row: Ints, start: Ints, end: Ints, runs: int) -> int:
    """Append where the runs of background in a row start and end; return how many there are now."""
    inside = True
    for x in range(row.size):
        if inside and row[x] == 0:
            start[runs] = x
            inside = False
        elif not inside and row[x] != 0:
            end[runs] = x
            runs += 1
            inside = True
    if not inside:
        end[runs] = row.size
        runs += 1
    return runs


@njit(cache=True, nogil=True)
def _join(above: int, here: int, stop: int, start: Ints, end: Ints, root: Ints) -> None:
    """Join the runs of a row with those of the row above that they share a column with."""
    one, other = above, here
    while one < here and other < stop:
        if start[one] < end[other] and start[other] < end[one]:
            a, b = _root(root, one), _root(root, other)
            root[max(a, b)] = min(a, b)
        if end[one] < end[other]:
            one += 1
        else:
            other += 1


@njit(cache=True, nogil=True)
def _own(owner: Ints, hole: int, cell: int) -> None:
    """Note that a cell, or background of the same hole, lies beside a hole."""
    if cell != 0 and owner[hole] != cell:
        owner[hole] = cell if owner[hole] < 0 else 0


@njit(cache=True, nogil=True)
def _root(root: Ints, run: int) -> int:
    while root[run] != run:
        root[run] = root[root[run]]
        run = root[run]
    return run
