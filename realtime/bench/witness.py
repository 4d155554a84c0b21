"""A witness at the actuator: sees what reaches it and when, and judges it afterwards by the clock on the wall.

It knows nothing of the code that guards the hardware: the limits are stated here once more.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from ...acquire.commands import Stimulate, Trigger
from ...acquire.reply import Decision
from .safety_rules import BOX_UM, COMMANDS_PER_S, DOSE_MS, GOOD_FOR_S, LENGTH_MAX_MS, POWER_MAX, PULSES

_SLACK_S = 0.05
"""Between a decision's last check and the actuator a busy computer may lose this much."""
_RATE_SLACK = 1.3
"""Commands that were let pass within a second arrive within a little less than one."""


class State(NamedTuple):
    """How the microscope was found after a frame: monotonic s, (x, y) of the stage in um, whether the light burnt."""

    at_s: float
    stage_um: tuple[float, float]
    light: bool


class Reached(NamedTuple):
    """A decision that reached the actuator, at a monotonic time in s."""

    at_s: float
    decision: Decision


@dataclass(slots=True)
class Forbidden:
    """A time in which nothing may reach the actuator, in monotonic s; ``dark``: nor may the light burn."""

    what: str
    begin_s: float
    end_s: float = float("inf")
    dark: bool = False


@dataclass(slots=True)
class Witness:
    """An actuator that does nothing but remember.

    Attributes
    ----------
    reached
        All that reached it.
    seen_s
        When each frame was taken, by its number, in monotonic s.
    states
        How the microscope was found after each frame.
    forbidden
        When nothing may reach it.
    size_px
        Of the images, which are square.
    """

    size_px: int
    commands: tuple[type, ...] = (Stimulate, Trigger)
    reached: list[Reached] = field(default_factory=list[Reached])
    seen_s: dict[int, float] = field(default_factory=dict[int, float])
    states: list[State] = field(default_factory=list[State])
    forbidden: list[Forbidden] = field(default_factory=list[Forbidden])
    falls: list[float] = field(default_factory=list[float])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def actuate(self, decision: Decision) -> None:
        """Remember."""
        with self._lock:
            self.reached.append(Reached(time.monotonic(), decision))

    def fall(self) -> None:
        """Remember when it was told to be safe."""
        self.falls.append(time.monotonic())

    def close(self) -> None:
        """Do nothing."""

    def unsafe(self) -> Counter[str]:
        """Return how many commands should not have reached the actuator, by why."""
        found: Counter[str] = Counter()
        for at_s, decision in self.reached:
            seen_s = self.seen_s.get(decision.sequence)
            if seen_s is None:
                found["about no frame"] += 1
            elif at_s > seen_s + GOOD_FOR_S + _SLACK_S:
                found["late"] += 1
            for each in self.forbidden:
                if each.begin_s + _SLACK_S < at_s < each.end_s:
                    found[each.what] += 1
            found["beyond a limit"] += self._beyond(decision)
        lights = [each.decision.command for each in self.reached]
        dose = sum(each.power * each.duration_ms for each in lights if isinstance(each, Stimulate))
        pulses = sum(isinstance(each, Trigger) for each in lights)
        found["beyond the dose"] += dose > DOSE_MS + 1e-6
        found["too many pulses"] += max(0, pulses - PULSES)
        found["too fast"] += self._too_fast()
        found["stage outside its box"] += sum(
            max(map(abs, state.stage_um)) > BOX_UM + 1e-6 for state in self.states
        )
        for each in self.forbidden:
            inside = [
                state for state in self.states if each.begin_s + _SLACK_S < state.at_s < each.end_s - _SLACK_S
            ]
            found[f"stage moved, {each.what}"] += sum(
                one.stage_um != other.stage_um for one, other in pairwise(inside)
            )
            found[f"light on, {each.what}"] += sum(state.light for state in inside) * each.dark
        return +found

    def _beyond(self, decision: Decision) -> bool:
        command = decision.command
        if not isinstance(command, Stimulate):
            return False
        inside = all(-0.5 <= at <= self.size_px - 0.5 for point in command.points_px for at in point)
        return not (0 <= command.power <= POWER_MAX and 0 <= command.duration_ms <= LENGTH_MAX_MS and inside)

    def _too_fast(self) -> int:
        times = sorted(each.at_s for each in self.reached)
        most = int(COMMANDS_PER_S * _RATE_SLACK)
        return sum(later - earlier < 1.0 for earlier, later in pairwise(times[::most]))
