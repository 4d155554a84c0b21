"""What is known of each cell's past: whose daughter it is, and its measurements of late.

Memory is bounded by the cells in view, whatever the length of the run: a ring of the last observations for each track
that may go on, which is given to another when the track is over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..models.kernels import frozen
from .recent import Recent
from .rings import Rings
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
    founder
        (n,) int64, identity of the first cell of the lineage that was seen: the cell itself if it was not born.
    """

    generation: Ints
    born_sequence: Ints
    born_s: Floats
    since_division_s: Floats
    sister: Ints
    founder: Ints


class History:
    """The past of the cells of one field of view; :meth:`update` is called for each frame, in order.

    Who keeps something for each track of his own, keeps it in arrays with a place for each: ``places`` says where.

    Parameters
    ----------
    depth
        How many observations of each cell are kept, at least 1.

    Attributes
    ----------
    depth
        The same.
    names
        What is kept.
    places
        (n,) int64, read-only, the place of each cell of the last frame, below ``capacity``; a track keeps its place
        while it may go on.
    begun
        Rows of the last frame whose tracks began with it: their places may have been those of others.
    handed
        (from, to) of places: what was said of the one track is that of the other.
    recent
        The last frames as tables, by place.

    Raises
    ------
    ValueError
        If ``depth`` is out of its range.
    """

    def __init__(self, depth: int = DEPTH) -> None:
        if depth < 1:
            raise ValueError(f"depth must be 1 or more, got {depth}")
        self.depth = depth
        self.places = frozen(np.empty(0, np.int64))
        self.begun = np.empty(0, np.int64)
        self.handed: tuple[tuple[int, int], ...] = ()
        self._row_of: dict[int, int] = {}
        self._free: list[int] = []
        self._rings, self.recent = Rings(depth), Recent()
        # Of each track: generation, first frame and its time, mother, sister, founder.
        self._descent = np.empty((0, 6))
        self._time_of: dict[int, float] = {}  # of the last frames, by their sequence

    def __len__(self) -> int:
        """Return how many tracks are remembered."""
        return len(self._row_of)

    @property
    def names(self) -> tuple[str, ...]:
        """What is kept of each cell."""
        return self._rings.names

    @property
    def capacity(self) -> int:
        """How many places there are; it only grows."""
        return len(self._rings.written)

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
        self._time_of[tracks.detections.sequence] = tracks.detections.time_s
        if len(self._time_of) > _LATEST_FRAMES:
            del self._time_of[next(iter(self._time_of))]
        freed = self._correct(tracks)
        known = self._row_of
        found = tracks.track.tolist()
        new = [row for row, track in enumerate(found) if track not in known]
        self._grow(len(new) - len(self._free))
        for row in new:
            known[found[row]] = self._free.pop()
        self.places = frozen(np.array([known[track] for track in found], np.int64))
        self.begun = np.array(new, np.int64)
        self._begin(tracks, self.begun)
        self._hand_late_divisions(tracks)
        self._free += freed
        self._rings.write(self.places, measured, tracks.detections.time_s)
        self.recent.write(self.places, measured, tracks.detections.time_s)
        descent = self._of(tracks)
        self._forget(tracks)
        return descent

    def past(self, name: str, frames: int, rows: Ints | None = None) -> NDArray[np.float32]:
        """Return (n, frames) float32, the last observations of the cells of the last frame, the newest last.

        NaN where a cell has not been seen so often. Of these rows of the frame only, where some are given.

        Raises
        ------
        KeyError
            If nothing of this name is measured.
        ValueError
            If so many are not kept.
        """
        return self._rings.past(name, self._places_of(rows), frames)

    def past_s(self, frames: int, rows: Ints | None = None) -> NDArray[np.float64]:
        """Return (n, frames) float64, the times in s of the observations that :meth:`past` returns.

        Raises
        ------
        ValueError
            If so many are not kept.
        """
        return self._rings.past_s(self._places_of(rows), frames)

    def interval_s(self) -> float:
        """Return the median time between the last frames in s; NaN where their times do not say."""
        times = np.fromiter(self._time_of.values(), np.float64)
        return float(np.median(np.diff(times))) if len(times) > 1 else math.nan

    def _places_of(self, rows: Ints | None) -> Ints:
        return self.places if rows is None else self.places[rows]

    def _grow(self, lacking: int) -> None:
        """Make room for more tracks: twice as much at a time, so that growing is rare."""
        if lacking <= 0:
            return
        size = self.capacity
        more = max(lacking, size, 16)
        self._rings.grow(size + more)
        self.recent.grow(size + more)
        self._descent = np.concatenate([self._descent, np.zeros((more, 6))])
        self._free += range(size + more - 1, size - 1, -1)

    def _begin(self, tracks: Tracks, new: Ints) -> None:
        """Note where new tracks come from."""
        if not len(new):
            return
        rows = self.places[new]
        since = {each.new: each.since for each in tracks.corrections}  # of late divisions
        names, today = tracks.track[new].tolist(), tracks.detections.sequence
        born = [since[name] if since.get(name) in self._time_of else today for name in names]
        self._rings.written[rows] = 0
        self.recent.begin(rows)
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
                np.where(
                    mother >= 0, self._descent[mother, 5], _own_or(tracks.parent[new], tracks.track[new])
                ),
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
                founder = self._descent[of_mother, 5] if of_mother >= 0 else mother
                self._descent[row, 0], self._descent[row, 3:] = generation, (mother, sister, founder)

    def _correct(self, tracks: Tracks) -> list[int]:
        """Give the past of a corrected track to the one that it is; return the places that are free then."""
        freed: list[int] = []
        handed: list[tuple[int, int]] = []
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
                self._rings.append(self._row_of[each.new], row)
                self.recent.append(self._row_of[each.new], row)
                handed.append((row, self._row_of[each.new]))
                freed.append(row)
            elif not each.parent:
                self._descent[row, 0], self._descent[row, 3:] = 0, (0, 0, each.old)
        self.handed = tuple(handed)
        return freed

    def _hand_late_divisions(self, tracks: Tracks) -> None:
        """Note that what was said of a mother since she divided unseen may have been said of this daughter."""
        fresh = set(tracks.track[self.begun].tolist())
        self.handed += tuple(
            (self._row_of[each.old], self._row_of[each.new])
            for each in tracks.corrections
            if each.new in fresh and each.old != each.new and each.old in self._row_of
        )

    def _of(self, tracks: Tracks) -> Descent:
        own = self._descent[self.places]
        with np.errstate(invalid="ignore"):  # times may be anything
            since = np.where(own[:, 3] > 0, tracks.detections.time_s - own[:, 2], np.nan)
        return Descent(
            generation=own[:, 0].astype(np.int64),
            born_sequence=own[:, 1].astype(np.int64),
            born_s=own[:, 2],
            since_division_s=since,
            sister=own[:, 4].astype(np.int64),
            founder=own[:, 5].astype(np.int64),
        )

    def _forget(self, tracks: Tracks) -> None:
        for each in tracks.ended:
            row = self._row_of.pop(each.track, None)
            if row is not None:
                self._free.append(row)


def _own_or(parent: Ints, own: Ints) -> Ints:
    """Return the mother where there is one, else the cell itself."""
    return np.where(parent > 0, parent, own)
