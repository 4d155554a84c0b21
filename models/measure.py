"""Measuring: frame and labels -> detections, in one pass over horizontal runs of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..acquire.errors import FrameError
from ..acquire.frame import Frame
from .detections import Detections
from .kernels import frozen
from .labels import Labels

Image = NDArray[np.int32]
Ints = NDArray[np.int64]


def measure(frame: Frame, labels: Labels) -> Detections:
    """Measure every cell of a mask on every channel of its frame.

    The mask is read as horizontal runs of equal label; position and shape follow in closed form from the ends of
    the runs. All sums are of whole numbers, and so exact.

    Parameters
    ----------
    frame
        The frame, (y, x) or (c, y, x).
    labels
        Its instance mask; row i of the result is label i + 1.

    Raises
    ------
    FrameError
        If the mask has another shape than the frame, its numbers are not 1..count, each used, or it has not one
        confidence, class probability or embedding per cell.
    """
    image, n = labels.image, labels.count
    if image.shape != frame.shape:
        raise FrameError(f"mask of shape {image.shape} for a frame of shape {frame.shape}")
    per_cell = {"confidences": labels.confidence, "embeddings": labels.embedding, **labels.classes}
    for name, values in per_cell.items():
        if values is not None and values.shape[:1] != (n,):
            raise FrameError(f"{name} of shape {values.shape} for {n} cells")
    pixels = frame.pixels if frame.pixels.ndim == 3 else frame.pixels[np.newaxis]
    box, first = np.empty((n, 4), np.int32), np.empty(n, np.int64)
    sums = np.zeros((n, 6), np.int64)
    light, peak = np.zeros((2, n, len(pixels)), np.int64)
    largest = _add_up(frozen(image, np.int32), frozen(pixels), box, first, sums, light, peak)
    if largest > n:
        raise FrameError(f"mask holds label {largest} but says that it has {n} cells")
    # y and x are counted from the first pixel of each cell, so that nothing large is subtracted.
    area, y, x, yy, xx, yx = sums.T.astype(np.float64)
    if n and area.min() == 0:
        raise FrameError(f"mask says that it has {n} cells but label {int(area.argmin()) + 1} is not in it")
    moments = np.stack([area * yy - y * y, area * xx - x * x, area * yx - y * x], axis=1)
    return Detections(
        sequence=frame.sequence,
        time_s=frame.time_s,
        shape=frame.shape,
        yx=np.stack([(y + area * box[:, 0]) / area, (x + area * first) / area], axis=1),
        area=area,
        bbox=box,
        mean=light / area[:, np.newaxis],
        maximum=peak.astype(np.float64),
        moments=moments / np.square(area)[:, np.newaxis],
        stage_um=frame.stage_um,
        pixel_size_um=frame.pixel_size_um,
        confidence=labels.confidence,
        novelty=labels.novelty,
        classes=labels.classes,
        embedding=labels.embedding,
        mask=image,
    )


@njit(cache=True, nogil=True)
def _add_up(
    image: Image, pixels: NDArray[Any], box: Image, first: Ints, sums: Ints, light: Ints, peak: Ints
) -> int:
    """Fill the table of the cells; return the largest label.

    Parameters
    ----------
    image, pixels
        (y, x) labels and (channels, y, x) intensities.
    box, first
        (n, 4) y0, x0, y1, x1 and (n,) x of the first pixel.
    sums
        (n, 6) area, y, x, yy, xx, yx; y and x from the first pixel. Zero at the beginning, as the last two.
    light, peak
        (n, channels) sum and maximum of the intensities.
    """
    largest = 0
    height, width = image.shape
    for y in range(height):
        row = image[y]
        x = 0
        while x < width:
            label = row[x]
            start = x
            x += 1
            if label <= 0:
                continue
            while x < width and row[x] == label:
                x += 1
            largest = max(largest, label)
            if label > len(box):
                continue
            cell = label - 1
            _extend(cell, y, start, x, box, first, sums)
            for channel in range(len(pixels)):
                total, highest = _sum(pixels[channel, y], start, x)
                light[cell, channel] += total
                peak[cell, channel] = max(peak[cell, channel], highest)
    return largest


@njit(cache=True, nogil=True)
def _extend(cell: int, y: int, start: int, end: int, box: Image, first: Ints, sums: Ints) -> None:
    """Add a run to the box and the sums of its cell."""
    if sums[cell, 0] == 0:
        first[cell] = start
        box[cell, 0], box[cell, 1], box[cell, 2], box[cell, 3] = y, start, y + 1, end
    else:
        box[cell, 1], box[cell, 2], box[cell, 3] = min(box[cell, 1], start), y + 1, max(box[cell, 3], end)
    n, dy, dx = end - start, y - box[cell, 0], start - first[cell]
    along = n * dx + n * (n - 1) // 2  # the sum of dx, dx + 1, ... dx + n - 1
    sums[cell, 0] += n
    sums[cell, 1] += n * dy
    sums[cell, 2] += along
    sums[cell, 3] += n * dy * dy
    sums[cell, 4] += n * dx * dx + dx * n * (n - 1) + (n - 1) * n * (2 * n - 1) // 6
    sums[cell, 5] += along * dy


@njit(cache=True, nogil=True)
def _sum(row: NDArray[Any], start: int, end: int) -> tuple[np.int64, np.int64]:
    """Return sum and maximum of a part of a row."""
    total, highest = np.int64(0), np.int64(0)
    for x in range(start, end):
        value = np.int64(row[x])
        total += value
        highest = max(highest, value)
    return total, highest
