"""Two more looks at a possible link, for those who have them: appearance vectors, and the overlap of masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .alive import Alive
from .assignment import Edges
from .mask_overlaps import overlaps_of

Floats = NDArray[np.float64]

LEAST, MOST = -4.0, 3.5
"""Bounds of what one of these looks can say."""
ODD = 0.05
"""Share of cells that look or lie as any other would."""
OVERLAP_SPREAD = 0.15
"""Standard deviation of the overlap of a cell with itself in the next frame."""
BARELY = 0.05
"""Overlaps with other cells are about this large, where there are any at all."""
NEVER = 32.0
"""Density at no overlap at all, for two different cells."""


def unlikeness(alive: Alive, found: Alive, edges: Edges) -> Floats:
    """Return (e,) 1 minus the cosine between the appearance vectors of each edge; NaN where there are none."""
    if not alive.embedding.shape[1] or alive.embedding.shape[1] != found.embedding.shape[1]:
        return np.full(len(edges), np.nan)
    one, other = alive.embedding[edges.row], found.embedding[edges.column]
    known = np.einsum("ij,ij->i", one, one) * np.einsum("ij,ij->i", other, other) > 0
    return np.where(known, 1 - np.einsum("ij,ij->i", one, other), np.nan)


def likeness_gains(unlike: Floats, found: Alive, spread: float) -> Floats:
    """Return (e,) log-likelihood ratios: the same cell against another of the frame; 0 where nothing is known.

    Parameters
    ----------
    unlike
        (e,) from :func:`unlikeness`.
    found
        The detections, from which it is learned how unlike two different cells are.
    spread
        What is usual for one and the same cell.
    """
    if np.isnan(unlike).all() or len(found) < 2:
        return np.zeros(len(unlike))
    own = found.embedding
    others = np.concatenate([1 - np.einsum("ij,ij->i", own, np.roll(own, by, axis=0)) for by in (1, 2)])
    mean, sd = float(others.mean()), max(float(others.std()), 0.05)
    apart = np.exp(-np.square((unlike - mean) / sd) / 2) / (sd * np.sqrt(2 * np.pi)) + 1e-3
    same = np.exp(-np.square(unlike / spread) / 2) * 2 / (spread * np.sqrt(2 * np.pi))
    gains = np.log((1 - ODD) * same + ODD * apart) - np.log(apart)
    return np.nan_to_num(np.clip(gains, LEAST, MOST), nan=0.0)


def overlap_shares(
    before: NDArray[np.int32], now: NDArray[np.int32], moved_px: Floats, tracks: int, edges: Edges
) -> Floats:
    """Return (e,) intersection over union of each edge's masks; NaN for tracks that were not seen before.

    Parameters
    ----------
    before, now
        (y, x) masks of both frames; label i + 1 is row i of the tracks, and of the detections.
    moved_px
        (y, x) that the field has moved in between.
    tracks
        How many tracks were seen in the frame before; they come first.
    edges
        e of them.
    """
    m = edges.shape[1]
    overlaps = overlaps_of(_shifted(before, moved_px), now, tracks, m)
    keys, wanted = overlaps.rows * m + overlaps.columns, edges.row * m + edges.column
    share = np.zeros(len(edges))
    if len(keys):
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        share = np.where(keys[at] == wanted, overlaps.iou[at], 0.0)
    return np.where(edges.row < tracks, share, np.nan)


def overlap_gains(share: Floats, usual: float) -> Floats:
    """Return (e,) log-likelihood ratios: the same cell against a neighbour; 0 where nothing is known.

    Parameters
    ----------
    share
        (e,) from :func:`overlap_shares`.
    usual
        Overlap of a cell with itself in the next frame.
    """
    same = np.exp(-np.square((share - usual) / OVERLAP_SPREAD) / 2) / (OVERLAP_SPREAD * np.sqrt(2 * np.pi))
    apart = np.where(share > 0, np.exp(-share / BARELY) / BARELY, NEVER) + 1e-3
    gains = np.log((1 - ODD) * same + ODD) - np.log(apart)
    return np.nan_to_num(np.clip(gains, LEAST, MOST), nan=0.0)


def _shifted(mask: NDArray[np.int32], by: Floats) -> NDArray[np.int32]:
    """Return a mask moved by whole px, with nothing where it was not."""
    result = np.zeros_like(mask)
    (y, x), (height, width) = np.rint(by).astype(int), mask.shape
    if abs(y) >= height or abs(x) >= width:
        return result
    result[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)] = mask[
        max(-y, 0) : height - max(y, 0), max(-x, 0) : width - max(x, 0)
    ]
    return result
