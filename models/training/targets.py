"""What a net is asked for at each pixel: inside or not, how deep inside its own cell, and how broad that is.

The depth is the distance to the outline, capped a few px in and at the middle of narrow cells. It is 0 between
touching cells and 1 in the middle of every cell, so that a watershed parts the cells at any size; unlike a
distance to a centre it is defined by the shape alone, also for rods and for spread cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CAP_PX = 2.0
"""Depth in output px from which on a cell's inside counts as its middle."""


@dataclass(frozen=True, slots=True, eq=False)
class Depths:
    """The geometry of a mask at its own resolution, from which the targets at any scale follow.

    Attributes
    ----------
    depth
        (y, x) float32, px to the nearest pixel that is not of the same cell; 0 outside.
    deepest
        (cells + 1,) float32, the largest depth in each cell; 0 for the background.
    breadth_px
        Median over the cells of twice their largest depth; 0 without cells.
    """

    depth: NDArray[np.float32]
    deepest: NDArray[np.float32]
    breadth_px: float


def depths(mask: NDArray[np.integer]) -> Depths:
    """Measure how deep each pixel lies in its cell.

    Parameters
    ----------
    mask
        (y, x) integers, 0 is background. Cells that the image's edge cuts are measured as if they went on.
    """
    padded = np.pad(mask.astype(np.int32), 1, mode="edge")
    inside = padded > 0
    for axis in (0, 1):
        change = np.diff(padded, axis=axis) != 0
        first = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        second = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
        inside[first] &= ~(change & (padded[second] > 0))  # a line of one px between touching cells
    reach = ndimage.distance_transform_edt(np.pad(inside, 64, mode="edge"))[65:-65, 65:-65]
    reach = np.asarray(reach, np.float32)
    n = int(mask.max(initial=0))
    largest = np.zeros(n + 1, np.float32)
    np.maximum.at(largest, mask.reshape(-1), reach.reshape(-1))
    largest[0] = 0
    reach[mask == 0] = 0
    found = largest[1:][largest[1:] > 0]
    return Depths(reach, largest, 2 * float(np.median(found)) if found.size else 0.0)
