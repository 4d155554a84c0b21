"""Strength: what a command asks for, wherever it acts: exposures, powers, lengths, names that must be allowed."""

from __future__ import annotations

from ..commands import (
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
from ..errors import nearest_name
from .limits import Limits


def strength_refusal(command: Command, limits: Limits) -> str:
    """Return why a command is too strong, wherever it acts; ``""`` if it is not."""
    match command:
        case SetExposure(exposure_ms=exposure):
            return outside("exposure_ms", exposure, limits.exposure_ms, "ms")
        case SnapExtra(exposure_ms=exposure):
            return "" if exposure is None else outside("exposure_ms", exposure, limits.exposure_ms, "ms")
        case Stimulate(duration_ms=duration, power=power):
            return outside("duration_ms", duration, (0.0, limits.stimulation_ms_max), "ms") or outside(
                "power", power, (0.0, limits.stimulation_power_max), ""
            )
        case SetProperty(device=device, property=name):
            return _unlisted("property", f"{device}.{name}", limits.properties)
        case SetChannel(group=group, preset=preset):
            return _unlisted("channel", f"{group}.{preset}", limits.channels)
        case SetInterval(interval_s=interval):
            return outside("interval_s", interval, limits.interval_s, "s")
        case Webhook(url=url):
            if any(url.startswith(allowed) for allowed in limits.webhooks):
                return ""
            return (
                f"no allowed address begins {url!r}; limits.webhooks: {', '.join(limits.webhooks) or 'none'}"
            )
        case Call(function=function):
            return _unlisted("call", function, limits.calls)
        case Trigger(width_ms=width):
            return outside("width_ms", width, (0.0, limits.trigger_ms_max), "ms")
        case Pause(seconds=seconds):
            return outside("pause", seconds, (0.0, limits.pause_s_max), "s")
        case Skip(events=events):
            return outside("events", events, (1, limits.skip_max), "")
        case MoveFocus():
            return "" if limits.z_um else "no limits.z_um is given, so focus is never moved"
        case MoveStage(z_um=z):
            return "" if z is None or limits.z_um else "no limits.z_um is given, so focus is never moved"
        case Revisit(z_um=z, exposure_ms=exposure, channel=channel):
            if z is not None and not limits.z_um:
                return "no limits.z_um is given, so focus is never moved"
            slow = "" if exposure is None else outside("exposure_ms", exposure, limits.exposure_ms, "ms")
            return slow or (channel and _unlisted_preset(channel, limits.channels))
        case Stop() | Disarm():
            return ""


def outside(name: str, value: float, allowed: tuple[float, float], unit: str) -> str:
    """Return that a value lies outside what is allowed (NaN does), or ``""``."""
    if allowed[0] <= value <= allowed[1]:
        return ""
    return f"{name} {value:g} {unit}".rstrip() + f": allowed {allowed[0]:g} to {allowed[1]:g} {unit}".rstrip()


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
