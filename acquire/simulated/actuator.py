"""The simulated microscope's lamp and outputs as an actuator."""

from __future__ import annotations

from dataclasses import dataclass

from ..commands import Stimulate, Trigger, decode_mask
from ..errors import ActuatorError
from ..reply import Decision
from .microscope import SimulatedMicroscope


@dataclass(frozen=True, slots=True)
class Pulse:
    """A trigger that was carried out.

    Attributes
    ----------
    output, at_s, width_ms
        As in the command.
    frame, time_s
        The last frame taken before it (-1: none), and the simulated time in s.
    """

    output: str
    at_s: float
    width_ms: float
    frame: int
    time_s: float


class SimulatedActuator:
    """Carries out :class:`Stimulate` on the cells of a simulated microscope and logs :class:`Trigger`.

    Attributes
    ----------
    pulses
        The triggers so far.
    """

    commands: tuple[type, ...] = (Stimulate, Trigger)

    def __init__(self, microscope: SimulatedMicroscope) -> None:
        self.microscope = microscope
        self.pulses: list[Pulse] = []

    def actuate(self, decision: Decision) -> None:
        """Carry out one decision at once.

        Raises
        ------
        ActuatorError
            If the pattern lies outside the present field of view, is malformed, or the command is none of ours.
        """
        match decision.command:
            case Stimulate() as command:
                self._stimulate(command, decision.stage_um)
            case Trigger() as command:
                scope = self.microscope
                pulse = Pulse(
                    command.output, command.at_s, command.width_ms, scope.frames - 1, scope.sample.time_s
                )
                self.pulses.append(pulse)
            case command:
                raise ActuatorError(f"the simulated microscope cannot carry out {type(command).__name__}")

    def close(self) -> None:
        """Do nothing: the light goes off after each pulse."""

    def _stimulate(self, command: Stimulate, stage_um: tuple[float, float] | None) -> None:
        try:
            mask = decode_mask(command.mask, self.microscope.camera.shape) if command.mask else None
        except ValueError as error:
            raise ActuatorError(f"stimulation: {error}") from error
        self.microscope.stimulate(
            points_px=command.points_px,
            radius_px=command.radius_px,
            mask=mask,
            stage_um=stage_um,
            duration_ms=command.duration_ms,
            power=command.power,
        )
