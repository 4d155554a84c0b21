"""A simulated DMD, SLM or galvo in front of a camera and an even dye, for the calibration of light."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..frame import Pixels
from .camera import Camera


@dataclass(eq=False)
class SimulatedProjector:
    """Lights one spot at a time, and a camera that looks at where it falls.

    Attributes
    ----------
    camera
        What looks.
    to_px
        ((xx, xy, x0), (yx, yy, y0)): units of the device -> (x, y) in the image in px.
    low, high
        (x, y) of the ends of the device's range.
    radius_px
        Radius of the spot in the image: the standard deviation of a Gaussian, in px.
    photons
        At the middle of the spot; 0 is a lamp that is off.
    glow
        Photons in each px in the dark.
    seed
        Of the camera's noise.
    """

    camera: Camera
    to_px: tuple[tuple[float, float, float], tuple[float, float, float]]
    low: tuple[float, float] = (0.0, 0.0)
    high: tuple[float, float] = (1024.0, 768.0)
    radius_px: float = 3.0
    photons: float = 200.0
    glow: float = 10.0
    seed: int = 0
    lit: tuple[float, float] | None = field(default=None, init=False)
    _snaps: int = field(default=0, init=False, repr=False)

    def show(self, x: float, y: float) -> None:
        """Light the spot at (x, y) of the device, until the next or :meth:`dark`."""
        self.lit = (x, y)

    def dark(self) -> None:
        """Put the light off."""
        self.lit = None

    def snap(self) -> Pixels:
        """Take an image, (y, x)."""
        light = np.full(self.camera.shape, self.glow, np.float32)
        if self.lit is not None:
            x, y = np.array(self.to_px) @ (*self.lit, 1.0)
            rows, columns = np.ogrid[: light.shape[0], : light.shape[1]]
            squared = (rows - y) ** 2 + (columns - x) ** 2
            light += (self.photons * np.exp(-squared / (2 * self.radius_px**2))).astype(np.float32)
        self._snaps += 1
        return self.camera.read(light, np.random.default_rng((self.seed, self._snaps)))
