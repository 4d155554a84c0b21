"""What lies between a cell and its image: blur, light, dirt, noise and the camera, each varied from image to image."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from ...acquire.simulated.optics import stretched
from . import cell_kernels as kernels

Array = NDArray[np.floating[Any]]
Random = np.random.Generator
Shape = tuple[int, int]


def log_uniform(rng: Random, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def mottle(rng: Random, shape: Shape, sigma_px: float) -> Array:
    """Return (y, x) float32, a random field of standard deviation about 1 with details of ``sigma_px``."""
    step = max(1, int(sigma_px / 1.5))
    rest = sigma_px / step
    coarse = rng.standard_normal([n // step + 2 for n in shape], np.float32)
    coarse = gaussian_filter(coarse, rest, mode="wrap", truncate=3.0)
    coarse *= np.float32(2 * math.sqrt(math.pi) * rest)
    return stretched(stretched(coarse, step, shape[0]).T, step, shape[1]).T


def illumination(rng: Random, shape: Shape, strength: float) -> Array:
    """Return (y, x) float32 about 1: a slope, a bright spot somewhere, and perhaps bands."""
    y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    turn = rng.uniform(0, 2 * np.pi)
    field = rng.normal(0, 0.5) * (np.cos(turn) * x + np.sin(turn) * y)
    cy, cx = rng.normal(0, 0.6, 2)
    field = field - rng.uniform(0, 0.6) * ((x - cx) ** 2 + (y - cy) ** 2)
    if rng.random() < 0.3:
        field = field + 0.5 * mottle(rng, shape, shape[0] / rng.uniform(3, 8))
    if rng.random() < 0.08:
        lines = gaussian_filter1d(rng.normal(size=shape[0]), rng.uniform(5, 60), mode="nearest")
        field = field + (0.4 * lines / (np.std(lines) + 1e-6))[:, None]
    return np.exp(strength * (field - field.mean())).astype(np.float32)


def spots(rng: Random, shape: Shape, count: int, radius: tuple[float, float], sharp: float) -> Array:
    """Return (y, x) float32: round specks, dark or bright by up to 1, with edges the steeper the larger ``sharp``."""
    rows = np.empty((count, 4))
    rows[:, kernels.DOT_X], rows[:, kernels.DOT_Y] = (
        rng.uniform(0, 1, (2, count)) * np.array(shape)[::-1, None]
    )
    rows[:, kernels.DOT_RADIUS] = np.exp(rng.uniform(math.log(radius[0]), math.log(radius[1]), count))
    rows[:, kernels.DOT_HEIGHT] = rng.choice((-1.0, 1.0), count) * rng.uniform(0.2, 1, count)
    image = np.zeros(shape, np.float32)
    kernels.dot(rows, float(sharp), image)
    return image


def rings(rng: Random, shape: Shape, count: int) -> Array:
    """Return (y, x) float32 up to about 1: the diffraction rings of dust far from the focus."""
    image = np.zeros(shape, np.float32)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for _ in range(count):
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        size, waves = log_uniform(rng, 8, 60), rng.uniform(1, 4)
        far = np.hypot(y - cy, x - cx) / size
        image += (
            rng.uniform(0.3, 1) * np.cos(2 * np.pi * waves * far * far) * np.exp(-((far / 1.1) ** 4))
        ).astype(np.float32)
    return image


def scratches(rng: Random, shape: Shape, count: int) -> Array:
    """Return (y, x) float32 up to 1: straight soft lines."""
    image = np.zeros(shape, np.float32)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    for _ in range(count):
        turn = rng.uniform(0, np.pi)
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        across = (y - cy) * np.float32(np.cos(turn)) - (x - cx) * np.float32(np.sin(turn))
        along = (x - cx) * np.float32(np.cos(turn)) + (y - cy) * np.float32(np.sin(turn))
        long = log_uniform(rng, 20, 300)
        image += rng.choice((-1.0, 1.0)) * np.exp(
            -((across / log_uniform(rng, 0.7, 6)) ** 2) - (along / long) ** 4
        )
    return image


def smudges(rng: Random, shape: Shape, count: int, size_px: float) -> Array:
    """Return (y, x) float32, most of it dark down to about -1: soft stains as large as cells, which are none."""
    image = np.zeros(shape, np.float32)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for _ in range(count):
        cy, cx, turn = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(0, np.pi)
        across = ((y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)) / (size_px * log_uniform(rng, 0.2, 0.8))
        along = ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)) / (size_px * log_uniform(rng, 0.4, 2.5))
        height = rng.uniform(0.2, 1) * rng.choice((-1.0, 1.0), p=(0.8, 0.2))
        image += (height * np.exp(-(across**2) - along**2)).astype(np.float32)
    return image


def camera(rng: Random, image: Array, noise: float) -> Array:
    """Return the image with noise of about this standard deviation, perhaps correlated by resampling.

    Parameters
    ----------
    image
        (y, x) float32, light at least about 0.
    noise
        In the units of the image, at its median.
    """
    grain = rng.standard_normal(image.shape, np.float32)
    if rng.random() < 0.3:
        sigma = rng.uniform(0.4, 0.9)
        grain = gaussian_filter(grain, sigma, truncate=3.0) * np.float32(1 + 2.2 * sigma)
    if rng.random() < 0.6:  # shot noise grows with the light
        low, middle, high = np.percentile(image[::8, ::8], (1, 50, 99.5))
        unit = max(middle, 0.2 * (high - low), 1e-6)
        grain *= np.sqrt(np.clip(image / unit, 0.1, 8))
    return image + np.float32(noise) * grain


def stored(rng: Random, image: Array, low: float, high: float, *, stretched: bool = False) -> Array:
    """Return counts: 8 bit from ``low`` to ``high``, some as JPEG, or many more levels with any offset.

    Parameters
    ----------
    image
        (y, x) light.
    low, high
        Levels of the image that become 0 and 255 where it is stored as 8 bit.
    stretched
        It is: someone chose the levels and saturated what lies outside.
    """
    kind = rng.random()
    if stretched or kind < 0.5:
        counts = np.clip((image - low) * (255 / max(high - low, 1e-6)), 0, 255)
        if kind < 0.12:
            counts = _jpeg(counts.astype(np.uint8), int(rng.integers(40, 95)))
        return np.floor(counts).astype(np.float32)
    spread = max(float(np.ptp(image)), 1e-6)
    levels = log_uniform(rng, 200, 30000) / spread
    return ((image - image.min()) * levels + rng.uniform(0, 2000)).astype(np.float32)


def _jpeg(image: NDArray[np.uint8], quality: int) -> Array:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).astype(np.float32)
