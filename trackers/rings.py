"""Rings: the last observations of each track, in arrays with one place for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..models.kernels import frozen

Ints = NDArray[np.int64]


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
        self._values = np.empty((0, 0, depth), np.float32)
        self._times = np.empty((0, depth))
        for ring in (np.zeros((1, 1), np.float32), np.zeros((1, 1))):  # compiled before the first frame
            _latest(frozen(ring), frozen(np.zeros(1, np.int64)), frozen(np.zeros(1, np.int64)), 1)

    def grow(self, capacity: int) -> None:
        """Make room for more tracks."""
        more = capacity - len(self.written)
        self.written = np.concatenate([self.written, np.zeros(more, np.int64)])
        empty = np.empty((len(self.names), more, self.depth), np.float32)
        self._values = np.concatenate([self._values, empty], axis=1)
        self._times = np.concatenate([self._times, np.empty((more, self.depth))])

    def write(self, places: Ints, measured: Mapping[str, NDArray[np.generic]], time_s: float) -> None:
        """Add one observation at each of these places; what is missing is NaN, what is new is left out."""
        if not self.names:
            self.names = tuple(measured)
            self._values = np.empty((len(self.names), len(self.written), self.depth), np.float32)
        at = self.written[places] % self.depth
        for values, name in zip(self._values, self.names, strict=True):
            found: Any = measured.get(name, np.float32(np.nan))
            values[places, at] = np.asarray(found, np.float32)
        self._times[places, at] = time_s
        self.written[places] += 1

    def append(self, into: int, place: int) -> None:
        """Write the observations of one place behind those of another."""
        count = int(self.written[place])
        for number in range(max(0, count - self.depth), count):
            at = self.written[into] % self.depth
            self._values[:, into, at] = self._values[:, place, number % self.depth]
            self._times[into, at] = self._times[place, number % self.depth]
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
        self._check(frames)
        ring = self._values[self.names.index(name)]
        return _latest(frozen(ring), frozen(self.written), frozen(places), frames)

    def past_s(self, places: Ints, frames: int) -> NDArray[np.float64]:
        """Return (n, frames) float64, the times in s of what :meth:`past` returns.

        Raises
        ------
        ValueError
            If so many are not kept.
        """
        self._check(frames)
        return _latest(frozen(self._times), frozen(self.written), frozen(places), frames)

    def _check(self, frames: int) -> None:
        if not 1 <= frames <= self.depth:
            raise ValueError(f"frames must be 1 to {self.depth}, got {frames}")


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
