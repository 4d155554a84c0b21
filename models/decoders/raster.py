"""What decoders do with cells once they have them: judge, clean and number them, at the resolution of the frame."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..labels import Labels
from .decoder import Grid
from .enlarge import enlarge
from .holes import fill_holes

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


def finish(
    cells: Ints,
    area: NDArray[np.int64],
    confidence: NDArray[np.floating],
    inside: Floats,
    grid: Grid,
    smallest_px: float,
) -> Labels:
    """Return cells of a net's grid as labels of the frame: without specks and holes, with smooth outlines.

    Parameters
    ----------
    cells
        (y, x) int32: 0 is background, 1..n are cells, numbers may be missing. It is overwritten.
    area
        (n + 1,) px of each number. It is overwritten.
    confidence
        (n + 1,) of each number; what is beyond 0 and 1 is cut.
    inside
        (y, x) float32, how far each px is above or below where outlines are drawn: between px they run where the
        linear interpolation is 0. Only the size counts; what has a number is above.
    grid
        Where the px lie on the frame.
    smallest_px
        What is smaller, in px of the frame, is dropped.
    """
    drop(cells, area, smallest_px / (grid.pitch[0] * grid.pitch[1]))
    fill_holes(cells, area)
    if grid.pitch == (1.0, 1.0) and cells.shape == grid.shape:
        image, order = cells, renumber(cells, len(area) - 1)
    else:
        image, order = enlarge(cells, len(area) - 1, inside, grid)
    return Labels(image, len(order), np.clip(confidence[order], 0, 1).astype(np.float32))


def drop(cells: Ints, area: NDArray[np.int64], smallest: float) -> None:
    """Drop, in place, what is smaller than so many px; its area becomes 0."""
    small = area < smallest
    small[0] = False
    if np.any(area[small]):
        remove(cells, small)
    area[small] = 0


@njit(cache=True, nogil=True)
def areas_and_means(cells: Ints, count: int, values: Floats) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return (count + 1,) px of each number, and the mean of values over them (0 where there are none)."""
    area, total = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.float64)
    for y in range(cells.shape[0]):
        for x in range(cells.shape[1]):
            cell = cells[y, x]
            if cell:
                area[cell] += 1
                total[cell] += values[y, x]
    for cell in range(count + 1):
        total[cell] /= max(area[cell], 1)
    return area, total


@njit(cache=True, nogil=True)
def remove(cells: Ints, chosen: NDArray[np.bool_]) -> None:
    """Make the chosen numbers, (count + 1,), background, in place."""
    for y in range(cells.shape[0]):
        for x in range(cells.shape[1]):
            if cells[y, x] and chosen[cells[y, x]]:
                cells[y, x] = 0


@njit(cache=True, nogil=True)
def renumber(image: Ints, count: int) -> Ints:
    """Number cells 1..n, in place, in the order of their first px; return (n,) what they were before."""
    number = np.zeros(count + 1, np.int32)
    order = np.empty(count, np.int32)
    n = 0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            cell = image[y, x]
            if cell:
                if number[cell] == 0:
                    order[n] = cell
                    n += 1
                    number[cell] = n
                image[y, x] = number[cell]
    return order[:n]
