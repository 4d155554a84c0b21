"""The ledger: what came of every decision at this microscope, counted, told in the log, and reported to the service."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable

from ..link.safeguard import Safeguard
from ..outcome import Fate, Outcome
from ..reply import Decision

_LOG = logging.getLogger("cytoloop.loop")
_TOLD_REFUSALS = 5


class Ledger:
    """Keeps account; called by the threads that carry decisions out.

    Parameters
    ----------
    safeguard
        Hands outcomes on to the service.
    now_s
        The present on the clock of the frames, in s.

    Attributes
    ----------
    counts
        How many decisions met each fate, and what else the loop counts.
    """

    def __init__(self, safeguard: Safeguard, now_s: Callable[[], float]) -> None:
        self.counts: Counter[str] = Counter()
        self._safeguard, self._now_s = safeguard, now_s
        self._counting = threading.Lock()
        self._told: Counter[tuple[str, str]] = Counter()

    def applied(self, decision: Decision) -> None:
        """The hardware did it, or the acquisition will do it with its next event."""
        self.note(decision, "applied", "")

    def dry(self, decision: Decision) -> None:
        """It would have been done, but for a dry run."""
        _LOG.info("dry run: %s asks for %s", decision.rule, decision.command)
        self.note(decision, "dry", "")

    def refused(self, decision: Decision, reason: str, fate: Fate) -> None:
        """Count, and say the first few of a kind: a rule that is wrong may be wrong for every frame."""
        name = type(decision.command).__name__
        told = self._told[decision.rule, name]
        if told < _TOLD_REFUSALS:
            self._told[decision.rule, name] += 1
            more = " (further ones are only counted)" if told + 1 == _TOLD_REFUSALS else ""
            _LOG.warning(
                "%s: %s after frame %d refused: %s%s", decision.rule, name, decision.sequence, reason, more
            )
        self.note(decision, fate, reason)

    def note(self, decision: Decision, fate: Fate, reason: str) -> None:
        """Count and report, from any thread."""
        with self._counting:
            self.counts[fate] += 1
        self._safeguard.report(
            Outcome(
                sequence=max(0, decision.sequence),
                rule=decision.rule[:256],
                track=decision.track,
                command=type(decision.command).__name__,
                fate=fate,
                age_s=self._now_s() - decision.time_s,
                reason=reason[:4096],
            )
        )
