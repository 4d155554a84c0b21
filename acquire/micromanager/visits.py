"""Visits: extra images at another place that wait for their time."""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ..commands import Revisit
from ..errors import ActuatorError
from ..reply import Decision
from .hardware import Hardware
from .held import check_exposure
from .outgoing import Planned
from .step import Key, Step

MOST_WAITING = 1000
_LOG = logging.getLogger("cytoloop.loop")


@dataclass(frozen=True, slots=True)
class Visit:
    """An accepted :class:`~cytoloop.acquire.commands.Revisit`.

    Attributes
    ----------
    decision, command
        What was asked for.
    key, planned
        The image that it rests on, and what that came from; what the command leaves open is as it was there.
    """

    decision: Decision
    command: Revisit
    key: Key
    planned: Planned

    @property
    def step(self) -> Step:
        """What the image asks of the microscope."""
        command, known = self.command, self.planned.actual
        channel = known.channel
        if command.channel:
            channel = (channel[0] if channel else "", command.channel)
        return Step(
            xy_um=(command.x_um, command.y_um),
            z_um=known.z_um if command.z_um is None else command.z_um,
            exposure_ms=known.exposure_ms if command.exposure_ms is None else command.exposure_ms,
            channel=channel,
        )

    @property
    def plan(self) -> Step:
        """The plan that later decisions on the image concern: its own place, but the channel that was planned."""
        plan = self.planned.plan
        return replace(
            self.step, channel=self.step.channel if self.command.channel else plan.channel, time=plan.time
        )


class Visits:
    """The visits that wait, at most a thousand; the earliest is taken first."""

    def __init__(self) -> None:
        self._waiting: list[Visit] = []

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def accept(self, visit: Visit) -> None:
        """Keep a visit until its time.

        Raises
        ------
        ActuatorError
            If a number is not finite or too many wait.
        """
        command = visit.command
        numbers = (command.x_um, command.y_um, command.z_um or 0.0, command.at_s)
        if not all(map(math.isfinite, numbers)):
            raise ActuatorError(f"revisit {numbers} (x, y, z in um, time in s): must be finite")
        if command.exposure_ms is not None:
            check_exposure(command.exposure_ms)
        if len(self._waiting) >= MOST_WAITING:
            raise ActuatorError(f"{MOST_WAITING} visits wait already")
        self._waiting.append(visit)

    def next_until(self, time_s: float) -> Visit | None:
        """Return the earliest visit that is due until a time of the frame clock in s, and let it wait no longer."""
        visit = min(self._waiting, key=lambda each: each.command.at_s, default=None)
        if visit is None or visit.command.at_s > time_s:
            return None
        self._waiting.remove(visit)
        return visit

    def drain(self) -> list[Visit]:
        """Return all visits that wait, and forget them."""
        waiting, self._waiting = self._waiting, []
        return waiting


@contextmanager
def away(hardware: Hardware, step: Step = Step(), group: str = "") -> Generator[None]:  # noqa: B008 (it is frozen)
    """Stand at the place of a step, and afterwards have everything again as it was before.

    Parameters
    ----------
    hardware
        What is moved.
    step
        Where to; None in it: as it stands.
    group
        The configuration group that is set meanwhile, or ``""``. Stage, focus and exposure are put back anyway.

    Raises
    ------
    ActuatorError
        If the hardware does not go there; it has then been brought back.
    """
    stage, focus, exposure = hardware.stage_um(), hardware.focus_um(), hardware.exposure_ms()
    preset = hardware.preset(group) if group else ""
    try:
        if step.xy_um is not None:
            hardware.move_stage(*step.xy_um)
        if step.z_um is not None and focus is not None and step.z_um != focus:
            hardware.move_focus(step.z_um)
        yield
    finally:
        try:
            if focus is not None and hardware.focus_um() != focus:
                hardware.move_focus(focus)
            if stage is not None and hardware.stage_um() != stage:
                hardware.move_stage(*stage)
            if hardware.exposure_ms() != exposure:
                hardware.set_exposure(exposure)
            if preset and hardware.preset(group) != preset:
                hardware.set_channel(group, preset)
        except ActuatorError as error:
            _LOG.error("after an extra image: %s", error)
