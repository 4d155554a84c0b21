"""The gate: every decision passes here, or does not, just before the hardware.

It trusts nothing that the service says of a decision: time, place and size of the frame are those that were sent from
here, and the limits are held a second time, on the microscope's own account.
"""

from __future__ import annotations

from typing import NamedTuple

from ..commands import Stop
from ..coordinates import Affine
from ..governor.governor import Governor
from ..governor.limits import Limits
from ..link.safeguard import Safeguard
from ..outcome import Fate
from ..reply import Decision
from .outgoing import Outgoing


class Verdict(NamedTuple):
    """What shall become of a decision: a fate and its reason, or None: it may be carried out."""

    fate: Fate | None = None
    reason: str = ""


class Gate:
    """Judges decisions; called by the thread that carries them out.

    Parameters
    ----------
    safeguard
        Standing and terms.
    outgoing
        Knows the frames, and the time.
    limits
        Of this microscope, held besides those of the service; None: only those of the service.
    """

    def __init__(self, safeguard: Safeguard, outgoing: Outgoing, limits: Limits | None = None) -> None:
        self._safeguard, self._outgoing = safeguard, outgoing
        self._governors = [] if limits is None else [Governor(limits)]
        self._of_service: Governor | None = None

    def closed(self) -> str:
        """Return why nothing may reach the hardware now, or ``""``."""
        safety = self._safeguard.safety
        if self._safeguard.safe:
            return "the service is silent: the microscope is in its safe state"
        return "" if safety.standing == "armed" else f"{safety.standing}: {safety.why}"

    def judge(self, decision: Decision, *, again: bool = False) -> Verdict:
        """Return what shall become of a decision; one that may be carried out counts for the limits.

        Parameters
        ----------
        decision
            Any but a ``Disarm``.
        again
            It has passed before, and has waited since.
        """
        now_s, standing = self._outgoing.now_s(), self._safeguard.safety.standing
        if now_s > decision.expires_s:
            return Verdict("expired", f"stale by {now_s - decision.expires_s:.3f} s")
        if self._safeguard.safe or standing == "disarmed":
            return Verdict("disarmed", self.closed())
        if not again and (reason := self._refusal(decision, now_s, count=standing == "armed")):
            return Verdict("refused", reason)
        return Verdict("dry") if standing == "dry" else Verdict()

    def _refusal(self, decision: Decision, now_s: float, *, count: bool) -> str:
        terms = self._safeguard.terms
        if terms is not None:
            self._of_service = self._of_service or Governor(terms.limits)
            self._of_service.limits = terms.limits  # a service that was started again may have others
        governors = [*self._governors, *([self._of_service] if self._of_service else [])]
        if isinstance(decision.command, Stop):
            return ""
        seen = self._outgoing.seen(decision.sequence)
        if seen is None:
            return _unknown(decision)
        if decision.time_s != seen.time_s:
            return f"it is of {decision.time_s:g} s, frame {decision.sequence} of {seen.time_s:g} s"
        if terms is not None:
            affine = seen.affine if terms.affine is None else Affine(*terms.affine)
            seen = seen._replace(affine=affine, uncalibrated=terms.uncalibrated)
        for governor in governors:
            governor.see(now_s)
            if reason := governor.refusal(decision, seen):
                return f"limits: {reason}"
        for governor in governors if count else ():
            governor.count(decision, seen)
        return ""


def _unknown(decision: Decision) -> str:
    return f"frame {decision.sequence} is not known here, or too long ago"
