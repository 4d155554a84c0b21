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
from typing import Protocol, runtime_checkable

from msgspec.structs import replace

from .commands import Trigger
from .errors import ActuatorError
from .reply import Decision

_LOG = logging.getLogger("cytoloop.loop")
_HELD_S = 0.1e-3
"""For so long before its time the thread holds the interpreter, so that no other makes it late."""
_TOLD = 5


@runtime_checkable
class Scheduling(Protocol):
    """An actuator that takes triggers ahead; steering hands them over at once, with the time of the frame clock."""

    commands: tuple[type, ...]

    def schedule(self, decision: Decision, now_s: float) -> None:
        """Take a trigger for ``decision.command.at_s``; ``now_s`` is the present on the same clock."""
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
        self._waiting: list[tuple[float, int, Decision, Trigger]] = []
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

    def schedule(self, decision: Decision, now_s: float) -> None:
        """Take a trigger for its time; returns at once.

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
            heapq.heappush(self._waiting, (start_s, next(self._numbers), decision, command))
            self.counts["taken"] += 1
            self._changed.notify()

    def drop(self, reason: str) -> int:
        """Forget all triggers that wait, say why, and return how many they were."""
        with self._changed:
            dropped = len(self._waiting)
            self._waiting.clear()
            self.counts["dropped"] += dropped
            self._changed.notify()
        if dropped:
            _LOG.warning("%d scheduled trigger(s) dropped: %s", dropped, reason)
        return dropped

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
            start_s, decision, merged = due
            while (left_s := start_s - time.monotonic()) > 0:  # what sleeping would miss
                if left_s > _HELD_S:
                    time.sleep(0)
            self._pulse(start_s, decision, merged)

    def _next_due(self) -> tuple[float, Decision, int] | None:
        """Wait until the next trigger is nearly due; return it with those that overlap it merged, None at the end."""
        with self._changed:
            while not self._closed:
                if not self._waiting:
                    self._changed.wait()
                    continue
                wait_s = self._waiting[0][0] - time.monotonic() - self._spin_s
                if wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
                return self._merged()
        return None

    def _merged(self) -> tuple[float, Decision, int]:
        """Take the first trigger, and all of its output that begin before it ends; say how many those are."""
        start_s, _, decision, command = heapq.heappop(self._waiting)
        end_s, merged = start_s + command.width_ms / 1000, 0
        others: list[tuple[float, int, Decision, Trigger]] = []
        while self._waiting and self._waiting[0][0] <= end_s:
            each = heapq.heappop(self._waiting)
            if each[3].output == command.output:
                end_s, merged = max(end_s, each[0] + each[3].width_ms / 1000), merged + 1
            else:
                others.append(each)
        for each in others:
            heapq.heappush(self._waiting, each)
        if end_s > start_s + command.width_ms / 1000:
            decision = replace(decision, command=replace(command, width_ms=1000 * (end_s - start_s)))
        return start_s, decision, merged

    def _pulse(self, start_s: float, decision: Decision, merged: int) -> None:
        late_s = time.monotonic() - start_s
        if late_s > self._late_s:
            self.counts["late"] += merged
            self._refuse("late", f"late by {1000 * late_s:.2f} ms", decision)
            return
        self.worst_late_ms = max(self.worst_late_ms, 1000 * late_s)
        try:
            self._fire(decision)
            self.counts["fired"] += 1 + merged
            self.counts["merged"] += merged
        except Exception as error:  # an output is anyone's code, and the next cell must still be sorted
            self._refuse("failed", f"{type(error).__name__}: {error}", decision)

    def _refuse(self, kind: str, reason: str, decision: Decision) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= _TOLD:
            more = " (further ones are only counted)" if self.counts[kind] == _TOLD else ""
            _LOG.warning("%s: trigger for cell %d refused: %s%s", decision.rule, decision.track, reason, more)
