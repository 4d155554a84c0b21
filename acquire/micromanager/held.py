"""Held changes: what a decision has set stays in force for the later steps of its place or channel.

A value is tried on the hardware before it becomes part of an event: an error inside the engine would end the
acquisition, an error here is told, counted and forgotten, and the plan is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from ..commands import MoveFocus, MoveStage, SetChannel, SetExposure
from ..errors import ActuatorError
from ..reply import Decision
from .hardware import Hardware
from .ledger import Ledger
from .step import Step

K = TypeVar("K")
Place: TypeAlias = "tuple[float, float] | None"
Channel: TypeAlias = "tuple[str, str] | None"


@dataclass(slots=True)
class _Change:
    """A commanded value, the plan it replaces, and whether the hardware has done it already."""

    decision: Decision
    value: Any
    planned: Any = None
    done: bool = False


class Held:
    """The values that decisions have set, and what they make of a planned step.

    Parameters
    ----------
    ledger
        Told when a value is first used, or the hardware does not take it.

    Attributes
    ----------
    placed
        The positions to which :meth:`edit` has moved the hardware; the caller sets it back.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.placed = Step()
        self._ledger = ledger
        self._moves: dict[Place, _Change] = {}
        self._focus: dict[Place, _Change] = {}
        self._exposures: dict[Channel, _Change] = {}
        self._channels: dict[Channel, _Change] = {}

    def move_stage(self, decision: Decision, command: MoveStage, plan: Step) -> None:
        """Hold a stage position, and the focus if there is one, for the place of a plan.

        Raises
        ------
        ActuatorError
            If it is not finite.
        """
        target = (command.x_um, command.y_um)
        if not all(map(math.isfinite, target)):
            raise ActuatorError(f"stage position {target} um: must be finite")
        self._hold(self._moves, plan.xy_um, _Change(decision, target))
        if command.z_um is not None:
            self.move_focus(decision, MoveFocus(command.z_um), plan)

    def move_focus(self, decision: Decision, command: MoveFocus, plan: Step) -> None:
        """Hold a shift of the focus for the place of a plan.

        Raises
        ------
        ActuatorError
            If it is not finite.
        """
        if not math.isfinite(command.z_um):
            raise ActuatorError(f"focus position {command.z_um} um: must be finite")
        self._hold(self._focus, plan.xy_um, _Change(decision, command.z_um, plan.z_um))

    def set_exposure(self, decision: Decision, command: SetExposure, plan: Step) -> None:
        """Hold an exposure for the channel of a plan.

        Raises
        ------
        ActuatorError
            If it is not a positive finite number.
        """
        check_exposure(command.exposure_ms)
        self._hold(self._exposures, plan.channel, _Change(decision, command.exposure_ms))

    def set_channel(self, decision: Decision, command: SetChannel, plan: Step) -> None:
        """Hold a preset for the channel of a plan; without a group, of the group that was planned.

        Raises
        ------
        ActuatorError
            If neither the command nor the plan names a group, or no preset is given.
        """
        group = command.group or (plan.channel[0] if plan.channel else "")
        if not group or not command.preset:
            raise ActuatorError(f"channel {command.preset!r} of group {group!r}: both must be given")
        self._hold(self._channels, plan.channel, _Change(decision, (group, command.preset)))

    def edit(self, step: Step, hardware: Hardware | None) -> Step:
        """Return a planned step with all that is held for it."""
        channel = self._channel(step, hardware)  # first: a preset may set what the others set then
        return replace(
            step,
            channel=channel,
            xy_um=self._position(step, hardware),
            z_um=self._plane(step, hardware),
            exposure_ms=self._exposure(step, hardware),
        )

    def drop_untried(self) -> list[Decision]:
        """Forget the values that no step has used yet, and return the decisions that set them."""
        return [
            change.decision
            for table in (
                _pop_untried(self._moves),
                _pop_untried(self._focus),
                _pop_untried(self._exposures),
                _pop_untried(self._channels),
            )
            for change in table
        ]

    def _hold(self, table: dict[K, _Change], key: K, change: _Change) -> None:
        """Hold a value; the one that it replaces unused is told of."""
        before = table.get(key)
        if before is not None and not before.done and before.decision is not change.decision:
            self._ledger.note(before.decision, "replaced", "a newer decision came before its turn")
        table[key] = change

    def _position(self, step: Step, hardware: Hardware | None) -> Place:
        move = self._moves.get(step.xy_um)
        if move is None or (step.xy_um is None and move.done):
            return step.xy_um
        fresh = not move.done
        if self._try(move, hardware, lambda core: core.move_stage(*move.value)):
            if fresh and hardware is not None:
                self.placed = replace(self.placed, xy_um=move.value)
            return move.value
        del self._moves[step.xy_um]
        return step.xy_um

    def _plane(self, step: Step, hardware: Hardware | None) -> float | None:
        move = self._focus.get(step.xy_um)
        if move is None or (step.z_um is None and move.done):
            return step.z_um
        shift = 0.0 if step.z_um is None or move.planned is None else step.z_um - move.planned
        target = float(move.value + shift)
        fresh = not move.done
        if self._try(move, hardware, lambda core: core.move_focus(target)):
            if fresh and hardware is not None:
                self.placed = replace(self.placed, z_um=target)
            return target
        del self._focus[step.xy_um]
        return step.z_um

    def _exposure(self, step: Step, hardware: Hardware | None) -> float | None:
        change = self._exposures.get(step.channel)
        if change is None:
            return step.exposure_ms
        if self._try(change, hardware, lambda core: core.set_exposure(change.value)):
            return float(change.value)
        del self._exposures[step.channel]
        return step.exposure_ms

    def _channel(self, step: Step, hardware: Hardware | None) -> Channel:
        change = self._channels.get(step.channel)
        if change is None:
            return step.channel
        if self._try(change, hardware, lambda core: core.set_channel(*change.value)):
            return change.value
        del self._channels[step.channel]
        return step.channel

    def _try(self, change: _Change, hardware: Hardware | None, action: Callable[[Hardware], None]) -> bool:
        """Let the hardware do a new command before it becomes part of an event; True if it did."""
        if change.done:
            return True
        try:
            if hardware is not None:
                action(hardware)
        except ActuatorError as error:
            self._ledger.refused(change.decision, str(error), "failed")
            return False
        change.done = True
        self._ledger.applied(change.decision)
        return True


def _pop_untried(table: dict[Any, _Change]) -> list[_Change]:
    return [table.pop(key) for key in [key for key, change in table.items() if not change.done]]


def check_exposure(exposure_ms: float) -> None:
    """Refuse an exposure in ms that is not a positive finite number.

    Raises
    ------
    ActuatorError
        If it is not.
    """
    if not (math.isfinite(exposure_ms) and exposure_ms > 0):
        raise ActuatorError(f"exposure {exposure_ms} ms: must be a positive finite number")
