"""Lineage: whose identity each cell of a run has in the end, and whose daughter it is, after all corrections."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..acquire.reply import Correction, Division
from .spans import Spans, cut, joined

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Lineage:
    """The tracks of one field of view, as they are after the run; frames are counted 0, 1, ... within it.

    Attributes
    ----------
    sequences
        Sequence number of each frame, ascending.
    spans
        (first, last) frame of each unbroken part of each track, in order; between two of them is a gap.
    parents
        The mother of each track that was born by division. She ends before her daughter begins.
    divisions
        By frame: the mothers whose first daughter appears in it. A mother of whom one daughter is left has a
        daughter, but did not divide.
    refused
        Corrections that would give two cells of a frame one identity; they were left out.
    """

    sequences: tuple[int, ...]
    spans: Mapping[int, Spans]
    parents: Mapping[int, int]
    divisions: Mapping[int, tuple[Division, ...]]
    refused: tuple[Correction, ...]
    _renamed: Mapping[int, Mapping[int, int]]

    def frame_of(self, sequence: int) -> int:
        """Return which frame has a sequence number.

        Raises
        ------
        KeyError
            If none has.
        """
        frame = bisect_left(self.sequences, sequence)
        if frame == len(self.sequences) or self.sequences[frame] != sequence:
            raise KeyError(f"no frame of this field of view has the sequence number {sequence}")
        return frame

    def corrected(self, frame: int, track: Ints) -> Ints:
        """Return the identities that the cells of a frame have in the end.

        Parameters
        ----------
        frame
            Which frame of the field of view.
        track
            (n,) as the tracker said in this frame.
        """
        names = self._renamed.get(frame)
        return np.array([names.get(t, t) for t in track.tolist()], np.int64) if names else track

    def ages(self, frame: int, track: Ints) -> Ints:
        """Return for how many frames each track (n,) of a frame has been there (0 in its first)."""
        return np.array([frame - self.spans[t][0][0] for t in track.tolist()], np.int64)

    def parents_of(self, track: Ints) -> Ints:
        """Return the mother of each track (n,), 0 for those without."""
        return np.array([self.parents.get(t, 0) for t in track.tolist()], np.int64)


class LineageBuilder:
    """Takes what a tracker said of one field of view, frame by frame; memory grows with tracks and frames."""

    def __init__(self) -> None:
        self._sequences: list[int] = []
        self._spans: dict[int, Spans] = {}
        self._born: dict[int, tuple[int, int]] = {}  # daughter: its mother, and the frame since which she is
        self._daughters: dict[int, set[int]] = {}  # every track that ever was a daughter of this one
        self._renamed: dict[int, dict[int, int]] = {}
        self._refused: list[Correction] = []

    def add(
        self,
        sequence: int,
        track: Ints,
        divisions: Iterable[Division] = (),
        corrections: Iterable[Correction] = (),
    ) -> None:
        """Take the next frame.

        Parameters
        ----------
        sequence
            Its sequence number, above that of the frame before.
        track
            (n,) identities of its cells.
        divisions
            Those of this frame.
        corrections
            What holds instead in the frames before this one. Those of one frame hold together: two tracks may
            change places.
        """
        if self._sequences and sequence <= self._sequences[-1]:
            raise ValueError(f"frame {sequence} does not come after frame {self._sequences[-1]}")
        self._correct(tuple(corrections))
        frame = len(self._sequences)
        self._sequences.append(sequence)
        for number in track.tolist():
            spans = self._spans.setdefault(number, [])
            if spans and spans[-1][1] >= frame - 1:
                spans[-1] = (spans[-1][0], frame)
            else:
                spans.append((frame, frame))
        for division in divisions:
            for daughter in map(int, division.daughters):
                self._give_birth(daughter, int(division.mother), frame)

    def build(self) -> Lineage:
        """Return what holds after the last frame."""
        spans = {track: parts for track, parts in self._spans.items() if parts}
        parents = {
            daughter: mother
            for daughter, (mother, _) in self._born.items()
            # A mother that outlives the birth did not divide then; one without cells is none.
            if daughter in spans and mother in spans and spans[mother][-1][1] < spans[daughter][0][0]
        }
        born: dict[int, list[int]] = {}
        for daughter in sorted(parents):
            born.setdefault(parents[daughter], []).append(daughter)
        divisions: dict[int, tuple[Division, ...]] = {}
        for mother, daughters in born.items():
            if len(daughters) >= 2:
                frame = min(spans[daughter][0][0] for daughter in daughters)
                division = Division(mother, (daughters[0], daughters[1]))
                divisions[frame] = (*divisions.get(frame, ()), division)
        return Lineage(
            tuple(self._sequences), spans, parents, divisions, tuple(self._refused), dict(self._renamed)
        )

    def _give_birth(self, daughter: int, mother: int, frame: int) -> None:
        """Note whose daughter a track is since a frame; a mother of 0 says that it is nobody's."""
        if not mother:
            self._born.pop(daughter, None)
            return
        before = self._born.get(daughter)
        if before is not None and before[0] == mother:
            return
        self._born[daughter] = (mother, frame)
        self._daughters.setdefault(mother, set()).add(daughter)

    def _correct(self, corrections: tuple[Correction, ...]) -> None:
        moved = self._move(corrections)
        if moved is None:
            self._refused += corrections
            return
        for frame, names in moved.items():
            said = self._renamed.get(frame, {})
            kept = {was: names.get(now, now) for was, now in said.items()}
            self._renamed[frame] = {was: now for was, now in names.items() if was not in said} | kept
        self._move_daughters([each for each in corrections if each.old != each.new])
        for each in corrections:
            self._give_birth(each.new, each.parent, self._first_since(each))

    def _move(self, corrections: tuple[Correction, ...]) -> dict[int, dict[int, int]] | None:
        """Give the cells of old identities their new ones; return these by frame, or None if they collide.

        Nothing is changed if they collide. Of two corrections of one identity the later one takes its frames
        first.
        """
        renames = sorted((each for each in corrections if each.old != each.new), key=lambda each: -each.since)
        left: dict[int, Spans] = {}
        taken: list[tuple[Correction, Spans]] = []
        for each in renames:
            spans = left.get(each.old, self._spans.get(each.old, []))
            left[each.old], gone = cut(spans, self._first_since(each))
            taken.append((each, gone))
        names: dict[int, dict[int, int]] = {}
        for each, gone in taken:
            whole = joined(left.get(each.new, self._spans.get(each.new, [])), gone)
            if whole is None:
                return None
            left[each.new] = whole
            for first, last in gone:
                for frame in range(first, last + 1):
                    names.setdefault(frame, {})[each.old] = each.new
        self._spans |= left
        return names

    def _move_daughters(self, renames: list[Correction]) -> None:
        """Let the daughters that an old identity got since then be those of the new one."""
        moved: dict[int, tuple[int, int]] = {}
        for each in renames:
            first = self._first_since(each)
            for daughter in self._daughters.get(each.old, ()):
                mother, since = self._born.get(daughter, (0, 0))
                if mother == each.old and since > first and daughter != each.new:
                    moved[daughter] = (each.new, since)
        self._born |= moved
        for daughter, (mother, _) in moved.items():
            self._daughters.setdefault(mother, set()).add(daughter)

    def _first_since(self, correction: Correction) -> int:
        return bisect_left(self._sequences, correction.since)
