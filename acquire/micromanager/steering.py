"""Steering: decisions of the service become changes of the next planned steps.

One logic for both engines and all three ways back; it knows events only as :class:`~.step.Step`.

- A decision is refused, told and counted when it has expired, when nothing accepts it, or when the hardware
  does not do it. None of that touches the acquisition.
- **Moves stay in force.** A move replaces the planned position: every later step planned at the same (x, y) as
  the step of the frame it rests on, or, like that one, without any, goes to the new one, until the next move.
  Steps planned elsewhere keep their plan, so that several positions are followed independently.
- **Focus** likewise, as a shift: a z stack planned around the frame's plane moves as a whole.
- **Exposure** and **channel** stay in force for all later steps of the frame's channel.
- **Interval** stays in force for the acquisition (see :class:`~.pace.Pace`). **Revisits** wait for their time.
- **Skip** counts planned steps. **Stop** leaves out all later ones. **Pause** waits, at most a minute.
- **Properties** are set at once, in order. All other commands go to the first actuator that accepts them; an
  actuator that accepts one of the above is asked instead of the engine.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..actuators import Actuator
from ..commands import (
    Disarm,
    MoveFocus,
    MoveStage,
    Pause,
    Revisit,
    SetChannel,
    SetExposure,
    SetInterval,
    SetProperty,
    Skip,
    SnapExtra,
    Stop,
    Trigger,
)
from ..errors import ActuatorError
from ..governor.limits import Limits
from ..link.client import Client
from ..reply import Decision
from ..scheduled import Overseer, Scheduling
from .gate import Gate
from .hardware import Hardware
from .held import Held, check_exposure
from .ledger import Ledger
from .outgoing import Outgoing
from .pace import Pace
from .step import Step
from .visits import Visit, Visits
from .watchdog import Watchdog

LONGEST_PAUSE_S = 60.0
_LOG = logging.getLogger("cytoloop.loop")
_HOLD_S = 1.0
_LOOK_S = 0.02


class Steering:
    """Carries out decisions; called by one thread at a time, the one that plans or runs the next step.

    Parameters
    ----------
    client
        Where decisions come from.
    outgoing
        Knows the plan behind every frame, and the time.
    actuators
        For the commands that an acquisition event cannot carry.
    extras
        Whether a ``SnapExtra`` can be carried out; :meth:`due_extras` then gives those that wait.
    limits
        Of this microscope, held besides those of the service.

    Attributes
    ----------
    hardware
        The core in this process, if there is one.
    stopped
        Which rule stopped the acquisition and why, or ``""``.
    placed
        The positions to which :meth:`edit` has moved the hardware already.
    ledger
        What came of the decisions.
    watchdog
        Has the microscope fall to its safe state.
    acting
        Whether decisions are being carried out at this moment.
    """

    def __init__(
        self,
        client: Client,
        outgoing: Outgoing,
        *,
        actuators: Sequence[Actuator] = (),
        extras: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self.hardware: Hardware | None = None
        self.stopped = ""
        self.placed = Step()
        self.acting = False
        self.ledger = Ledger(client.safeguard, outgoing.now_s)
        self._client, self._outgoing, self._actuators = client, outgoing, tuple(actuators)
        self._takes_extras = extras
        self.safety = client.safeguard.safety
        self.pace = Pace()
        self._gate = Gate(client.safeguard, outgoing, limits)
        self._overseer = Overseer(self._gate.closed, self.ledger.note)
        self._held = Held(self.ledger)
        self._visits = Visits()
        self._properties: list[Decision] = []
        self._skip = 0
        self._extras: list[Decision] = []
        self._later: list[Decision] = []
        self._interrupted = threading.Event()
        self.watchdog = Watchdog(
            client.safeguard, self._actuators, lambda: self.hardware, lambda: self.acting
        )
        self._handlers: dict[type, Callable[[Decision, Any], None]] = {
            MoveStage: self._move_stage,
            MoveFocus: self._move_focus,
            SetExposure: self._set_exposure,
            SetChannel: self._set_channel,
            SetInterval: self._set_interval,
            SetProperty: self._set_property,
            SnapExtra: self._snap_extra,
            Revisit: self._revisit,
            Skip: self._skip_steps,
            Pause: self._pause,
            Stop: self._stop,
        }

    def interrupt(self) -> None:
        """End a pause that is going on, and let no other begin."""
        self._interrupted.set()

    def begin_run(self) -> None:
        """Forget what holds for one acquisition only; the loop calls it when it guards the next one."""
        self.stopped = ""
        self._skip = 0
        self._extras.clear()
        self.pace.begin_run()
        for visit in self._visits.drain():
            self.ledger.refused(visit.decision, "its time had not come when the acquisition ended", "failed")

    def drop_waiting(self, reason: str) -> None:
        """Refuse all that was accepted and has not reached the hardware: visits, extra images, new values, pulses.

        What holds already stays in force; a pause that is going on ends by :meth:`interrupt` only.
        """
        waiting = [
            *(visit.decision for visit in self._visits.drain()),
            *self._later,
            *self._held.drop_untried(),
            *self.due_extras(),
            *self._properties,
        ]
        self._later, self._properties = [], []
        for decision in waiting:
            self.ledger.refused(decision, reason, "failed")
        for actuator in self._actuators:
            if isinstance(actuator, Scheduling):
                actuator.drop(reason)

    def take(self) -> None:
        """Read the mailbox and carry out all that is due; never raises."""
        self.watchdog.begin()
        if reason := self._gate.closed():
            self.drop_waiting(reason)
        waiting, self._later = self._later, []
        self.acting = True
        try:
            for decision in waiting:
                self._carry_out(decision, again=True)
            for decision in self._client.decisions():
                if isinstance(decision.command, Disarm):  # never stale: what it fears has not gone by
                    self.safety.set("disarmed", f"{decision.rule}: {decision.command.reason}")
                else:
                    self._carry_out(decision)
        finally:
            self.acting = False
        if reason := self._gate.closed():  # what was taken before the order came
            self.drop_waiting(reason)

    def _carry_out(self, decision: Decision, *, again: bool = False) -> None:
        fate, reason = self._gate.judge(decision, again=again)
        if fate == "dry":
            self.ledger.dry(decision)
        elif fate is not None:
            self.ledger.refused(decision, reason, fate)
        else:
            try:
                self._obey(decision)
            except ActuatorError as error:
                self.ledger.refused(decision, str(error), "failed")
            except Exception as error:
                _LOG.exception("%s: %s", decision.rule, error)
                self.ledger.refused(decision, f"{type(error).__name__}: {error}", "failed")

    def edit(self, steps: Sequence[Step]) -> list[Step | None]:
        """Return what becomes of the planned steps of one event, or of one burst; None: left out.

        Each step of a burst is edited on its own. The hardware is set once per burst: where an edit would
        make it change within the burst, the plan is kept and the command refused. :attr:`placed` holds the
        positions to which this call has moved the hardware already.
        """
        self.placed = Step()
        new = [self._edit(step) for step in steps]
        taken = [step for step in new if step is not None]
        for name in ("xy_um", "z_um", "exposure_ms", "channel"):
            if _varies(taken, name) and not _varies(steps, name):
                _LOG.warning("the hardware cannot change %s within a burst: planned values kept", name)
                self.ledger.counts["failed"] += 1
                new = [
                    None if after is None else replace(after, **{name: getattr(before, name)})
                    for before, after in zip(steps, new, strict=True)
                ]
        return new

    def due_extras(self) -> list[Decision]:
        """Return the decisions for extra images that wait, and wait for them no longer."""
        due, self._extras = self._extras, []
        return due

    def visits_before(self, step: Step | None) -> Iterator[tuple[Visit, float]]:
        """Yield the visits that come before a planned step, each with its earliest start on the engine's clock.

        A visit comes before a step when it is due before the step may begin; with None, when it is due already.
        Those that visits themselves have asked for do not delay the step.
        """
        for _ in range(len(self._visits)):
            if (found := self._next_visit(step)) is not None:
                yield found
        while step is not None and (found := self._next_visit(step, in_time=True)) is not None:
            yield found

    def _next_visit(self, step: Step | None, *, in_time: bool = False) -> tuple[Visit, float] | None:
        if self.stopped or self.pace.clock is None:
            return None
        now_s, clock_s = self._outgoing.now_s(), self.pace.clock()
        start_s = None if step is None else self.pace.start_of(step)
        wait_s = 0.0 if start_s is None else max(0.0, start_s - clock_s)
        if in_time and wait_s == 0:
            return None
        visit = self._visits.next_until(now_s + wait_s)
        return None if visit is None else (visit, clock_s + max(0.0, visit.command.at_s - now_s))

    def wait_open(self, start_s: float, ended: Callable[[], bool]) -> None:
        """Wait for a time on the engine's clock.

        Parameters
        ----------
        start_s
            The time in s.
        ended
            Returns whether the acquisition is ending.

        Raises
        ------
        ActuatorError
            If nothing may reach the hardware any more, or the acquisition ends, before the time has come.
        """
        while self.pace.clock is not None:
            if reason := self._gate.closed() or ("the acquisition is ending" if ended() else ""):
                raise ActuatorError(reason)
            left_s = start_s - self.pace.clock()
            if left_s <= 0:
                return
            if self._interrupted.wait(min(left_s, _LOOK_S)):
                raise ActuatorError("the loop is closed")

    def take_after_extras(self) -> None:
        """As :meth:`take`, but an extra image cannot ask for another one, or there might be no end."""
        self.take()
        for decision in self.due_extras():
            self.ledger.refused(decision, "an extra image cannot ask for another one", "failed")

    # --- decisions ------------------------------------------------------------------------------------------

    def _obey(self, decision: Decision) -> None:
        command = decision.command
        actuator = next((a for a in self._actuators if type(command) in a.commands), None)
        if actuator is not None:
            if type(command) is Trigger and isinstance(actuator, Scheduling):
                actuator.schedule(decision, self._outgoing.now_s(), self._overseer)
            elif type(command) is not Trigger or self._is_due(decision, command):
                actuator.actuate(decision)
                self.ledger.applied(decision)
        elif type(command) in self._handlers:
            self._handlers[type(command)](decision, command)
        else:
            raise ActuatorError(
                f"no actuator accepts {type(command).__name__}; pass one to connect(actuators=...)"
            )

    def _is_due(self, decision: Decision, trigger: Trigger) -> bool:
        """Wait for the time of a trigger if it is near; keep it for a later step if it is not."""
        early_s = trigger.at_s - self._outgoing.now_s()
        if early_s > _HOLD_S:
            self._later.append(decision)
            return False
        if early_s > 0 and self._interrupted.wait(early_s):
            raise ActuatorError("the loop is closed")
        if reason := self._gate.closed():  # since it was judged
            raise ActuatorError(reason)
        return True

    def _plan(self, decision: Decision) -> Step:
        plan = self._outgoing.plan_of(decision.sequence)
        if plan is None:
            raise ActuatorError(f"frame {decision.sequence} is not known here, or too long ago")
        return plan

    def _move_stage(self, decision: Decision, command: MoveStage) -> None:
        self._held.move_stage(decision, command, self._plan(decision))

    def _move_focus(self, decision: Decision, command: MoveFocus) -> None:
        self._held.move_focus(decision, command, self._plan(decision))

    def _set_exposure(self, decision: Decision, command: SetExposure) -> None:
        self._held.set_exposure(decision, command, self._plan(decision))

    def _set_channel(self, decision: Decision, command: SetChannel) -> None:
        self._held.set_channel(decision, command, self._plan(decision))

    def _set_interval(self, decision: Decision, command: SetInterval) -> None:
        self.pace.set_interval(command.interval_s, self._plan(decision))
        self.ledger.applied(decision)

    def _set_property(self, decision: Decision, command: SetProperty) -> None:
        if self.hardware is None:
            self._properties.append(decision)
        else:
            self.hardware.set_property(command.device, command.property, command.value)
            self.ledger.applied(decision)

    def _snap_extra(self, decision: Decision, command: SnapExtra) -> None:
        if not self._takes_extras:
            raise ActuatorError("SnapExtra needs mode='lockstep' and events submitted through the guard")
        if command.exposure_ms is not None:
            check_exposure(command.exposure_ms)
        self._extras.append(decision)

    def _revisit(self, decision: Decision, command: Revisit) -> None:
        if not self._takes_extras or self.pace.clock is None:
            raise ActuatorError("Revisit needs mode='lockstep' and events submitted through the guard")
        origin = self._outgoing.origin_of(decision.sequence)
        if origin is None:
            raise ActuatorError(f"frame {decision.sequence} is not known here, or too long ago")
        self._visits.accept(Visit(decision, command, *origin))

    def _skip_steps(self, decision: Decision, command: Skip) -> None:
        self._skip = max(self._skip, command.events)
        self.ledger.applied(decision)

    def _pause(self, decision: Decision, command: Pause) -> None:
        if not command.seconds >= 0:
            raise ActuatorError(f"pause of {command.seconds} s: must be 0 or more")
        if command.seconds > LONGEST_PAUSE_S:
            _LOG.warning(
                "%s: a pause of %g s is cut to %g s", decision.rule, command.seconds, LONGEST_PAUSE_S
            )
        self._interrupted.wait(min(command.seconds, LONGEST_PAUSE_S))
        self.ledger.applied(decision)

    def _stop(self, decision: Decision, command: Stop) -> None:
        self.stopped = f"{decision.rule}: {command.reason}"
        self.ledger.applied(decision)
        _LOG.info("acquisition stopped by %s", self.stopped)

    # --- steps ----------------------------------------------------------------------------------------------

    def _edit(self, step: Step) -> Step | None:
        start_s = self.pace.begin(step)
        if self.stopped or self._skip > 0:
            self._skip = max(0, self._skip - 1)
            self.ledger.counts["skipped"] += 1
            return None
        waiting, self._properties = self._properties, []
        for decision in waiting:
            self.ledger.applied(decision)
        commands = [each.command for each in waiting]
        properties = tuple(
            (each.device, each.property, each.value) for each in commands if isinstance(each, SetProperty)
        )
        self._held.placed = self.placed
        new = self._held.edit(step, self.hardware)
        self.placed = self._held.placed
        return replace(new, start_s=start_s, properties=step.properties + properties)


def _varies(steps: Sequence[Step], name: str) -> bool:
    return len({getattr(step, name) for step in steps} - {None}) > 1
