"""Calibrating stages: the simulated microscope, turned and mirrored, and the beads of the real demo camera."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.calibration.core import CoreStage, load_core, unload
from cytoloop.acquire.calibration.parts import difference, parts_of
from cytoloop.acquire.calibration.stage import StageCalibration, calibrate_stage
from cytoloop.acquire.calibration.verdict import contradiction, wrong_affines
from cytoloop.acquire.coordinates import Affine
from cytoloop.acquire.errors import CalibrationError
from cytoloop.acquire.simulated import presets
from cytoloop.acquire.simulated.microscope import SimulatedMicroscope


def turned(degrees: float, um: float = 0.6, mirrored: bool = False) -> Affine:
    cosine, sine = um * math.cos(math.radians(degrees)), um * math.sin(math.radians(degrees))
    flip = -1 if mirrored else 1
    return Affine(cosine, -sine * flip, sine, cosine * flip)


def scope_with(affine: Affine, seed: int = 3) -> SimulatedMicroscope:
    return presets.nuclei(seed, size_px=256, interval_s=0.0, affine=affine)


class Drive:
    """A stage with backlash in x in front of a simulated microscope: it stops short when it comes from above."""

    def __init__(self, scope: SimulatedMicroscope, backlash_um: float = 0.0) -> None:
        self.scope, self.backlash_um = scope, backlash_um
        self.at = (0.0, 0.0)

    def move(self, x_um: float, y_um: float) -> None:
        short = self.backlash_um if x_um < self.at[0] else 0.0
        self.at = x_um, y_um
        self.scope.stage_um = x_um + short, y_um

    def position(self) -> tuple[float, float]:
        return self.at


def measure(scope: SimulatedMicroscope, **options: Any) -> StageCalibration:
    drive = Drive(scope)
    return calibrate_stage(drive.move, scope.snap, drive.position, **options)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0.0, 90.0, -37.0, 163.0])
def test_rotation_and_mirror_of_a_camera_are_found(degrees: float, mirrored: bool) -> None:
    true = turned(degrees, mirrored=mirrored)
    found = measure(scope_with(true))
    apart = difference(found.affine, true)
    assert apart.scale_percent < 0.2
    assert apart.rotation_deg < 0.2
    assert found.parts.flipped == mirrored
    assert found.parts.rotation_deg == pytest.approx(degrees, abs=0.2)
    assert found.parts.scale == pytest.approx((0.6, 0.6), rel=2e-3)
    assert found.residual_um < 0.05
    assert (found.points, found.used) == (17, 17)
    assert found.backlash_um == (None, None)


def test_an_affine_that_was_found_brings_a_cell_to_the_centre() -> None:
    scope = scope_with(turned(128.0, mirrored=True))
    found = measure(scope)
    scope.snap()
    truth = scope.truth(scope.frames - 1)
    cell = int(np.argmax(truth.area_px))
    x, y = (float(at) for at in truth.xy_px[cell])
    scope.stage_um = found.affine.stage_target((x, y), (256, 256), scope.stage_um)
    scope.snap()
    after = scope.truth(scope.frames - 1)
    row = int(np.flatnonzero(after.identity == truth.identity[cell])[0])
    assert after.xy_px[row] == pytest.approx((127.5, 127.5), abs=0.3)


def test_axes_that_are_not_alike_are_told_by_scale_and_shear() -> None:
    true = Affine(0.6, 0.05, 0.0, 0.66)
    parts = measure(scope_with(true)).parts
    assert parts.scale == pytest.approx((0.6, math.hypot(0.05, 0.66)), rel=3e-3)
    assert parts.shear_deg == pytest.approx(-math.degrees(math.atan2(0.05, 0.66)), abs=0.2)


def test_backlash_is_measured_where_there_is_some_and_does_not_spoil_the_affine() -> None:
    true = turned(20.0)
    drive = Drive(scope_with(true), backlash_um=1.5)
    found = calibrate_stage(drive.move, drive.scope.snap, drive.position)
    assert found.backlash_um[0] == pytest.approx(1.5, abs=0.05)
    assert found.backlash_um[1] is None
    assert difference(found.affine, true).scale_percent < 0.2


def test_one_image_that_is_out_of_place_does_not_spoil_the_fit() -> None:
    true = turned(75.0)
    drive = Drive(scope_with(true))
    count = 0

    def snap() -> Any:
        nonlocal count
        count += 1
        image = drive.scope.snap()
        return np.roll(image, 12, axis=1) if count == 15 else image

    found = calibrate_stage(drive.move, snap, drive.position)
    assert difference(found.affine, true).scale_percent < 0.2
    assert found.used == 16


def test_the_stage_is_back_where_it_was_afterwards_and_after_an_error() -> None:
    scope = scope_with(turned(0.0))
    drive = Drive(scope)
    drive.move(30.0, -20.0)
    calibrate_stage(drive.move, scope.snap, drive.position)
    assert drive.at == scope.stage_um == (30.0, -20.0)
    with pytest.raises(CalibrationError):
        calibrate_stage(drive.move, scope.snap, drive.position, residual_px=1e-6)
    assert drive.at == (30.0, -20.0)


def noise() -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    return lambda: rng.poisson(200, (128, 128)).astype(np.uint16)


def test_images_without_texture_are_refused() -> None:
    drive = Drive(scope_with(turned(0.0)))
    with pytest.raises(CalibrationError, match="hold no texture .* after a step of 1 um in x"):
        calibrate_stage(drive.move, noise(), drive.position)
    with pytest.raises(CalibrationError, match="no texture: all of its pixels are 9"):
        calibrate_stage(drive.move, lambda: np.full((64, 64), 9, np.uint16), drive.position)


def test_a_stage_that_does_not_move_is_told_from_an_image_that_does_not_follow() -> None:
    scope = scope_with(turned(0.0))
    with pytest.raises(CalibrationError, match=r"did not move as it was told: sent to \(1.00, 0.00\) um"):
        calibrate_stage(lambda x, y: None, scope.snap, lambda: (5.0, 5.0))
    drive = Drive(scope_with(turned(0.0)))
    with pytest.raises(CalibrationError, match="does not follow the stage: 64 um in x moved it by 0.0"):
        calibrate_stage(drive.move, scope.snap, drive.position, longest_um=100)


def test_axes_that_go_the_same_way_and_a_sample_that_moves_are_refused() -> None:
    scope = scope_with(turned(0.0))
    at = [0.0, 0.0]

    def move(x: float, y: float) -> None:
        at[:] = x, y
        scope.stage_um = (x + y, 0.0)

    with pytest.raises(CalibrationError, match="move the image along the same line"):
        calibrate_stage(move, scope.snap, lambda: (at[0], at[1]))
    rng = np.random.default_rng(0)

    def shaken(x: float, y: float) -> None:
        at[:] = x, y
        scope.stage_um = tuple((np.array([x, y]) + rng.normal(0, 3, 2)).tolist())

    with pytest.raises(CalibrationError, match="no affine fits|did not move|none of a camera"):
        calibrate_stage(shaken, scope.snap, lambda: (at[0], at[1]), first_step_um=16.0)


@pytest.mark.parametrize("mirrored", [False, True])
def test_wrong_affines_are_told_from_right_ones(mirrored: bool) -> None:
    true = turned(-110.0, mirrored=mirrored)
    found = measure(scope_with(true)).affine
    assert contradiction(true, found) == ""
    reasons = [contradiction(wrong, found) for wrong in wrong_affines(true).values()]
    assert ["mirrored" in reasons[0], "turned by" in reasons[1], "a px is" in reasons[2]] == [True] * 3
    assert parts_of(wrong_affines(true)["mirrored"]).flipped != mirrored


# --- the real core, on beads that follow the real stage of the demo devices ----------------------------------


@pytest.fixture(scope="module")
def beads() -> Iterator[Any]:
    adapters = pytest.importorskip("mm_test_adapters", reason="the engine extra is not installed")
    folder = str(adapters.device_adapter_path())
    core = load_core(f"{folder}/MMConfig_demo.cfg", folder)
    core.setProperty("Camera", "Mode", "Fluorescent Beads")
    core.setExposure(1)
    yield core
    unload(core)
    time.sleep(0.3)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("seen", "true"),
    [
        (lambda image: image, Affine(1, 0, 0, 1)),
        (lambda image: image[:, ::-1], Affine(-1, 0, 0, 1)),  # a mirror in front of the camera
        (lambda image: np.rot90(image), Affine(0, -1, 1, 0)),  # a camera turned by a quarter
        (lambda image: image.T, Affine(0, 1, 1, 0)),
    ],
    ids=["straight", "mirrored", "turned", "transposed"],
)
def test_the_beads_of_the_demo_camera_are_1_um_per_px(beads: Any, seen: Any, true: Affine) -> None:
    stage = CoreStage(beads)
    assert (stage.device, stage.camera, stage.objective, stage.pixel_size_um) == (
        "XY",
        "Camera",
        "Res10x",
        1.0,
    )
    before = stage.position()
    found = calibrate_stage(stage.move, lambda: np.ascontiguousarray(seen(stage.snap())), stage.position)
    apart = difference(found.affine, true)
    assert apart.scale_percent < 0.05
    assert apart.rotation_deg < 0.05
    assert found.residual_px < 0.05
    assert stage.position() == pytest.approx(before, abs=0.05)


@pytest.mark.engine
def test_a_stage_of_the_real_core_that_counts_the_other_way_is_a_flip(beads: Any) -> None:
    stage = CoreStage(beads)

    def position() -> tuple[float, float]:
        x, y = stage.position()
        return -x, y

    found = calibrate_stage(lambda x, y: stage.move(-x, y), stage.snap, position)
    assert difference(found.affine, Affine(-1, 0, 0, 1)).scale_percent < 0.05
    assert found.parts.flipped


@pytest.mark.engine
def test_a_camera_that_sees_only_noise_is_refused_on_the_real_core(beads: Any) -> None:
    beads.setProperty("Camera", "Mode", "Noise")
    stage = CoreStage(beads)
    try:
        with pytest.raises(CalibrationError, match="hold no texture"):
            calibrate_stage(stage.move, stage.snap, stage.position)
    finally:
        beads.setProperty("Camera", "Mode", "Fluorescent Beads")
    assert stage.position() == pytest.approx((0, 0), abs=0.05)


@pytest.mark.engine
def test_a_configuration_that_cannot_be_loaded_and_a_core_without_devices_are_named(tmp_path: Any) -> None:
    pymmcore = pytest.importorskip("pymmcore", reason="the engine extra is not installed")
    broken = tmp_path / "broken.cfg"
    broken.write_text("Device,Camera,NoSuchLibrary,DCam\n")
    with pytest.raises(CalibrationError, match="broken.cfg: the core cannot load it"):
        load_core(str(broken), str(tmp_path))
    with pytest.raises(CalibrationError, match="no camera"):
        CoreStage(pymmcore.CMMCore())
