"""Fluorescent nuclei: any size and crowding, textures, levels that differ from cell to cell, mitoses, dirt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ...acquire.simulated.optics import blurred
from . import cell_kernels as kernels
from . import optics
from .masks import instances
from .optics import Array, Random, Shape, log_uniform

Floats = NDArray[np.float64]
MOST = 320
"""Nuclei in one image at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """Nuclei of one image.

    Attributes
    ----------
    diameter
        Typical, in px.
    cells, outlines
        (n, TOTAL) and (n, ANGLES), see :mod:`.cell_kernels`.
    """

    diameter: float
    cells: Floats
    outlines: Floats


def draw(rng: Random, shape: Shape) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Draw one image of nuclei and its mask."""
    diameter = log_uniform(rng, 10, 72)
    noise = log_uniform(rng, 0.006, 0.35) * min(1.0, diameter / 35)
    field = _field(rng, diameter, noise, shape)
    margin = 0.25 * diameter
    light, rim = np.zeros((2, *shape), np.float32)
    distance, owner = np.full(shape, margin, np.float32), np.zeros(shape, np.int32)
    kernels.paint(field.cells, field.outlines, margin, light, distance, owner, rim)
    light *= _texture(rng, field, rim, shape)
    blur = max(log_uniform(rng, 0.015, 0.11) * diameter, 0.5)
    image = _seen(rng, field, light, blur, shape)
    image = optics.camera(rng, image, noise)
    glow = float(np.median(field.cells[:, kernels.LEVEL])) if len(field.cells) else 1.0
    base = float(np.percentile(image[::4, ::4], 5))
    high = base + glow * (rng.uniform(0.4, 1) if rng.random() < 0.25 else rng.uniform(1, 4))
    counts = optics.stored(rng, image, base + glow * rng.uniform(-0.3, 0.08), high)
    share = rng.uniform(0.22, 0.45)  # of the way from background to cell where people draw the outline
    mask = np.where(distance < -ndtri(share) * blur, owner, 0)
    return counts, instances(mask.astype(np.int32), int(0.12 * diameter**2))


def _field(rng: Random, diameter: float, noise: float, shape: Shape) -> Field:
    xy, radius = _places(rng, diameter, shape)
    n = len(xy)
    cells = np.zeros((n, kernels.TOTAL))
    cells[:, :2] = xy
    cells[:, kernels.ANGLE] = rng.uniform(0, 2 * np.pi, n)
    if rng.random() < 0.2:
        cells[:, kernels.ANGLE] = rng.uniform(0, np.pi) + rng.normal(0, 0.3, n)
    aspect = 1 + np.abs(rng.normal(rng.uniform(0, 0.5), rng.uniform(0.05, 0.3), n)).clip(0, 1.4)
    cells[:, kernels.LONG], cells[:, kernels.SHORT] = radius * np.sqrt(aspect), radius / np.sqrt(aspect)
    cells[:, kernels.BEND] = rng.normal(0, rng.uniform(0, 0.35), n).clip(-0.9, 0.9)
    spread = rng.uniform(0.03, 0.9)
    cells[:, kernels.LEVEL] = np.exp(rng.normal(0, spread, n)).clip(0.15 + 0.8 * noise, 3)
    cells[:, kernels.DOME] = rng.uniform(-0.1, 0.6) + rng.normal(0, 0.05, n)
    outlines = rough_outlines(rng, n, log_uniform(rng, 0.008, 0.09), 7)
    return _with_mitoses(rng, Field(diameter, cells, outlines))


def rough_outlines(rng: Random, n: int, roughness: float, modes: int) -> Floats:
    """Return (n, ANGLES) outlines around 1: harmonics 2 to ``modes``, the higher the weaker."""
    angle = np.arange(kernels.ANGLES) * (2 * np.pi / kernels.ANGLES)
    outlines = np.ones((n, kernels.ANGLES))
    for k in range(2, modes + 1):
        height = rng.normal(0, roughness * (2 / k) ** 0.8, (n, 1))
        outlines += height * np.cos(k * angle + rng.uniform(0, 2 * np.pi, (n, 1)))
    return outlines.clip(0.35, 2.5)


def _places(rng: Random, diameter: float, shape: Shape) -> tuple[Floats, Floats]:
    """Return centres (n, 2) x, y and radii: scattered, in clumps, or in a layer."""
    full = 1.1 * shape[0] * shape[1] / diameter**2
    kind = rng.random()
    if kind < 0.03:
        return np.zeros((0, 2)), np.zeros(0)
    most = max(2.0, min(MOST, full * (1.3 if kind < 0.25 else 0.6)))
    n = int(most * rng.uniform(0.6, 1)) if kind < 0.25 else int(1 + (most - 1) * rng.random() ** 1.7)
    size = np.array((shape[1], shape[0]))
    xy = rng.uniform(-0.06, 1.06, (n, 2)) * size
    if kind > 0.6:  # clumps
        middles = rng.uniform(0, 1, (int(rng.integers(1, 2 + n // 4 + 1)), 2)) * size
        reach = diameter * rng.uniform(0.5, 2.5)
        xy = middles[rng.integers(len(middles), size=n)] + rng.normal(0, reach, (n, 2))
    radius = diameter / 2 * np.exp(rng.normal(0, rng.uniform(0.03, 0.28), n)).clip(0.5, 1.7)
    kernels.push_apart(xy, radius * rng.uniform(0.75, 1.25), 40)
    return xy, radius


def _with_mitoses(rng: Random, field: Field) -> Field:
    """Return the field with some nuclei condensed: plates, pairs of plates, and bright round remains."""
    cells, outlines, n = field.cells.copy(), field.outlines.copy(), len(field.cells)
    share = rng.choice((0.0, rng.uniform(0, 0.2)))
    chosen = np.flatnonzero(rng.random(n) < share)
    for i in chosen[: len(chosen) // 4]:  # dead: small, round and bright
        cells[i, [kernels.LONG, kernels.SHORT]] *= rng.uniform(0.35, 0.6)
        cells[i, kernels.LEVEL] *= rng.uniform(1.3, 3)
    plates = chosen[len(chosen) // 4 :]
    cells[plates, kernels.LONG] *= rng.uniform(0.7, 1.0, len(plates))
    cells[plates, kernels.SHORT] *= rng.uniform(0.28, 0.5, len(plates))
    cells[plates, kernels.LEVEL] *= rng.uniform(1.2, 2.2, len(plates))
    cells[plates, kernels.DOME] *= 0.5
    pairs = plates[rng.random(len(plates)) < 0.4]
    sisters = cells[pairs].copy()
    apart = field.diameter * rng.uniform(0.35, 0.8, len(pairs))
    across = np.stack([-np.sin(sisters[:, kernels.ANGLE]), np.cos(sisters[:, kernels.ANGLE])], axis=1)
    cells[pairs, :2] -= across * apart[:, None] / 2
    sisters[:, :2] += across * apart[:, None] / 2
    sisters[:, kernels.ANGLE] += rng.normal(0, 0.15, len(pairs))
    return Field(
        field.diameter, np.concatenate([cells, sisters]), np.concatenate([outlines, outlines[pairs]])
    )


def _texture(rng: Random, field: Field, rim: Array, shape: Shape) -> Array:
    """Return (y, x) factors about 1: chromatin at two scales, dark nucleoli or bright spots, a dark or bright rim."""
    d = field.diameter
    texture = 1 + rng.uniform(0, 0.25) * optics.mottle(rng, shape, d * rng.uniform(0.03, 0.08))
    texture += rng.uniform(0, 0.45) * optics.mottle(rng, shape, d * rng.uniform(0.1, 0.3))
    if rng.random() < 0.7:
        number = int(rng.integers(1, 6))
        dots = np.empty((len(field.cells) * number, 4))
        dots[:, :2] = kernels.placed_inside(field.cells, field.outlines, number, 0.0, 0.75, rng)
        dots[:, kernels.DOT_RADIUS] = d * rng.uniform(0.03, 0.16) * np.exp(rng.normal(0, 0.3, len(dots)))
        dark = rng.random() < 0.6
        height = rng.uniform(0.1, 0.85) if dark else log_uniform(rng, 0.2, 5)  # chromocentres of mice
        dots[:, kernels.DOT_HEIGHT] = height * rng.uniform(0, 1, len(dots)) * (-1 if dark else 1)
        kernels.dot(dots, rng.uniform(1, 3), texture)
    texture += rng.normal(0, 0.15) * np.exp(-(((rim - 0.95) / 0.1) ** 2))
    return np.maximum(texture, 0.1)


def _seen(rng: Random, field: Field, light: Array, blur: float, shape: Shape) -> Array:
    """Return the light of nuclei and all else: haze, cytoplasm, medium, cells out of focus, specks, a lamp."""
    d, seen = field.diameter, blurred(light, blur)
    haze = rng.choice((0.0, rng.uniform(0, 0.4)))
    seen = (1 - haze) * seen + haze * blurred(light, d * rng.uniform(0.4, 2))
    if rng.random() < 0.25:
        body = blurred(light, d * rng.uniform(0.25, 0.6))
        seen += rng.uniform(0.02, 0.3) * body * np.maximum(1 + 0.5 * optics.mottle(rng, shape, d * 0.08), 0)
    medium = log_uniform(rng, 0.01, 1.5)
    seen += medium * np.maximum(
        1 + rng.uniform(0, 0.08) * optics.mottle(rng, shape, d * rng.uniform(0.3, 3)), 0
    )
    if rng.random() < 0.2:
        far = np.abs(optics.spots(rng, shape, int(rng.integers(1, 8)), (0.5 * d, 1.3 * d), 1))
        seen += rng.uniform(0.03, 0.3) * far
    if rng.random() < 0.35:
        specks = np.abs(optics.spots(rng, shape, int(log_uniform(rng, 1, 30)), (0.02 * d, 0.1 * d), 1))
        seen += log_uniform(rng, 0.2, 4) * specks
    return seen * optics.illumination(rng, shape, 0.5 * rng.random() ** 2)
