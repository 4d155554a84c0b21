"""What a rule can do: actions by the name that stands behind ``do`` in the experiment file.

Each is a frozen class whose annotated keywords are its options (:func:`~cytoloop.acquire.plugins.build`); see
:class:`~.aim.Action`. One more action is one class and one line in :data:`ACTIONS`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...acquire.commands import (
    Call,
    Command,
    Disarm,
    Pause,
    SetChannel,
    SetExposure,
    SetInterval,
    SetProperty,
    Skip,
    SnapExtra,
    Stop,
    Webhook,
)
from ...acquire.errors import ActuatorError
from ...acquire.webhook import checked_address
from .aim import Action, Aim, Answers, whole
from .light_actions import Isolate, StimulateCell
from .place_actions import Centre, Focus, RevisitPlace
from .rule import Moment
from .timed_actions import Pulse, Sort

__all__ = ["ACTIONS", "Action", "Aim"]


class _Plain:
    """An action of the whole frame whose command depends on its options only."""

    per_cell: ClassVar[bool] = False

    def command(self) -> Command:
        """Return what it asks for."""
        raise NotImplementedError

    def examples(self) -> tuple[Command, ...]:
        """Return the command."""
        return (self.command(),)

    def commands(self, moment: Moment, rows: NDArray[np.int64], at: Aim) -> Answers:
        """Return the command, once."""
        return whole(self.command())


@dataclass(frozen=True, kw_only=True)
class Exposure(_Plain):
    """``do = "exposure"``: the exposure of the frame's channel in ms, from the next image on."""

    exposure_ms: float

    def __post_init__(self) -> None:
        _above("exposure_ms", self.exposure_ms, 0)

    def command(self) -> Command:
        """Return the change of the exposure."""
        return SetExposure(self.exposure_ms)


@dataclass(frozen=True, kw_only=True)
class Channel(_Plain):
    """``do = "channel"``: another preset in place of the frame's channel, from the next image on.

    Attributes
    ----------
    preset
        Name of the preset in Micro-Manager's configuration.
    group
        Its configuration group; default that of the planned channel.
    """

    preset: str
    group: str = ""

    def __post_init__(self) -> None:
        _named("preset", self.preset)

    def command(self) -> Command:
        """Return the change of the channel."""
        return SetChannel(self.group, self.preset)


@dataclass(frozen=True, kw_only=True)
class Interval(_Plain):
    """``do = "interval"``: the time between time points in s, from the next one on; 0: as fast as can be."""

    interval_s: float

    def __post_init__(self) -> None:
        _at_least("interval_s", self.interval_s, 0)

    def command(self) -> Command:
        """Return the change of the interval."""
        return SetInterval(self.interval_s)


@dataclass(frozen=True, kw_only=True)
class Property(_Plain):
    """``do = "property"``: a property of a Micro-Manager device, set at once; the limits must name it."""

    device: str
    property: str
    value: str | float

    def __post_init__(self) -> None:
        _named("device", self.device)
        _named("property", self.property)

    def command(self) -> Command:
        """Return the change of the property."""
        value = self.value if isinstance(self.value, str) else f"{self.value:g}"
        return SetProperty(self.device, self.property, value)


@dataclass(frozen=True, kw_only=True)
class Snap(_Plain):
    """``do = "snap"``: one more image before the acquisition goes on; exposure in ms and preset as the frame's."""

    exposure_ms: float | None = None
    channel: str = ""

    def __post_init__(self) -> None:
        if self.exposure_ms is not None:
            _above("exposure_ms", self.exposure_ms, 0)

    def command(self) -> Command:
        """Return the extra image."""
        return SnapExtra(self.exposure_ms, self.channel)


@dataclass(frozen=True, kw_only=True)
class SkipEvents(_Plain):
    """``do = "skip"``: the next planned events are left out."""

    events: int = 1

    def __post_init__(self) -> None:
        _at_least("events", self.events, 1)

    def command(self) -> Command:
        """Return what is left out."""
        return Skip(self.events)


@dataclass(frozen=True, kw_only=True)
class PauseFor(_Plain):
    """``do = "pause"``: the acquisition is held before the next event, in s."""

    seconds: float

    def __post_init__(self) -> None:
        _above("seconds", self.seconds, 0)

    def command(self) -> Command:
        """Return the pause."""
        return Pause(self.seconds)


@dataclass(frozen=True, kw_only=True)
class StopRun(_Plain):
    """``do = "stop"``: the acquisition ends; what was taken is kept."""

    reason: str = "a rule asked for it"

    def command(self) -> Command:
        """Return the stop."""
        return Stop(self.reason)


@dataclass(frozen=True, kw_only=True)
class DisarmAll(_Plain):
    """``do = "disarm"``: nothing reaches the hardware until a person arms it again."""

    reason: str = "a rule asked for it"

    def command(self) -> Command:
        """Return the disarming."""
        return Disarm(self.reason)


@dataclass(frozen=True, kw_only=True)
class Tell:
    """``do = "webhook"``: an http(s) address is told, by a POST of JSON with the text and the decision.

    Attributes
    ----------
    url, text
        The address, and what it is told.
    per_cell
        Whether it is told of each chosen cell; else once for the frame.
    """

    url: str
    text: str = ""
    per_cell: bool = False

    def __post_init__(self) -> None:
        try:
            checked_address(self.url)
        except ActuatorError as error:
            raise ValueError(f"url: {error}") from None

    def examples(self) -> tuple[Command, ...]:
        """Return the message."""
        return (Webhook(self.url, self.text),)

    def commands(self, moment: Moment, rows: NDArray[np.int64], at: Aim) -> Answers:
        """Return the message, once or for each row."""
        return _once_or_each(Webhook(self.url, self.text), rows, self.per_cell)


@dataclass(frozen=True, kw_only=True)
class CallFunction:
    """``do = "call"``: a Python function that the script at the microscope has registered.

    Attributes
    ----------
    function
        The name under which it is registered.
    arguments
        Numbers and texts by the names of its parameters.
    per_cell
        Whether it is called for each chosen cell; else once for the frame.
    """

    function: str
    arguments: dict[str, float | str] = field(default_factory=dict[str, "float | str"])
    per_cell: bool = False

    def __post_init__(self) -> None:
        _named("function", self.function)

    def examples(self) -> tuple[Command, ...]:
        """Return the call."""
        return (Call(self.function, self.arguments),)

    def commands(self, moment: Moment, rows: NDArray[np.int64], at: Aim) -> Answers:
        """Return the call, once or for each row."""
        return _once_or_each(Call(self.function, self.arguments), rows, self.per_cell)


ACTIONS: dict[str, type] = {
    "stimulate": StimulateCell,
    "isolate": Isolate,
    "centre": Centre,
    "focus": Focus,
    "revisit": RevisitPlace,
    "exposure": Exposure,
    "channel": Channel,
    "interval": Interval,
    "property": Property,
    "snap": Snap,
    "skip": SkipEvents,
    "pause": PauseFor,
    "trigger": Pulse,
    "sort": Sort,
    "webhook": Tell,
    "call": CallFunction,
    "disarm": DisarmAll,
    "stop": StopRun,
}
"""The class behind each ``do``; each is an :class:`~.aim.Action`."""


def _once_or_each(command: Command, rows: NDArray[np.int64], per_cell: bool) -> Answers:
    return [(int(row), command) for row in rows] if per_cell else whole(command)


def _above(name: str, value: float, least: float) -> None:
    if not least < value < math.inf:
        raise ValueError(f"{name} must be > {least:g}, got {value}")


def _at_least(name: str, value: float, least: float) -> None:
    if not least <= value < math.inf:
        raise ValueError(f"{name} must be >= {least:g}, got {value}")


def _named(name: str, value: str) -> None:
    if not value:
        raise ValueError(f"{name} must not be empty")
