"""From photons to counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import FrameError
from ..frame import PIXEL_TYPES, Pixels
from .shapes import Array


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera with shot and read noise.

    Attributes
    ----------
    shape
        (height, width) in px.
    pixel_type
        ``uint8`` or ``uint16``.
    gain
        Counts per photon.
    offset
        Counts in the dark.
    read_noise
        Standard deviation in photons.

    Raises
    ------
    FrameError
        If the pixel type is not one of those, or the image is empty.
    """

    shape: tuple[int, int] = (512, 512)
    pixel_type: str = "uint16"
    gain: float = 2.0
    offset: float = 100.0
    read_noise: float = 1.6

    def __post_init__(self) -> None:
        if self.pixel_type not in PIXEL_TYPES:
            raise FrameError(
                f"pixel type {self.pixel_type!r} is not supported; allowed: {', '.join(PIXEL_TYPES)}"
            )
        if min(self.shape) < 1:
            raise FrameError(f"camera of shape {self.shape}: each side must be at least 1 px")

    def read(self, photons: Array, rng: np.random.Generator) -> Pixels:
        """Return the counts for a mean number of photons in each px, (y, x) float32.

        Shot noise is the Cornish-Fisher expansion of the Poisson distribution to second order: mean, variance
        and skewness are right, at a third of the time of an exact draw.
        """
        z = rng.standard_normal(photons.shape, np.float32)
        variance = photons + np.float32(self.read_noise**2)
        counts = np.sqrt(variance)
        counts *= z
        z *= z
        z -= 1
        z *= photons / (6 * variance)
        counts += z
        counts += photons
        counts *= np.float32(self.gain)
        counts += np.float32(self.offset + 0.5)
        limit = np.iinfo(self.pixel_type).max
        return np.clip(counts, 0, limit, out=counts).astype(self.pixel_type)
