"""Classical segmenter: background, local threshold, distance watershed. No weights; numpy and scipy only.

Honest about what it is: good on fluorescent nuclei and on rods in phase contrast that can be told apart by
eye, a stopgap on everything else. It needs no tuning on those; a trained net does better on all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..acquire.frame import Frame, Pixels
from .background import Mask, Plane, brightness, cell_level, darkness, shrink, valleys
from .labels import Labels
from .watershed import fill_holes, grow, part

NOISE = 4.0
"""A pixel is part of a cell only if it stands out from the noise by so many standard deviations."""
SMALLEST = 0.12
"""Smallest area of a cell as a share of its width squared."""
SMALLEST_PX = 12
VALLEY = 0.05
"""How deep, as a share of the cells' contrast, the line between two dark cells must be."""


class ClassicalSegmenter:
    """Finds cells that are brighter, or darker, than their surroundings.

    Pixels that stand out from background and noise, and reach half of the contrast of the cells around them,
    are parted at necks (and, in dark cells, at bright lines). Large cells are found on an image reduced in
    size. Polarity and width are taken from the first frame that shows cells, and kept.

    Parameters
    ----------
    channel
        The channel to look at, by index or by name.
    polarity
        Whether cells are brighter or darker than the background; ``"auto"`` looks at the tails of the histogram.
    diameter_px
        Width of a cell in px (of rods, the narrow one); None estimates it.
    threshold
        0 to 1: where an edge is drawn, as a share of the contrast of the cells around it.

    Raises
    ------
    ValueError
        Names the option and what it may be.
    """

    def __init__(
        self,
        *,
        channel: int | str = 0,
        polarity: Literal["bright", "dark", "auto"] = "auto",
        diameter_px: float | None = None,
        threshold: float = 0.5,
    ) -> None:
        if polarity not in ("bright", "dark", "auto"):
            raise ValueError(f"polarity must be 'bright', 'dark' or 'auto', got {polarity!r}")
        if diameter_px is not None and not 3 <= diameter_px <= 2000:
            raise ValueError(f"diameter_px must be 3 to 2000, got {diameter_px}")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
        if isinstance(channel, int) and channel < 0:
            raise ValueError(f"channel must be 0 or more, got {channel}")
        self.channel: int | str = channel
        self._given = (None if polarity == "auto" else polarity == "dark", diameter_px)
        self._threshold = threshold
        self.reset()

    def reset(self) -> None:
        """Forget polarity and width, but for those that were given."""
        self._dark, self._diameter = self._given

    def memory(self, frame: Frame) -> dict[str, Any]:
        """Return polarity and width; None while unknown."""
        return {"dark": self._dark, "diameter_px": self._diameter}

    def recall(self, frame: Frame, memory: Mapping[str, Any]) -> None:
        """Take over what :meth:`memory` returned."""
        self._dark, self._diameter = memory["dark"], memory["diameter_px"]

    def segment(self, frame: Frame) -> Labels:
        """Return the instance mask of the channel: int32, 1..count from top to bottom."""
        pixels = frame.channel(self.channel)
        dark = _cells_are_dark(pixels) if self._dark is None else self._dark
        diameter = self._diameter or _estimate_diameter(pixels, dark, self._threshold)
        if diameter is None:
            return Labels(np.zeros(pixels.shape, np.int32), 0)
        labels, widths = _find(pixels, dark, diameter, self._threshold)
        if widths.size:
            self._dark, self._diameter = dark, diameter
        return labels


def _cells_are_dark(pixels: Pixels) -> bool:
    """Tell dark cells on gray from bright ones on black: only the former have a tail below the background."""
    plane = ndimage.gaussian_filter(shrink(pixels.astype(np.float32), 2), 1.0)
    low, background, high = np.percentile(plane, (0.2, 25, 99.8))
    return bool(background - low > 0.2 * (high - background))


def _estimate_diameter(pixels: Pixels, dark: bool, threshold: float) -> float | None:
    """Return the width in px of the cells that make up most of the contrast, None if there are no cells."""
    diameter = float(np.clip(0.05 * min(pixels.shape), 10, 50))
    for _ in range(2):
        _, widths = _find(pixels, dark, diameter, threshold)
        if widths.size == 0:
            return None
        order = np.argsort(widths[:, 0], kind="stable")
        share = np.cumsum(widths[order, 1])
        diameter = max(float(widths[order[np.searchsorted(share, share[-1] / 2)], 0]), 3.0)
    return diameter


def _find(
    pixels: Pixels, dark: bool, diameter_px: float, threshold: float
) -> tuple[Labels, NDArray[np.float64]]:
    """Return the cells, and for each its width in px and its summed contrast, (n, 2)."""
    factor = 1 if diameter_px < 24 else 2 if diameter_px < 72 else 3
    width = diameter_px / factor
    plane = shrink(pixels.astype(np.float32), factor)
    plane = ndimage.gaussian_filter(plane, min(1.0, 0.05 * width), truncate=3)
    contrast, noise = darkness(plane, width) if dark else brightness(plane, width)
    inside = contrast > NOISE * noise
    level = cell_level(contrast, inside, width)
    inside = fill_holes(inside & (contrast > threshold * level), 0.25 * width * width)
    cores = inside
    if dark:
        cores = fill_holes(inside & (valleys(contrast, width) < VALLEY * level), 0.02 * width * width)
    image, half_widths = part(cores, width)
    if dark:
        image = grow(image, inside, max(2, int(0.15 * width)))
    kept, area, mean = _credible(image, half_widths, contrast, noise, width, dark)
    numbers = np.zeros(len(half_widths) + 1, np.int32)
    numbers[1:][kept] = np.arange(1, kept.sum() + 1)
    found = np.stack([2 * factor * half_widths[kept], (area * mean)[kept]], axis=1)
    return Labels(_full_size(numbers[image], factor, pixels.shape), int(kept.sum())), found


def _credible(
    image: NDArray[np.int32],
    half_widths: NDArray[np.float64],
    contrast: Plane,
    noise: float,
    width: float,
    dark: bool,
) -> tuple[Mask, NDArray[np.float64], NDArray[np.float64]]:
    """Return which objects are cells, not debris or haze; and area and mean contrast of all.

    A cell is large enough, stands out from the noise, and is solid: it fills the ellipse of the same second
    moments, as discs, ellipses and rods do (1.0, 1.0 and 0.95 of it) and haze, halos and cytoplasm
    do not. The weaker it is beside the others, the more so. Dark cells also share one contrast.
    """
    n = len(half_widths)
    place = np.flatnonzero(image)
    owner = image.reshape(-1)[place]
    y, x = np.divmod(place, image.shape[1])
    area = np.maximum(np.bincount(owner, minlength=n + 1)[1:], 1).astype(np.float64)

    def mean_of(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(owner, values, n + 1)[1:] / area

    dy, dx = y - mean_of(y)[owner - 1], x - mean_of(x)[owner - 1]
    yy, xx, yx = mean_of(dy * dy) + 1 / 12, mean_of(dx * dx) + 1 / 12, mean_of(dy * dx)
    solid = area / (4 * np.pi * np.sqrt(np.maximum(yy * xx - yx * yx, 1e-6)))
    mean = mean_of(contrast.reshape(-1)[place])
    kept = area >= max(SMALLEST_PX, SMALLEST * width * width)
    if kept.any():
        usual = np.average(mean[kept], weights=(area * mean)[kept])
        kept &= solid > np.where(mean < 0.2 * usual, 0.95, 0.75)
        kept &= solid * np.minimum(mean / noise / 8, 1) > 0.5
    if dark and kept.any():
        kept &= mean >= 0.5 * np.average(mean[kept], weights=(area * mean)[kept])
    return kept, area, mean


def _full_size(image: NDArray[np.int32], factor: int, shape: tuple[int, ...]) -> NDArray[np.int32]:
    if factor > 1:
        image = np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)
    return np.ascontiguousarray(image[: shape[0], : shape[1]])
