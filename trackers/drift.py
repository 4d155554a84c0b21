"""The shift that a whole field of view made between two frames: stage moves, drift, jumps of the sample."""

from __future__ import annotations

from itertools import product

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ..models.detections import Detections
from .neighbours import nearest

Points = NDArray[np.float64]
NEIGHBOURS = 8
CLOSE_PX = 0.01
MOST_BINS = 256
"""A shift is looked for up to so many times the tolerance."""
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
    moves = (found[near] - expected[:, np.newaxis]).reshape(-1, 2)
    weight = np.exp(-np.square((log_area_after[near] - log_area_before[:, np.newaxis]) / 0.2) / 2)
    far = _climb(moves, weight, _fullest_bin(moves, weight.ravel(), tolerance_px), tolerance_px)
    still = _climb(moves, weight, np.zeros(2), tolerance_px)
    explained, usual = (_explained(moves, weight, shift, tolerance_px) for shift in (far, still))
    best = far if explained > 1.2 * usual + 0.5 else still
    return best * n / (n + 2)


def warm_up() -> None:
    """Compile the kernels, or load them if they were compiled before."""
    common_shift(np.eye(3, 2), np.eye(3, 2), 1.0, np.zeros(3), np.zeros(3))


def _fullest_bin(moves: Points, weight: Points, width_px: float) -> Points:
    """Return the centre of the fullest 3 x 3 block of bins of a weighted histogram of displacements."""
    bins = np.floor(moves / width_px).astype(np.int64)
    there = np.maximum(np.abs(bins[:, 0]), np.abs(bins[:, 1])) < MOST_BINS
    if not there.any():
        return np.zeros(2)
    bins, weight = bins[there], weight[there]
    lowest = bins.min(axis=0) - 1
    bins -= lowest
    shape = bins.max(axis=0) + 2
    counts = np.bincount(bins[:, 0] * shape[1] + bins[:, 1], weight, int(shape.prod())).reshape(shape)
    rows = counts[:-2] + counts[1:-1] + counts[2:]
    blocks = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    peak = np.array(np.unravel_index(int(blocks.argmax()), blocks.shape)) + 1
    return (lowest + peak + 0.5) * width_px


@njit(cache=True, nogil=True)
def _climb(moves: Points, weight: Points, shift: Points, width_px: float) -> Points:
    """Return the peak of the density of displacements that a shift lies below (mean shift)."""
    y, x = shift[0], shift[1]
    n, k = weight.shape
    for _ in range(8):
        total = sum_y = sum_x = 0.0
        for i in range(n):
            for j in range(k):
                move_y, move_x = moves[i * k + j, 0], moves[i * k + j, 1]
                square = (move_y - y) ** 2 + (move_x - x) ** 2
                if square < 50 * width_px * width_px:
                    close = weight[i, j] * np.exp(-square / (2 * width_px * width_px))
                    total, sum_y, sum_x = total + close, sum_y + close * move_y, sum_x + close * move_x
        if total < 1e-6:
            break
        before_y, before_x = y, x
        y, x = sum_y / total, sum_x / total
        if max(abs(y - before_y), abs(x - before_x)) < CLOSE_PX:
            break
    return np.array([y, x])


@njit(cache=True, nogil=True)
def _explained(moves: Points, weight: Points, shift: Points, width_px: float) -> float:
    """Return how many cells a shift explains: of each, its closest displacement counts."""
    n, k = weight.shape
    total = 0.0
    for i in range(n):
        best = 0.0
        for j in range(k):
            square = (moves[i * k + j, 0] - shift[0]) ** 2 + (moves[i * k + j, 1] - shift[1]) ** 2
            best = max(best, weight[i, j] * np.exp(-square / (2 * width_px * width_px)))
        total += best
    return total
