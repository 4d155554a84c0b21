"""Segmenter for flow: few bright cells in a small frame, thousands of frames a second. One level, one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..acquire.frame import PIXEL_TYPES, Frame, Pixels
from .kernels import frozen
from .labels import Labels

_MEMORY = 1 / 32
"""Share of the newest frame in what is known of background and noise."""
_SAMPLES = 1024
_BINS = 512


class FlowSegmenter:
    """Finds what is brighter than an even background by a level, and parts cells that touch at the dark
    place between them.

    Background and noise are the median of a sample of pixels and its distance to the darkest sixth, averaged over
    the last frames; a set level makes it independent of them.

    Parameters
    ----------
    channel
        The channel to look at, by index or by name.
    level
        Counts from which on a pixel belongs to a cell; None finds it from background and noise.
    noise
        By how many standard deviations of the noise a pixel must be brighter, where ``level`` is not given.
    smallest_px
        Area in px below which what is found is no cell.
    depth
        0 to 1: how much darker than the dimmer one the place between two cells that touch must be, as a share of its
        height above the level.

    Raises
    ------
    ValueError
        Names the option and what it may be.
    """

    def __init__(
        self,
        *,
        channel: int | str = 0,
        level: float | None = None,
        noise: float = 6.0,
        smallest_px: int = 9,
        depth: float = 0.2,
    ) -> None:
        if isinstance(channel, int) and channel < 0:
            raise ValueError(f"channel must be 0 or more, got {channel}")
        if level is not None and not 0 < level < float("inf"):
            raise ValueError(f"level must be above 0, got {level}")
        if not 0 < noise < float("inf"):
            raise ValueError(f"noise must be above 0, got {noise}")
        if smallest_px < 1:
            raise ValueError(f"smallest_px must be 1 or more, got {smallest_px}")
        if not 0 < depth < 1:
            raise ValueError(f"depth must be between 0 and 1, got {depth}")
        self.channel: int | str = channel
        self._depth = depth
        self._level, self._noise, self._smallest = level, noise, smallest_px
        self.reset()
        for dtype in PIXEL_TYPES:
            self.segment(
                Frame(np.ones((4, 4), dtype)) if isinstance(channel, int) else _named(channel, dtype)
            )
        self.reset()

    def reset(self) -> None:
        """Forget background and noise."""
        self._known: tuple[float, float] | None = None

    def memory(self, frame: Frame) -> dict[str, Any]:
        """Return background and noise in counts; None while unknown."""
        return {"known": None if self._known is None else list(self._known)}

    def recall(self, frame: Frame, memory: Mapping[str, Any]) -> None:
        """Take over what :meth:`memory` returned."""
        known = memory["known"]
        self._known = None if known is None else (float(known[0]), float(known[1]))

    def segment(self, frame: Frame) -> Labels:
        """Return the instance mask of the channel: int32, 1..count from top to bottom."""
        pixels = frozen(frame.channel(self.channel))
        level = self._level if self._level is not None else self._find_level(pixels)
        image = np.empty(pixels.shape, np.int32)
        count = _label(pixels, float(level), self._smallest, self._depth, image)
        return Labels(image, int(count))

    def _find_level(self, pixels: Pixels) -> float:
        step = max(1, pixels.size // _SAMPLES) | 1  # odd, so that it does not stay in one column
        middle, noise = _background(pixels, step)
        if self._known is not None:
            before, then = self._known
            middle, noise = before + _MEMORY * (middle - before), then + _MEMORY * (noise - then)
        self._known = (middle, noise)
        return middle + self._noise * max(noise, 0.5)


def _named(channel: str, dtype: str) -> Frame:
    return Frame(np.ones((4, 4), dtype), channels=(channel,))


@njit(cache=True, nogil=True)
def _background(pixels: NDArray[Any], step: int) -> tuple[float, float]:
    """Return the median of every ``step``-th pixel and its distance to the 16th percentile."""
    flat = pixels.reshape(-1)
    sample = np.sort(flat[::step].copy())
    n = len(sample)
    middle = float(sample[n // 2])
    return middle, middle - float(sample[int(0.16 * n)])


@njit(cache=True, nogil=True)
def _root(parent: NDArray[np.int32], one: int) -> int:
    while parent[one] != one:
        parent[one] = parent[parent[one]]
        one = parent[one]
    return one


@njit(cache=True, nogil=True)
def _smooth(pixels: NDArray[Any], y: int, x: int) -> float:
    """Return the mean of a pixel and its neighbours."""
    height, width = pixels.shape
    total, n = 0.0, 0
    for row in range(max(0, y - 1), min(height, y + 2)):
        for column in range(max(0, x - 1), min(width, x + 2)):
            total += pixels[row, column]
            n += 1
    return total / n


@njit(cache=True, nogil=True)
def _order(pixels: NDArray[Any], level: float, smooth: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the places above the level, the brightest first, by counting; their brightness goes to ``smooth``."""
    height, width = pixels.shape
    places = np.empty(height * width, np.int64)
    n, highest = 0, level
    for y in range(height):
        for x in range(width):
            if pixels[y, x] > level:
                places[n] = y * width + x
                value = _smooth(pixels, y, x)
                smooth[y, x] = value
                highest = max(highest, value)
                n += 1
    step = max(highest - level, 1e-6) / (_BINS - 1)
    starts = np.zeros(_BINS + 1, np.int64)
    bins = np.empty(n, np.int64)
    for i in range(n):
        value = smooth[places[i] // width, places[i] % width]
        bins[i] = _BINS - 1 - min(max(int((value - level) / step), 0), _BINS - 1)
        starts[bins[i] + 1] += 1
    for each in range(_BINS):
        starts[each + 1] += starts[each]
    ordered = np.empty(n, np.int64)
    for i in range(n):
        ordered[starts[bins[i]]] = places[i]
        starts[bins[i]] += 1
    return ordered


@njit(cache=True, nogil=True)
def _label(pixels: NDArray[Any], level: float, smallest: int, depth: float, image: NDArray[np.int32]) -> int:
    """Number what is above the level in ``image``, from the brightest px down; return how many cells there are.

    Where two cells meet they stay two if the place is darker than the peak of the dimmer by ``depth`` of its height
    above the level. What has less than ``smallest`` px is no cell.
    """
    height, width = pixels.shape
    smooth = np.empty((height, width), np.float32)
    ordered = _order(pixels, level, smooth)
    image[:] = 0
    parent, area = np.empty(len(ordered) + 1, np.int32), np.zeros(len(ordered) + 1, np.int32)
    peak = np.zeros(len(ordered) + 1, np.float32)
    known = 0
    for place in ordered:
        y, x = place // width, place % width
        value = smooth[y, x]
        own = 0
        for row in range(max(0, y - 1), min(height, y + 2)):
            for column in range(max(0, x - 1), min(width, x + 2)):
                if image[row, column] == 0:
                    continue
                other = _root(parent, image[row, column])
                if own == 0:
                    own = other
                elif other != own:
                    one, two = (own, other) if peak[own] >= peak[other] else (other, own)
                    small = area[two] < smallest
                    if small or peak[two] - value < depth * (peak[two] - level):
                        parent[two] = one
                        area[one] += area[two]
                    own = one
        if own == 0:
            known += 1
            own = known
            parent[own], peak[own] = own, value
        image[y, x] = own
        area[own] += 1
    number = np.zeros(known + 1, np.int32)
    count = 0
    for y in range(height):
        for x in range(width):
            if image[y, x] > 0:
                root = _root(parent, image[y, x])
                if area[root] >= smallest and number[root] == 0:
                    count += 1
                    number[root] = count
                image[y, x] = number[root]
    return count
