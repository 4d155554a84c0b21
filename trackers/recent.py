"""The last frames as a table with a row for each frame: what windows over cells that were seen in all of them read.

A row lies side by side for all cells, so that a window over all of them is a few passes over whole rows. The past of a
cell that was missing in one of the frames is in its ring only (:mod:`~cytoloop.trackers.rings`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.kernels import frozen

Ints = NDArray[np.int64]

FRAMES = 16
"""So many frames are kept: most windows are no longer."""


class Recent:
    """The last frames; the places are given by who calls.

    Attributes
    ----------
    names
        What is kept: the names of the first frame.
    in_a_row
        (capacity,) int64, read-only: for how many frames each was seen without a gap, up to the last one.
    times_s
        (16,) float64, read-only, of each row of the tables; NaN where there was no frame yet.
    order
        (16,) int64, read-only: the rows of the tables, the oldest frame first.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self._tables = np.empty((0, FRAMES, 0), np.float32)
        self._times = np.full(FRAMES, math.nan)
        self._number = -1
        self.times_s, self.order = frozen(self._times), frozen(np.arange(FRAMES))
        self.in_a_row: Ints = frozen(np.empty(0, np.int64))

    def grow(self, capacity: int) -> None:
        """Make room for more tracks."""
        more = capacity - len(self.in_a_row)
        self.in_a_row = frozen(np.concatenate([self.in_a_row, np.zeros(more, np.int64)]))
        empty = np.zeros((len(self.names), FRAMES, more), np.float32)
        self._tables = np.concatenate([self._tables, empty], axis=2)

    def begin(self, places: Ints) -> None:
        """Note that other tracks begin at these places."""
        in_a_row = self.in_a_row.copy()
        in_a_row[places] = 0
        self.in_a_row = frozen(in_a_row)

    def write(self, places: Ints, measured: Mapping[str, NDArray[np.generic]], time_s: float) -> None:
        """Add a frame in which the cells at these places were seen; what is missing is NaN, what is new left out."""
        if not self.names:
            self.names = tuple(measured)
            self._tables = np.zeros((len(self.names), FRAMES, len(self.in_a_row)), np.float32)
        self._number += 1
        now = self._number % FRAMES
        self._times[now] = time_s
        self.order = frozen(np.arange(now + 1, now + 1 + FRAMES) % FRAMES)
        for table, name in zip(self._tables, self.names, strict=True):
            found: Any = measured.get(name, np.float32(np.nan))
            table[now, places] = np.asarray(found, np.float32)
        in_a_row = np.zeros_like(self.in_a_row)
        in_a_row[places] = self.in_a_row[places] + 1
        self.in_a_row = frozen(in_a_row)

    def append(self, into: int, place: int) -> None:
        """Let the observations of one place be the last ones of another."""
        self._tables[:, :, into] = self._tables[:, :, place]
        in_a_row = self.in_a_row.copy()
        in_a_row[into] = in_a_row[place]
        self.in_a_row = frozen(in_a_row)

    def table(self, name: str) -> NDArray[np.float32]:
        """Return (16, capacity) float32, read-only: a row for each frame.

        What it holds of a place further back than ``in_a_row`` says is of no meaning.

        Raises
        ------
        ValueError
            If nothing of this name is kept.
        """
        return frozen(self._tables[self.names.index(name)])
