"""Actuators: what carries out the commands that an acquisition event cannot."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from .reply import Decision


@runtime_checkable
class Actuator(Protocol):
    """Carries out one or more kinds of command at the microscope.

    ``actuate`` is called from the thread that runs the hardware, between two events, once per decision and
    never after the decision has expired; it may block for as long as the action lasts (a stimulation), which
    delays the next event by that time. It raises :class:`~cytoloop.acquire.errors.ActuatorError` when the
    action failed: the link logs it, counts it and goes on with the acquisition. ``close`` is called once.
    """

    commands: tuple[type, ...]

    def actuate(self, decision: Decision) -> None:
        """Carry out ``decision.command``."""
        ...

    def close(self) -> None:
        """Bring the device to its safe state (light off, outputs low) and release it."""
        ...
