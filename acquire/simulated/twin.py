"""The simulated microscope behind a real MMCore: real engine, real stages and camera timing, rendered pixels.

pycro-manager's Python engine reaches the camera through four methods of its core, by their snake_case names.
Replacing them on that one instance leaves everything else real: the stages move, the exposure is waited for,
the circular buffer fills and may overflow, the metadata is the core's own.
"""

from __future__ import annotations

from typing import Any

from ..errors import AcquisitionError
from .microscope import SimulatedMicroscope

_REPLACED = ("snap_image", "get_tagged_image", "start_sequence_acquisition", "pop_next_tagged_image")
_PIXEL_TYPES = {"uint8": "8bit", "uint16": "16bit"}


class Twin:
    """A simulated microscope installed behind a core; a context manager that uninstalls it at the end.

    Parameters
    ----------
    core
        The pymmcore core of pycro-manager's Python backend, with XY stage, focus drive and DemoCamera.
    microscope
        What the camera shall see. Stage, focus and exposure are read from the core's devices at each snap and
        at the start of each burst; so is the preset of the channel group, if the microscope has channels.

    Raises
    ------
    AcquisitionError
        If the core is not one that pycro-manager made, lacks a device, or its camera cannot be set up.
    """

    def __init__(self, core: Any, microscope: SimulatedMicroscope) -> None:
        self.core, self.microscope = core, microscope
        _check(core)
        self._camera = str(core.get_camera_device())
        self._config = str(core.get_current_pixel_size_config())
        self._before = _remember(core, self._camera, self._config)
        self._methods = {name: core.__dict__[name] for name in _REPLACED if name in core.__dict__}
        height, width = microscope.camera.shape
        settings = {
            "OnCameraCCDXSize": str(width),
            "OnCameraCCDYSize": str(height),
            "PixelType": _PIXEL_TYPES[microscope.camera.pixel_type],
        }
        a = microscope.affine
        try:
            _configure(
                core, self._camera, settings, self._config, a.pixel_size_um, [a.xx, a.xy, 0, a.yx, a.yy, 0]
            )
            core.clear_roi()
        except RuntimeError as error:
            self._restore()
            raise AcquisitionError(f"camera {self._camera}: cannot be set to {settings}: {error}") from error
        self._image: Any = None
        core.snap_image = self._snap_image
        core.get_tagged_image = self._get_tagged_image
        core.start_sequence_acquisition = self._start_sequence_acquisition
        core.pop_next_tagged_image = self._pop_next_tagged_image

    def uninstall(self) -> None:
        """Give the core its own methods, camera size and pixel size back; more than once does no harm."""
        for name in _REPLACED:
            self.core.__dict__.pop(name, None)
        self.core.__dict__.update(self._methods)
        self._restore()

    def __enter__(self) -> Twin:
        return self

    def __exit__(self, *_: object) -> None:
        self.uninstall()

    def _restore(self) -> None:
        settings, pixel_size_um, affine = self._before
        _configure(self.core, self._camera, settings, self._config, pixel_size_um, affine)

    def _look(self) -> None:
        """Take over the state of the real devices."""
        core, scope = self.core, self.microscope
        size = int(core.get_image_height()), int(core.get_image_width())
        if size != scope.camera.shape:
            raise AcquisitionError(
                f"camera {self._camera} gives {size} px (height, width) but the simulated microscope"
                f" {scope.camera.shape}; leave region of interest and binning as they were at installation"
            )
        scope.stage_um = float(core.get_x_position()), float(core.get_y_position())
        scope.z_um = float(core.get_position())
        scope.exposure_ms = float(core.get_exposure())
        if scope.channels:
            scope.channel = str(core.get_current_config(core.get_channel_group() or "Channel"))

    def _snap_image(self) -> None:
        self._look()
        type(self.core).snap_image(self.core)
        self._image = self.microscope.snap()

    def _get_tagged_image(self, cam_index: int, camera: str, height: int, width: int, *rest: Any) -> Any:
        tagged = self._methods["get_tagged_image"](cam_index, camera, height, width, *rest)
        tagged.pix = self._image
        return tagged

    def _start_sequence_acquisition(self, *arguments: Any) -> None:
        self._look()
        type(self.core).start_sequence_acquisition(self.core, *arguments)

    def _pop_next_tagged_image(self) -> Any:
        tagged = self._methods["pop_next_tagged_image"]()  # raises while there is none yet
        tagged.pix = self.microscope.snap()
        return tagged


def install_behind(core: Any, microscope: SimulatedMicroscope) -> Twin:
    """Put a simulated microscope behind a core; call ``uninstall`` on what is returned, or use it as a context.

    Parameters
    ----------
    core, microscope
        See :class:`Twin`.
    """
    return Twin(core, microscope)


def _check(core: Any) -> None:
    own = getattr(core, "__dict__", {})
    if "get_tagged_image" not in own:
        raise AcquisitionError(
            "the core is not that of pycro-manager's Python backend; use start_headless(..., python_backend=True)"
            " and the core of its engine"
        )
    if "snap_image" in own:
        raise AcquisitionError("the core already has a simulated microscope behind it; uninstall that first")
    roles = {
        "Camera": core.get_camera_device(),
        "XYStage": core.get_xy_stage_device(),
        "Focus": core.get_focus_device(),
    }
    empty = [role for role, device in roles.items() if not device]
    if empty:
        raise AcquisitionError(
            f"the core has no device for: {', '.join(empty)}; load a configuration that has them"
        )
    if core.get_number_of_camera_channels() != 1:
        raise AcquisitionError(f"camera {roles['Camera']} has several channels; one is supported")


def _remember(core: Any, camera: str, config: str) -> tuple[dict[str, str], float, list[float]]:
    names = ("OnCameraCCDXSize", "OnCameraCCDYSize", "PixelType")
    lacking = [name for name in names if not core.has_property(camera, name)]
    if lacking:
        raise AcquisitionError(f"camera {camera} has no property {lacking[0]!r}; a DemoCamera is needed")
    settings = {name: str(core.get_property(camera, name)) for name in names}
    if not config:
        return settings, 0.0, []
    pixel_size_um, affine = core.get_pixel_size_um_by_id(config), core.get_pixel_size_affine_by_id(config)
    return settings, float(pixel_size_um), [float(x) for x in affine]


def _configure(
    core: Any, camera: str, settings: dict[str, str], config: str, pixel_size_um: float, affine: list[float]
) -> None:
    for name, value in settings.items():
        core.set_property(camera, name, value)
    if config:
        core.set_pixel_size_um(config, pixel_size_um)
        core.set_pixel_size_affine(config, affine)
