"""Where the grey levels of a frame lie: percentiles by counting, the noise, and what single bright spots add.

All is measured on a subsample, in a time that does not depend on what the frame shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..kernels import frozen

STRIDE = 4
"""Every so many-th px along both axes is looked at; every one of small frames."""
SMALL_PX = 128
"""Subsamples are not thinned below this many px per side."""
TILES = 4
"""Parts of the frame along each axis, to tell one bright spot from many cells."""
SPOT = 3.0
"""The upper level is at most so many times as high above the lower one as in the usual part of the frame."""
SHOWS = 7.0
"""A part of the frame shows something if its upper level is so many standard deviations of the noise high."""
BINS = 256
"""Steps between the two levels in which those of the parts are measured."""
NOISE_BINS = 1 << 14
FLOAT_COUNTS = 4096
"""Counts between the two percentiles into which floats are divided."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Grey levels of one plane.

    Attributes
    ----------
    low
        The lower percentile.
    high
        The upper percentile, or less where that is due to a spot much brighter than the rest.
    noise
        Standard deviation of the pixel noise.
    """

    low: float
    high: float
    noise: float


def levels(plane: NDArray[Any], low: float, high: float) -> Levels:
    """Measure the grey levels of a plane.

    The noise is the median of a second difference along both axes, in which gradients cancel (Immerkaer 1996,
    with the median in place of the mean, so that edges do not count).

    Parameters
    ----------
    plane
        (y, x) uint8, uint16 or float; floats that are not finite are passed over.
    low, high
        Percentiles, 0 to 100.
    """
    if plane.dtype.kind != "u" or plane.dtype.itemsize > 2:
        return _levels_of_floats(plane.astype(np.float64), low, high)
    stride = max(1, min(STRIDE, min(plane.shape) // SMALL_PX))
    plane, sample = frozen(plane), frozen(plane[::stride, ::stride])
    counts = np.zeros(256 if sample.dtype.itemsize == 1 else 65536, np.int32)
    _count(sample.reshape(-1), counts)
    bottom, top = _rank(counts, low), _rank(counts, high)
    noise = _noise(plane, 2 * stride, np.zeros(NOISE_BINS, np.int32))
    return Levels(float(bottom), _without_spots(sample, float(bottom), float(top), high, noise), noise)


def _levels_of_floats(plane: NDArray[np.float64], low: float, high: float) -> Levels:
    """Bring floats to counts in which the two percentiles lie well apart, and measure those."""
    finite = plane[np.isfinite(plane)]
    if finite.size == 0:
        return Levels(0.0, 0.0, 0.0)
    bottom, top = (float(level) for level in np.percentile(finite, (low, high)))
    unit = (top - bottom) / FLOAT_COUNTS
    if unit == 0:
        return Levels(bottom, top, 0.0)
    first = bottom - FLOAT_COUNTS * unit
    counts = np.where(np.isfinite(plane), (plane - first) / unit, FLOAT_COUNTS).clip(0, 65535)
    found = levels(np.rint(counts).astype(np.uint16), low, high)
    return Levels(first + found.low * unit, first + found.high * unit, found.noise * unit)


def _without_spots(sample: NDArray[Any], bottom: float, top: float, high: float, noise: float) -> float:
    """Lower the upper level until it is in proportion to that of the usual part of the frame."""
    while top > bottom:
        step = (top - bottom) / BINS
        counts = np.zeros((TILES * TILES, BINS + 1), np.int32)
        _count_tiles(sample, bottom, step, counts)
        tops = np.array([(_rank(tile, high) + 1) * step for tile in counts if tile.any()])
        shown = tops[tops > max(SHOWS * noise, step)]
        usual = float(np.median(shown)) if shown.size else 0.0
        if usual == 0 or SPOT * usual >= top - bottom:
            break
        top = bottom + SPOT * usual
    return top


@njit(cache=True, nogil=True)
def _count(values: NDArray[Any], counts: NDArray[np.int32]) -> None:
    for value in values:
        counts[value] += 1


@njit(cache=True, nogil=True)
def _rank(counts: NDArray[np.int32], percent: float) -> int:
    """Return the smallest level that at least so many percent of what was counted do not exceed."""
    wanted = max(percent / 100 * counts.sum(), 1)
    below = 0
    for level in range(len(counts)):
        below += counts[level]
        if below >= wanted:
            return level
    return len(counts) - 1


@njit(cache=True, nogil=True)
def _count_tiles(sample: NDArray[Any], bottom: float, step: float, counts: NDArray[np.int32]) -> None:
    """Count the px of each part of the frame by steps above the lower level."""
    height, width = sample.shape
    for y in range(height):
        row = y * TILES // height * TILES
        for x in range(width):
            level = int((sample[y, x] - bottom) / step)
            counts[row + x * TILES // width, min(max(level, 0), BINS)] += 1


@njit(cache=True, nogil=True)
def _noise(plane: NDArray[Any], stride: int, counts: NDArray[np.int32]) -> float:
    """Return the standard deviation of the noise from the px at every so many-th place and those around each."""
    height, width = plane.shape
    for y in range(1, height - 1, stride):
        for x in range(1, width - 1, stride):
            corners = (
                int(plane[y - 1, x - 1]) + plane[y - 1, x + 1] + plane[y + 1, x - 1] + plane[y + 1, x + 1]
            )
            sides = int(plane[y - 1, x]) + plane[y + 1, x] + plane[y, x - 1] + plane[y, x + 1]
            difference = abs(corners - 2 * sides + 4 * int(plane[y, x]))
            counts[min(difference, len(counts) - 1)] += 1
    total = counts.sum()
    if total == 0:
        return 0.0
    # The median, with the px of one count spread evenly over it: noise of less than a count has one too.
    below = 0
    for difference in range(len(counts)):
        if below + counts[difference] >= total / 2:
            part = (total / 2 - below) / counts[difference]
            median = max(difference - 0.5 + part, 0.5 * part) if difference else 0.5 * part
            # The difference of independent px of deviation s has 6 s; the median of |normal| is 0.6745 of it.
            return median / 6 / 0.6745
        below += counts[difference]
    return 0.0
