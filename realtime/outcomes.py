"""What came of the decisions of a run at the microscope, in figures: on time, late, refused, and why not."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..acquire.outcome import Fate, Outcome

MOST_KINDS = 50
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_IN_WORDS: Mapping[Fate, str] = {
    "applied": "carried out",
    "dry": "not carried out, because it was a dry run",
    "expired": "too late, and dropped",
    "disarmed": "not carried out, because the microscope was disarmed",
    "refused": "refused by the limits at the microscope",
    "failed": "not taken by the hardware or the acquisition",
    "replaced": "replaced by a newer one before its turn came",
}


class Missed(NamedTuple):
    """Decisions of one rule that were not carried out for one reason.

    Attributes
    ----------
    rule, fate
        Whose they are, and what came of them.
    reason
        As it was given for the first of them; the numbers in it may differ for the others.
    times
        How many.
    """

    rule: str
    fate: Fate
    reason: str
    times: int


@dataclass(frozen=True, slots=True)
class OutcomeFigures:
    """How many decisions met each fate at the microscope.

    Attributes
    ----------
    on_time
        Carried out before they expired.
    late
        Arrived after they had expired, and were dropped.
    refused
        By the limits, which are held a second time at the microscope.
    disarmed
        Not carried out, because the microscope was disarmed or in its safe state.
    dry
        Would have been carried out, but for a dry run.
    failed
        The hardware or the acquisition did not take them.
    replaced
        A newer decision took their place before their turn came.
    age_ms
        ``p50``, ``p99`` and ``max`` of the time from a frame to its decision being carried out, in ms of frame time;
        None where none was.
    missed
        Those that were not carried out, by rule and kind of reason, the most frequent first; at most 50 kinds, the
        others are in the counts only.
    """

    on_time: int = 0
    late: int = 0
    refused: int = 0
    disarmed: int = 0
    dry: int = 0
    failed: int = 0
    replaced: int = 0
    age_ms: Mapping[str, float] | None = None
    missed: tuple[Missed, ...] = ()

    @property
    def told(self) -> int:
        """Decisions of which the microscope said what came of them."""
        return sum(
            (self.on_time, self.late, self.refused, self.disarmed, self.dry, self.failed, self.replaced)
        )

    def values(self) -> dict[str, Any]:
        """Return the figures under the names that scripts read; ages are null where nothing was carried out."""
        return {
            "on_time": self.on_time,
            "late": self.late,
            "refused": self.refused,
            "disarmed": self.disarmed,
            "dry": self.dry,
            "failed": self.failed,
            "replaced": self.replaced,
            "age_ms": dict(self.age_ms or dict.fromkeys(("p50", "p99", "max"))),
            "missed": [each._asdict() for each in self.missed],
        }


class OutcomeCounter:
    """Counts outcomes one by one; memory grows by 8 bytes for each that was carried out."""

    def __init__(self) -> None:
        self._fates: Counter[Fate] = Counter()
        self._ages_ms = array("d")
        self._missed: Counter[tuple[str, Fate, str]] = Counter()
        self._reasons: dict[tuple[str, Fate, str], str] = {}

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        self._fates[outcome.fate] += 1
        if outcome.fate == "applied":
            self._ages_ms.append(1000 * outcome.age_s)
        elif outcome.fate not in ("dry", "replaced"):
            kind = (outcome.rule, outcome.fate, _NUMBER.sub("#", outcome.reason))
            if kind in self._reasons or len(self._reasons) < MOST_KINDS:
                self._reasons.setdefault(kind, outcome.reason)
                self._missed[kind] += 1

    @property
    def figures(self) -> OutcomeFigures:
        """All so far."""
        fates = self._fates
        ages = None
        if self._ages_ms:
            found = np.percentile(np.frombuffer(self._ages_ms), (50, 99, 100)).tolist()
            ages = {name: round(age, 3) for name, age in zip(("p50", "p99", "max"), found, strict=True)}
        return OutcomeFigures(
            on_time=fates["applied"],
            late=fates["expired"],
            refused=fates["refused"],
            disarmed=fates["disarmed"],
            dry=fates["dry"],
            failed=fates["failed"],
            replaced=fates["replaced"],
            age_ms=ages,
            missed=tuple(
                Missed(kind[0], kind[1], self._reasons[kind], times)
                for kind, times in self._missed.most_common()
            ),
        )


def count_outcomes(outcomes: Iterable[Outcome]) -> OutcomeFigures:
    """Return the figures of outcomes."""
    counter = OutcomeCounter()
    for outcome in outcomes:
        counter.add(outcome)
    return counter.figures


def in_words(outcome: Outcome) -> str:
    """Return what came of a decision, in words that need no explanation."""
    words = f"{_IN_WORDS[outcome.fate]}, {1000 * outcome.age_s:.0f} ms after the frame"
    return f"{words} ({outcome.reason})" if outcome.reason else words
