"""Where two sets of rules decide differently: which cells, when, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ...acquire.explanation import Explanation
from ..asking import Judged


@dataclass(slots=True)
class Difference:
    """One cell about which one set of rules decides in a frame in which the other does not.

    Attributes
    ----------
    track
        The cell, 0 if the whole frame is meant.
    first_only, second_only
        The frames in which only the first, or only the second, decides about it.
    both
        In how many frames both do.
    sequence, time_s
        The first frame in which they differ.
    why_first, why_second
        What the rules of both say in that frame.
    """

    track: int
    sequence: int
    time_s: float
    why_first: tuple[Explanation, ...]
    why_second: tuple[Explanation, ...]
    first_only: list[int] = field(default_factory=list[int])
    second_only: list[int] = field(default_factory=list[int])
    both: int = 0

    @property
    def kind(self) -> str:
        """``first`` or ``second`` if only one of them ever decides about the cell, ``when`` if both do."""
        if self.both or (self.first_only and self.second_only):
            return "when"
        return "first" if self.first_only else "second"


class Comparison:
    """Compares two sets of rules, frame by frame.

    Parameters
    ----------
    first, second
        Names of the files; ``""`` is what is armed.

    Attributes
    ----------
    cells
        The cells about which they differ, in the order in which that was seen.
    fired
        Cells about which the first, and the second, ever decided.
    """

    def __init__(self, first: str, second: str) -> None:
        self.first, self.second = first, second
        self.cells: dict[int, Difference] = {}
        self.fired: tuple[set[int], set[int]] = (set(), set())
        self._agreed_of: Counter[int] = Counter()

    @property
    def agreed(self) -> int:
        """Decisions in which both agree: cell and frame are the same."""
        return self._agreed_of.total()

    def add(self, judged: Judged) -> None:
        """Take in one frame, before the next one is judged."""
        one, two = ({each.track for each in judged.decisions[name]} for name in (self.first, self.second))
        self.fired[0].update(one)
        self.fired[1].update(two)
        for track in one & two:
            self._agreed_of[track] += 1
            if track in self.cells:
                self.cells[track].both += 1
        for track in sorted(one ^ two):
            cell = self._cell(judged, track)
            (cell.first_only if track in one else cell.second_only).append(judged.moment.frame.sequence)

    def _cell(self, judged: Judged, track: int) -> Difference:
        if track not in self.cells:
            frame = judged.moment.frame
            first, second = (judged.explain(track, name) for name in (self.first, self.second))
            self.cells[track] = Difference(
                track, frame.sequence, frame.time_s, first, second, both=self._agreed_of[track]
            )
        return self.cells[track]
