"""Identities that are unique in a stream, whatever the number of fields of view.

Every field of view has a tracker of its own that counts from 1; decisions, replies and recordings need a
number that means one cell of the stream and no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..acquire.reply import Correction, Division, Merge
from ..trackers.tracks import Ended, Tracks


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
        ended = [each.track for each in tracks.ended]
        named = {*tracks.track.tolist(), *tracks.parent.tolist(), *ended}
        named |= {name for each in tracks.corrections for name in (each.old, each.new, each.parent)}
        named |= {name for each in tracks.merges for name in (each.track, *each.hidden)}
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
            ended=tuple(Ended(self._of[each.track], each.why) for each in tracks.ended),
            merges=tuple(
                Merge(self._of[each.track], tuple(self._of[hidden] for hidden in each.hidden))
                for each in tracks.merges
            ),
            corrections=tuple(
                Correction(
                    each.since, self._of[each.old], self._of[each.new], self._of[each.parent], each.reason
                )
                for each in tracks.corrections
            ),
        )
        self._forget(ended, named_as_parent=set(tracks.parent.tolist()))
        return renumbered

    def _all(self, local: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([self._of[number] for number in local.tolist()], np.int64)

    def _forget(self, ended: Iterable[int], named_as_parent: set[int]) -> None:
        """Let go of ended tracks, a mother's only when the last daughter is out of view."""
        self._ended.update(ended)
        for local in self._ended - named_as_parent:
            self._of.pop(local, None)
            self._ended.discard(local)
