"""From drawn cells to an instance mask: connected, numbered without holes, nothing too small to be seen."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


def instances(owner: NDArray[np.int32], least_px: int) -> NDArray[np.int32]:
    """Return the mask of what is left of each cell.

    Parameters
    ----------
    owner
        (y, x) int32, the cell that each px belongs to; 0 is background.
    least_px
        Of a cell that others cover or the edge cuts, the largest connected part stays, if it has so many px.

    Returns
    -------
    NDArray[np.int32]
        (y, x), numbered 1 to n in the order of ``owner``.
    """
    parts, areas, owners = _connected(owner)
    best = np.zeros(int(owner.max(initial=0)) + 1, np.int64)
    np.maximum.at(best, owners, areas)
    keep = (areas == best[owners]) & (areas >= least_px) & (owners > 0)
    rows = np.flatnonzero(keep)
    _, firsts = np.unique(owners[rows], return_index=True)  # two parts of equal size: the first
    numbers = np.zeros(len(areas), np.int32)
    numbers[rows[firsts]] = np.arange(1, len(firsts) + 1)
    return numbers[parts]


def part(owner: NDArray[np.int32]) -> None:
    """Give the px on one side of each contact to the background, so that no two cells touch along an edge."""
    for first, second in ((owner[:-1], owner[1:]), (owner[:, :-1], owner[:, 1:])):
        first[(first != second) & (first > 0) & (second > 0)] = 0


@njit(cache=True, nogil=True)
def _connected(
    owner: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Return the 4-connected parts of equal owner: their numbers per px, areas and owners; part 0 is empty."""
    height, width = owner.shape
    parts = np.zeros((height, width), np.int32)
    areas, owners = np.zeros(height * width + 1, np.int64), np.zeros(height * width + 1, np.int32)
    stack = np.empty((height * width, 2), np.int32)
    n = 0
    for y0 in range(height):
        for x0 in range(width):
            if owner[y0, x0] == 0 or parts[y0, x0] != 0:
                continue
            n += 1
            owners[n] = owner[y0, x0]
            parts[y0, x0] = n
            stack[0, 0], stack[0, 1] = y0, x0
            waiting = 1
            while waiting:
                waiting -= 1
                y, x = stack[waiting, 0], stack[waiting, 1]
                areas[n] += 1
                for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                    v, u = y + dy, x + dx
                    if 0 <= v < height and 0 <= u < width and parts[v, u] == 0 and owner[v, u] == owners[n]:
                        parts[v, u] = n
                        stack[waiting, 0], stack[waiting, 1] = v, u
                        waiting += 1
    return parts, areas[: n + 1], owners[: n + 1]
