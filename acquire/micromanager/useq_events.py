"""Decisions as useq events, for pymmcore-plus and whatever else reads :mod:`useq`.

A command that an acquisition event can carry becomes one that acquires an image there, so; any other becomes a
``CustomAction`` with the decision as data. Needs the package ``useq-schema`` (the extra ``plus``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..commands import (
    Command,
    MoveFocus,
    MoveStage,
    Revisit,
    SetChannel,
    SetExposure,
    SetProperty,
    SnapExtra,
    Stimulate,
    decode_mask,
)
from ..errors import ActuatorError
from ..reply import Decision

if TYPE_CHECKING:
    from useq import MDAEvent

KEY = "cytoloop"
"""Under this key the decision stands in the metadata of an event, or in the data of a custom action."""


def event_of(
    decision: Decision, like: MDAEvent | None = None, *, shape: tuple[int, int] | None = None
) -> MDAEvent:
    """Return a decision as one useq event.

    Parameters
    ----------
    decision
        What shall be done. It stands in the event's metadata too, under ``"cytoloop"``, as plain values that JSON
        can hold.
    like
        The planned event that it changes or comes after: what the command does not say is as there. None: as the
        microscope stands.
    shape
        (height, width) of the image in px, for an SLM whose pixels are those of the image: light on points or a
        mask then becomes the event's ``slm_image``. None, for any other device: it becomes a custom action, for an
        actuator that is calibrated.

    Raises
    ------
    ActuatorError
        If the values are such that useq refuses them, or a mask does not fit ``shape``.
    """
    from useq import CustomAction, MDAEvent

    data = msgspec.to_builtins(decision, str_keys=True)
    start = MDAEvent() if like is None else like
    changes = changes_of(decision.command, like, shape=shape)
    metadata = {**start.metadata, KEY: data}
    try:
        if changes is None:
            action = CustomAction(name=data["command"]["type"], data={KEY: data})
            return MDAEvent(index=start.index, action=action, metadata=metadata)
        return start.replace(**changes, metadata=metadata)
    except ValueError as error:
        raise ActuatorError(f"{type(decision.command).__name__}: no useq event: {error}") from error


def changes_of(
    command: Command, like: MDAEvent | None = None, *, shape: tuple[int, int] | None = None
) -> dict[str, Any] | None:
    """Return what a command changes in an event by the names of its fields, or None if an event cannot carry it.

    Parameters are those of :func:`event_of`. ``SnapExtra`` and ``Revisit`` are events that come at once.

    Raises
    ------
    ActuatorError
        If a mask does not fit ``shape``.
    """
    match command:
        case MoveStage(x_um=x, y_um=y, z_um=z):
            return {"x_pos": x, "y_pos": y} | ({} if z is None else {"z_pos": z})
        case MoveFocus(z_um=z):
            return {"z_pos": z}
        case SetExposure(exposure_ms=exposure):
            return {"exposure": exposure}
        case SetChannel(group=group, preset=preset):
            return _channel(group, preset, like)
        case SetProperty(device=device, property=name, value=value):
            return {"properties": [*((like and like.properties) or ()), (device, name, value)]}
        case Stimulate() if shape is not None:
            return {"slm_image": {"data": _pattern(command, shape), "exposure": command.duration_ms}}
        case SnapExtra(exposure_ms=exposure, channel=channel):
            return _again(exposure, channel, like)
        case Revisit(x_um=x, y_um=y, z_um=z, exposure_ms=exposure, channel=channel):
            place = {"x_pos": x, "y_pos": y} | ({} if z is None else {"z_pos": z})
            return _again(exposure, channel, like) | place
        case _:
            return None


def _again(exposure_ms: float | None, channel: str, like: MDAEvent | None) -> dict[str, Any]:
    changes: dict[str, Any] = {"min_start_time": None, "reset_event_timer": False}
    if exposure_ms is not None:
        changes["exposure"] = exposure_ms
    return changes | (_channel("", channel, like) if channel else {})


def _channel(group: str, preset: str, like: MDAEvent | None) -> dict[str, Any]:
    group = group or (like.channel.group if like is not None and like.channel is not None else "Channel")
    return {"channel": {"config": preset, "group": group}}


def _pattern(command: Stimulate, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the light as an image, the power as a fraction of 255."""
    try:
        lit = decode_mask(command.mask, shape) if command.mask else np.zeros(shape, np.bool_)
    except ValueError as error:
        raise ActuatorError(f"stimulation: {error}") from error
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    for x, y in command.points_px:
        lit |= (columns - x) ** 2 + (rows - y) ** 2 <= command.radius_px**2
    return np.where(lit, np.uint8(round(255 * min(max(command.power, 0.0), 1.0))), np.uint8(0))
