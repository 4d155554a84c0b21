"""Training images: pairs of image and mask, normalised as the runtimes do it, and measured once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..labels import numbered
from .targets import depths

FINE = 40.0
"""Cells broader than this many px are shown at a half, a third ... of their resolution: no net needs more."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingImage:
    """One image with its mask, as the training draws crops from it.

    Attributes
    ----------
    name
        For messages and figures.
    kind
        Group that it is drawn with, such as ``"fluorescence"``.
    plane
        (y, x) float32, normalised.
    mask
        (y, x) uint16, 0 is background.
    depth, deepest
        As in :class:`~cytoloop.models.training.targets.Depths`.
    known
        (y, x) bool: whether the mask says what is there; elsewhere there may be cells that are not in it.
    middles
        (cells, 2) float32, centroids y, x.
    breadth_px
        Median breadth of its cells in px of ``plane``; 0 without cells.
    """

    name: str
    kind: str
    plane: NDArray[np.float32]
    mask: NDArray[np.uint16]
    depth: NDArray[np.float32]
    deepest: NDArray[np.float32]
    known: NDArray[np.bool_]
    middles: NDArray[np.float32]
    breadth_px: float


def training_image(
    name: str,
    kind: str,
    plane: NDArray[np.float32],
    mask: NDArray[np.integer],
    known: NDArray[np.bool_] | None = None,
) -> TrainingImage:
    """Prepare one pair.

    Parameters
    ----------
    name, kind
        See :class:`TrainingImage`.
    plane
        (y, x) float32, normalised.
    mask
        (y, x) integers; any numbers, 0 is background.
    known
        (y, x) bool, see :class:`TrainingImage`; None is everywhere.
    """
    known = np.ones(mask.shape, np.bool_) if known is None else known
    compact, _ = numbered(mask)
    measured = depths(compact)
    factor = int(measured.breadth_px // FINE)
    if factor > 1:
        height, width = (n - n % factor for n in plane.shape)
        blocks = plane[:height, :width].reshape(height // factor, factor, width // factor, factor)
        plane = blocks.mean(axis=(1, 3))
        middle = slice(factor // 2, height, factor), slice(factor // 2, width, factor)
        compact, known = compact[middle], known[middle]
        measured = depths(compact)
    return TrainingImage(
        name,
        kind,
        np.ascontiguousarray(plane, np.float32),
        np.ascontiguousarray(compact, np.uint16),
        measured.depth,
        measured.deepest,
        np.ascontiguousarray(known),
        _middles(compact),
        measured.breadth_px,
    )


def near_cells(mask: NDArray[np.integer], reach_px: float) -> NDArray[np.bool_]:
    """Return (y, x) where a cell is at most so far away."""
    if not mask.any():
        return np.zeros(mask.shape, np.bool_)
    return np.asarray(ndimage.distance_transform_edt(mask == 0)) <= reach_px


def _middles(mask: NDArray[np.integer]) -> NDArray[np.float32]:
    y, x = np.nonzero(mask)
    owner = mask[y, x]
    area = np.maximum(np.bincount(owner), 1)
    return np.stack([np.bincount(owner, y) / area, np.bincount(owner, x) / area], axis=1)[1:].astype(
        np.float32
    )
