"""Rod bacteria: in phase contrast, in fluorescence, and in bright field out of focus.

In phase contrast an image is ``light * (1 - contrast * (D - halo * lowpass(D)))`` with D the optical depth: the
phase ring also dims low spatial frequencies, which makes the halo, the shade-off inside colonies and the bright
lines between neighbours (Zernike 1942; Yin, Kanade and Chen, Medical Image Analysis 2012). Masks end where people
draw the outline: half way up from the dark body to the bright halo.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...acquire.simulated.optics import blurred
from . import optics
from . import rod_kernels as kernels
from .masks import instances, part
from .optics import Array, Random, Shape, log_uniform
from .rod_places import Habit, drawn_habit, placed

MARGIN = 0.4
"""Widths around a rod in which its distance is drawn; masks end well before."""
THIN = 9.0
"""Rods more px wide than this are parted by a line of background, as people draw them."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Rods as drawn, before optics.

    Attributes
    ----------
    width
        Of the rods, in px.
    power
        Shape of the profile across a rod, see :func:`~.rod_kernels.paint`.
    depth, distance, owner
        (y, x), see :func:`~.rod_kernels.paint`.
    """

    width: float
    power: float
    depth: NDArray[np.float32]
    distance: NDArray[np.float32]
    owner: NDArray[np.int32]


def draw(rng: Random, shape: Shape) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Draw one image of rods and its mask."""
    habit = drawn_habit(rng)
    drawn = _painted(rng, habit, placed(rng, habit, shape), shape)
    kinds = np.array([_phase, _fluorescent, _bright_field], object)
    image, reach = rng.choice(kinds, p=[0.76, 0.12, 0.12])(rng, drawn)
    outline = reach + rng.normal(0, 0.02) * habit.width
    owner = np.where(drawn.distance < outline, drawn.owner, 0).astype(np.int32)
    if habit.width > THIN:
        part(owner)
    return image, instances(owner, int(0.3 * habit.width**2))


def _painted(rng: Random, habit: Habit, rods: NDArray[np.float64], shape: Shape) -> Drawn:
    n, width = len(rods), habit.width
    full = np.zeros((n, kernels.TOTAL))
    full[:, : kernels.PLACED] = rods
    full[:, kernels.WIDTH] = width * np.clip(rng.normal(1, rng.uniform(0.005, 0.05), n), 0.85, 1.15)
    bend = rng.normal(rng.choice((0.0, 0.0, rng.normal(0, 0.4))), log_uniform(rng, 0.02, 0.3), n)
    full[:, kernels.BEND] = np.clip(bend, -1.2, 1.2)
    full[:, kernels.TAPER] = rng.normal(0, rng.uniform(0, 0.08), n)
    ripe = np.clip((rods[:, kernels.LENGTH] / np.maximum(rods[:, kernels.DIVIDE_AT], 1) - 0.85) / 0.15, 0, 1)
    full[:, kernels.WAIST] = rng.uniform(0.05, 0.6) * ripe ** rng.uniform(0.7, 2)
    full[:, kernels.SEPTUM] = rng.uniform(0.25, 0.65)
    full[:, kernels.POLE] = rng.uniform(0.75, 1.3) * np.clip(rng.normal(1, 0.08, n), 0.8, 1.2)
    full[:, kernels.DENSITY] = np.exp(rng.normal(0, log_uniform(rng, 0.02, 0.25), n)).clip(0.5, 1.8)
    full[:, kernels.BANDS] = np.maximum(rng.normal(0, rng.choice((0, 0, 0.05, 0.15, 0.3)), n), 0).clip(0, 0.6)
    full[:, kernels.BAND_PX] = width * rng.uniform(0.7, 2.5, n)
    full[:, kernels.PHASE] = rng.uniform(0, 2 * np.pi, n)
    margin = MARGIN * width
    depth, distance = np.zeros(shape, np.float32), np.full(shape, margin, np.float32)
    owner = np.zeros(shape, np.int32)
    power, stacked = rng.uniform(0.15, 0.6), float(rng.choice((0.0, rng.uniform(0, 1)), p=(0.7, 0.3)))
    kernels.paint(full, power, stacked, margin, depth, distance, owner)
    if rng.random() < 0.6:
        depth *= np.maximum(
            1 + rng.uniform(0, 0.3) * optics.mottle(rng, shape, width * rng.uniform(0.12, 0.5)), 0
        )
    return Drawn(width, power, depth, distance, owner)


def _strip(drawn: Drawn) -> Array:
    """Return (8, x) depth across a long single rod, with its axis in the middle column."""
    fine, reach = 16, int(4 * drawn.width)
    at = (np.arange((2 * reach + 1) * fine) + 0.5) / fine - reach - 0.5
    profile = np.maximum(1 - (2 * at / drawn.width) ** 2, 0) ** drawn.power * (np.abs(at) < drawn.width / 2)
    return np.repeat(profile.reshape(1, -1, fine).mean(axis=2), 8, axis=0).astype(np.float32)


def _outline(drawn: Drawn, seen: Array, share: float) -> float:
    """Return px from a rod's own outline to where its image is ``share`` of the way up.

    The way leads from the darkest level inside to the brightest one outside, but ends near the level of the
    ground, which is 0; ``seen`` is the image of a :func:`_strip`.
    """
    across = seen[4, seen.shape[1] // 2 :]
    inner = int(np.argmin(across[: int(drawn.width / 2) + 1]))
    outer = inner + int(np.argmax(across[inner : int(2 * drawn.width)]))
    level = across[inner] + min(share * (across[outer] - across[inner]), -2 * share * across[inner])
    at = np.arange(inner, outer + 1)
    return float(np.interp(level, across[inner : outer + 1], at)) - drawn.width / 2


def _phase(rng: Random, drawn: Drawn) -> tuple[Array, float]:
    """Return counts in phase contrast, and px from the rods' own outline to that of their masks."""
    width, shape = drawn.width, drawn.depth.shape
    covered = float(np.mean(drawn.depth > 0))
    focus = max(log_uniform(rng, 0.08, 0.24 - 0.1 * covered) * width, 0.5)
    ring, far = rng.uniform(0.35, 0.9) * width, rng.uniform(1.1, 3.5) * width
    share = rng.uniform(0.0, 0.6)

    def parts(depth: Array) -> tuple[Array, Array]:
        low = (1 - share) * blurred(depth, ring) + share * blurred(depth, far)
        return low, blurred(depth, focus)

    strip_low, strip = parts(_strip(drawn))
    halo = _halo_for(strip_low, strip, rng.uniform(0.4, 1.7))
    halo = min(halo, 1.4 - 0.7 * covered)  # a full layer would be invisible
    low, sharp = parts(drawn.depth)
    seen = halo * low - sharp
    contrast = log_uniform(rng, 0.12, 0.9)
    light = np.maximum(1 + contrast * seen, 0.03) * optics.illumination(
        rng, shape, 0.3 * contrast * rng.random() ** 2
    )
    light += contrast * _dirt(rng, shape, width)
    if rng.random() < 0.04:  # negative phase contrast
        light = 2 * np.median(light) - light
    return _counts(rng, drawn, light), _outline(drawn, halo * strip_low - strip, rng.uniform(0.42, 0.54))


def _halo_for(low: Array, sharp: Array, ratio: float) -> float:
    """Return the weight of the lowpass that makes the halo of a single rod ``ratio`` times as strong as its body."""
    for halo in np.arange(0.3, 1.4, 0.05):
        seen = halo * low - sharp
        if seen.max() >= -ratio * seen.min():
            return float(halo)
    return 1.4


def _fluorescent(rng: Random, drawn: Drawn) -> tuple[Array, float]:
    """Return counts of rods that glow inside or at their membrane, and px as :func:`_phase` does."""
    width, shape = drawn.width, drawn.depth.shape
    focus = max(log_uniform(rng, 0.06, 0.3) * width, 0.6)
    haze, far = rng.uniform(0, 0.5), rng.uniform(0.8, 4) * width

    def see(depth: Array) -> Array:
        return (1 - haze) * blurred(depth, focus) + haze * blurred(depth, far)

    glow = drawn.depth
    if rng.random() < 0.25:
        rim = np.exp(-((drawn.distance / (0.14 * width)) ** 2)) * (drawn.distance < 0.3 * width)
        glow = rng.uniform(0, 0.4) * glow + rim
    dark = rng.uniform(0.02, 0.8)
    light = (see(glow) + dark) * optics.illumination(rng, shape, 0.35 * rng.random() ** 2)
    light += 0.15 * rng.random() ** 2 * dark * np.abs(optics.mottle(rng, shape, width * rng.uniform(0.5, 6)))
    light += 0.5 * np.abs(optics.spots(rng, shape, int(rng.choice((0, 0, 3, 12))), (0.1 * width, width), 1))
    return _counts(rng, drawn, light), _outline(drawn, -see(_strip(drawn)), rng.uniform(0.5, 0.7))


def _bright_field(rng: Random, drawn: Drawn) -> tuple[Array, float]:
    """Return counts of rods whose rims are dark or bright, as the focus lies, and px as :func:`_phase`."""
    width, shape = drawn.width, drawn.depth.shape
    fine = max(rng.uniform(0.08, 0.2) * width, 0.6)
    wide = fine * rng.uniform(1.4, 2.5)
    body, ripple, sign = rng.uniform(-0.3, 0.5), rng.uniform(0, 0.8), rng.choice((-1.0, 1.0))

    def see(depth: Array) -> Array:
        soft, softer, softest = (blurred(depth, sigma) for sigma in (fine, wide, 2 * wide))
        return sign * (2 * (soft - softer) - ripple * (softer - softest)) - body * soft

    illumination = optics.illumination(rng, shape, 0.3 * rng.random() ** 2)
    light = np.maximum(1 + log_uniform(rng, 0.1, 0.8) * see(drawn.depth), 0.03) * illumination
    light += 0.15 * _dirt(rng, shape, width)
    strip = -sign * see(_strip(drawn))  # the middle of a bright halo, the crest of a dark rim
    reach = _outline(drawn, strip, 0.5 if sign < 0 else rng.uniform(0.6, 1))
    return _counts(rng, drawn, light, 0.1), float(np.clip(reach, -0.12 * width, 0.15 * width))


def _dirt(rng: Random, shape: Shape, width: float) -> Array:
    """Return what else transmitted light shows, against a contrast of 1: agar, specks, dust, scratches."""
    dirt = log_uniform(rng, 0.003, 0.08) * optics.mottle(rng, shape, width * log_uniform(rng, 0.08, 3))
    dirt += 0.15 * rng.random() ** 2 * optics.mottle(rng, shape, width * rng.uniform(2, 12))
    if rng.random() < 0.5:
        count = int(log_uniform(rng, 1, 40))
        dirt += rng.uniform(0.05, 0.6) * optics.spots(rng, shape, count, (0.07 * width, 0.5 * width), 1)
    if rng.random() < 0.6:
        count = int(log_uniform(rng, 1, 16))
        dirt += log_uniform(rng, 0.04, 0.5) * optics.smudges(rng, shape, count, width)
    if rng.random() < 0.25:
        dirt += rng.uniform(0.03, 0.25) * optics.rings(rng, shape, int(rng.integers(1, 4)))
    if rng.random() < 0.1:
        dirt += rng.uniform(0.03, 0.3) * optics.scratches(rng, shape, int(rng.integers(1, 4)))
    return dirt


def _counts(rng: Random, drawn: Drawn, light: Array, stretched: float = 0.5) -> Array:
    """Return what the camera records; a share of the files is ``stretched`` until cells and halos saturate."""
    ground = light[drawn.owner == 0][::4]
    if len(ground) < 0.01 * light.size:  # a full layer: the gaps
        ground = np.sort(light, axis=None)[-light.size // 20 :]
    field = float(np.median(ground))
    inside = light[drawn.distance < -0.2 * drawn.width]
    cell = float(np.median(inside)) if len(inside) else field * 0.8
    span = max(abs(field - cell), 0.05 * abs(field))
    ring = light[(drawn.distance > 0.05 * drawn.width) & (drawn.distance < MARGIN * drawn.width)]
    bright = float(np.percentile(ring[::4], 80)) if len(ring) else field * 1.2
    light = optics.camera(rng, light, log_uniform(rng, 0.005, 0.15) * span)
    if rng.random() < stretched and len(inside) and cell < field:  # stretched, the field at any gray
        low = min(field - span * log_uniform(rng, 0.15, 1.0), float(np.percentile(ground, 4)))
        palest = float(np.percentile(inside[::4], 92)) + 0.2 * span
        return optics.stored(
            rng, light, low, max(low + (field - low) / rng.uniform(0.2, 0.8), palest), stretched=True
        )
    low, high = (
        min(field, cell) - span * rng.uniform(0, 0.8),
        max(field, cell, bright) + span * rng.uniform(0, 0.8),
    )
    return optics.stored(rng, light, low, high)
