"""Spread cells in phase contrast: polygons with tips, spindles and rounded cells, thin at the rim, with halos.

The optics are those of :mod:`.rods`. Masks end on the way to the crest of the halo, where people draw the outline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...acquire.simulated.optics import blurred
from . import cell_kernels as kernels
from . import optics
from .masks import instances
from .nuclei import Field, Floats, rough_outlines
from .optics import Array, Random, Shape, log_uniform

MOST = 160
"""Cells in one image at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Outlines as drawn, before optics: (y, x) as in :func:`~.cell_kernels.paint`."""

    distance: NDArray[np.float32]
    owner: NDArray[np.int32]
    rim: NDArray[np.float32]


def draw(rng: Random, shape: Shape) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Draw one image of spread cells and its mask."""
    breadth = log_uniform(rng, 14, 75)
    field, rounded = _field(rng, breadth, shape)
    margin = 0.3 * breadth
    light, rim = np.zeros((2, *shape), np.float32)
    drawn = Drawn(np.full(shape, margin, np.float32), np.zeros(shape, np.int32), rim)
    kernels.paint(field.cells, field.outlines, margin, light, drawn.distance, drawn.owner, rim)
    edge = breadth * rng.uniform(0.03, 0.12)
    image, reach = _seen(rng, breadth, edge, _depth(rng, field, rounded, edge, drawn))
    outline = reach + rng.normal(0, 0.012) * breadth
    inside = np.where(drawn.distance < outline, drawn.owner, 0).astype(np.int32)
    return image, instances(inside, int(0.12 * breadth**2))


def _field(rng: Random, breadth: float, shape: Shape) -> tuple[Field, NDArray[np.bool_]]:
    """Return cells and which of them are rounded up."""
    xy, radius = _places(rng, breadth, shape)
    n = len(xy)
    rounded = rng.random(n) < rng.choice((0.0, 0.05, 0.25, rng.uniform(0, 1)), p=(0.45, 0.35, 0.15, 0.05))
    cells = np.zeros((n, kernels.TOTAL))
    cells[:, :2], cells[:, kernels.ANGLE] = xy, rng.uniform(0, 2 * np.pi, n)
    if rng.random() < 0.3:  # cells that align with their neighbours
        cells[:, kernels.ANGLE] = rng.uniform(0, np.pi) + rng.normal(0, 0.35, n)
    aspect = np.exp(rng.normal(rng.uniform(0, 0.9), rng.uniform(0.1, 0.45), n)).clip(1, 4.5)
    aspect[rounded] = np.exp(np.abs(rng.normal(0, 0.06, np.count_nonzero(rounded))))
    radius = np.where(rounded, radius * rng.uniform(0.55, 0.8), radius)
    cells[:, kernels.LONG], cells[:, kernels.SHORT] = radius * np.sqrt(aspect), radius / np.sqrt(aspect)
    cells[:, kernels.BEND] = np.where(rounded, 0, rng.normal(0, rng.uniform(0, 0.5), n).clip(-1.2, 1.2))
    cells[:, kernels.LEVEL] = np.exp(rng.normal(0, rng.uniform(0.05, 0.4), n)).clip(0.3, 2)
    smooth = rough_outlines(rng, n, 0.01, 4)
    return Field(breadth, cells, np.where(rounded[:, None], smooth, _outlines(rng, n))), rounded


def _outlines(rng: Random, n: int) -> Floats:
    """Return (n, ANGLES) outlines with tips and hollow sides between them, and ruffles."""
    angle = np.arange(kernels.ANGLES) * (2 * np.pi / kernels.ANGLES)
    outlines = rough_outlines(rng, n, log_uniform(rng, 0.02, 0.12), 12)
    for _ in range(int(rng.integers(0, 6))):
        at, wide = rng.uniform(0, 2 * np.pi, (n, 1)), np.exp(rng.uniform(np.log(0.12), np.log(0.7), (n, 1)))
        off = np.abs((angle - at + np.pi) % (2 * np.pi) - np.pi)
        outlines += rng.uniform(0, 1.3, (n, 1)) * np.exp(-((off / wide) ** rng.uniform(1.2, 2)))
        outlines -= rng.uniform(0, 0.12, (n, 1))
    area = np.sqrt((outlines**2).mean(axis=1, keepdims=True))
    return (outlines / area).clip(0.25, 2.6)


def _places(rng: Random, breadth: float, shape: Shape) -> tuple[Floats, Floats]:
    kind, size = rng.random(), np.array((shape[1], shape[0]))
    if kind < 0.03:
        return np.zeros((0, 2)), np.zeros(0)
    full = shape[0] * shape[1] / breadth**2
    crowded = kind < 0.3
    most = min(MOST, full * (1.3 if crowded else 0.7))
    n = int(1 + (most - 1) * (rng.uniform(0.6, 1) if crowded else rng.random()))
    xy = rng.uniform(-0.08, 1.08, (n, 2)) * size
    if kind > 0.75:  # islands
        middles = rng.uniform(0, 1, (int(rng.integers(1, 5)), 2)) * size
        xy = middles[rng.integers(len(middles), size=n)] + rng.normal(0, breadth * rng.uniform(1, 3), (n, 2))
    radius = breadth / 2 * np.exp(rng.normal(0, rng.uniform(0.05, 0.3), n)).clip(0.5, 1.8)
    kernels.push_apart(xy, radius * rng.uniform(0.8, 1.3), 40)
    return xy, radius * 1.15


def _depth(rng: Random, field: Field, rounded: NDArray[np.bool_], edge: float, drawn: Drawn) -> Array:
    """Return (y, x) optical depth: a flat rim, a body around the nucleus, what the cell holds, lines at contacts."""
    inner, owner = np.minimum(drawn.rim, 1.0), drawn.owner
    inside = (drawn.distance < 0).astype(np.float32)
    flat = np.sqrt(np.clip(-drawn.distance / edge, 0, 1))
    lamella = rng.uniform(0.25, 1.0)
    body = 1.2 * rng.random() ** 2 * np.exp(-((inner / rng.uniform(0.3, 0.8)) ** 2))
    levels = np.concatenate([[0.0], field.cells[:, kernels.LEVEL]]).astype(np.float32)
    round_ones = np.concatenate([[False], rounded])
    ball = np.sqrt(np.maximum(1 - inner * inner, 0)) * rng.uniform(1.5, 3.5)
    if rng.random() < 0.45:  # so thick that the phase wraps: bright
        ball = -ball
    depth = np.where(round_ones[owner] & (inside > 0), ball, flat * (lamella + body) * levels[owner])
    share = np.where(round_ones, rng.uniform(0.2, 1), 1.0).astype(np.float32)
    depth += _grain(rng, field, inner, owner.shape) * share[owner] * flat * inside
    contact = np.zeros(owner.shape, np.float32)
    contact[1:] += (owner[1:] != owner[:-1]) & (owner[1:] > 0) & (owner[:-1] > 0)
    contact[:, 1:] += (owner[:, 1:] != owner[:, :-1]) & (owner[:, 1:] > 0) & (owner[:, :-1] > 0)
    width = max(edge * rng.uniform(0.2, 0.6), 0.5)
    line = blurred(contact * inside, width) * (2.5 * width)
    return depth - rng.uniform(0.2, 1.2) * lamella * np.minimum(line, 1)


def _grain(rng: Random, field: Field, inner: Array, shape: Shape) -> Array:
    """Return (y, x) what is seen inside: mottled cytoplasm, a smoother nucleus with nucleoli, vesicles, thick tips."""
    d = field.diameter
    grain = 0.2 * rng.random() ** 2 * optics.mottle(rng, shape, d * rng.uniform(0.015, 0.05))
    grain += 0.25 * rng.random() ** 2 * optics.mottle(rng, shape, d * rng.uniform(0.05, 0.2))
    nucleus = np.exp(-((inner / rng.uniform(0.25, 0.5)) ** 6))
    grain = grain * (1 - rng.uniform(0, 0.8) * nucleus) + rng.normal(0, 0.15) * nucleus
    grain += rng.choice((0.0, rng.uniform(0, 0.3))) * np.exp(-(((inner - 0.45) / 0.06) ** 2))
    height, paler = rng.uniform(0.1, 1.2, 3), rng.choice((0.0, 0.2, 0.5))
    nucleoli = (int(rng.integers(0, 6)), 0.0, 0.35, rng.uniform(0.02, 0.05), height[0])
    vesicles = (int(log_uniform(rng, 1, 40)), 0.0, rng.uniform(0.4, 0.9), rng.uniform(0.01, 0.03), height[1])
    tips = (int(rng.integers(0, 5)), 0.8, 1.0, rng.uniform(0.03, 0.1), height[2])
    for number, near, far, size, strong in (nucleoli, vesicles, tips):
        dots = np.empty((len(field.cells) * number, 4))
        dots[:, :2] = kernels.placed_inside(field.cells, field.outlines, number, near, far, rng)
        dots[:, kernels.DOT_RADIUS] = np.maximum(d * size * np.exp(rng.normal(0, 0.35, len(dots))), 0.5)
        sign = np.where(rng.random(len(dots)) < paler, -1, 1)
        dots[:, kernels.DOT_HEIGHT] = strong * rng.uniform(0.2, 1, len(dots)) * sign
        kernels.dot(dots, rng.uniform(1, 2.5), grain)
    return grain


def _seen(rng: Random, breadth: float, edge: float, depth: Array) -> tuple[Array, float]:
    """Return counts, and px from a cell's own outline to that of its mask."""
    shape = depth.shape
    focus = max(breadth * log_uniform(rng, 0.012, 0.045), 0.5)
    ring, far = breadth * log_uniform(rng, 0.05, 0.2), breadth * rng.uniform(0.3, 1.0)
    halo, share = min(rng.uniform(0.7, 1.25), 1.08), 0.6 * rng.random() ** 2

    def see(x: Array) -> Array:
        low = (1 - share) * blurred(x, ring) + share * blurred(x, far)
        return halo * low - blurred(x, focus)

    seen = see(depth)
    if rng.random() < 0.4:  # light from one side
        turn, (gy, gx) = rng.uniform(0, 2 * np.pi), np.gradient(blurred(depth, focus + 0.04 * breadth))
        seen = seen + rng.uniform(0, 0.25) * breadth * (np.cos(turn) * gx + np.sin(turn) * gy)
    contrast = log_uniform(rng, 0.08, 0.6)
    bright = -1 if rng.random() < 0.12 else 1  # above the focus, and in negative phase contrast
    light = np.maximum(1 + bright * contrast * seen, 0.05) * optics.illumination(
        rng, shape, contrast * rng.random() ** 2
    )
    light += contrast * _dirt(rng, breadth, shape)
    field = float(np.median(light))
    span = max(float(np.percentile(light[::4, ::4], 98)) - field, 0.2 * contrast)
    light = optics.camera(rng, light, log_uniform(rng, 0.01, 0.2) * span)
    hard = rng.random() < 0.3
    down, up = (rng.uniform(0.6, 1.2, 2) if hard else rng.uniform(1.3, 3, 2)) * span
    return optics.stored(rng, light, field - down, field + up), _outline(
        see, breadth, edge, rng.uniform(0.5, 1.0)
    )


def _outline(see: Callable[[Array], Array], breadth: float, edge: float, share: float) -> float:
    """Return px from the edge of a straight flat cell to where the image is ``share`` of the way up to its halo."""
    reach = int(2 * breadth)
    at = np.arange(-reach, reach + 1, dtype=np.float32)
    seen = see(np.repeat(np.sqrt(np.clip(-at / edge, 0, 1))[None], 8, axis=0))[4]
    top = int(np.argmax(seen[reach : reach + int(breadth)])) + reach
    low = int(np.argmin(seen[top - int(0.5 * breadth) : top])) + top - int(0.5 * breadth)
    level = seen[low] + share * (seen[top] - seen[low])
    return float(np.interp(level, seen[low : top + 1], at[low : top + 1]))


def _dirt(rng: Random, breadth: float, shape: Shape) -> Array:
    """Return what else is seen, against a contrast of 1: an uneven ground, specks, debris, dust."""
    dirt = log_uniform(rng, 0.005, 0.1) * optics.mottle(rng, shape, breadth * log_uniform(rng, 0.03, 1))
    if rng.random() < 0.6:
        count, size = int(log_uniform(rng, 2, 120)), (0.01 * breadth, 0.06 * breadth)
        dirt += rng.uniform(0.1, 1.0) * optics.spots(rng, shape, count, size, rng.uniform(1, 2))
    if rng.random() < 0.3:  # bright remains with a dark rim
        size = (0.05 * breadth, 0.13 * breadth)
        remains = np.abs(optics.spots(rng, shape, int(rng.integers(1, 6)), size, 2))
        dirt += rng.uniform(0.5, 2.5) * (remains - 0.6 * blurred(remains, 0.06 * breadth))
    if rng.random() < 0.4:
        count = int(log_uniform(rng, 1, 10))
        dirt += log_uniform(rng, 0.04, 0.4) * optics.smudges(rng, shape, count, 0.4 * breadth)
    if rng.random() < 0.15:
        dirt += rng.uniform(0.05, 0.3) * optics.rings(rng, shape, int(rng.integers(1, 3)))
    return dirt
