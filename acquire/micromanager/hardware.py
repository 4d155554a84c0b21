"""What is asked of MMCore at once, between two events: each call works, or says why it did not."""

from __future__ import annotations

import contextlib
import math
from typing import Any

from ..errors import ActuatorError, nearest_name


class Hardware:
    """The few calls of an MMCore that steering needs, with errors that can be told apart.

    A command that comes from outside is tried here before it becomes part of an acquisition event: an error
    inside the engine would end the acquisition, an error here is caught, told and forgotten.

    Parameters
    ----------
    core
        ``pymmcore.CMMCore`` or one of its children (pycro-manager's Python core, ``CMMCorePlus``).
    """

    def __init__(self, core: Any) -> None:
        self._core = core

    def stage_um(self) -> tuple[float, float] | None:
        """Return (x, y) of the stage in um, or None if there is none."""
        stage = self._core.getXYStageDevice()
        return (self._core.getXPosition(stage), self._core.getYPosition(stage)) if stage else None

    def focus_um(self) -> float | None:
        """Return the position of the focus drive in um, or None if there is none."""
        drive = self._core.getFocusDevice()
        return self._core.getPosition(drive) if drive else None

    def exposure_ms(self) -> float:
        """Return the camera's exposure in ms."""
        return self._core.getExposure()

    def preset(self, group: str) -> str:
        """Return the preset of a configuration group that holds, or ``""`` if none does."""
        groups = self._core.getAvailableConfigGroups()
        return self._core.getCurrentConfigFromCache(group) if group in groups else ""

    def move_stage(self, x_um: float, y_um: float) -> None:
        """Move the stage and wait for it; brings it back if it does not arrive.

        Raises
        ------
        ActuatorError
            If there is no stage, the position is not finite, or the stage does not reach it in the core's
            time-out.
        """
        stage = self._core.getXYStageDevice()
        _check_device(stage, "XY stage")
        _check_finite(x_um, y_um)
        before = self._core.getXPosition(stage), self._core.getYPosition(stage)
        try:
            self._core.setXYPosition(stage, x_um, y_um)
            self._core.waitForDevice(stage)
        except Exception as error:
            with contextlib.suppress(Exception):
                self._core.stop(stage)
                self._core.setXYPosition(stage, *before)
                self._core.waitForDevice(stage)
            raise ActuatorError(f"stage {stage!r} cannot go to ({x_um:g}, {y_um:g}) um: {error}") from error

    def move_focus(self, z_um: float) -> None:
        """Move the focus drive and wait for it; brings it back if it does not arrive.

        Raises
        ------
        ActuatorError
            As :meth:`move_stage`.
        """
        drive = self._core.getFocusDevice()
        _check_device(drive, "focus drive")
        _check_finite(z_um)
        before = self._core.getPosition(drive)
        try:
            self._core.setPosition(drive, z_um)
            self._core.waitForDevice(drive)
        except Exception as error:
            with contextlib.suppress(Exception):
                self._core.stop(drive)
            with contextlib.suppress(Exception):
                self._core.setPosition(drive, before)
                self._core.waitForDevice(drive)
            raise ActuatorError(f"focus drive {drive!r} cannot go to {z_um:g} um: {error}") from error

    def set_exposure(self, exposure_ms: float) -> None:
        """Set the camera's exposure in ms.

        Raises
        ------
        ActuatorError
            If it is not a positive finite number or the camera refuses it.
        """
        if not (math.isfinite(exposure_ms) and exposure_ms > 0):
            raise ActuatorError(f"exposure {exposure_ms:g} ms: must be a positive finite number")
        try:
            self._core.setExposure(exposure_ms)
        except Exception as error:
            raise ActuatorError(f"exposure {exposure_ms:g} ms refused: {error}") from error

    def set_channel(self, group: str, preset: str) -> None:
        """Set a preset of a configuration group and wait for it.

        Raises
        ------
        ActuatorError
            Names the group or preset that does not exist and the nearest one that does, or what the core refuses.
        """
        reason = preset_problem(self._core, group, preset)
        if reason:
            raise ActuatorError(reason)
        try:
            self._core.setConfig(group, preset)
            self._core.waitForConfig(group, preset)
        except Exception as error:
            raise ActuatorError(f"preset {preset!r} of group {group!r} refused: {error}") from error

    def set_property(self, device: str, name: str, value: str) -> None:
        """Set a property of a device and wait for it.

        Raises
        ------
        ActuatorError
            Names the device or property that does not exist, the nearest one that does, or the allowed values.
        """
        reason = property_problem(self._core, device, name, value)
        if reason:
            raise ActuatorError(reason)
        try:
            self._core.setProperty(device, name, value)
            self._core.waitForDevice(device)
        except Exception as error:
            raise ActuatorError(f"{device}-{name} = {value!r} refused: {error}") from error


def pixel_affine(core: Any) -> tuple[float, ...]:
    """Return the six numbers of the core's map from px to stage um, without asking a device; none if it has none."""
    with contextlib.suppress(Exception):
        return tuple(float(value) for value in core.getPixelSizeAffine(True))
    return ()


def property_problem(core: Any, device: str, name: str, value: object) -> str:
    """Return why a property cannot be set to a value, or ``""`` if nothing is known against it."""
    devices = list(core.getLoadedDevices())
    if device not in devices:
        return f"no device {device!r}{_hint(device, devices)}; loaded: {', '.join(devices)}"
    if not core.hasProperty(device, name):
        names = list(core.getDevicePropertyNames(device))
        return f"device {device!r} has no property {name!r}{_hint(name, names)}; it has: {', '.join(names)}"
    if core.isPropertyReadOnly(device, name):
        return f"property {device}-{name} can only be read"
    allowed = list(core.getAllowedPropertyValues(device, name))
    if allowed and str(value) not in allowed:
        return f"{device}-{name} = {value!r}; allowed: {', '.join(allowed)}"
    if core.hasPropertyLimits(device, name):
        low, high = core.getPropertyLowerLimit(device, name), core.getPropertyUpperLimit(device, name)
        try:
            inside = low <= float(str(value)) <= high
        except ValueError:
            return f"{device}-{name} = {value!r}; a number from {low:g} to {high:g} is allowed"
        if not inside:
            return f"{device}-{name} = {value!r}; allowed: {low:g} to {high:g}"
    return ""


def preset_problem(core: Any, group: str, preset: str) -> str:
    """Return why a preset cannot be set, or ``""`` if the configuration has it."""
    groups = list(core.getAvailableConfigGroups())
    if group not in groups:
        return f"no group {group!r}; the configuration has: {', '.join(groups)}{_hint(group, groups)}"
    presets = list(core.getAvailableConfigs(group))
    if preset not in presets:
        return (
            f"group {group!r} has no preset {preset!r}; it has: {', '.join(presets)}{_hint(preset, presets)}"
        )
    return ""


def _hint(name: str, known: list[str]) -> str:
    near = nearest_name(name, known)
    return f" (did you mean {near!r}?)" if near else ""


def _check_device(label: str, what: str) -> None:
    if not label:
        raise ActuatorError(f"the core has no {what}")


def _check_finite(*values: float) -> None:
    if not all(map(math.isfinite, values)):
        raise ActuatorError(f"position {values} um: must be finite")
