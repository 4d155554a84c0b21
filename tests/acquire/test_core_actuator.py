"""CoreActuator on the demo galvo of the real MMCore, and on an SLM written in Python behind the real API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.actuators import Actuator, CoreActuator
from cytoloop.acquire.commands import MoveFocus, SetProperty, Stimulate, Trigger, encode_mask
from cytoloop.acquire.coordinates import Affine
from cytoloop.acquire.errors import ActuatorError
from cytoloop.acquire.reply import Decision

pytestmark = [pytest.mark.engine, pytest.mark.timeout(60)]

CALIBRATION = ((0.01, 0.0, 1.0), (0.0, 0.01, 2.0))


def decision(command: Any, **more: Any) -> Decision:
    return Decision("test", command, sequence=0, time_s=0.0, expires_s=1.0, **more)


@pytest.fixture(scope="module")
def galvo_core() -> Iterator[Any]:
    pymmcore_plus = pytest.importorskip("pymmcore_plus", reason="the plus extra is not installed")
    core = pymmcore_plus.CMMCorePlus()
    core.loadSystemConfiguration()
    core.loadDevice("Galvo", "DemoCamera", "DGalvo")
    core.initializeDevice("Galvo")
    core.setGalvoDevice("Galvo")
    yield core
    core.unloadAllDevices()
    time.sleep(0.3)


@pytest.fixture
def core(galvo_core: Any) -> Any:
    galvo_core.setXYPosition(0, 0)
    galvo_core.waitForSystem()
    galvo_core.setProperty("Camera", "Gain", "0")
    galvo_core.setGalvoPosition("Galvo", 0.0, 0.0)
    return galvo_core


def test_it_is_an_actuator(core: Any) -> None:
    assert isinstance(CoreActuator(core), Actuator)


def test_a_point_of_the_image_becomes_a_point_of_the_galvo(core: Any) -> None:
    CoreActuator(core, calibration=CALIBRATION).actuate(
        decision(Stimulate(points_px=((100.0, 50.0), (300.0, 200.0)), duration_ms=1.0))
    )
    assert core.getGalvoPosition("Galvo") == pytest.approx([4.0, 4.0])


def test_the_target_is_followed_when_the_stage_has_moved_since(core: Any) -> None:
    core.setXYPosition(20, -10)
    core.waitForSystem()
    actuator = CoreActuator(core, calibration=CALIBRATION, affine=Affine.from_pixel_size(0.5))
    actuator.actuate(decision(Stimulate(points_px=((100.0, 50.0),), duration_ms=1.0), stage_um=(0.0, 0.0)))
    # 20 um at 0.5 um/px: what was seen at x = 100 px is now at 60 px, and y = 50 at 70.
    assert core.getGalvoPosition("Galvo") == pytest.approx([1.6, 2.7], abs=0.01)


def test_a_moved_stage_without_an_affine_is_refused(core: Any) -> None:
    actuator = CoreActuator(core, calibration=CALIBRATION)
    with pytest.raises(ActuatorError, match="affine is needed"):
        actuator.actuate(decision(Stimulate(points_px=((1.0, 1.0),)), stage_um=(500.0, 0.0)))


@pytest.mark.parametrize(
    ("options", "command", "message"),
    [
        ({}, Stimulate(points_px=((1.0, 1.0),)), "needs a calibration"),
        (
            {"calibration": CALIBRATION},
            Stimulate(points_px=((1e5, 1.0),)),
            r"outside \[0.0, 0.0\] to \[10.0, 10.0\]",
        ),
        (
            {"calibration": CALIBRATION},
            Stimulate(points_px=((1.0, 1.0),), power=0.5),
            "without the option power",
        ),
        ({"calibration": CALIBRATION}, Stimulate(mask=(0, 4)), "the core has no SLM"),
        ({"outputs": {"gate": ("Camera", "Gain", "1", "0")}}, Trigger("gats", 0.0), "Did you mean 'gate'"),
        ({}, SetProperty("Camera", "Gian", "1"), "no property 'Gian'.*mean 'Gain'"),
        ({}, SetProperty("Camera", "PixelType", "9bit"), "allowed: 16bit, 32bit"),
        ({}, MoveFocus(1.0), "not for CoreActuator"),
    ],
)
def test_what_cannot_be_done_is_an_error_with_a_reason(
    options: Any, command: Any, message: str, core: Any
) -> None:
    with pytest.raises(ActuatorError, match=message):
        CoreActuator(core, **options).actuate(decision(command))


def test_a_calibration_that_cannot_be_inverted_is_refused(core: Any) -> None:
    with pytest.raises(ActuatorError, match="inverted"):
        CoreActuator(core, calibration=((1.0, 1.0, 0.0), (1.0, 1.0, 0.0)))


def test_a_trigger_is_a_pulse_of_a_property(core: Any) -> None:
    seen: list[str] = []
    core.events.propertyChanged.connect(lambda device, name, value: seen.append(value))
    actuator = CoreActuator(core, outputs={"gate": ("Camera", "Gain", "5", "0")})
    actuator.actuate(decision(Trigger("gate", at_s=0.0, width_ms=1.0)))
    assert core.getProperty("Camera", "Gain") == "0"
    assert [float(value) for value in seen if float(value) in (0.0, 5.0)][:2] == [5.0, 0.0]
    core.setProperty("Camera", "Gain", "5")
    actuator.close()
    assert core.getProperty("Camera", "Gain") == "0"


def test_power_is_set_as_a_property(core: Any) -> None:
    actuator = CoreActuator(core, calibration=CALIBRATION, power=("Camera", "Gain", 8.0))
    actuator.actuate(decision(Stimulate(points_px=((1.0, 1.0),), duration_ms=1.0, power=0.5)))
    assert float(core.getProperty("Camera", "Gain")) == 4.0


@pytest.fixture
def slm_core() -> Iterator[tuple[Any, list[Any]]]:
    unicore = pytest.importorskip(
        "pymmcore_plus.experimental.unicore", reason="the plus extra is not installed"
    )
    shown: list[Any] = []

    class PythonSLM(unicore.SLMDevice):
        def __init__(self) -> None:
            super().__init__()
            self._image = np.zeros((20, 30), np.uint8)

        def get_height(self) -> int:
            return 20

        def get_width(self) -> int:
            return 30

        def shape(self) -> tuple[int, int]:
            return (20, 30)

        def dtype(self) -> Any:
            return np.dtype(np.uint8)

        def set_image(self, pixels: Any) -> None:
            self._image = np.array(pixels)

        def get_image(self) -> Any:
            return self._image

        def display_image(self) -> None:
            shown.append(self._image.copy())

        def set_exposure(self, interval_ms: float) -> None:
            pass

        def get_exposure(self) -> float:
            return 0.0

    core = unicore.UniMMCore()
    core.loadSystemConfiguration()
    core.loadPyDevice("SLM", PythonSLM())
    core.initializeDevice("SLM")
    core.setSLMDevice("SLM")
    yield core, shown
    core.unloadAllDevices()
    time.sleep(0.3)


def test_points_and_masks_become_a_pattern_on_the_slm_that_goes_dark_again(slm_core: Any) -> None:
    core, shown = slm_core
    actuator = CoreActuator(core, calibration=((0.05, 0.0, 2.0), (0.0, 0.05, 1.0)))
    actuator.actuate(decision(Stimulate(points_px=((200.0, 100.0),), radius_px=41.0, duration_ms=1.0)))
    lit, dark = shown
    assert lit[6, 12] == 255  # 0.05 * 100 + 1, 0.05 * 200 + 2
    assert sorted({tuple(place) for place in np.argwhere(lit)})[0] == (4, 12)
    assert not dark.any()
    mask = np.zeros((512, 512), np.bool_)
    mask[90:110, 190:210] = True
    shown.clear()
    actuator.actuate(decision(Stimulate(mask=encode_mask(mask), duration_ms=1.0)))
    assert [tuple(place) for place in np.argwhere(shown[0])] == [(6, 12)]
    with pytest.raises(ActuatorError, match="outside the SLM"):
        actuator.actuate(decision(Stimulate(points_px=((5000.0, 0.0),), duration_ms=1.0)))
    with pytest.raises(ActuatorError, match="mask runs add up"):
        actuator.actuate(decision(Stimulate(mask=(3, 4), duration_ms=1.0)))
