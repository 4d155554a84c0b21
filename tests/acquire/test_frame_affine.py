"""The affine of Micro-Manager's configuration in frames, from metadata and from the real cores."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.coordinates import Affine
from cytoloop.acquire.micromanager.metadata import frame_of
from cytoloop.acquire.micromanager.pymmcoreplus import MdaLoop

IMAGE = np.zeros((4, 4), np.uint8)


@pytest.mark.parametrize(
    ("metadata", "affine"),
    [
        ({"PixelSizeAffine": "0.0;0.5;3.0;-0.5;0.0;4.0"}, (0.0, 0.5, -0.5, 0.0)),
        ({"PixelSizeAffine": "0.0;0.5;3.0;-0.5;0.0;4.0", "PixelSizeUm": 0.5}, (0.0, 0.5, -0.5, 0.0)),
        (
            {"PixelSizeAffine": "0.5;0;0;0;0.5;0", "PixelSizeUm": 0.65},
            None,
        ),  # does not go with the pixel size
        ({"PixelSizeAffine": "1.0;0.0;0.0;0.0;1.0;0.0", "PixelSizeUm": 1.0}, None),  # nobody has set it
        ({"PixelSizeAffine": "2.0;0.0;0.0;0.0;2.0;0.0", "PixelSizeUm": 0.65}, None),  # nor this, with binning
        ({"PixelSizeAffine": "0;0;0;0;0;0"}, None),
        ({"PixelSizeAffine": "nan;0;0;0;1;0"}, None),
        ({"PixelSizeAffine": "1;2;3"}, None),
        ({"PixelSizeAffine": "none"}, None),
        ({}, None),
    ],
)
def test_an_affine_that_somebody_has_set_is_read(metadata: dict[str, Any], affine: Any) -> None:
    assert frame_of(IMAGE, metadata, None).affine == affine


def test_the_core_is_believed_where_the_metadata_are_silent() -> None:
    assert frame_of(IMAGE, {}, None, (0.0, 0.5, 0.0, 0.5, 0.0, 0.0)).affine == (0.0, 0.5, 0.5, 0.0)
    given = {"PixelSizeAffine": "0;0.25;0;0.25;0;0"}
    assert frame_of(IMAGE, given, None, (0.0, 0.5, 0.0, 0.5, 0.0, 0.0)).affine == (0.0, 0.25, 0.25, 0.0)
    assert Affine.given((), 0.5) is None


@pytest.mark.engine
def test_frames_of_the_real_pymmcore_plus_carry_the_affine_of_its_configuration(scripted: Any) -> None:
    pymmcore_plus = pytest.importorskip("pymmcore_plus", reason="the plus extra is not installed")
    from useq import MDAEvent

    core = pymmcore_plus.CMMCorePlus()
    core.loadSystemConfiguration()
    link = scripted(lambda frame: ())
    try:
        with MdaLoop(core, link) as loop:
            core.run_mda(loop.events([MDAEvent(exposure=1)])).join()
            config = core.getCurrentPixelSizeConfig()
            core.setPixelSizeUm(config, 0.5)
            core.setPixelSizeAffine(config, [0.0, 0.5, 0.0, -0.5, 0.0, 0.0])
            core.run_mda(loop.events([MDAEvent(exposure=1)])).join()
    finally:
        core.unloadAllDevices()
        time.sleep(0.3)
    assert [frame.affine for frame in link.frames] == [None, (0.0, 0.5, -0.5, 0.0)]


@pytest.mark.engine
def test_frames_of_the_real_pycro_manager_carry_it_too(core: Any, scripted: Any, tmp_path: Any) -> None:
    from cytoloop.acquire.micromanager.loop import Loop
    from pycromanager import Acquisition

    config = core.getCurrentPixelSizeConfig()
    before = core.getPixelSizeUm(), list(core.getPixelSizeAffine())
    core.setPixelSizeUm(config, 0.5)
    core.setPixelSizeAffine(config, [0.0, 0.5, 0.0, -0.5, 0.0, 0.0])
    link = scripted(lambda frame: ())
    loop = Loop(link)
    try:
        with Acquisition(
            directory=str(tmp_path),
            name="run",
            show_display=False,
            image_process_fn=loop.on_image,
            pre_hardware_hook_fn=loop.before_event,
        ) as acquisition:
            loop.guard(acquisition).acquire([{"axes": {"time": 0}}])
        acquisition.get_dataset().close()
    finally:
        core.setPixelSizeUm(config, before[0])
        core.setPixelSizeAffine(config, before[1])
    assert [frame.affine for frame in link.frames] == [(0.0, 0.5, -0.5, 0.0)]
