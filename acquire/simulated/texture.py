"""Chromatin patterns, which move and turn with the nucleus that bears them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from .shapes import Array

TEXTURES = 16
_TILE = 64  # px along the edge of a pattern
_REACH = 1.2  # semi-axes that it spans on each side of the centre


def chromatin(seed: int) -> Array:
    """Return (TEXTURES, 64, 64) float32 patterns of mean about 1: mottled chromatin with dark nucleoli."""
    rng = np.random.default_rng(seed)
    grid = (np.arange(_TILE) - _TILE / 2) * 2 * _REACH / _TILE
    y, x = np.meshgrid(grid, grid, indexing="ij")
    tiles = np.empty((TEXTURES, _TILE, _TILE), np.float32)
    for tile in tiles:
        fine = gaussian_filter(rng.normal(size=(_TILE, _TILE)), 2.5)
        coarse = gaussian_filter(rng.normal(size=(_TILE, _TILE)), 7.0)
        tile[:] = 1 + 0.10 * fine / fine.std() + 0.10 * coarse / coarse.std()
        for _ in range(rng.integers(2, 5)):
            cx, cy = rng.uniform(-0.55, 0.55, 2)
            radius = rng.uniform(0.12, 0.22)
            tile -= 0.45 * np.exp(-((((x - cx) ** 2 + (y - cy) ** 2) / radius**2) ** 2)).astype(np.float32)
        tile *= 1.12 - 0.3 * np.minimum(x * x + y * y, 1.0)  # thinner towards the rim
        np.maximum(tile, 0.2, out=tile)
    return tiles


def sampled(patterns: Array, number: NDArray[np.int64], p: Array, q: Array) -> Array:
    """Return (k, s, s) values of k patterns at offsets p, q (k, s, s) in semi-axes from the centre."""
    scale = _TILE / 2 / _REACH
    x = np.clip(p * scale + _TILE / 2, 0, _TILE - 1).astype(np.int32)
    y = np.clip(q * scale + _TILE / 2, 0, _TILE - 1).astype(np.int32)
    flat = (number[:, None, None].astype(np.int32) * _TILE + y) * _TILE + x
    return patterns.ravel()[flat]
