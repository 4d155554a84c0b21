"""The stage, camera and light of an MMCore, as the calibrations want them."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError
from ..micromanager.hardware import Hardware
from .registration import Image


class CoreStage:
    """The XY stage and the camera of a core.

    Parameters
    ----------
    core
        ``pymmcore.CMMCore`` or one of its children, with a configuration loaded.

    Attributes
    ----------
    device, camera, objective
        Labels of stage and camera, and name of the pixel size configuration in use (``""`` if there is none).
    pixel_size_um
        What the core says of the size of a pixel in um, or None.

    Raises
    ------
    CalibrationError
        If the core has no XY stage or camera.
    """

    def __init__(self, core: Any) -> None:
        self._core, self._hardware = core, Hardware(core)
        self.device, self.camera = str(core.getXYStageDevice()), _camera(core)
        if not self.device:
            raise CalibrationError(
                "the core has no XY stage; load a configuration that names one under Core-XYStage"
            )
        self.objective = str(core.getCurrentPixelSizeConfig())
        self.pixel_size_um: float | None = float(core.getPixelSizeUm()) or None

    def move(self, x_um: float, y_um: float) -> None:
        """Send the stage to (x, y) in um and wait for it.

        Raises
        ------
        ActuatorError
            If it does not get there.
        """
        self._hardware.move_stage(x_um, y_um)

    def position(self) -> tuple[float, float]:
        """Return where the stage says that it is, (x, y) in um."""
        return self._core.getXPosition(self.device), self._core.getYPosition(self.device)

    def snap(self) -> Image:
        """Take an image, (y, x).

        Raises
        ------
        CalibrationError
            If the camera fails or gives colour.
        """
        return _snapped(self._core)


class CoreLight:
    """The galvo or SLM and the camera of a core; the galvo goes first, as for stimulation.

    Parameters
    ----------
    core
        As for :class:`CoreStage`.
    radius
        Of the spot that an SLM shows, in its px.

    Attributes
    ----------
    device, camera, objective
        As in :class:`CoreStage`.
    low, high
        (x, y) of the ends of the device's range, in its units.

    Raises
    ------
    CalibrationError
        If the core has neither, or no camera.
    """

    def __init__(self, core: Any, radius: float = 3.0) -> None:
        self._core, self._radius = core, radius
        self._galvo, self._slm = str(core.getGalvoDevice()), str(core.getSLMDevice())
        self.device, self.camera = self._galvo or self._slm, _camera(core)
        self.objective = str(core.getCurrentPixelSizeConfig())
        if self._galvo:
            self.low = float(core.getGalvoXMinimum(self._galvo)), float(core.getGalvoYMinimum(self._galvo))
            size = float(core.getGalvoXRange(self._galvo)), float(core.getGalvoYRange(self._galvo))
            self.high = self.low[0] + size[0], self.low[1] + size[1]
        elif self._slm:
            self.low = 0.0, 0.0
            self.high = float(core.getSLMWidth(self._slm) - 1), float(core.getSLMHeight(self._slm) - 1)
        else:
            raise CalibrationError("the core has no galvo or SLM; load a configuration that names one")

    def show(self, x: float, y: float) -> None:
        """Light one spot at (x, y) of the device until :meth:`dark`."""
        if self._galvo:
            self._core.setGalvoPosition(self._galvo, x, y)
            self._core.setGalvoIlluminationState(self._galvo, True)
            return
        shape = self._core.getSLMHeight(self._slm), self._core.getSLMWidth(self._slm)
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        lit = (rows - y) ** 2 + (columns - x) ** 2 <= self._radius**2
        self._display(lit.astype(np.uint8) * np.uint8(255))

    def dark(self) -> None:
        """Put the light off."""
        if self._galvo:
            self._core.setGalvoIlluminationState(self._galvo, False)
        else:
            self._display(
                np.zeros((self._core.getSLMHeight(self._slm), self._core.getSLMWidth(self._slm)), np.uint8)
            )

    def snap(self) -> Image:
        """Take an image, (y, x)."""
        return _snapped(self._core)

    def _display(self, image: NDArray[np.uint8]) -> None:
        self._core.setSLMImage(self._slm, image)
        self._core.displaySLMImage(self._slm)


def load_core(config: str, adapters: str) -> Any:
    """Return a core with a Micro-Manager configuration loaded; pass it to :func:`unload` at the end.

    Parameters
    ----------
    config
        The configuration file.
    adapters
        Folder of the device adapters: that of Micro-Manager.

    Raises
    ------
    CalibrationError
        If it cannot be loaded; what the core says.
    ImportError
        If pymmcore is not installed.
    """
    import pymmcore

    core = pymmcore.CMMCore()
    core.setDeviceAdapterSearchPaths([adapters])
    try:
        core.loadSystemConfiguration(config)
    except (RuntimeError, OSError) as error:
        unload(core)
        raise CalibrationError(
            f"{config}: the core cannot load it, with device adapters in {adapters}: {error}"
        ) from error
    return core


def unload(core: Any) -> None:
    """Release all devices of a core."""
    with contextlib.suppress(Exception):
        core.unloadAllDevices()


def _camera(core: Any) -> str:
    camera = str(core.getCameraDevice())
    if not camera:
        raise CalibrationError(
            "the core has no camera; load a configuration that names one under Core-Camera"
        )
    return camera


def _snapped(core: Any) -> Image:
    try:
        core.snapImage()
        image: Any = core.getImage()
    except RuntimeError as error:
        raise CalibrationError(f"the camera took no image: {error}") from error
    if not isinstance(image, np.ndarray) or image.ndim != 2 or core.getNumberOfComponents() != 1:
        raise CalibrationError("the camera gives colour; set its PixelType to 8bit or 16bit")
    return image.copy()
