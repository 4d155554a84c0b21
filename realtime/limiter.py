"""Limiter: every decision of every rule passes here, in the order of the frames.

One that would leave the limits keeps its place in the reply, with the reason in ``refused``, and a message says so; it
is never carried out and never dropped in silence.
"""

from __future__ import annotations

import msgspec

from ..acquire.commands import Disarm
from ..acquire.governor.governor import Governor
from ..acquire.governor.limits import Limits
from ..acquire.governor.places import Seen
from ..acquire.reply import Decision
from .rules.rule import Moment, Verdict


class Limiter:
    """Checks the decisions of one stream, in the order of its frames.

    Parameters
    ----------
    limits
        What they may ask for.
    """

    def __init__(self, limits: Limits) -> None:
        self._governor = Governor(limits)

    def check(
        self,
        moment: Moment,
        decisions: tuple[Decision, ...],
        origin_um: tuple[float, float] | None,
        *,
        disarmed: bool = False,
    ) -> Verdict:
        """Return the decisions, those outside the limits with ``refused`` filled, and a message for each.

        Parameters
        ----------
        moment
            The frame that the decisions rest on.
        decisions
            What the rules want.
        origin_um
            (x, y) of the stage in um in the first frame of this field of view, or None if unknown.
        disarmed
            Refuse all but a ``Disarm``, without messages.
        """
        frame, tracks = moment.frame, moment.tracks
        seen = Seen(
            frame.time_s,
            frame.stage_um,
            tracks.detections.shape,
            moment.affine,
            origin_um,
            moment.uncalibrated,
        )
        self._governor.see(frame.time_s, tracks.corrections, (each.track for each in tracks.ended))
        checked: list[Decision] = []
        messages: list[str] = []
        for decision in decisions:
            try:
                # The types of a plugin's decision are as unchecked as its numbers.
                decision = msgspec.convert(msgspec.to_builtins(decision), Decision)
                reason = decision.refused or self._governor.refusal(decision, seen)
            except (msgspec.ValidationError, TypeError, ValueError, OverflowError) as error:
                messages.append(f"a malformed decision was dropped: {type(error).__name__}: {error}")
                continue
            if reason:
                kind = type(decision.command).__name__
                messages.append(f"limits: {kind} of rule {decision.rule!r} refused: {reason}")
            elif disarmed and not isinstance(decision.command, Disarm):
                reason = "disarmed"
            else:
                self._governor.count(decision, seen)
            checked.append(msgspec.structs.replace(decision, refused=reason) if reason else decision)
        return Verdict(tuple(checked), tuple(messages))
