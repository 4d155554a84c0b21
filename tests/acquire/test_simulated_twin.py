from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.errors import AcquisitionError
from cytoloop.acquire.simulated import presets
from cytoloop.acquire.simulated.microscope import SimulatedMicroscope
from cytoloop.acquire.simulated.twin import install_behind

pytestmark = pytest.mark.engine


@pytest.fixture
def core(engine: Any) -> Any:
    """The real core, its stage and exposure put back afterwards."""
    yield engine
    engine.set_xy_position(0.0, 0.0)
    engine.set_position(0.0)
    engine.wait_for_system()
    engine.set_exposure(10.0)


def acquire(
    folder: Path, events: list[dict[str, Any]], **hooks: Any
) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Run a real pycro-manager acquisition and return what its image processor saw."""
    from pycromanager import Acquisition

    images: list[tuple[np.ndarray, dict[str, Any]]] = []

    def keep(image: np.ndarray, metadata: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        images.append((image, metadata))
        return image, metadata

    with Acquisition(
        directory=str(folder), name="run", show_display=False, image_process_fn=keep, **hooks
    ) as acquisition:
        acquisition.acquire(events)
    acquisition.get_dataset().close()
    return images


def rerun(scope: SimulatedMicroscope, twin: SimulatedMicroscope, frames: int) -> list[np.ndarray]:
    """What a second microscope sees in the states that the first was in."""
    pixels = []
    for frame in range(frames):
        truth = scope.truth(frame)
        twin.stage_um, twin.z_um, twin.exposure_ms = truth.stage_um, truth.z_um, truth.exposure_ms
        pixels.append(twin.snap())
    return pixels


def test_a_real_acquisition_gets_rendered_pixels_from_the_real_stages_and_exposure(
    core: Any, tmp_path: Path
) -> None:
    scope = presets.nuclei(1, size_px=160)
    events = [
        {"axes": {"time": i}, "exposure": 2.0 + i, "x": 10.0 * i, "y": -5.0 * i, "z": 0.5 * i}
        for i in range(4)
    ]
    with install_behind(core, scope):
        images = acquire(tmp_path, events)
    assert [metadata["Axes"]["time"] for _, metadata in images] == [0, 1, 2, 3]
    states = [scope.truth(i) for i in range(scope.frames)]
    assert [state.exposure_ms for state in states] == [2.0, 3.0, 4.0, 5.0]
    for i, state in enumerate(states):
        assert state.stage_um == pytest.approx((10.0 * i, -5.0 * i), abs=0.02)
        assert state.z_um == pytest.approx(0.5 * i, abs=0.02)
    for (image, metadata), expected in zip(
        images, rerun(scope, presets.nuclei(1, size_px=160), 4), strict=True
    ):
        assert np.array_equal(image, expected)
        assert (int(metadata["Width"]), int(metadata["Height"])) == (160, 160)
        assert metadata["PixelSize_um"] == pytest.approx(0.6)


def test_a_burst_gets_one_rendered_frame_per_event_in_order(core: Any, tmp_path: Path) -> None:
    scope = presets.nuclei(2, size_px=160)
    core.set_exposure(2.0)
    bursts: list[int] = []

    def count(event: Any) -> Any:
        bursts.append(len(event) if isinstance(event, list) else 1)
        return event

    with install_behind(core, scope):
        images = acquire(tmp_path, [{"axes": {"time": i}} for i in range(12)], post_camera_hook_fn=count)
    assert max(bursts) == 12  # it really was one
    assert [metadata["Axes"]["time"] for _, metadata in images] == list(range(12))
    assert scope.frames == 12
    for (image, _), expected in zip(images, rerun(scope, presets.nuclei(2, size_px=160), 12), strict=True):
        assert np.array_equal(image, expected)


def test_a_hook_that_moves_the_stage_centres_a_cell(core: Any, tmp_path: Path) -> None:
    scope = presets.runaway(1, size_px=160)

    def follow(event: dict[str, Any]) -> dict[str, Any]:
        if scope.frames:
            truth = scope.truth(scope.frames - 1)
            event["x"], event["y"] = truth.xy_um[truth.identity.tolist().index(1)].tolist()
        return event

    with install_behind(core, scope):
        for i in range(6):
            acquire(tmp_path, [{"axes": {"time": i}}], pre_hardware_hook_fn=follow)
    truth = scope.truth(5)
    assert truth.xy_px[truth.identity.tolist().index(1)] == pytest.approx([79.5, 79.5], abs=6.0)


def test_8_bit_images_keep_their_type(core: Any, tmp_path: Path) -> None:
    with install_behind(core, presets.nuclei(2, size_px=160, pixel_type="uint8")):
        ((image, _),) = acquire(tmp_path, [{"axes": {"time": 0}, "exposure": 20.0}])
    assert image.dtype == np.uint8
    assert image.std() > 3


def test_uninstalling_gives_the_camera_back_as_it_was(core: Any) -> None:
    names = set(vars(core))
    before = core.get_image_width(), core.get_bytes_per_pixel(), core.get_pixel_size_um()
    twin = install_behind(core, presets.nuclei(2, size_px=96, pixel_type="uint8"))
    assert (core.get_image_width(), core.get_bytes_per_pixel(), core.get_pixel_size_um()) == (96, 1, 0.6)
    twin.uninstall()
    twin.uninstall()
    assert set(vars(core)) == names
    assert (core.get_image_width(), core.get_bytes_per_pixel(), core.get_pixel_size_um()) == before
    core.snap_image()
    assert core.get_tagged_image(0, "Camera", *before[:1] * 2).pix.shape == (before[0], before[0])


def test_what_cannot_be_a_twin_is_refused(core: Any) -> None:
    scope = presets.nuclei(2, size_px=96)
    with pytest.raises(AcquisitionError, match="Python backend"):
        install_behind(object(), scope)
    with install_behind(core, scope):
        with pytest.raises(AcquisitionError, match="already has"):
            install_behind(core, scope)
        core.set_roi(0, 0, 32, 32)
        with pytest.raises(AcquisitionError, match=r"\(32, 32\) px"):
            core.snap_image()
        core.clear_roi()
        core.snap_image()
    assert scope.frames == 1
