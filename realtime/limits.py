"""Limits: what no rule can talk the microscope into.

Every decision of every rule passes here. One that would leave the limits keeps its place in the reply, with
the reason in ``refused``, and a message says so; it is never carried out and never dropped in silence.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Annotated

import msgspec

from ..acquire.commands import (
    Call,
    Command,
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
    Stimulate,
    Stop,
    Trigger,
    Webhook,
)
from ..acquire.errors import ConfigurationError, Problem, nearest_name
from ..acquire.reply import Decision
from .doses import Doses
from .rules.rule import Moment, Verdict

# Without a box of its own a field of view may be left by at most this many of its diagonals.
TRAVEL_FIELDS = 10.0

Positive = Annotated[float, msgspec.Meta(gt=0)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What commands of one stream may ask for; intervals are [lowest, highest] with both ends allowed.

    Attributes
    ----------
    x_um, y_um
        Where the stage may go, in um. Default none: within ten diagonals of the field of view from where the
        stage stood in the first frame of that field of view.
    z_um
        Where the focus drive may go, in um. Default none: focus is never moved, because a wrong move drives
        the objective into the sample.
    max_step_um
        Longest single move of the stage in um, measured from where the frame was taken. Default none: the
        diagonal of one field of view.
    exposure_ms
        Exposures in ms that may be set. Default [0.1, 1000].
    stimulation_ms_max
        Longest stimulation in ms. Default 1000.
    stimulation_power_max
        Strongest stimulation, as a fraction (0 to 1) of the device's maximum. Default 1.
    trigger_ms_max
        Widest pulse of an output in ms. Default 100.
    pause_s_max
        Longest pause in s. Default 60.
    skip_max
        Most planned events that one command may leave out. Default 100.
    commands_per_s
        Commands per second of frame time; stopping is never held back. Default 50.
    properties
        Device properties that may be set, each ``"Device.Property"``. Default none.
    channels
        Presets of configuration groups that may be set, each ``"Group.Preset"``. Default none.
    interval_s
        Times between time points in s that may be set. Default [0.1, 86400].
    webhooks
        Beginnings of the addresses that may be told of something. Default none.
    calls
        Registered functions that may be called. Default none.
    dose_ms_per_cell, dose_ms_per_area, dose_ms_per_run
        Most light that a cell, a square of the sample, and the whole run may be given: power (0 to 1) times length in
        ms; a light on several points counts once for each in the run. Default no limit.
    dose_area_um
        Edge of such a square in um. Default 10.
    triggers_max
        Pulses of outputs in the run. Default no limit.
    """

    x_um: tuple[float, float] | None = None
    y_um: tuple[float, float] | None = None
    z_um: tuple[float, float] | None = None
    max_step_um: Positive | None = None
    exposure_ms: tuple[Positive, Positive] = (0.1, 1000.0)
    stimulation_ms_max: Annotated[float, msgspec.Meta(ge=0)] = 1000.0
    stimulation_power_max: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    trigger_ms_max: Positive = 100.0
    pause_s_max: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    skip_max: Annotated[int, msgspec.Meta(ge=0)] = 100
    commands_per_s: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = 50.0
    properties: tuple[Annotated[str, msgspec.Meta(pattern=r"^[^.]+\..+$")], ...] = ()
    channels: tuple[Annotated[str, msgspec.Meta(pattern=r"^[^.]+\..+$")], ...] = ()
    interval_s: tuple[Positive, Positive] = (0.1, 86_400.0)
    webhooks: tuple[Annotated[str, msgspec.Meta(pattern=r"^https?://[^/]+/")], ...] = ()
    calls: tuple[str, ...] = ()
    dose_ms_per_cell: Positive | None = None
    dose_ms_per_area: Positive | None = None
    dose_area_um: Positive = 10.0
    dose_ms_per_run: Positive | None = None
    triggers_max: Annotated[int, msgspec.Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        for key in ("x_um", "y_um", "z_um", "exposure_ms", "interval_s"):
            interval: tuple[float, float] | None = getattr(self, key)
            if interval is not None and not interval[0] <= interval[1]:
                problems.append(
                    Problem(
                        "", 0, key, f"{list(interval)}: expected [lowest, highest] with lowest <= highest."
                    )
                )
        if problems:
            raise ConfigurationError(problems)


class Limiter:
    """Checks the decisions of one stream, in the order of its frames.

    The rate is counted over all fields of view, because there is one microscope; in frame time, which is not
    allowed to run backwards here. The state is one deque of at most ``commands_per_s`` times.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._capacity = max(1, int(limits.commands_per_s))
        self._window_s = self._capacity / limits.commands_per_s
        self._passed_s: deque[float] = deque(maxlen=self._capacity)
        self._now_s = -math.inf
        self._doses = Doses(limits)

    def check(
        self, moment: Moment, decisions: tuple[Decision, ...], origin_um: tuple[float, float] | None
    ) -> Verdict:
        """Return the decisions, those outside the limits with ``refused`` filled, and a message for each.

        Parameters
        ----------
        moment
            The frame that the decisions rest on.
        decisions
            What the rules want.
        origin_um
            (x, y) of the stage in um in the first frame of this field of view, or None if unknown.
        """
        if math.isfinite(moment.frame.time_s):
            self._now_s = max(self._now_s, moment.frame.time_s)
        self._doses.see(moment)
        checked: list[Decision] = []
        messages: list[str] = []
        for decision in decisions:
            try:
                # The types of a plugin's decision are as unchecked as its numbers.
                decision = msgspec.convert(msgspec.to_builtins(decision), Decision)
                reason = self._refusal(moment, decision, origin_um)
            except (msgspec.ValidationError, TypeError, ValueError, OverflowError) as error:
                messages.append(f"a malformed decision was dropped: {type(error).__name__}: {error}")
                continue
            if reason:
                decision = msgspec.structs.replace(decision, refused=reason)
                kind = type(decision.command).__name__
                messages.append(f"limits: {kind} of rule {decision.rule!r} refused: {reason}")
            checked.append(decision)
        return Verdict(tuple(checked), tuple(messages))

    def _refusal(self, moment: Moment, decision: Decision, origin_um: tuple[float, float] | None) -> str:
        if decision.refused:
            return decision.refused
        reason = (
            _numbers_refusal(decision)
            or strength_refusal(decision.command, self.limits)
            or place_refusal(decision.command, self.limits, moment, origin_um)
            or self._doses.refusal(decision, moment)
            or self._rate_refusal(decision.command)
        )
        if not reason:
            self._doses.give(decision, moment)
        return reason

    def _rate_refusal(self, command: Command) -> str:
        if isinstance(command, Stop | Disarm):
            return ""
        full = len(self._passed_s) == self._capacity
        if full and not self._now_s - self._passed_s[0] >= self._window_s:
            return f"more than {self.limits.commands_per_s:g} commands per second of frame time"
        self._passed_s.append(self._now_s)
        return ""


def strength_refusal(command: Command, limits: Limits) -> str:
    """Return why a command is too strong, wherever it acts; ``""`` if it is not."""
    match command:
        case SetExposure(exposure_ms=exposure):
            return _outside("exposure_ms", exposure, limits.exposure_ms, "ms")
        case SnapExtra(exposure_ms=exposure):
            return "" if exposure is None else _outside("exposure_ms", exposure, limits.exposure_ms, "ms")
        case Stimulate(duration_ms=duration, power=power):
            return _outside("duration_ms", duration, (0.0, limits.stimulation_ms_max), "ms") or _outside(
                "power", power, (0.0, limits.stimulation_power_max), ""
            )
        case SetProperty(device=device, property=name):
            return _unlisted("property", f"{device}.{name}", limits.properties)
        case SetChannel(group=group, preset=preset):
            return _unlisted("channel", f"{group}.{preset}", limits.channels)
        case SetInterval(interval_s=interval):
            return _outside("interval_s", interval, limits.interval_s, "s")
        case Webhook(url=url):
            if any(url.startswith(allowed) for allowed in limits.webhooks):
                return ""
            return (
                f"no allowed address begins {url!r}; limits.webhooks: {', '.join(limits.webhooks) or 'none'}"
            )
        case Call(function=function):
            return _unlisted("call", function, limits.calls)
        case Trigger(width_ms=width):
            return _outside("width_ms", width, (0.0, limits.trigger_ms_max), "ms")
        case Pause(seconds=seconds):
            return _outside("pause", seconds, (0.0, limits.pause_s_max), "s")
        case Skip(events=events):
            return _outside("events", events, (1, limits.skip_max), "")
        case MoveFocus():
            return "" if limits.z_um else "no limits.z_um is given, so focus is never moved"
        case MoveStage(z_um=z):
            return "" if z is None or limits.z_um else "no limits.z_um is given, so focus is never moved"
        case Revisit(z_um=z, exposure_ms=exposure, channel=channel):
            if z is not None and not limits.z_um:
                return "no limits.z_um is given, so focus is never moved"
            slow = "" if exposure is None else _outside("exposure_ms", exposure, limits.exposure_ms, "ms")
            return slow or (channel and _unlisted_preset(channel, limits.channels))
        case Stop() | Disarm():
            return ""


def place_refusal(
    command: Command, limits: Limits, moment: Moment, origin_um: tuple[float, float] | None
) -> str:
    """Return why a command must not act at its place or time; ``""`` if it may."""
    if moment.uncalibrated and isinstance(command, MoveStage | Revisit):
        return moment.uncalibrated
    match command:
        case MoveStage():
            focus = "" if command.z_um is None else _focus_refusal(command.z_um, limits)
            return focus or _stage_refusal(command, limits, moment, origin_um)
        case Revisit():
            there = MoveStage(command.x_um, command.y_um, command.z_um)
            focus = "" if command.z_um is None else _focus_refusal(command.z_um, limits)
            return focus or _stage_refusal(there, limits, moment, origin_um)
        case MoveFocus(z_um=z):
            return _focus_refusal(z, limits)
        case Stimulate():
            return _spots_refusal(command, moment.tracks.detections.shape)
        case Trigger(at_s=at_s):
            return "" if at_s >= moment.frame.time_s else f"at_s {at_s:g} is before the frame's time"
        case _:
            return ""


def _stage_refusal(
    command: MoveStage, limits: Limits, moment: Moment, origin_um: tuple[float, float] | None
) -> str:
    stage = moment.frame.stage_um
    if stage is None or origin_um is None:
        return "the frame does not say where the stage is, so the step cannot be checked"
    height, width = moment.tracks.detections.shape
    diagonal = None if moment.affine is None else math.hypot(height, width) * moment.affine.pixel_size_um
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
        reason = _outside(axis, value, box or (start - reach, start + reach), "um")
        if reason:
            return reason
    return ""


def _focus_refusal(z_um: float, limits: Limits) -> str:
    return _outside("z_um", z_um, limits.z_um, "um") if limits.z_um else ""


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


def _numbers_refusal(decision: Decision) -> str:
    named = {
        "time_s": (decision.time_s,),
        "expires_s": (decision.expires_s,),
        "at_px": decision.at_px or (),
        "covariance_px2": decision.covariance_px2 or (),
        "stage_um": decision.stage_um or (),
        "command": _floats(msgspec.structs.astuple(decision.command)),
    }
    for name, values in named.items():
        if not all(map(math.isfinite, values)):
            return f"{name} is not finite"
    if decision.expires_s < decision.time_s:
        return f"it expires at {decision.expires_s:g} s, before its frame at {decision.time_s:g} s"
    return ""


def _unlisted(what: str, wanted: str, allowed: tuple[str, ...]) -> str:
    if wanted in allowed:
        return ""
    near = nearest_name(wanted, allowed)
    hint = f" Did you mean {near!r}?" if near else ""
    return f"{what} {wanted!r} is not allowed; allowed: {', '.join(allowed) or 'none'}.{hint}".rstrip(".")


def _unlisted_preset(preset: str, allowed: tuple[str, ...]) -> str:
    if any(each.partition(".")[2] == preset for each in allowed):
        return ""
    return f"channel {preset!r} is not allowed; allowed: {', '.join(allowed) or 'none'}"


def _floats(value: object) -> list[float]:
    """Return every float inside nested tuples."""
    if isinstance(value, tuple):
        return [number for item in value for number in _floats(item)]  # pyright: ignore[reportUnknownArgumentType]
    return [value] if isinstance(value, float) else []


def _outside(name: str, value: float, allowed: tuple[float, float], unit: str) -> str:
    # Written so that NaN is outside.
    if allowed[0] <= value <= allowed[1]:
        return ""
    return f"{name} {value:g} {unit}".rstrip() + f": allowed {allowed[0]:g} to {allowed[1]:g} {unit}".rstrip()
