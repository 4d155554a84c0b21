"""Checks of acquisition events before they are submitted: what pycro-manager 1.0.2 would mishandle is refused.

On its queue a bad event kills the thread that submits, and the acquisition hangs; a misspelt key is ignored in
silence; some documented keys are broken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import EventError, nearest_name
from .hardware import preset_problem, property_problem
from .step import Key, axes_key

_KEYS = (
    "axes",
    "x",
    "y",
    "z",
    "exposure",
    "config_group",
    "properties",
    "min_start_time",
    "timeout_ms",
    "stage_positions",
    "camera",
)
_BROKEN = {
    "tags": "pycro-manager 1.0.2 hangs on an event with tags; keep notes of your own by 'axes' instead",
    "slm_pattern": "pycro-manager 1.0.2 does not display SLM patterns; use an actuator (Stimulate) instead",
    "stage": "pycro-manager 1.0.2 makes an axis of it; use 'stage_positions': [[device, position_um], ...]",
    "row": "put it into 'axes': {'row': ...}",
    "col": "put it into 'axes': {'column': ...}",
    "special": "is the engine's own",
}
_NUMBERS = ("x", "y", "z", "exposure", "min_start_time", "timeout_ms")


class EventCheck:
    """Checks the events of one acquisition; remembers the axes that have been used.

    Parameters
    ----------
    core
        The core whose devices, presets and properties the events may name; None: these are not checked.
    """

    def __init__(self, core: Any = None) -> None:
        self._core = core
        self._used: set[Key] = set()
        self._axis_types: dict[str, type] = {}
        self._known_good: set[tuple[Any, ...]] = set()
        self._count = 0

    def check(self, events: Iterable[Any]) -> list[dict[str, Any]]:
        """Check events together and return them; none is remembered if one is refused.

        Raises
        ------
        EventError
            Names the event's index, counted over the acquisition, its key and what is allowed.
        """
        used, types, count = set(self._used), dict(self._axis_types), self._count
        checked: list[dict[str, Any]] = []
        for event in events:
            reason = self._problem(event, used, types)
            if reason:
                raise EventError(f"event {count}: {reason}")
            checked.append(event)
            count += 1
        self._used, self._axis_types, self._count = used, types, count
        return checked

    def _problem(self, event: Any, used: set[Key], types: dict[str, type]) -> str:
        if not isinstance(event, Mapping):
            return f"must be a dict, got {type(event).__name__}"
        return (
            _key_problem(event)
            or _axes_problem(event, used, types)
            or _value_problem(event)
            or self._core_problem(event)
        )

    def _core_problem(self, event: Mapping[str, Any]) -> str:
        """Check what only the core knows; each thing once."""
        core = self._core
        if core is None:
            return ""
        if "x" in event and not core.getXYStageDevice():
            return "key 'x': the core has no XY stage"
        if "z" in event and not core.getFocusDevice():
            return "key 'z': the core has no focus drive"
        named = [("properties", *triple) for triple in event.get("properties", ())]
        named += [("stage_positions", pair[0]) for pair in event.get("stage_positions", ())]
        named += [("config_group", *event["config_group"])] if "config_group" in event else []
        named += [("camera", event["camera"])] if "camera" in event else []
        for key, *words in named:
            if (key, *words) in self._known_good:
                continue
            reason = _CORE_CHECKS[key](core, *words)
            if reason:
                return f"key {key!r}: {reason}"
            self._known_good.add((key, *words))
        return ""


def _key_problem(event: Mapping[str, Any]) -> str:
    for key in event:
        if key in _BROKEN:
            return f"key {key!r}: {_BROKEN[key]}"
        if key not in _KEYS:
            near = nearest_name(str(key), _KEYS)
            hint = f" Did you mean {near!r}?" if near else ""
            return f"unknown key {key!r}; allowed: {', '.join(_KEYS)}.{hint}"
    return "" if "axes" in event else "key 'axes' is missing; such as 'axes': {'time': 0}"


def _axes_problem(event: Mapping[str, Any], used: set[Key], types: dict[str, type]) -> str:
    axes = event["axes"]
    if not isinstance(axes, Mapping):
        return f"key 'axes': must be a dict such as {{'time': 0}}, got {axes!r}"
    for name, value in axes.items():
        if not isinstance(name, str):
            return f"key 'axes': names must be str, got {name!r}"
        if not _is_index(value):
            return f"key 'axes': {name!r} must be an int or a str, got {value!r}"
        kind = str if isinstance(value, str) else int
        if types.setdefault(name, kind) is not kind:
            return f"key 'axes': {name!r} is {value!r}; an axis holds either int or str, not both"
    key = axes_key(axes)
    if key in used:
        return f"key 'axes': {dict(axes)} has been used before; every image needs axes of its own"
    used.add(key)
    return ""


def _value_problem(event: Mapping[str, Any]) -> str:
    for key in _NUMBERS:
        if key in event and not _is_number(event[key]):
            return f"key {key!r}: must be a finite number, got {event[key]!r}"
    if ("x" in event) != ("y" in event):
        return "keys 'x' and 'y' are needed together; pycro-manager ignores one alone"
    if event.get("exposure", 1) <= 0:
        return f"key 'exposure': must be above 0 ms, got {event['exposure']!r}"
    if event.get("min_start_time", 0) < 0:
        return f"key 'min_start_time': must be 0 s or more, got {event['min_start_time']!r}"
    if "config_group" in event and not _are(event["config_group"], 2, str):
        return f"key 'config_group': must be [group, preset], got {event['config_group']!r}"
    if "camera" in event and not isinstance(event["camera"], str):
        return f"key 'camera': must be a device name, got {event['camera']!r}"
    for triple in _sequence(event.get("properties", ())):
        if not (_are(triple, 3) and isinstance(triple[2], str | int | float) and _are(triple[:2], 2, str)):
            return f"key 'properties': must be [[device, property, value], ...], got {triple!r}"
    for pair in _sequence(event.get("stage_positions", ())):
        if not (_are(pair, 2) and isinstance(pair[0], str) and _is_number(pair[1])):
            return f"key 'stage_positions': must be [[device, position_um], ...], got {pair!r}"
    return ""


def _is_index(value: Any) -> bool:
    """Return whether the engine takes a value as the place along an axis."""
    if isinstance(value, np.integer):
        return value.dtype.name in ("int32", "int64")
    return isinstance(value, int | str) and not isinstance(value, bool)


def _sequence(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


def _are(value: Any, count: int, kind: type = object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == count
        and all(isinstance(item, kind) for item in value)
    )


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _device_problem(core: Any, device: str) -> str:
    devices = list(core.getLoadedDevices())
    return (
        ""
        if device in devices
        else f"no device {device!r}; loaded: {', '.join(devices)}{_hint(device, devices)}"
    )


def _hint(name: str, known: list[str]) -> str:
    near = nearest_name(name, known)
    return f". Did you mean {near!r}?" if near else ""


_CORE_CHECKS = {
    "properties": property_problem,
    "stage_positions": _device_problem,
    "camera": _device_problem,
    "config_group": preset_problem,
}
