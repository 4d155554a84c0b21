"""From cells to photons: fluorescence and phase contrast, with focus, illumination and haze."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.ndimage import gaussian_filter

from .sample import Snapshot
from .shapes import Array, View, patches
from .texture import sampled


class Optics(Protocol):
    """How a sample is seen."""

    @property
    def bleach_per_ms(self) -> float:
        """Part of the fluorescence lost in 1 ms of full illumination."""
        ...

    def illumination(self, shape: tuple[int, int]) -> Array:
        """Return (y, x) float32, the light that falls on each px; 1 at the brightest."""
        ...

    def photons_per_ms(self, snapshot: Snapshot, view: View, z_um: float, illumination: Array) -> Array:
        """Return (y, x) float32, the mean number of photons that each px receives in 1 ms."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Fluorescence:
    """Widefield fluorescence.

    Attributes
    ----------
    patterns
        (TEXTURES, 64, 64) float32 chromatin patterns, see :func:`~cytoloop.acquire.simulated.texture.chromatin`.
    signal, background
        Photons per px and ms from a cell of brightness 1 at the focus, and from the medium.
    psf_um
        Standard deviation of the point spread function in focus.
    focus_um, spread_per_um
        Where the focus is, and by how much the spread grows per um away from it.
    haze, haze_um
        Part of the light that arrives spread widely, and how wide (standard deviation).
    falloff
        Loss of illumination from the brightest point to the far corner.
    bleach_per_ms
        Part of the fluorescence lost in 1 ms of full illumination.
    """

    patterns: Array
    signal: float = 6.0
    background: float = 0.8
    psf_um: float = 0.35
    focus_um: float = 0.0
    spread_per_um: float = 0.3
    haze: float = 0.12
    haze_um: float = 8.0
    falloff: float = 0.3
    bleach_per_ms: float = 2e-6

    def illumination(self, shape: tuple[int, int]) -> Array:
        """Return a field that falls off from a point a little off the centre."""
        return _vignette(shape, self.falloff)

    def photons_per_ms(self, snapshot: Snapshot, view: View, z_um: float, illumination: Array) -> Array:
        """Return cells with soft, textured profiles, the haze around them and the medium, all as illuminated."""
        defocus = self.spread_per_um * abs(z_um - self.focus_um)
        spread = math.hypot(self.psf_um, defocus)
        light = np.zeros(view.shape, np.float32)
        sharp = np.float32(math.exp(-0.5 * defocus**2))  # of a texture with details of 1 um
        contrast = snapshot.contrast.astype(np.float32) * sharp
        for patch in patches(snapshot.shapes, snapshot.xy_um, view, 3 * spread):
            index = patch.index
            u, v = snapshot.shapes.local(index, patch.dx, patch.dy, view.affine)
            distance = snapshot.shapes.distance_um(index, u, v)
            profile = soft_step(distance, spread)
            if defocus > self.psf_um:  # light spreads, none is lost
                inside = np.count_nonzero(distance < 0, axis=(1, 2)).astype(np.float32)
                profile *= (inside / profile.sum(axis=(1, 2)))[:, None, None]
            p, q = snapshot.shapes.relative(index, u, v)
            pattern = sampled(self.patterns, snapshot.texture[index], p, q)
            profile *= 1 + contrast[index][:, None, None] * (pattern - 1)
            profile *= snapshot.brightness[index].astype(np.float32)[:, None, None]
            for row, place, part in patch.windows(view.shape):
                light[place] += profile[row][part]
        light = (1 - self.haze) * light + self.haze * blurred(light, self.haze_um / view.affine.pixel_size_um)
        return (self.signal * light + self.background) * illumination


@dataclass(frozen=True, slots=True)
class PhaseContrast:
    """Positive phase contrast: dark cells, bright halo, shade-off inside large objects.

    The image is ``light * (1 - contrast * (D - halo * lowpass(D)))`` with D the retardation by the cells: the
    phase ring also dims low spatial frequencies, which is what makes halo and shade-off (Zernike 1942; Yin,
    Kanade and Chen, Medical Image Analysis 2012).

    Attributes
    ----------
    light
        Photons per px and ms.
    contrast
        Darkening by a cell of brightness 1.
    halo, halo_um
        Weight and standard deviation of the lowpass.
    psf_um, focus_um, spread_per_um, falloff
        As in :class:`Fluorescence`.
    bleach_per_ms
        None: transmitted light hardly bleaches.
    """

    light: float = 40.0
    contrast: float = 0.62
    halo: float = 0.75
    halo_um: float = 0.9
    psf_um: float = 0.12
    focus_um: float = 0.0
    spread_per_um: float = 0.25
    falloff: float = 0.12
    bleach_per_ms: float = 0.0

    def illumination(self, shape: tuple[int, int]) -> Array:
        """Return a nearly even field."""
        return _vignette(shape, self.falloff)

    def photons_per_ms(self, snapshot: Snapshot, view: View, z_um: float, illumination: Array) -> Array:
        """Return dark cells with halos on a gray field."""
        defocus = self.spread_per_um * abs(z_um - self.focus_um)
        spread = math.hypot(self.psf_um, defocus)
        depth = np.zeros(view.shape, np.float32)
        for patch in patches(snapshot.shapes, snapshot.xy_um, view, 3 * spread):
            index = patch.index
            u, v = snapshot.shapes.local(index, patch.dx, patch.dy, view.affine)
            profile = soft_step(snapshot.shapes.distance_um(index, u, v), spread)
            _, q = snapshot.shapes.relative(index, u, v)
            profile *= 1 - np.float32(0.35) * np.minimum(q * q, 1)  # a cylinder is thickest along its axis
            profile *= snapshot.brightness[index].astype(np.float32)[:, None, None]
            for row, place, part in patch.windows(view.shape):
                np.maximum(depth[place], profile[row][part], out=depth[place])
        halo = blurred(depth, math.hypot(self.halo_um, defocus) / view.affine.pixel_size_um)
        image = 1 - self.contrast * (depth - self.halo * halo)
        return self.light * illumination * np.maximum(image, 0.05)


def soft_step(distance: Array, spread: float) -> Array:
    """Return about the integral of a Gaussian from the distance on: 1 deep inside, 0 far outside.

    The logistic function with slope 1.702 differs from it by less than 0.01 (Bowling et al. 2009).
    """
    one = np.float32(1)
    return one / (one + np.exp(np.clip(distance * np.float32(1.702 / spread), -30, 30)))


def blurred(image: Array, sigma_px: float) -> Array:
    """Return a wide Gaussian blur, computed on a coarser grid: exact enough for haze and halos, and cheap."""
    step = max(1, int(sigma_px / 2))
    height, width = image.shape
    padded = np.pad(image, ((0, -height % step), (0, -width % step)), mode="edge")
    coarse = padded.reshape(padded.shape[0] // step, step, -1, step).mean(axis=(1, 3))
    # averaging over a block and interpolating linearly widen by step^2 / 12 and step^2 / 6
    remaining = math.sqrt(max(sigma_px**2 - step**2 / 4, 0.01)) / step
    coarse = gaussian_filter(coarse, remaining, mode="nearest")
    if step == 1:
        return coarse
    return stretched(stretched(coarse, step, height).T, step, width).T


def stretched(image: Array, step: int, length: int) -> Array:
    """Interpolate linearly along the first axis from blocks of ``step`` px to px."""
    at = np.clip((np.arange(length) + 0.5) / step - 0.5, 0, len(image) - 1)
    below = np.minimum(at.astype(np.intp), max(len(image) - 2, 0))
    weight = (at - below).astype(np.float32)[:, None]
    return image[below] * (1 - weight) + image[np.minimum(below + 1, len(image) - 1)] * weight


def _vignette(shape: tuple[int, int], falloff: float) -> Array:
    y, x = np.linspace(-1, 1, shape[0])[:, None] + 0.1, np.linspace(-1, 1, shape[1])[None, :] - 0.15
    distance = x * x + y * y
    return (1 - falloff * distance / distance.max()).astype(np.float32)
