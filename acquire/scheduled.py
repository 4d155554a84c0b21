"""Scheduled triggers: taken ahead of time, and carried out to a fraction of a millisecond by a thread of their own."""

from __future__ import annotations

import contextlib
import heapq
import logging
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import NamedTuple, Protocol, runtime_checkable

from msgspec.structs import replace

from .commands import Trigger
from .errors import ActuatorError
from .outcome import Fate
from .reply import Decision

_LOG = logging.getLogger("cytoloop.loop")
_HELD_S = 0.1e-3
"""For so long before its time the thread holds the interpreter, so that no other makes it late."""
_TOLD = 5


class Overseer(NamedTuple):
    """Who hands triggers over.

    Attributes
    ----------
    closed
        Returns why nothing may be fired at this moment (the microscope was disarmed meanwhile), or ``""``.
    told
        Called once for each trigger that was taken, with what came of it and why it was not applied; perhaps from
        another thread.
    """

    closed: Callable[[], str]
    told: Callable[[Decision, Fate, str], None]


class _Waiting(NamedTuple):
    """A trigger that waits for its time, on the monotonic clock; the number keeps the order."""

    start_s: float
    number: int
    decision: Decision
    command: Trigger
    overseer: Overseer | None

    def tell(self, fate: Fate, reason: str = "") -> None:
        """Say what came of it."""
        if self.overseer is not None:
            self.overseer.told(self.decision, fate, reason)


@runtime_checkable
class Scheduling(Protocol):
    """An actuator that takes triggers ahead; steering hands them over at once, with the time of the frame clock."""

    commands: tuple[type, ...]

    def schedule(self, decision: Decision, now_s: float, overseer: Overseer | None = None) -> None:
        """Take a trigger for ``decision.command.at_s``; ``now_s`` is the present on the same clock.

        The overseer is asked just before it is fired, and told what came of it.
        """
        ...

    def drop(self, reason: str) -> int:
        """Forget all triggers that wait, say why, and return how many they were."""
        ...


class ScheduledTrigger:
    """Fires triggers at their time less the lead that the output needs.

    Pulses of one output that overlap become one, from the first start to the last end. A trigger that is late by more
    than ``late_ms`` is refused: a gate that opens late takes another cell.

    Parameters
    ----------
    fire
        Carries out one trigger, such as ``CoreActuator.actuate``; called by the thread. If it takes as long as the
        pulse, outputs whose pulses may overlap need one of these each.
    now_s
        The present on the clock of the frames, for :meth:`actuate`; steering gives its own to :meth:`schedule`.
    lead_ms
        From the call of ``fire`` to the effect at the output, in ms.
    late_ms
        How late a trigger may be fired, in ms.
    spin_ms
        How long before its time the thread stays awake, in ms: more is surer on a busy computer, and busier.
    urgent
        Ask the operating system to run the thread before all ordinary ones (Linux, where the user may).
    most_waiting
        Triggers that may wait; more are refused.
    release
        Called once at the end, such as ``CoreActuator.close``.

    Attributes
    ----------
    counts
        ``taken``, ``fired``, ``late``, ``failed``, ``dropped``; ``merged`` ones are part of ``fired``.
    worst_late_ms
        The latest start of a pulse beside its time, in ms.

    Raises
    ------
    ValueError
        Names the option and what it may be.
    """

    commands: tuple[type, ...] = (Trigger,)

    def __init__(
        self,
        fire: Callable[[Decision], None],
        *,
        now_s: Callable[[], float] | None = None,
        lead_ms: float = 0.0,
        late_ms: float = 0.5,
        spin_ms: float = 0.5,
        urgent: bool = False,
        most_waiting: int = 1000,
        release: Callable[[], None] | None = None,
    ) -> None:
        if not 0 <= lead_ms < math.inf:
            raise ValueError(f"lead_ms must be >= 0, got {lead_ms}")
        if not 0 <= late_ms < math.inf:
            raise ValueError(f"late_ms must be >= 0, got {late_ms}")
        if not 0 <= spin_ms <= 100:
            raise ValueError(f"spin_ms must be 0 to 100, got {spin_ms}")
        if most_waiting < 1:
            raise ValueError(f"most_waiting must be 1 or more, got {most_waiting}")
        self.counts: Counter[str] = Counter()
        self.worst_late_ms = 0.0
        self._fire, self._now_s, self._release = fire, now_s, release
        self._lead_s, self._late_s, self._spin_s = lead_ms / 1000, late_ms / 1000, spin_ms / 1000
        self._most, self._urgent = most_waiting, urgent
        self._waiting: list[_Waiting] = []
        self._numbers = count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="cytoloop triggers", daemon=True)
        self._thread.start()

    def actuate(self, decision: Decision) -> None:
        """Take a trigger, by the clock that was given.

        Raises
        ------
        ActuatorError
            As :meth:`schedule`, or if no clock was given.
        """
        if self._now_s is None:
            raise ActuatorError("a trigger cannot be scheduled: no clock now_s was given")
        self.schedule(decision, self._now_s())

    def schedule(self, decision: Decision, now_s: float, overseer: Overseer | None = None) -> None:
        """Take a trigger for its time; returns at once.

        Parameters
        ----------
        decision
            With a ``Trigger``.
        now_s
            The present in s on the clock of its time.
        overseer
            Asked just before it is fired, and told what came of it.

        Raises
        ------
        ActuatorError
            If it is another command, its time is over or not finite, too many wait, or it is closed.
        """
        command = decision.command
        if not isinstance(command, Trigger):
            raise ActuatorError(f"{type(command).__name__} is not for ScheduledTrigger")
        early_s = command.at_s - self._lead_s - now_s
        if not (math.isfinite(early_s) and 0 < command.width_ms < math.inf):
            raise ActuatorError(
                f"trigger at {command.at_s} s for {command.width_ms} ms: must be finite, the width above 0"
            )
        if early_s < -self._late_s:
            self.counts["late"] += 1
            raise ActuatorError(f"trigger is late by {-1000 * early_s:.2f} ms")
        start_s = time.monotonic() + early_s
        with self._changed:
            if self._closed:
                raise ActuatorError("the triggers are closed")
            if len(self._waiting) >= self._most:
                self.counts["dropped"] += 1
                raise ActuatorError(f"{self._most} triggers wait already")
            waiting = _Waiting(start_s, next(self._numbers), decision, command, overseer)
            heapq.heappush(self._waiting, waiting)
            self.counts["taken"] += 1
            self._changed.notify()

    def drop(self, reason: str) -> int:
        """Forget all triggers that wait, say why, and return how many they were."""
        with self._changed:
            dropped, self._waiting = self._waiting, []
            self.counts["dropped"] += len(dropped)
            self._changed.notify()
        for each in dropped:
            each.tell("failed", reason)
        if dropped:
            _LOG.warning("%d scheduled trigger(s) dropped: %s", len(dropped), reason)
        return len(dropped)

    def close(self) -> None:
        """Drop what waits, end the thread, release the output."""
        with self._changed:
            self._closed = True
        self.drop("closed")
        self._thread.join()
        if self._release is not None:
            self._release()

    def _work(self) -> None:
        if self._urgent:
            with contextlib.suppress(OSError, AttributeError):  # not everywhere, and not for everybody
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        while True:
            due = self._next_due()
            if due is None:
                return
            while (left_s := due[0].start_s - time.monotonic()) > 0:  # what sleeping would miss
                if left_s > _HELD_S:
                    time.sleep(0)
            self._pulse(due)

    def _next_due(self) -> list[_Waiting] | None:
        """Wait until the next trigger is nearly due; return it with those that overlap it, None at the end."""
        with self._changed:
            while not self._closed:
                if not self._waiting:
                    self._changed.wait()
                    continue
                wait_s = self._waiting[0].start_s - time.monotonic() - self._spin_s
                if wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
                return self._overlapping()
        return None

    def _overlapping(self) -> list[_Waiting]:
        """Take the first trigger, and all of its output that begin before the pulse ends."""
        first = heapq.heappop(self._waiting)
        taken, end_s = [first], first.start_s + first.command.width_ms / 1000
        others: list[_Waiting] = []
        while self._waiting and self._waiting[0].start_s <= end_s:
            each = heapq.heappop(self._waiting)
            if each.command.output == first.command.output:
                end_s = max(end_s, each.start_s + each.command.width_ms / 1000)
                taken.append(each)
            else:
                others.append(each)
        for each in others:
            heapq.heappush(self._waiting, each)
        return taken

    def _pulse(self, taken: list[_Waiting]) -> None:
        """Fire one pulse for triggers that overlap, from the first start to the last end."""
        first, start_s = taken[0], taken[0].start_s
        late_s = time.monotonic() - start_s
        if late_s > self._late_s:
            self._refuse("late", "expired", f"late by {1000 * late_s:.2f} ms", taken)
            return
        if first.overseer is not None and (reason := first.overseer.closed()):
            self._refuse("failed", "disarmed", reason, taken)
            return
        self.worst_late_ms = max(self.worst_late_ms, 1000 * late_s)
        decision = first.decision
        if len(taken) > 1:
            end_s = max(each.start_s + each.command.width_ms / 1000 for each in taken)
            decision = replace(decision, command=replace(first.command, width_ms=1000 * (end_s - start_s)))
        try:
            self._fire(decision)
        except Exception as error:  # an output is anyone's code, and the next cell must still be sorted
            self._refuse("failed", "failed", f"{type(error).__name__}: {error}", taken)
            return
        self.counts["fired"] += len(taken)
        self.counts["merged"] += len(taken) - 1
        for each in taken:
            each.tell("applied")

    def _refuse(self, kind: str, fate: Fate, reason: str, taken: list[_Waiting]) -> None:
        for each in taken:
            self.counts[kind] += 1
            if self.counts[kind] <= _TOLD:
                more = " (further ones are only counted)" if self.counts[kind] == _TOLD else ""
                decision = each.decision
                _LOG.warning(
                    "%s: trigger for cell %d refused: %s%s", decision.rule, decision.track, reason, more
                )
            each.tell(fate, reason)
