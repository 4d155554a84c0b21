from __future__ import annotations

import numpy as np
import pytest
from cytoloop.acquire.calibration.registration import register
from cytoloop.acquire.errors import CalibrationError
from hypothesis import given, settings
from hypothesis import strategies as st


def scene(x_px: float, y_px: float, shape: tuple[int, int] = (160, 200), seed: int = 0) -> np.ndarray:
    """Spots of light on a slope of illumination, all but the slope shifted by (x, y); noise moves them by .02 px."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(float)
    image = 50 + 0.5 * columns + 0.3 * rows
    for x, y, light in rng.uniform((-150, -150, 50), (350, 310, 200), (220, 3)):
        image += light * np.exp(-((columns - x - x_px) ** 2 + (rows - y - y_px) ** 2) / (2 * 3.0**2))
    return rng.poisson(10 * image).astype(np.uint16)


@settings(max_examples=40)
@given(st.floats(-40, 40), st.floats(-40, 40))
def test_a_shift_is_found_to_a_tenth_of_a_pixel(x_px: float, y_px: float) -> None:
    shift = register(scene(0, 0), scene(x_px, y_px, seed=0))
    assert shift.x_px == pytest.approx(x_px, abs=0.1)
    assert shift.y_px == pytest.approx(y_px, abs=0.1)
    assert shift.quality > 0.8


def test_a_shift_by_more_than_half_a_side_has_no_quality() -> None:
    assert register(scene(0, 0), scene(150, -20)).quality < 0.3


def test_the_shift_back_is_the_opposite() -> None:
    there, back = register(scene(0, 0), scene(17.4, -9.3)), register(scene(17.4, -9.3), scene(0, 0))
    assert (there.x_px, there.y_px) == pytest.approx((-back.x_px, -back.y_px), abs=0.02)


def test_another_scene_and_noise_have_no_quality() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.poisson(100, (160, 200)).astype(np.uint16) for _ in range(2)]
    assert register(scene(0, 0), scene(0, 0, seed=5)).quality < 0.3
    assert register(*noise).quality < 0.2
    slope = np.mgrid[:160, :200][1] * 5
    assert register(noise[0] + slope, noise[1] + slope).quality < 0.2  # illumination is no texture


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (np.full((64, 64), 7, np.uint8), np.zeros((64, 64), np.uint8), "no texture: all of its pixels are 7"),
        (scene(0, 0), scene(0, 0, shape=(160, 160)), "cannot be registered"),
        (np.eye(20), np.eye(20), "at least 32 px"),
        (np.zeros((3, 64, 64)), np.zeros((3, 64, 64)), "of shape"),
    ],
)
def test_what_cannot_be_registered_is_named(before: np.ndarray, after: np.ndarray, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        register(before, after)
