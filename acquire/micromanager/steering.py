"""Steering: decisions of the service become changes of the next planned steps.

One logic for both engines and all three ways back; it knows events only as :class:`~.step.Step`.

- A decision is refused, told and counted when it has expired, when nothing accepts it, or when the hardware
  does not do it. None of that touches the acquisition.
- **Moves stay in force.** A move replaces the planned position: every later step planned at the same (x, y) as
  the step of the frame it rests on, or, like that one, without any, goes to the new one, until the next move.
  Steps planned elsewhere keep their plan, so that several positions are followed independently.
- **Focus** likewise, as a shift: a z stack planned around the frame's plane moves as a whole.
- **Exposure** stays in force for all later steps of the frame's channel.
- **Skip** counts planned steps. **Stop** leaves out all later ones. **Pause** waits, at most a minute.
- **Properties** are set at once, in order. All other commands go to the first actuator that accepts them; an
  actuator that accepts one of the above is asked instead of the engine.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ..actuators import Actuator
from ..commands import (
    MoveFocus,
    MoveStage,
    Pause,
    SetExposure,
    SetProperty,
    Skip,
    SnapExtra,
    Stop,
    Trigger,
)
from ..errors import ActuatorError
from ..link.client import Client
from ..reply import Decision
from .hardware import Hardware
from .outgoing import Outgoing
from .step import Step

LONGEST_PAUSE_S = 60.0
_LOG = logging.getLogger("cytoloop.loop")
_HOLD_S = 1.0
_TOLD_REFUSALS = 5

Place: TypeAlias = "tuple[float, float] | None"


@dataclass(slots=True)
class _Change:
    """A commanded value, the plan it replaces, and whether the hardware has done it already."""

    decision: Decision
    value: Any
    planned: Any = None
    done: bool = False


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
    """

    def __init__(
        self, client: Client, outgoing: Outgoing, *, actuators: Sequence[Actuator] = (), extras: bool = False
    ) -> None:
        self.hardware: Hardware | None = None
        self.stopped = ""
        self.placed = Step()
        self.counts: Counter[str] = Counter()
        self._client, self._outgoing, self._actuators = client, outgoing, tuple(actuators)
        self._takes_extras = extras
        self._moves: dict[Place, _Change] = {}
        self._focus: dict[Place, _Change] = {}
        self._exposures: dict[tuple[str, str] | None, _Change] = {}
        self._properties: list[tuple[str, str, str]] = []
        self._skip = 0
        self._extras: list[SnapExtra] = []
        self._later: list[Decision] = []
        self._told: Counter[tuple[str, str]] = Counter()
        self._interrupted = threading.Event()
        self._handlers: dict[type, Callable[[Decision, Any], None]] = {
            MoveStage: self._move_stage,
            MoveFocus: self._move_focus,
            SetExposure: self._set_exposure,
            SetProperty: self._set_property,
            SnapExtra: self._snap_extra,
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

    def take(self) -> None:
        """Read the mailbox and carry out all that is due; never raises."""
        waiting, self._later = self._later, []
        for decision in (*waiting, *self._client.decisions()):
            if self._outgoing.now_s() > decision.expires_s:
                late_s = self._outgoing.now_s() - decision.expires_s
                self._refuse(decision, f"stale by {late_s:.3f} s", "expired")
                continue
            try:
                self._obey(decision)
            except ActuatorError as error:
                self._refuse(decision, str(error), "failed")
            except Exception as error:
                _LOG.exception("%s: %s", decision.rule, error)
                self.counts["failed"] += 1

    def edit(self, steps: Sequence[Step]) -> list[Step | None]:
        """Return what becomes of the planned steps of one event, or of one burst; None: left out.

        Each step of a burst is edited on its own. The hardware is set once per burst: where an edit would
        make it change within the burst, the plan is kept and the command refused. :attr:`placed` holds the
        positions to which this call has moved the hardware already.
        """
        self.placed = Step()
        new = [self._edit(step) for step in steps]
        taken = [step for step in new if step is not None]
        for name in ("xy_um", "z_um", "exposure_ms"):
            if _varies(taken, name) and not _varies(steps, name):
                _LOG.warning("the hardware cannot change %s within a burst: planned values kept", name)
                self.counts["failed"] += 1
                new = [
                    None if after is None else replace(after, **{name: getattr(before, name)})
                    for before, after in zip(steps, new, strict=True)
                ]
        return new

    def due_extras(self) -> list[SnapExtra]:
        """Return the extra images that wait, and wait for them no longer."""
        due, self._extras = self._extras, []
        return due

    def refuse_extra(self, reason: str) -> None:
        """Say and count that an extra image cannot be taken."""
        _LOG.warning("extra image refused: %s", reason)
        self.counts["failed"] += 1

    def take_after_extras(self) -> None:
        """As :meth:`take`, but an extra image cannot ask for another one, or there might be no end."""
        self.take()
        for _ in self.due_extras():
            self.refuse_extra("an extra image cannot ask for another one")

    # --- decisions ------------------------------------------------------------------------------------------

    def _obey(self, decision: Decision) -> None:
        command = decision.command
        actuator = next((a for a in self._actuators if type(command) in a.commands), None)
        if actuator is not None:
            if type(command) is Trigger and not self._is_due(decision, command):
                return
            actuator.actuate(decision)
            self.counts["applied"] += 1
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
        if early_s > 0:
            self._interrupted.wait(early_s)
        return True

    def _plan(self, decision: Decision) -> Step:
        plan = self._outgoing.plan_of(decision.sequence)
        if plan is None:
            raise ActuatorError(f"frame {decision.sequence} is not known here, or too long ago")
        return plan

    def _move_stage(self, decision: Decision, command: MoveStage) -> None:
        plan = self._plan(decision)
        target = (command.x_um, command.y_um)
        if not all(map(math.isfinite, target)):
            raise ActuatorError(f"stage position {target} um: must be finite")
        self._moves[plan.xy_um] = _Change(decision, target)
        if command.z_um is not None:
            self._move_focus(decision, MoveFocus(command.z_um))

    def _move_focus(self, decision: Decision, command: MoveFocus) -> None:
        plan = self._plan(decision)
        if not math.isfinite(command.z_um):
            raise ActuatorError(f"focus position {command.z_um} um: must be finite")
        self._focus[plan.xy_um] = _Change(decision, command.z_um, plan.z_um)

    def _set_exposure(self, decision: Decision, command: SetExposure) -> None:
        _check_exposure(command.exposure_ms)
        self._exposures[self._plan(decision).channel] = _Change(decision, command.exposure_ms)

    def _set_property(self, decision: Decision, command: SetProperty) -> None:
        if self.hardware is None:
            self._properties.append((command.device, command.property, command.value))
        else:
            self.hardware.set_property(command.device, command.property, command.value)
        self.counts["applied"] += 1

    def _snap_extra(self, decision: Decision, command: SnapExtra) -> None:
        if not self._takes_extras:
            raise ActuatorError("SnapExtra needs mode='lockstep' and events submitted through the guard")
        if command.exposure_ms is not None:
            _check_exposure(command.exposure_ms)
        self._extras.append(command)

    def _skip_steps(self, decision: Decision, command: Skip) -> None:
        self._skip = max(self._skip, command.events)
        self.counts["applied"] += 1

    def _pause(self, decision: Decision, command: Pause) -> None:
        if not command.seconds >= 0:
            raise ActuatorError(f"pause of {command.seconds} s: must be 0 or more")
        if command.seconds > LONGEST_PAUSE_S:
            _LOG.warning(
                "%s: a pause of %g s is cut to %g s", decision.rule, command.seconds, LONGEST_PAUSE_S
            )
        self._interrupted.wait(min(command.seconds, LONGEST_PAUSE_S))
        self.counts["applied"] += 1

    def _stop(self, decision: Decision, command: Stop) -> None:
        self.stopped = f"{decision.rule}: {command.reason}"
        self.counts["applied"] += 1
        _LOG.info("acquisition stopped by %s", self.stopped)

    def _refuse(self, decision: Decision, reason: str, count: str) -> None:
        """Count, and say the first few of a kind: a rule that is wrong may be wrong for every frame."""
        name = type(decision.command).__name__
        self.counts[count] += 1
        told = self._told[decision.rule, name]
        if told < _TOLD_REFUSALS:
            self._told[decision.rule, name] += 1
            more = " (further ones are only counted)" if told + 1 == _TOLD_REFUSALS else ""
            _LOG.warning(
                "%s: %s after frame %d refused: %s%s", decision.rule, name, decision.sequence, reason, more
            )

    # --- steps ----------------------------------------------------------------------------------------------

    def _edit(self, step: Step) -> Step | None:
        if self.stopped or self._skip > 0:
            self._skip = max(0, self._skip - 1)
            self.counts["skipped"] += 1
            return None
        properties, self._properties = tuple(self._properties), []
        return Step(
            xy_um=self._position(step),
            z_um=self._plane(step),
            exposure_ms=self._exposure(step),
            channel=step.channel,
            properties=step.properties + properties,
        )

    def _position(self, step: Step) -> tuple[float, float] | None:
        move = self._moves.get(step.xy_um)
        if move is None or (step.xy_um is None and move.done):
            return step.xy_um
        fresh = not move.done
        if self._try(move, lambda hardware: hardware.move_stage(*move.value)):
            if fresh and self.hardware is not None:
                self.placed = replace(self.placed, xy_um=move.value)
            return move.value
        del self._moves[step.xy_um]
        return step.xy_um

    def _plane(self, step: Step) -> float | None:
        move = self._focus.get(step.xy_um)
        if move is None or (step.z_um is None and move.done):
            return step.z_um
        shift = 0.0 if step.z_um is None or move.planned is None else step.z_um - move.planned
        target = float(move.value + shift)
        fresh = not move.done
        if self._try(move, lambda hardware: hardware.move_focus(target)):
            if fresh and self.hardware is not None:
                self.placed = replace(self.placed, z_um=target)
            return target
        del self._focus[step.xy_um]
        return step.z_um

    def _exposure(self, step: Step) -> float | None:
        change = self._exposures.get(step.channel)
        if change is None:
            return step.exposure_ms
        if self._try(change, lambda hardware: hardware.set_exposure(change.value)):
            return float(change.value)
        del self._exposures[step.channel]
        return step.exposure_ms

    def _try(self, change: _Change, action: Callable[[Hardware], None]) -> bool:
        """Let the hardware do a new command before it becomes part of an event; True if it did."""
        if change.done:
            return True
        try:
            if self.hardware is not None:
                action(self.hardware)
        except ActuatorError as error:
            self._refuse(change.decision, str(error), "failed")
            return False
        change.done = True
        self.counts["applied"] += 1
        return True


def _check_exposure(exposure_ms: float) -> None:
    if not (math.isfinite(exposure_ms) and exposure_ms > 0):
        raise ActuatorError(f"exposure {exposure_ms} ms: must be a positive finite number")


def _varies(steps: Sequence[Step], name: str) -> bool:
    return len({getattr(step, name) for step in steps} - {None}) > 1
