"""Places: where a command acts, and when, beside what is known of the frame that it rests on."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..commands import Command, MoveFocus, MoveStage, Revisit, Stimulate, Trigger
from ..coordinates import Affine
from .limits import Limits
from .strength import outside

# Without a box of its own a field of view may be left by at most this many of its diagonals.
TRAVEL_FIELDS = 10.0


class Seen(NamedTuple):
    """What is known of the frame that a decision rests on.

    Attributes
    ----------
    time_s
        Its time in s.
    stage_um
        (x, y) of the stage in um when it was taken, or None if unknown.
    shape
        Height and width in px.
    affine
        Pixel to stage map, or None.
    origin_um
        (x, y) of the stage in um in the first frame of its field of view, or None if unknown.
    uncalibrated
        Why there is no map although a calibration is named: the stage must not be moved. ``""`` otherwise.
    """

    time_s: float
    stage_um: tuple[float, float] | None
    shape: tuple[int, int]
    affine: Affine | None
    origin_um: tuple[float, float] | None
    uncalibrated: str = ""


def place_refusal(command: Command, limits: Limits, seen: Seen) -> str:
    """Return why a command must not act at its place or time; ``""`` if it may."""
    if seen.uncalibrated and isinstance(command, MoveStage | Revisit):
        return seen.uncalibrated
    match command:
        case MoveStage():
            focus = "" if command.z_um is None else _focus_refusal(command.z_um, limits)
            return focus or _stage_refusal(command, limits, seen)
        case Revisit():
            there = MoveStage(command.x_um, command.y_um, command.z_um)
            focus = "" if command.z_um is None else _focus_refusal(command.z_um, limits)
            return focus or _stage_refusal(there, limits, seen)
        case MoveFocus(z_um=z):
            return _focus_refusal(z, limits)
        case Stimulate():
            return _spots_refusal(command, seen.shape)
        case Trigger(at_s=at_s):
            return "" if at_s >= seen.time_s else f"at_s {at_s:g} is before the frame's time"
        case _:
            return ""


def _stage_refusal(command: MoveStage, limits: Limits, seen: Seen) -> str:
    stage, origin_um = seen.stage_um, seen.origin_um
    if stage is None or origin_um is None:
        return "the frame does not say where the stage is, so the step cannot be checked"
    height, width = seen.shape
    diagonal = None if seen.affine is None else math.hypot(height, width) * seen.affine.pixel_size_um
    longest = limits.max_step_um or diagonal
    if longest is None:
        return "neither limits.max_step_um nor a pixel size is given, so no move can be allowed"
    step = math.hypot(command.x_um - stage[0], command.y_um - stage[1])
    if not step <= longest:
        return f"step of {step:.1f} um, the longest allowed is {longest:.1f} um"
    for axis, value, box, start in (
        ("x_um", command.x_um, limits.x_um, origin_um[0]),
        ("y_um", command.y_um, limits.y_um, origin_um[1]),
    ):
        if box is None and diagonal is None:
            return f"neither limits.{axis} nor a pixel size is given, so no move can be allowed"
        reach = TRAVEL_FIELDS * (diagonal or 0.0)
        reason = outside(axis, value, box or (start - reach, start + reach), "um")
        if reason:
            return reason
    return ""


def _focus_refusal(z_um: float, limits: Limits) -> str:
    return outside("z_um", z_um, limits.z_um, "um") if limits.z_um else ""


def _spots_refusal(command: Stimulate, shape: tuple[int, int]) -> str:
    height, width = shape
    if not command.points_px and not command.mask:
        return "nothing to stimulate: neither points nor a mask"
    for x, y in command.points_px:
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            return f"point ({x:.1f}, {y:.1f}) px is outside the image of {width} x {height} px"
    if command.points_px and not 0 < command.radius_px <= max(shape):
        return f"radius_px {command.radius_px:g}: allowed 0 to {max(shape)} px"
    if command.mask and (min(command.mask) < 0 or sum(command.mask) != height * width):
        return f"mask of {sum(command.mask)} px for an image of {width} x {height} px"
    return ""
