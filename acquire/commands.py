"""What the service may ask of the microscope: one small frozen type per action.

All are values; carrying them out is the business of the link (stage, exposure, properties travel in the next
acquisition event) and of actuators (light, triggers). Stage positions are absolute, so that a command that
arrives twice does nothing twice.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray


class MoveStage(msgspec.Struct, frozen=True, tag="move_stage"):
    """Move the XY stage to (x, y) and, if given, the focus drive to z; all in um, absolute."""

    x_um: float
    y_um: float
    z_um: float | None = None


class MoveFocus(msgspec.Struct, frozen=True, tag="move_focus"):
    """Move the focus drive to z in um, absolute."""

    z_um: float


class SetExposure(msgspec.Struct, frozen=True, tag="set_exposure"):
    """Set the camera's exposure in ms, from the next frame on."""

    exposure_ms: float


class SetProperty(msgspec.Struct, frozen=True, tag="set_property"):
    """Set a property of a Micro-Manager device."""

    device: str
    property: str
    value: str


class Stimulate(msgspec.Struct, frozen=True, tag="stimulate"):
    """Shine light on points or on a mask, in coordinates of the image that the decision rests on.

    Attributes
    ----------
    points_px
        (x, y) of each point in px.
    radius_px
        Radius of the spot at each point in px.
    mask
        Instead of points: run lengths over the image in row-major order, starting with dark
        (see :func:`encode_mask`).
    duration_ms, power
        Length in ms, power as a fraction of the device's maximum (0 to 1).
    """

    points_px: tuple[tuple[float, float], ...] = ()
    radius_px: float = 5.0
    mask: tuple[int, ...] = ()
    duration_ms: float = 100.0
    power: float = 1.0


class Trigger(msgspec.Struct, frozen=True, tag="trigger"):
    """Pulse an output, such as a sort gate, at a stated time of the frame clock."""

    output: str
    at_s: float
    width_ms: float = 1.0


class SnapExtra(msgspec.Struct, frozen=True, tag="snap_extra"):
    """Take one more image before the acquisition goes on."""

    exposure_ms: float | None = None
    channel: str = ""


class Skip(msgspec.Struct, frozen=True, tag="skip"):
    """Leave out the next planned events."""

    events: int = 1


class Pause(msgspec.Struct, frozen=True, tag="pause"):
    """Hold the acquisition before the next event, for a stated time in s."""

    seconds: float


class SetChannel(msgspec.Struct, frozen=True, tag="set_channel"):
    """Take the images of the frame's channel with another preset of a configuration group, from the next one on."""

    group: str
    preset: str


class SetInterval(msgspec.Struct, frozen=True, tag="set_interval"):
    """Set the time in s between time points, from the next one on."""

    interval_s: float


class Revisit(msgspec.Struct, frozen=True, tag="revisit"):
    """Take one more image at a place, in um, not before a stated time of the frame clock in s."""

    x_um: float
    y_um: float
    z_um: float | None = None
    at_s: float = 0.0
    exposure_ms: float | None = None
    channel: str = ""


class Webhook(msgspec.Struct, frozen=True, tag="webhook"):
    """Tell an http(s) address of something: a POST of a JSON object with ``text`` and the decision."""

    url: str
    text: str = ""


class Call(msgspec.Struct, frozen=True, tag="call"):
    """Call a Python function that the script at the microscope has registered under this name."""

    function: str
    arguments: dict[str, float | str] = {}


class Disarm(msgspec.Struct, frozen=True, tag="disarm"):
    """Let nothing reach the hardware until a person arms it again; never refused, never stale."""

    reason: str


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """End the acquisition as planned ends do: everything acquired is kept."""

    reason: str


Command: TypeAlias = (
    MoveStage
    | MoveFocus
    | SetExposure
    | SetProperty
    | SetChannel
    | SetInterval
    | Stimulate
    | Trigger
    | SnapExtra
    | Revisit
    | Skip
    | Pause
    | Webhook
    | Call
    | Disarm
    | Stop
)


def encode_mask(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Return run lengths of a (y, x) mask in row-major order, the first run being dark (maybe of length 0)."""
    flat = np.concatenate(([False], mask.ravel(), [not mask.ravel()[-1]]))
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return tuple(int(n) for n in np.diff(np.concatenate(([0], edges))))


def decode_mask(runs: tuple[int, ...], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Undo :func:`encode_mask`.

    Raises
    ------
    ValueError
        If the runs are negative or do not add up to the image.
    """
    if any(n < 0 for n in runs) or sum(runs) != shape[0] * shape[1]:
        raise ValueError(f"mask runs add up to {sum(runs)} px, the image has {shape[0] * shape[1]}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape)
