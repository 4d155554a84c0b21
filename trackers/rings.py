"""Rings: the last observations of each track, in arrays with one place for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..models.kernels import frozen

Ints = NDArray[np.int64]

_NEAR = 16
"""So many are kept a second time: a table that fits into the processor's cache, from which most windows are read."""


class Rings:
    """The last ``depth`` observations of each track; the places are given by who calls.

    Attributes
    ----------
    depth
        How many are kept.
    names
        What is kept: the names of the first frame.
    written
        (capacity,) int64, how many observations there were of each.
    """

    def __init__(self, depth: int) -> None:
        self.depth, self.names = depth, tuple[str, ...]()
        self.written = np.empty(0, np.int64)
        depths = (depth,) if depth <= _NEAR else (depth, _NEAR)
        self._values = [np.empty((0, 0, each), np.float32) for each in depths]
        self._times = [np.empty((0, each)) for each in depths]
        for ring in (np.zeros((1, 1), np.float32), np.zeros((1, 1))):  # compiled before the first frame
            _latest(frozen(ring), frozen(np.zeros(1, np.int64)), frozen(np.zeros(1, np.int64)), 1)

    def grow(self, capacity: int) -> None:
        """Make room for more tracks."""
        more = capacity - len(self.written)
        self.written = np.concatenate([self.written, np.zeros(more, np.int64)])
        self._values = [
            np.concatenate([each, np.empty((len(self.names), more, each.shape[2]), np.float32)], axis=1)
            for each in self._values
        ]
        self._times = [np.concatenate([each, np.empty((more, each.shape[1]))]) for each in self._times]

    def write(self, places: Ints, measured: Mapping[str, NDArray[np.generic]], time_s: float) -> None:
        """Add one observation at each of these places; what is missing is NaN, what is new is left out."""
        if not self.names:
            self.names = tuple(measured)
            capacity = len(self.written)
            self._values = [
                np.empty((len(self.names), capacity, each.shape[2]), np.float32) for each in self._values
            ]
        for values, times in zip(self._values, self._times, strict=True):
            at = self.written[places] % times.shape[1]
            for number, name in enumerate(self.names):
                found: Any = measured.get(name, np.float32(np.nan))
                values[number, places, at] = np.asarray(found, np.float32)
            times[places, at] = time_s
        self.written[places] += 1

    def append(self, into: int, place: int) -> None:
        """Write the observations of one place behind those of another."""
        count = int(self.written[place])
        for number in range(max(0, count - self.depth), count):
            for values, times in zip(self._values, self._times, strict=True):
                depth = times.shape[1]
                if count - number > depth:
                    continue
                at = self.written[into] % depth
                values[:, into, at] = values[:, place, number % depth]
                times[into, at] = times[place, number % depth]
            self.written[into] += 1

    def past(self, name: str, places: Ints, frames: int) -> NDArray[np.float32]:
        """Return (n, frames) float32 of the last observations, the newest last; NaN where there are none.

        Raises
        ------
        KeyError
            If nothing of this name is kept.
        ValueError
            If so many are not.
        """
        if name not in self.names:
            raise KeyError(f"nothing is called {name!r}; there are {', '.join(self.names)}")
        ring = self._values[self._ring_of(frames)][self.names.index(name)]
        return _latest(frozen(ring), frozen(self.written), frozen(places), frames)

    def past_s(self, places: Ints, frames: int) -> NDArray[np.float64]:
        """Return (n, frames) float64, the times in s of what :meth:`past` returns.

        Raises
        ------
        ValueError
            If so many are not kept.
        """
        ring = self._times[self._ring_of(frames)]
        return _latest(frozen(ring), frozen(self.written), frozen(places), frames)

    def _ring_of(self, frames: int) -> int:
        if not 1 <= frames <= self.depth:
            raise ValueError(f"frames must be 1 to {self.depth}, got {frames}")
        return -1 if frames <= _NEAR else 0


@njit(cache=True, nogil=True)
def _latest(ring: NDArray[Any], written: Ints, places: Ints, frames: int) -> NDArray[Any]:
    """Return the last observations at these places, the newest last, NaN where there are none."""
    found = np.empty((len(places), frames), ring.dtype)
    depth = ring.shape[1]
    for row in range(len(places)):
        place = places[row]
        known = min(frames, written[place])
        start = (written[place] - known) % depth
        before_wrap = min(known, depth - start)
        for number in range(frames - known):
            found[row, number] = np.nan
        for number in range(before_wrap):
            found[row, frames - known + number] = ring[place, start + number]
        for number in range(known - before_wrap):
            found[row, frames - known + before_wrap + number] = ring[place, number]
    return found
