"""The figure of focus falls when focus is lost, and with nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.frame import PIXEL_TYPES, Pixels
from cytoloop.acquire.simulated.source import SimulatedSource
from cytoloop.models.focus import focus_of
from numpy.typing import NDArray


def an_image(kind: Any = "nuclei", z_um: float = 0.0) -> Pixels:
    source = SimulatedSource(kind=kind, frames=1, size_px=256, seed=3)
    source.microscope.z_um = z_um
    (frame,) = source.frames()
    return frame.pixels


def counts(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 65_535).astype(np.uint16)


@pytest.mark.parametrize("kind", ["nuclei", "rods"])
def test_the_figure_falls_with_the_distance_from_the_focus(kind: str):
    figures = [focus_of(an_image(kind, z)) for z in (0.0, 1.0, 2.0, 3.0, 5.0)]
    assert figures == sorted(figures, reverse=True)
    assert figures[3] < 0.6 * figures[0]
    assert figures[1] == pytest.approx(focus_of(an_image(kind, -1.0)), rel=0.02)


@pytest.mark.parametrize(("gain", "offset"), [(0.1, 100), (0.3, 100), (3.0, 100), (1.0, 1000), (0.5, 0)])
def test_neither_brightness_nor_offset_changes_the_figure(gain: float, offset: float):
    image = an_image().astype(np.float64) - 100
    changed = focus_of(counts(np.maximum(image, 0) * gain + offset))
    assert changed == pytest.approx(focus_of(an_image()), rel=0.1)


def test_noise_that_differs_from_px_to_px_cancels():
    rng = np.random.default_rng(5)
    image = an_image().astype(np.float64)
    noisy = focus_of(counts(image + rng.normal(0, 0.5 * image.std(), image.shape)))
    assert noisy == pytest.approx(focus_of(an_image()), rel=0.1)


@pytest.mark.parametrize("dtype", PIXEL_TYPES)
def test_an_image_without_contrast_has_no_focus(dtype: str):
    noise = np.random.default_rng(0).normal(100, 10, (400, 300)).astype(dtype)
    assert focus_of(noise) == 0.0
    assert focus_of(np.full((40, 40), 7, dtype)) == 0.0


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (1, 4), (64, 4), (3, 65), (700, 33)])
def test_images_of_any_size_have_a_figure(shape: tuple[int, int]):
    image = (np.indices(shape).sum(axis=0) % 50).astype(np.uint8)
    assert 0.0 <= focus_of(image) <= 1.0


def test_the_largest_contrast_of_the_largest_type_does_not_overflow():
    image = np.zeros((128, 4096), np.uint16)
    image[:, (np.arange(4096) // 64) % 2 == 0] = 65_535
    assert 0.0 < focus_of(image) < 0.2
