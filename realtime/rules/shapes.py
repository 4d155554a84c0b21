"""Shapes of light: the outline of a cell where it will be, grown, as a ring, as a raster, as runs over the image.

Only the pixels around a cell are looked at, so that the time it takes does not depend on the size of the image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...models.detections import Detections

_PIXEL_VARIANCE = 1 / 12  # px^2, of a position within one pixel


class Patch(NamedTuple):
    """Some pixels of an image; they may lie outside of it.

    Attributes
    ----------
    mask
        (h, w) bool.
    top, left
        Row and column of its first pixel in the image.
    """

    mask: NDArray[np.bool_]
    top: int
    left: int


def cell_patch(detections: Detections, row: int, at_px: tuple[float, float]) -> Patch:
    """Return the pixels of a cell, moved to where it will be; an ellipse of its size where there is no mask.

    Parameters
    ----------
    detections
        The cells of the frame.
    row
        Which of them.
    at_px
        (x, y) to which its centroid is moved, in px; a mask is moved by whole pixels.
    """
    y0, x0, y1, x1 = detections.bbox[row].tolist()
    if detections.mask is not None:
        own = detections.mask[y0:y1, x0:x1] == row + 1
        if own.any():
            y, x = detections.yx[row]
            return Patch(own, y0 + round(at_px[1] - float(y)), x0 + round(at_px[0] - float(x)))
    return _ellipse(detections.moments[row], at_px)


def _ellipse(moments: NDArray[np.float64], at_px: tuple[float, float]) -> Patch:
    """Return the ellipse that has these second moments yy, xx, yx; at least a pixel wide."""
    yy, xx, yx = (float(value) for value in moments)
    yy, xx = max(yy, _PIXEL_VARIANCE), max(xx, _PIXEL_VARIANCE)
    if yy * xx - yx * yx < _PIXEL_VARIANCE**2:
        yy, xx = yy + _PIXEL_VARIANCE, xx + _PIXEL_VARIANCE  # a line one pixel wide
    high, wide = math.ceil(2 * math.sqrt(yy)) + 1, math.ceil(2 * math.sqrt(xx)) + 1
    top, left = round(at_px[1]) - high, round(at_px[0]) - wide
    dy = np.arange(2 * high + 1)[:, np.newaxis] + top - at_px[1]
    dx = np.arange(2 * wide + 1)[np.newaxis, :] + left - at_px[0]
    inside = (xx * dy**2 - 2 * yx * dy * dx + yy * dx**2) / (yy * xx - yx * yx) <= 4
    return Patch(inside, top, left)


def grown(patch: Patch, margin_px: float) -> Patch:
    """Return a patch with its outline moved outwards by a margin, or inwards where it is negative."""
    if margin_px == 0:
        return patch
    if margin_px < 0:
        deep = ndimage.distance_transform_edt(np.pad(patch.mask, 1))[1:-1, 1:-1]
        return Patch(deep > -margin_px, patch.top, patch.left)
    reach = math.ceil(margin_px)
    wide = np.pad(patch.mask, reach)
    away = ndimage.distance_transform_edt(~wide)
    return Patch(away <= margin_px, patch.top - reach, patch.left - reach)


def ring(patch: Patch, margin_px: float, width_px: float) -> Patch:
    """Return the band of a width that begins at a margin outside a patch."""
    outer, inner = grown(patch, margin_px + width_px), grown(patch, margin_px)
    hole = np.zeros_like(outer.mask)
    y, x = inner.top - outer.top, inner.left - outer.left
    hole[y : y + inner.mask.shape[0], x : x + inner.mask.shape[1]] = inner.mask
    return Patch(outer.mask & ~hole, outer.top, outer.left)


def clipped(patch: Patch, shape: tuple[int, int]) -> Patch:
    """Return the part of a patch that lies in an image of (height, width) px; its mask may be empty."""
    y0, x0 = max(0, -patch.top), max(0, -patch.left)
    y1, x1 = max(y0, shape[0] - patch.top), max(x0, shape[1] - patch.left)
    return Patch(patch.mask[y0:y1, x0:x1], patch.top + y0, patch.left + x0)


def runs_of(patch: Patch, shape: tuple[int, int]) -> tuple[int, ...]:
    """Return a patch as run lengths over an image of (height, width) px; ``()`` if nothing of it lies in there.

    They are those of :func:`~cytoloop.acquire.commands.encode_mask`, without the image being made.
    """
    mask, top, left = clipped(patch, shape)
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, columns = np.nonzero(edges)  # by rows: a start and an end in turn
    if not len(rows):
        return ()
    at = (rows + top) * shape[1] + columns + left
    starts, ends = at[0::2], at[1::2]
    apart = starts[1:] > ends[:-1]  # where a mask goes over the full width, rows touch
    starts, ends = starts[np.r_[True, apart]], ends[np.r_[apart, True]]
    bounds = np.empty(2 * len(starts) + 1, np.int64)
    bounds[0:-1:2], bounds[1::2], bounds[-1] = starts, ends, shape[0] * shape[1]
    runs = np.diff(bounds, prepend=0)
    return tuple((runs[:-1] if runs[-1] == 0 else runs).tolist())


def raster(mask: NDArray[np.bool_], spacing_px: float, through: tuple[float, float]) -> NDArray[np.float64]:
    """Return (k, 2) float64, the (x, y) of the points of a square raster that lie on a mask.

    Parameters
    ----------
    mask
        (h, w) bool.
    spacing_px
        Distance of neighbours.
    through
        (x, y) of a point of the raster, in px of the mask.
    """
    axes = [
        np.arange(at % spacing_px, length, spacing_px)
        for at, length in zip(through, mask.shape[::-1], strict=True)
    ]
    x, y = (values.ravel() for values in np.meshgrid(*axes))
    columns = np.minimum(np.rint(x).astype(np.int64), mask.shape[1] - 1)
    rows = np.minimum(np.rint(y).astype(np.int64), mask.shape[0] - 1)
    lit = mask[rows, columns]
    return np.stack([x[lit], y[lit]], axis=1)
