from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.calibration.core import CoreLight
from cytoloop.acquire.calibration.light import calibrate_light
from cytoloop.acquire.calibration.spots import find_spot
from cytoloop.acquire.calibration.stored import Rows
from cytoloop.acquire.calibration.verdict import light_contradiction, light_error_px
from cytoloop.acquire.errors import CalibrationError
from cytoloop.acquire.simulated.camera import Camera
from cytoloop.acquire.simulated.projector import SimulatedProjector

TO_PX: Rows = ((0.4, -0.3, 60.0), (-0.35, -0.4, 600.0))


def projector(to_px: Rows = TO_PX, **more: Any) -> SimulatedProjector:
    return SimulatedProjector(Camera((512, 512)), to_px, **more)


def from_px(to_px: Rows) -> Rows:
    matrix, offset = np.array(to_px)[:, :2], np.array(to_px)[:, 2]
    back = np.linalg.inv(matrix)
    rows = np.column_stack([back, -back @ offset])
    return tuple(tuple(row) for row in rows.tolist())  # type: ignore[return-value]


def measure(light: SimulatedProjector) -> Any:
    return calibrate_light(light.show, light.dark, light.snap, light.low, light.high)


def test_a_projector_that_is_turned_and_mirrored_is_found_and_left_dark() -> None:
    light = projector()
    found = measure(light)
    assert light_error_px(found.affine, from_px(TO_PX), (512, 512)) < 0.3
    assert found.residual_px < 0.2
    assert light.lit is None
    assert light_contradiction(from_px(TO_PX), found) == ""


def test_a_device_of_which_the_camera_sees_a_small_part_is_searched_more_finely() -> None:
    to_px: Rows = ((2.5, 0.0, -2.5 * 480 + 256), (0.0, 2.5, -2.5 * 400 + 256))
    found = measure(projector(to_px))
    assert found.shown == 50
    assert light_error_px(found.affine, from_px(to_px), (512, 512)) < 0.3


def test_wrong_maps_are_refused() -> None:
    found = measure(projector())
    (xx, xy, x0), (yx, yy, y0) = from_px(TO_PX)
    for wrong in (
        ((-xx, xy, x0), (yx, yy, y0)),
        ((xx, xy, x0 + 5), (yx, yy, y0)),
        ((1.02 * xx, xy, x0), (yx, yy, y0)),
    ):
        assert "light would fall up to" in light_contradiction(wrong, found)


def test_a_lamp_that_is_off_a_line_and_an_empty_range_are_refused_and_the_light_is_off_afterwards() -> None:
    dark = projector(photons=0.0)
    with pytest.raises(CalibrationError, match="0 of 25 spots were seen"):
        measure(dark)
    line = projector(((0.4, 0.4, 0.0), (0.0, 0.0, 256.0)))
    with pytest.raises(CalibrationError, match="seen lie on one line"):
        measure(line)
    assert line.lit is None
    with pytest.raises(CalibrationError, match="range .* is empty"):
        calibrate_light(line.show, line.dark, line.snap, (0.0, 0.0), (10.0, 0.0))


def test_a_spot_that_is_cut_off_by_the_edge_is_no_spot() -> None:
    light = projector(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)))
    dark = light.snap()
    for x, seen in ((100.0, True), (2.0, False), (509.0, False), (600.0, False)):
        light.show(x, 200.0)
        spot = find_spot(light.snap(), dark)
        assert (spot is not None) == seen
        if spot is not None:
            assert (spot.x_px, spot.y_px) == pytest.approx((100.0, 200.0), abs=0.3)


@pytest.fixture
def galvo() -> Iterator[Any]:
    pytest.importorskip("pymmcore", reason="the engine extra is not installed")
    adapters = pytest.importorskip("mm_test_adapters", reason="the engine extra is not installed")
    from cytoloop.acquire.calibration.core import load_core, unload

    folder = str(adapters.device_adapter_path())
    core = load_core(f"{folder}/MMConfig_demo.cfg", folder)
    core.loadDevice("Galvo", "DemoCamera", "DGalvo")
    core.initializeDevice("Galvo")
    core.setGalvoDevice("Galvo")
    core.setExposure(1)
    yield core
    unload(core)
    time.sleep(0.3)


@pytest.mark.engine
def test_the_range_of_the_real_galvo_is_read_and_its_light_goes_where_it_is_told(galvo: Any) -> None:
    light = CoreLight(galvo)
    assert (light.device, light.low, light.high) == ("Galvo", (0.0, 0.0), (10.0, 10.0))
    light.show(3.0, 4.0)
    assert galvo.getGalvoPosition("Galvo") == pytest.approx([3.0, 4.0])
    light.dark()
    assert light.snap().shape == (512, 512)
