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


class FlowSegmenter:
    """Finds what is brighter than an even background by a level, and parts it into what touches (8 neighbours).

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
    ) -> None:
        if isinstance(channel, int) and channel < 0:
            raise ValueError(f"channel must be 0 or more, got {channel}")
        if level is not None and not 0 < level < float("inf"):
            raise ValueError(f"level must be above 0, got {level}")
        if not 0 < noise < float("inf"):
            raise ValueError(f"noise must be above 0, got {noise}")
        if smallest_px < 1:
            raise ValueError(f"smallest_px must be 1 or more, got {smallest_px}")
        self.channel: int | str = channel
        self._level, self._noise, self._smallest = level, noise, smallest_px
        self.reset()
        for dtype in PIXEL_TYPES:
            self.segment(Frame(np.ones((4, 4), dtype)) if isinstance(channel, int) else _named(channel, dtype))
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
        count = _label(pixels, float(level), self._smallest, image)
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
def _label(pixels: NDArray[Any], level: float, smallest: int, image: NDArray[np.int32]) -> int:
    """Number what is above the level and at least ``smallest`` px large in ``image``; return how many there are."""
    height, width = pixels.shape
    parent = np.empty(height * width // 2 + 2, np.int32)
    area = np.zeros(len(parent), np.int32)
    known = 0
    parent[0] = 0
    for y in range(height):
        for x in range(width):
            if not pixels[y, x] > level:
                image[y, x] = 0
                continue
            own = image[y, x - 1] if x > 0 else 0
            if y > 0:
                for column in range(max(0, x - 1), min(width, x + 2)):
                    other = image[y - 1, column]
                    if other > 0 and other != own:
                        if own == 0:
                            own = other
                        else:
                            one, two = _root(parent, own), _root(parent, other)
                            parent[max(one, two)] = min(one, two)
            if own == 0:
                known += 1
                parent[known] = known
                own = known
            image[y, x] = own
            area[own] += 1
    for each in range(known, 0, -1):
        root = _root(parent, each)
        if root != each:
            area[root] += area[each]
    number = np.zeros(known + 1, np.int32)
    count = 0
    for each in range(1, known + 1):
        root = _root(parent, each)
        if root == each and area[each] >= smallest:
            count += 1
            number[each] = count
        elif root != each:
            number[each] = number[root]
    for y in range(height):
        for x in range(width):
            if image[y, x] > 0:
                image[y, x] = number[image[y, x]]
    return count
