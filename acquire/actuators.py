"""Actuators: what carries out the commands that an acquisition event cannot."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .commands import SetProperty, Stimulate, Trigger, decode_mask
from .coordinates import Affine
from .errors import ActuatorError, nearest_name
from .micromanager.hardware import Hardware
from .reply import Decision

Calibration: TypeAlias = "tuple[tuple[float, float, float], tuple[float, float, float]]"
Output: TypeAlias = "tuple[str, str, str, str]"
_MOVED_UM = 0.05


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


@runtime_checkable
class Falling(Protocol):
    """An actuator that can be made safe while the acquisition goes on; optional.

    ``fall`` is called from a thread of its own when the service has been silent for too long, also while ``actuate``
    is under way; it returns soon, and the actuator is used again afterwards.
    """

    commands: tuple[type, ...]

    def fall(self) -> None:
        """Bring the device to its safe state: light off, outputs low."""
        ...


class CoreActuator:
    """Light, outputs and properties through MMCore.

    ``Stimulate`` points a galvo (``pointGalvoAndFire``) or, where there is none or a mask is given, displays a
    pattern on an SLM; ``Trigger`` pulses a property of a device; ``SetProperty`` sets one.

    Parameters
    ----------
    core
        ``pymmcore.CMMCore`` or one of its children.
    calibration
        ((xx, xy, x0), (yx, yy, y0)): image (x, y) in px -> galvo units or SLM px. Stimulation is refused
        without it: light in the wrong place is worse than none.
    affine
        From px to stage um; needed to stimulate after the stage has moved since the frame.
    outputs
        For ``Trigger``: output name -> (device, property, value when on, value when off).
    power
        (device, property, value at full power) that sets the light's power; without it only power 1 is taken.

    Raises
    ------
    ActuatorError
        If the calibration cannot be inverted.
    """

    commands: tuple[type, ...] = (Stimulate, Trigger, SetProperty)

    def __init__(
        self,
        core: Any,
        *,
        calibration: Calibration | None = None,
        affine: Affine | None = None,
        outputs: Mapping[str, Output] | None = None,
        power: tuple[str, str, float] | None = None,
    ) -> None:
        self._core, self._hardware = core, Hardware(core)
        self._affine, self._outputs, self._power = affine, dict(outputs or {}), power
        self._map = None if calibration is None else np.array(calibration, dtype=np.float64).reshape(2, 3)
        if self._map is not None and not abs(np.linalg.det(self._map[:, :2])) > 1e-12:
            raise ActuatorError(f"calibration {calibration}: must be two rows of three that can be inverted")

    def actuate(self, decision: Decision) -> None:
        """Carry out one decision; blocks for the length of the light or the pulse.

        Raises
        ------
        ActuatorError
            If a device, calibration or output is missing, the target is out of reach, or a device refuses.
        """
        match decision.command:
            case Stimulate() as command:
                self._stimulate(command, decision)
            case Trigger() as command:
                self._trigger(command)
            case SetProperty() as command:
                self._hardware.set_property(command.device, command.property, command.value)
            case command:
                raise ActuatorError(f"{type(command).__name__} is not for CoreActuator")

    def close(self) -> None:
        """Turn the light and all outputs off."""
        self.fall()

    def fall(self) -> None:
        """Turn the light and all outputs off, from any thread."""
        with contextlib.suppress(Exception):
            if self._core.getSLMDevice():
                self._show(self._core.getSLMDevice(), None)
        with contextlib.suppress(Exception):
            if self._core.getGalvoDevice():
                self._core.setGalvoIlluminationState(self._core.getGalvoDevice(), False)
        for device, name, _, off in self._outputs.values():
            with contextlib.suppress(ActuatorError):
                self._hardware.set_property(device, name, off)

    def _stimulate(self, command: Stimulate, decision: Decision) -> None:
        if self._map is None:
            raise ActuatorError("stimulation needs a calibration from image px to the device")
        self._set_power(command.power)
        shift = self._shift_px(decision)
        galvo, slm = self._core.getGalvoDevice(), self._core.getSLMDevice()
        try:
            if galvo and not command.mask:
                self._fire(galvo, command, shift)
            elif slm:
                self._display(slm, command, shift)
            else:
                raise ActuatorError(f"the core has no {'SLM' if command.mask else 'galvo or SLM'}")
        except (RuntimeError, ValueError) as error:
            raise ActuatorError(f"stimulation refused: {error}") from error

    def _set_power(self, power: float) -> None:
        if self._power is not None:
            device, name, full = self._power
            self._hardware.set_property(device, name, f"{power * full:g}")
        elif power != 1.0:
            raise ActuatorError(f"power {power:g}: without the option power only 1 can be given")

    def _shift_px(self, decision: Decision) -> NDArray[np.float64]:
        """Return by how many px what was seen has moved in the image, as the stage has since the frame."""
        now = self._hardware.stage_um()
        if now is None or decision.stage_um is None or math.dist(now, decision.stage_um) <= _MOVED_UM:
            return np.zeros(2)
        if self._affine is None:
            raise ActuatorError(
                f"the stage went from {decision.stage_um} to {now} um; affine is needed to follow"
            )
        x, y = self._affine.image_position(decision.stage_um, (1, 1), now)
        return np.array([x, y])

    def _fire(self, galvo: str, command: Stimulate, shift: NDArray[np.float64]) -> None:
        assert self._map is not None
        core = self._core
        low = np.array([core.getGalvoXMinimum(galvo), core.getGalvoYMinimum(galvo)])
        high = low + np.array([core.getGalvoXRange(galvo), core.getGalvoYRange(galvo)])
        targets = (np.array(command.points_px).reshape(-1, 2) + shift) @ self._map[:, :2].T + self._map[:, 2]
        if not np.all((targets >= low) & (targets <= high)):
            raise ActuatorError(
                f"targets {targets.round(3).tolist()} are outside {low.tolist()} to {high.tolist()}"
            )
        for x, y in targets:
            end = time.monotonic() + command.duration_ms / 1000
            core.pointGalvoAndFire(galvo, float(x), float(y), command.duration_ms * 1000)
            core.waitForDevice(galvo)
            time.sleep(max(0.0, end - time.monotonic()))  # some galvos return before the light is off

    def _display(self, slm: str, command: Stimulate, shift: NDArray[np.float64]) -> None:
        assert self._map is not None
        core = self._core
        rows, columns = np.mgrid[: core.getSLMHeight(slm), : core.getSLMWidth(slm)]
        at = np.stack([columns.ravel(), rows.ravel()], axis=1) - self._map[:, 2]
        pixels = at @ np.linalg.inv(self._map[:, :2]).T - shift  # where each SLM pixel falls in the image
        if command.mask:
            mask = decode_mask(command.mask, (core.getImageHeight(), core.getImageWidth()))
            x, y = np.rint(pixels).astype(np.int64).T
            inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
            lit = inside & mask[np.where(inside, y, 0), np.where(inside, x, 0)]
        else:
            points = np.array(command.points_px).reshape(-1, 2)
            lit = np.zeros(len(pixels), dtype=np.bool_)
            for point in points:
                lit |= ((pixels - point) ** 2).sum(axis=1) <= command.radius_px**2
        if not lit.any():
            raise ActuatorError("the pattern lies outside the SLM")
        end = time.monotonic() + command.duration_ms / 1000
        try:
            self._show(slm, lit.reshape(rows.shape))
            time.sleep(max(0.0, end - time.monotonic()))
        finally:
            self._show(slm, None)

    def _show(self, slm: str, lit: NDArray[np.bool_] | None) -> None:
        shape = (self._core.getSLMHeight(slm), self._core.getSLMWidth(slm))
        image = np.zeros(shape, np.uint8) if lit is None else lit.astype(np.uint8) * np.uint8(255)
        self._core.setSLMImage(slm, image)
        self._core.displaySLMImage(slm)

    def _trigger(self, command: Trigger) -> None:
        if command.output not in self._outputs:
            near = nearest_name(command.output, self._outputs)
            hint = f" Did you mean {near!r}?" if near else ""
            known = ", ".join(self._outputs) or "none"
            raise ActuatorError(f"no output {command.output!r}; configured: {known}.{hint}")
        device, name, on, off = self._outputs[command.output]
        try:
            self._hardware.set_property(device, name, on)
            time.sleep(command.width_ms / 1000)
        finally:
            self._hardware.set_property(device, name, off)
