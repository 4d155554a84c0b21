"""Outcome: what came of a decision at the microscope."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

Fate: TypeAlias = Literal["applied", "dry", "expired", "disarmed", "refused", "failed", "replaced"]


class Outcome(msgspec.Struct, frozen=True):
    """What came of one decision.

    Attributes
    ----------
    sequence, rule, track, command
        The frame it rested on, the rule that made it, the cell it was about (0: none), and the kind of command.
    fate
        ``applied``: the hardware did it. ``dry``: it would have, but for a dry run. ``expired``: it came too late.
        ``disarmed``: the microscope was disarmed. ``refused``: the limits at the microscope. ``failed``: the hardware
        or the acquisition did not take it. ``replaced``: a newer one took its place before its turn came.
    age_s
        How long after the frame that was, in s of frame time.
    reason
        Why it was not applied; ``""`` if it was.
    """

    sequence: Annotated[int, msgspec.Meta(ge=0)]
    rule: Annotated[str, msgspec.Meta(max_length=256)]
    track: int
    command: Annotated[str, msgspec.Meta(max_length=64)]
    fate: Fate
    age_s: float
    reason: Annotated[str, msgspec.Meta(max_length=4096)] = ""
