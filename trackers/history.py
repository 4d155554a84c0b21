"""What is known of each cell's past: whose daughter it is, and its measurements of late.

Memory is bounded by the cells in view, whatever the length of the run: a ring of the last observations for each track
that may go on, which is given to another when the track is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .tracks import Tracks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DEPTH = 64
"""Observations of each cell that are kept."""
_LATEST_FRAMES = 32
"""For so many frames back it is known when they were; divisions that are said later begin when they are said."""


@dataclass(frozen=True, slots=True, eq=False)
class Descent:
    """Where the n cells of a frame come from.

    Attributes
    ----------
    generation
        (n,) int64: 0 for a cell that was not seen to be born, else one more than its mother's.
    born_sequence, born_s
        (n,) int64 and float64, frame in which the track began, and its time in s.
    since_division_s
        (n,) float64, time in s since it was born by division; NaN if it was not seen to be.
    sister
        (n,) int64, identity of the other daughter, 0 if there is none.
    """

    generation: Ints
    born_sequence: Ints
    born_s: Floats
    since_division_s: Floats
    sister: Ints


class History:
    """The past of the cells of one field of view; :meth:`update` is called for each frame, in order.

    Parameters
    ----------
    depth
        How many observations of each cell are kept, at least 1.

    Raises
    ------
    ValueError
        If ``depth`` is out of its range.
    """

    def __init__(self, depth: int = DEPTH) -> None:
        if depth < 1:
            raise ValueError(f"depth must be 1 or more, got {depth}")
        self._depth = depth
        self._row_of: dict[int, int] = {}
        self._free: list[int] = []
        self._names: tuple[str, ...] = ()
        self._ring = np.empty((0, depth, 0), np.float32)
        self._written = np.empty(0, np.int64)  # observations so far
        # Of each track: generation, first frame and its time, mother, sister.
        self._descent = np.empty((0, 5))
        self._rows = np.empty(0, np.int64)
        self._time_of: dict[int, float] = {}  # of the last frames, by their sequence

    def __len__(self) -> int:
        """Return how many tracks are remembered."""
        return len(self._row_of)

    def update(self, tracks: Tracks, measured: Mapping[str, NDArray[np.generic]]) -> Descent:
        """Take in a frame.

        Parameters
        ----------
        tracks
            What the tracker says of it.
        measured
            (n,) of each row of it, by name. The names of the first frame are kept; of later ones, others are left
            out, and those that are missing are NaN.

        Returns
        -------
        Descent
            Where its cells come from.
        """
        if not self._names:
            self._names = tuple(measured)
            self._ring = np.empty((len(self._written), self._depth, len(self._names)), np.float32)
        self._time_of[tracks.detections.sequence] = tracks.detections.time_s
        if len(self._time_of) > _LATEST_FRAMES:
            del self._time_of[next(iter(self._time_of))]
        self._correct(tracks)
        known = self._row_of
        found = tracks.track.tolist()
        new = [row for row, track in enumerate(found) if track not in known]
        self._grow(len(new) - len(self._free))
        for row in new:
            known[found[row]] = self._free.pop()
        self._rows = np.array([known[track] for track in found], np.int64)
        self._begin(tracks, np.array(new, np.int64))
        at = self._written[self._rows] % self._depth
        for place, name in enumerate(self._names):
            self._ring[self._rows, at, place] = (
                np.asarray(measured[name], np.float32) if name in measured else np.nan
            )
        self._written[self._rows] += 1
        descent = self._of(tracks)
        self._forget(tracks)
        return descent

    def past(self, name: str, frames: int) -> NDArray[np.float32]:
        """Return (n, frames) float32, the last observations of the cells of the last frame, the newest last.

        NaN where a cell has not been seen so often.

        Raises
        ------
        KeyError
            If nothing of this name is measured.
        ValueError
            If so many are not kept.
        """
        if name not in self._names:
            raise KeyError(f"nothing is called {name!r}; there are {', '.join(self._names)}")
        if not 1 <= frames <= self._depth:
            raise ValueError(f"frames must be 1 to {self._depth}, got {frames}")
        back = np.arange(frames - 1, -1, -1)
        number = self._written[self._rows, np.newaxis] - 1 - back
        values = self._ring[self._rows[:, np.newaxis], number % self._depth, self._names.index(name)]
        return np.where(number >= 0, values, np.float32(np.nan))

    def _grow(self, lacking: int) -> None:
        """Make room for more tracks: twice as much at a time, so that growing is rare."""
        if lacking <= 0:
            return
        size = len(self._written)
        more = max(lacking, size, 16)
        self._ring = np.concatenate([self._ring, np.empty((more, *self._ring.shape[1:]), np.float32)])
        self._written = np.concatenate([self._written, np.zeros(more, np.int64)])
        self._descent = np.concatenate([self._descent, np.zeros((more, 5))])
        self._free += range(size + more - 1, size - 1, -1)

    def _begin(self, tracks: Tracks, new: Ints) -> None:
        """Note where new tracks come from."""
        if not len(new):
            return
        rows = self._rows[new]
        since = {each.new: each.since for each in tracks.corrections}  # of late divisions
        names, today = tracks.track[new].tolist(), tracks.detections.sequence
        born = [since[name] if since.get(name) in self._time_of else today for name in names]
        self._written[rows] = 0
        mothers = [self._row_of.get(mother, -1) for mother in tracks.parent[new].tolist()]
        mother = np.array(mothers, np.int64)
        generation = np.where(
            mother >= 0, self._descent[mother, 0] + 1, np.where(tracks.parent[new] > 0, 1, 0)
        )
        self._descent[rows] = np.column_stack(
            [
                generation,
                born,
                [self._time_of[sequence] for sequence in born],
                tracks.parent[new],
                np.zeros(len(new)),
            ]
        )
        for division in tracks.divisions:
            self._join_sisters(division.mother, division.daughters)

    def _join_sisters(self, mother: int, daughters: tuple[int, int]) -> None:
        one, other = (self._row_of.get(daughter, -1) for daughter in daughters)
        of_mother = self._row_of.get(mother, -1)
        generation = self._descent[of_mother, 0] + 1 if of_mother >= 0 else 1
        for row, sister in ((one, daughters[1]), (other, daughters[0])):
            if row >= 0:
                self._descent[row, 0], self._descent[row, 3:] = generation, (mother, sister)

    def _correct(self, tracks: Tracks) -> None:
        """Give the past of a corrected track to the one that it is."""
        for each in tracks.corrections:
            row = self._row_of.get(each.old)
            if row is None:
                continue
            if (
                each.old != each.new and each.new not in self._row_of
            ):  # a late division: the mother's past stays hers
                continue
            if each.old != each.new:  # a revoked division: the mother goes on, with what was seen since
                del self._row_of[each.old]
                self._append(self._row_of[each.new], row)
                self._free.append(row)
            elif not each.parent:
                self._descent[row, 0], self._descent[row, 3:] = 0, 0

    def _append(self, into: int, row: int) -> None:
        """Write the observations of one row behind those of another."""
        count = int(self._written[row])
        for number in range(max(0, count - self._depth), count):
            at = self._written[into] % self._depth
            self._ring[into, at] = self._ring[row, number % self._depth]
            self._written[into] += 1

    def _of(self, tracks: Tracks) -> Descent:
        own = self._descent[self._rows]
        with np.errstate(invalid="ignore"):  # times may be anything
            since = np.where(own[:, 3] > 0, tracks.detections.time_s - own[:, 2], np.nan)
        return Descent(
            generation=own[:, 0].astype(np.int64),
            born_sequence=own[:, 1].astype(np.int64),
            born_s=own[:, 2],
            since_division_s=since,
            sister=own[:, 4].astype(np.int64),
        )

    def _forget(self, tracks: Tracks) -> None:
        for each in tracks.ended:
            row = self._row_of.pop(each.track, None)
            if row is not None:
                self._free.append(row)
