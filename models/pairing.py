"""Pairing nuclei with the cells that contain them, and cells drawn as rings around nuclei."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..acquire.errors import FrameError
from .kernels import frozen
from .labels import Labels, Nuclei

Image = NDArray[np.int32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Which nucleus belongs to which cell, of two instance masks of one image.

    Attributes
    ----------
    cell
        (nuclei,) int32, the number of the cell that each nucleus belongs to; 0 if none holds enough of it.
    share
        (nuclei,) float64, 0 to 1: which part of each nucleus lies in the cell that holds most of it.
    per_cell
        (cells,) int32, how many nuclei belong to each cell.
    """

    cell: NDArray[np.int32]
    share: NDArray[np.float64]
    per_cell: NDArray[np.int32]

    @property
    def outside(self) -> Ints:
        """Numbers of the nuclei that belong to no cell."""
        return np.flatnonzero(self.cell == 0) + 1

    @property
    def empty(self) -> Ints:
        """Numbers of the cells without a nucleus."""
        return np.flatnonzero(self.per_cell == 0) + 1

    @property
    def multinucleate(self) -> Ints:
        """Numbers of the cells with two or more nuclei."""
        return np.flatnonzero(self.per_cell > 1) + 1


def pair(nuclei: Labels, cells: Labels, share: float = 0.5) -> Pairs:
    """Give each nucleus to the cell that holds most of it; of two that hold as much, to the lower number.

    One pass over the two masks, and a sort of the runs of px in which they overlap.

    Parameters
    ----------
    nuclei, cells
        Instance masks of the same size.
    share
        Least part of a nucleus that must lie in its cell, above 0 to 1.

    Raises
    ------
    FrameError
        If the masks differ in size, or hold numbers above their count.
    """
    if nuclei.image.shape != cells.image.shape:
        raise FrameError(f"nuclei of {nuclei.image.shape} px for cells of {cells.image.shape} px")
    size = np.zeros(nuclei.count + 1, np.int64)
    inner, outer = frozen(nuclei.image, np.int32), frozen(cells.image, np.int32)
    runs = np.empty((_count_runs(inner, outer), 3), np.int64)
    if not _fill_runs(inner, outer, nuclei.count, cells.count, size, runs):
        raise FrameError(
            f"masks that say they have {nuclei.count} nuclei and {cells.count} cells hold other numbers"
        )
    nucleus, cell, shared = _summed(runs)
    order = np.lexsort((cell, -shared, nucleus))
    owners, first = np.unique(nucleus[order], return_index=True)
    best = order[first]
    found = np.zeros(nuclei.count, np.int32)
    part = np.zeros(nuclei.count)
    found[owners - 1], part[owners - 1] = cell[best], shared[best] / size[owners]
    found[part < share] = 0
    per_cell = np.bincount(found[found > 0] - 1, minlength=cells.count).astype(np.int32)
    return Pairs(found, part, per_cell)


def paired(nuclei: Labels, cells: Labels, pairs: Pairs) -> Nuclei:
    """Return the nuclei with the numbers of their cells; what sticks out of the cell is cut off."""
    of_nucleus = np.zeros(nuclei.count + 1, np.int32)
    of_nucleus[1:] = pairs.cell
    inner, outer = frozen(nuclei.image, np.int32), frozen(cells.image, np.int32)
    return Nuclei(_common(inner, outer, of_nucleus), pairs.per_cell)


def ring(nuclei: Image, width_px: float) -> Image:
    """Return each nucleus with all px around it up to a distance: the usual substitute for a stained cytoplasm.

    A px belongs to the nucleus that is nearest to it (of two as near, to the lower number), so that rings
    meet half way and do not overlap. Exact Euclidean distances between centres of px.

    Parameters
    ----------
    nuclei
        (y, x) int32 instance mask.
    width_px
        Width of the ring in px.
    """
    reach = int(width_px)
    nuclei = frozen(nuclei, np.int32)
    below, number = _nearest_in_column(nuclei, reach)
    return _nearest_in_row(nuclei, below, number, float(width_px) * float(width_px), reach)


def warm_up() -> None:
    """Compile the kernels, or load them if they were compiled before."""
    one = Labels(np.ones((1, 1), np.int32), 1)
    paired(one, one, pair(one, one))
    ring(one.image, 1.0)


def _summed(runs: Ints) -> tuple[Ints, Ints, Ints]:
    """Return each pair of nucleus and cell that occurs in runs of (nucleus, cell, length), and its px."""
    order = np.lexsort((runs[:, 1], runs[:, 0]))
    runs = runs[order]
    new = np.ones(len(runs), bool)
    new[1:] = (runs[1:, :2] != runs[:-1, :2]).any(axis=1)
    start = np.flatnonzero(new)
    px = np.add.reduceat(runs[:, 2], start) if len(start) else np.empty(0, np.int64)
    return runs[start, 0], runs[start, 1], px


# Runs are stretches of a row in which neither the nucleus nor the cell changes; only those in which there is both
# count. They are counted first, so that the array that takes them is as long as it must be.


@njit(cache=True, nogil=True)
def _count_runs(nuclei: Image, cells: Image) -> int:
    runs = 0
    for y in range(nuclei.shape[0]):
        last_nucleus = last_cell = 0
        for x in range(nuclei.shape[1]):
            nucleus, cell = nuclei[y, x], cells[y, x]
            if nucleus != 0 and cell != 0 and (nucleus != last_nucleus or cell != last_cell):
                runs += 1
            last_nucleus, last_cell = nucleus, cell
    return runs


@njit(cache=True, nogil=True)
def _fill_runs(
    nuclei: Image, cells: Image, most_nuclei: int, most_cells: int, size: Ints, runs: Ints
) -> bool:
    """Write the runs and the size of each nucleus; return False at a number that must not be there."""
    at = -1
    for y in range(nuclei.shape[0]):
        last_nucleus = last_cell = 0
        for x in range(nuclei.shape[1]):
            nucleus, cell = nuclei[y, x], cells[y, x]
            if nucleus < 0 or nucleus > most_nuclei or cell < 0 or cell > most_cells:
                return False
            if nucleus != 0:
                size[nucleus] += 1
                if cell != 0:
                    if nucleus != last_nucleus or cell != last_cell:
                        at += 1
                        runs[at, 0], runs[at, 1], runs[at, 2] = nucleus, cell, 0
                    runs[at, 2] += 1
            last_nucleus, last_cell = nucleus, cell
    return True


@njit(cache=True, nogil=True)
def _common(nuclei: Image, cells: Image, of_nucleus: NDArray[np.int32]) -> Image:
    """Return the number of the cell where it is also that of the nucleus, 0 elsewhere."""
    common = np.zeros_like(nuclei)
    for y in range(nuclei.shape[0]):
        for x in range(nuclei.shape[1]):
            cell = of_nucleus[nuclei[y, x]]
            if cell != 0 and cells[y, x] == cell:
                common[y, x] = cell
    return common


# The nearest nucleus of a px is found first along its column, then along its row: the squared distance to a px
# in another column is the square of the way along the row plus that of the nearest px within that column.


@njit(cache=True, nogil=True)
def _nearest_in_column(nuclei: Image, reach: int) -> tuple[NDArray[np.int16], Image]:
    """Return for each px the way to the nearest nucleus above or below (reach + 1: none), and its number."""
    height, width = nuclei.shape
    way = np.full((height, width), reach + 1, np.int16)
    number = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            if nuclei[y, x] != 0:
                way[y, x], number[y, x] = 0, nuclei[y, x]
            elif y > 0 and way[y - 1, x] < reach:
                way[y, x], number[y, x] = way[y - 1, x] + 1, number[y - 1, x]
    for y in range(height - 2, -1, -1):
        for x in range(width):
            other = way[y + 1, x] + 1
            if other <= reach and (
                other < way[y, x] or (other == way[y, x] and number[y + 1, x] < number[y, x])
            ):
                way[y, x], number[y, x] = other, number[y + 1, x]
    return way, number


@njit(cache=True, nogil=True)
def _nearest_in_row(nuclei: Image, way: NDArray[np.int16], number: Image, most: float, reach: int) -> Image:
    """Return the nearest nucleus of each px whose squared distance is at most ``most``, 0 where there is none."""
    height, width = nuclei.shape
    nearest = np.zeros((height, width), np.int32)
    best = np.empty(width, np.int64)
    for y in range(height):
        best[:] = 1 << 60
        for x in range(width):
            if number[y, x] == 0:
                continue
            inside = nuclei[y, x] != 0
            if inside and 0 < x < width - 1 and nuclei[y, x - 1] != 0 and nuclei[y, x + 1] != 0:
                best[x], nearest[y, x] = (
                    0,
                    nuclei[y, x],
                )  # whatever it could reach, a neighbour reaches sooner
                continue
            along = way[y, x] * way[y, x]
            for there in range(max(0, x - reach), min(width, x + reach + 1)):
                distance = along + (there - x) * (there - x)
                if distance <= most and (
                    distance < best[there] or (distance == best[there] and number[y, x] < nearest[y, there])
                ):
                    best[there], nearest[y, there] = distance, number[y, x]
    return nearest
