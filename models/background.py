"""What cells stand out from: background, contrast against it, and the level of the cells themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Plane = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
MAD_TO_SD = 1.4826
ROUNDS = 3


def shrink(plane: Plane, factor: int) -> Plane:
    """Return the means of blocks of ``factor`` x ``factor`` px; the last blocks repeat the edge."""
    if factor == 1:
        return plane
    height, width = plane.shape
    if height % factor or width % factor:
        plane = np.pad(plane, ((0, -height % factor), (0, -width % factor)), mode="edge")
    total = plane[::factor, ::factor].copy()
    for place in range(1, factor * factor):
        total += plane[place // factor :: factor, place % factor :: factor]
    return total / np.float32(factor * factor)


def enlarge(coarse: Plane, factor: int, shape: tuple[int, int]) -> Plane:
    """Return block means as a smooth plane of ``shape``, by linear interpolation between block centres."""
    for axis in (0, 1):
        size, n = shape[axis], coarse.shape[axis]
        at = np.clip((np.arange(size) + 0.5) / factor - 0.5, 0, n - 1)
        low = np.floor(at).astype(np.int64)
        share = (at - low).astype(np.float32)
        share = share[:, np.newaxis] if axis == 0 else share
        coarse = coarse.take(low, axis) * (1 - share) + coarse.take(np.minimum(low + 1, n - 1), axis) * share
    return coarse


def brightness(plane: Plane, diameter_px: float) -> tuple[Plane, float]:
    """Return how far each pixel is above the background, and the noise of that.

    The background starts as a median over four cell diameters and becomes, in three rounds, the local mean of
    what stays within the noise of it.

    Parameters
    ----------
    plane
        (y, x) counts, slightly smoothed.
    diameter_px
        Width of a cell in px.

    Returns
    -------
    (plane, float)
        Counts above background, and their standard deviation where there is no cell.
    """
    factor = max(2, int(diameter_px / 4))
    coarse = shrink(plane, factor)
    level = ndimage.median_filter(coarse[::3, ::3], 5, mode="nearest")
    level = enlarge(level, 3, (coarse.shape[0], coarse.shape[1]))
    for _ in range(ROUNDS):
        rest = coarse - level
        calm = (np.abs(rest) <= 3 * _noise_below(rest)).astype(np.float32)
        spread = 1.5 * diameter_px / factor
        weight = ndimage.gaussian_filter(calm, spread, mode="nearest", truncate=3)
        total = ndimage.gaussian_filter(calm * coarse, spread, mode="nearest", truncate=3)
        level = np.where(weight > 0.05, total / np.maximum(weight, 1e-6), level)
    above = plane - enlarge(level, factor, (plane.shape[0], plane.shape[1]))
    return above, max(_noise_below(above[::2, ::2]), 0.25)


def darkness(plane: Plane, diameter_px: float) -> tuple[Plane, float]:
    """Return how far each pixel is below the brightest surroundings of a cell, and the noise of that.

    A grey closing over four cell widths (the black top-hat): in phase contrast a cell is judged against its
    halo and the bright lines between it and its neighbours, not against the background far away.

    Parameters
    ----------
    plane
        (y, x) counts, slightly smoothed.
    diameter_px
        Width of a cell in px.

    Returns
    -------
    (plane, float)
        Counts below, less their median; and their standard deviation where there is no cell.
    """
    factor = max(1, int(diameter_px / 5))
    coarse = shrink(plane, factor)
    window = max(3, int(4 * diameter_px / factor)) | 1
    top = ndimage.grey_closing(coarse, (window, window), mode="nearest")
    top = ndimage.uniform_filter(top, window // 2 | 1, mode="nearest")
    below = enlarge(top, factor, (plane.shape[0], plane.shape[1])) - plane
    below -= np.median(below[::3, ::3])
    return below, max(_noise_below(below[::3, ::3]), 0.25)


def _noise_below(rest: Plane) -> float:
    """Return the standard deviation seen from the values below zero, where cells are not."""
    low = rest[rest < 0]
    return MAD_TO_SD * float(np.median(-low)) if low.size else 0.0


def cell_level(contrast: Plane, inside: Mask, diameter_px: float) -> Plane:
    """Return the mean contrast of the cells around each pixel, so that dim cells are held to their own."""
    factor = max(1, int(diameter_px / 4))
    spread = 0.35 * diameter_px / factor
    weight = ndimage.gaussian_filter(shrink(inside.astype(np.float32), factor), spread, truncate=2.5)
    total = ndimage.gaussian_filter(shrink(contrast * inside, factor), spread, truncate=2.5)
    level = total / np.maximum(weight, 1e-3)
    return enlarge(level, factor, (contrast.shape[0], contrast.shape[1]))


def valleys(contrast: Plane, diameter_px: float) -> Plane:
    """Return how sharply the contrast is folded upwards: large on the lines between touching cells.

    The larger eigenvalue of the Hessian at a scale of about a tenth of the cells' width, times the scale squared.
    """
    scale = float(np.clip(0.08 * diameter_px, 1.0, 4.0))
    smooth = ndimage.gaussian_filter(contrast, scale, truncate=2.5)
    around = np.pad(smooth, 1, mode="edge")
    yy = around[2:, 1:-1] + around[:-2, 1:-1] - 2 * smooth
    xx = around[1:-1, 2:] + around[1:-1, :-2] - 2 * smooth
    yx = (around[2:, 2:] + around[:-2, :-2] - around[2:, :-2] - around[:-2, 2:]) / 4
    return np.float32(scale * scale) * ((yy + xx) / 2 + np.hypot((yy - xx) / 2, yx))
