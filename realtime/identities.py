"""Identities that are unique in a stream, whatever the number of fields of view.

Every field of view has a tracker of its own that counts from 1; decisions, replies and recordings need a
number that means one cell of the stream and no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..acquire.reply import Division
from ..trackers.tracks import Tracks


class Identities:
    """Renumbers the tracks of one field of view; remembers only those that still may be named.

    Parameters
    ----------
    numbers
        Where all fields of view of the stream draw their numbers from.
    """

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self._of: dict[int, int] = {0: 0}  # 0: no parent
        self._ended: set[int] = set()

    def __len__(self) -> int:
        return len(self._of) - 1

    def renumber(self, tracks: Tracks) -> Tracks:
        """Return the same tracks with the stream's numbers; new ones are numbered in ascending order."""
        named = {*tracks.track.tolist(), *tracks.parent.tolist(), *tracks.ended}
        for local in sorted(named - self._of.keys()):
            self._of[local] = next(self._numbers)
        renumbered = replace(
            tracks,
            track=self._all(tracks.track),
            parent=self._all(tracks.parent),
            divisions=tuple(
                Division(
                    self._of[division.mother],
                    (self._of[division.daughters[0]], self._of[division.daughters[1]]),
                )
                for division in tracks.divisions
            ),
            ended=tuple(self._of[local] for local in tracks.ended),
        )
        self._forget(tracks.ended, named_as_parent=set(tracks.parent.tolist()))
        return renumbered

    def _all(self, local: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([self._of[number] for number in local.tolist()], np.int64)

    def _forget(self, ended: Iterable[int], named_as_parent: set[int]) -> None:
        """Let go of ended tracks, a mother's only when the last daughter is out of view."""
        self._ended.update(ended)
        for local in self._ended - named_as_parent:
            self._of.pop(local, None)
            self._ended.discard(local)
