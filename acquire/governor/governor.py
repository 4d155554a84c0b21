"""Governor: what stands between decisions and hardware, always.

It checks twice: in the service, where rules learn what was refused, and again at the microscope, just before the
hardware, by what the microscope itself knows of its frames. Both count on their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from ..commands import Command, Disarm, MoveStage, Revisit, Stop, Trigger
from ..reply import Correction, Decision
from .doses import Doses
from .limits import Limits
from .places import Seen, place_refusal
from .rates import Rate, StagePace
from .strength import strength_refusal


class Governor:
    """Holds the decisions of one stream against its limits.

    Rates are counted over all fields of view, because there is one microscope, in a time that never runs backwards.

    Parameters
    ----------
    limits
        May be replaced by others while it runs: what was given stays given.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._now_s = -math.inf
        self._doses = Doses()
        self._commands, self._triggers, self._stage = Rate(), Rate(), StagePace()

    def see(self, time_s: float, corrections: Iterable[Correction] = (), ended: Iterable[int] = ()) -> None:
        """Take in the present in s, and what a frame says of cells: corrected identities, tracks that have ended."""
        if math.isfinite(time_s):
            self._now_s = max(self._now_s, time_s)
        self._doses.correct(corrections, ended)

    def refusal(self, decision: Decision, seen: Seen) -> str:
        """Return why a decision must not reach the hardware, ``""`` if it may; counts nothing."""
        command = decision.command
        return (
            _numbers_refusal(decision)
            or strength_refusal(command, self.limits)
            or place_refusal(command, self.limits, seen)
            or self._doses.refusal(decision, self.limits, seen)
            or self._rate_refusal(command)
        )

    def count(self, decision: Decision, seen: Seen) -> None:
        """Count a decision that is let pass."""
        command, limits = decision.command, self.limits
        if isinstance(command, Stop | Disarm):
            return
        self._doses.give(decision, limits, seen)
        self._commands.add(limits.commands_per_s, self._now_s)
        if isinstance(command, Trigger) and limits.triggers_per_s is not None:
            self._triggers.add(limits.triggers_per_s, self._now_s)
        if isinstance(command, MoveStage | Revisit) and limits.stage_um_per_s is not None and seen.stage_um:
            target = (command.x_um, command.y_um)
            self._stage.send(target, seen.stage_um, limits.stage_um_per_s, self._now_s)

    def _rate_refusal(self, command: Command) -> str:
        limits = self.limits
        if isinstance(command, Stop | Disarm):
            return ""
        if self._commands.full(limits.commands_per_s, self._now_s):
            return f"more than {limits.commands_per_s:g} commands per second of frame time"
        pulses = limits.triggers_per_s
        if isinstance(command, Trigger) and pulses is not None and self._triggers.full(pulses, self._now_s):
            return f"more than {pulses:g} pulses per second of frame time"
        speed, busy_s = limits.stage_um_per_s, self._stage.busy_s(self._now_s)
        if isinstance(command, MoveStage | Revisit) and speed is not None and busy_s > 0:
            return f"stage_um_per_s {speed:g}: the moves before take {busy_s:.2f} s more"
        return ""


def _numbers_refusal(decision: Decision) -> str:
    named = {
        "time_s": (decision.time_s,),
        "expires_s": (decision.expires_s,),
        "at_px": decision.at_px or (),
        "covariance_px2": decision.covariance_px2 or (),
        "stage_um": decision.stage_um or (),
        "command": _floats(msgspec.structs.astuple(decision.command)),
    }
    for name, values in named.items():
        if not all(map(math.isfinite, values)):
            return f"{name} is not finite"
    if decision.expires_s < decision.time_s:
        return f"it expires at {decision.expires_s:g} s, before its frame at {decision.time_s:g} s"
    command = decision.command
    if isinstance(command, Trigger) and command.at_s > decision.expires_s:
        return f"its pulse is due at {command.at_s:g} s, after it expires at {decision.expires_s:g} s"
    return ""


def _floats(value: object) -> list[float]:
    """Return every float inside nested tuples."""
    if isinstance(value, tuple):
        return [number for item in value for number in _floats(item)]  # pyright: ignore[reportUnknownArgumentType]
    return [value] if isinstance(value, float) else []
