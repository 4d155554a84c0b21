"""The shift that a whole field of view made between two frames: stage moves, drift, jumps of the sample."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ..models.detections import Detections
from .neighbours import nearest

Points = NDArray[np.float64]
NEIGHBOURS = 8
CLOSE_PX = 0.01
ENOUGH = 300
"""A common shift is taken from about this many cells, however many there are."""


def stage_shifts(before_um: tuple[float, float] | None, after: Detections) -> Points:
    """Return (k, 2) the shifts (y, x) in px that a known move of the stage may have made; empty without a move.

    The first is that of a camera that is neither rotated nor flipped; the other seven are its mirror images
    and quarter turns, because only the pixel size is known here.

    Parameters
    ----------
    before_um
        (x, y) of the stage in the frame before, in um, or None.
    after
        The frame that is compared with it.
    """
    if before_um is None or after.stage_um is None or not after.pixel_size_um:
        return np.empty((0, 2))
    x = (before_um[0] - after.stage_um[0]) / after.pixel_size_um
    y = (before_um[1] - after.stage_um[1]) / after.pixel_size_um
    if np.hypot(x, y) < 1.0:
        return np.empty((0, 2))
    signs = tuple(product((1.0, -1.0), (1.0, -1.0)))
    return np.array([(sy * y, sx * x) for sy, sx in signs] + [(sy * x, sx * y) for sy, sx in signs])


def best_stage_shift(expected: Points, found: Points, shifts: Points, tolerance_px: float) -> Points:
    """Return the shift under which most cells are found again, the earlier one where they tie."""
    if len(shifts) == 0 or len(expected) == 0 or len(found) == 0:
        return shifts[0] if len(shifts) else np.zeros(2)
    distances = [nearest(found, expected + shift)[0] for shift in shifts]
    fit = np.array([np.exp(-0.5 * np.square(distance / tolerance_px)).sum() for distance in distances])
    return shifts[int(np.argmax(fit > 0.99 * fit.max()))]


def common_shift(
    expected: Points,
    found: Points,
    tolerance_px: float,
    log_area_before: Points,
    log_area_after: Points,
) -> Points:
    """Return the (y, x) shift in px that most cells share.

    Two answers compete: the peak, near no shift, of the density of displacements from every expected position
    to the detections around it, and the highest peak of all. A displacement counts as far as the areas agree.
    The far peak has to explain clearly more cells. With few cells the answer shrinks towards zero.

    Parameters
    ----------
    expected, found
        (n, 2), (m, 2) positions (y, x) in px.
    tolerance_px
        How far cells may stray from the common shift.
    log_area_before, log_area_after
        (n,), (m,) log area of the cells.
    """
    if len(expected) < 3 or len(found) < 3:
        return np.zeros(2)
    some = slice(None, None, -(-len(expected) // ENOUGH))
    expected, log_area_before = expected[some], log_area_before[some]
    n = len(expected)
    _, near = KDTree(found, balanced_tree=False, compact_nodes=False).query(
        expected, k=min(NEIGHBOURS, len(found))
    )
    moves = found[near] - expected[:, np.newaxis]  # (n, k, 2)
    weight = np.exp(-np.square((log_area_after[near] - log_area_before[:, np.newaxis]) / 0.2) / 2)

    def closeness(shift: Points) -> Points:
        away = moves - shift
        return weight * np.exp(-np.einsum("ijk,ijk->ij", away, away) / (2 * tolerance_px**2))

    def climb(shift: Points) -> Points:
        for _ in range(8):  # mean shift
            near_shift = closeness(shift)
            total = near_shift.sum()
            if total < 1e-6:
                break
            before, shift = shift, np.einsum("ij,ijk->k", near_shift, moves) / total
            if np.abs(shift - before).max() < CLOSE_PX:
                break
        return shift

    far = climb(_fullest_bin(moves.reshape(-1, 2), weight.reshape(-1), tolerance_px))
    still = climb(np.zeros(2))
    best = far if closeness(far).max(axis=1).sum() > 1.2 * closeness(still).max(axis=1).sum() + 0.5 else still
    return best * n / (n + 2)


def _fullest_bin(moves: Points, weight: Points, width_px: float) -> Points:
    """Return the centre of the fullest 3 x 3 block of bins of a weighted histogram of displacements."""
    bins = np.floor(moves / width_px).astype(np.int64)
    lowest = bins.min(axis=0) - 1
    bins -= lowest
    shape = bins.max(axis=0) + 2
    counts = np.bincount(bins[:, 0] * shape[1] + bins[:, 1], weight, int(shape.prod())).reshape(shape)
    rows = counts[:-2] + counts[1:-1] + counts[2:]
    blocks = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    peak = np.array(np.unravel_index(int(blocks.argmax()), blocks.shape)) + 1
    return (lowest + peak + 0.5) * width_px
