"""Drawing nuclei whose mask is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage


def _draw_nuclei(shape, count, *, seed=0, radius=9.0, signal=120.0, background=40.0, gap=2.6):
    """Return (uint16 image with Poisson noise, int32 mask) of ellipses that do not overlap."""
    random = np.random.default_rng(seed)
    y, x = np.indices(shape)
    mask, centres = np.zeros(shape, np.int32), []
    while len(centres) < count:
        centre = random.uniform(radius, np.array(shape) - radius)
        if all(np.hypot(*(centre - other)) > gap * radius for other in centres):
            centres.append(centre)
            angle, stretch = random.uniform(0, np.pi), random.uniform(1.0, 1.25)
            dy, dx = y - centre[0], x - centre[1]
            along, across = dy * np.sin(angle) + dx * np.cos(angle), dy * np.cos(angle) - dx * np.sin(angle)
            mask[(along / stretch) ** 2 + (across * stretch) ** 2 <= radius**2] = len(centres)
    light = background + signal * random.uniform(0.5, 1.5, count + 1)[mask] * (mask > 0)
    return random.poisson(ndimage.gaussian_filter(light, 1.0)).astype(np.uint16), mask


@pytest.fixture
def draw_nuclei():
    return _draw_nuclei
