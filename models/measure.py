"""Measuring: frame and labels -> detections, in one pass over horizontal runs of pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..acquire.errors import FrameError
from ..acquire.frame import Frame
from .detections import Detections
from .labels import Labels


def measure(frame: Frame, labels: Labels) -> Detections:
    """Measure every cell of a mask on every channel of its frame.

    The mask is cut into horizontal runs of equal label; position and shape follow in closed form from the
    ends of the runs, intensities from sums over them, so that the cost is one pass over the image and hardly
    grows with the number of cells.

    Parameters
    ----------
    frame
        The frame, (y, x) or (c, y, x).
    labels
        Its instance mask; row i of the result is label i + 1.

    Raises
    ------
    FrameError
        If the mask has another shape than the frame, or its numbers are not 1..count, each used.
    """
    image, n = labels.image, labels.count
    if image.shape != frame.shape:
        raise FrameError(f"mask of shape {image.shape} for a frame of shape {frame.shape}")
    starts, lengths, owner = _runs(image)
    pixels = frame.pixels if frame.pixels.ndim == 3 else frame.pixels[np.newaxis]
    run_of_cell = owner > 0
    cell = owner[run_of_cell] - 1
    if len(cell) and (cell.min() < 0 or cell.max() >= n):
        raise FrameError(f"mask holds label {cell.max() + 1} but says that it has {n} cells")
    length = lengths[run_of_cell].astype(np.float64)
    y, x0 = np.divmod(starts[run_of_cell], image.shape[1])

    def total(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(cell, weights, minlength=n).astype(np.float64, copy=False)

    area = total(length)
    if n and area.min() == 0:
        raise FrameError(f"mask says that it has {n} cells but label {int(area.argmin()) + 1} is not in it")
    middle = x0 + (length - 1) / 2
    cy, cx = total(length * y) / area, total(length * middle) / area
    dy, dx = y - cy[cell], middle - cx[cell]
    # Within a run of k pixels the variance of x is (k^2 - 1) / 12.
    yy = total(length * dy * dy) / area
    xx = total(length * (dx * dx + (length * length - 1) / 12)) / area
    yx = total(length * dy * dx) / area
    mean = np.empty((n, len(pixels)))
    maximum = np.empty((n, len(pixels)))
    by_cell = np.argsort(cell, kind="stable")
    first = np.searchsorted(cell[by_cell], np.arange(n))
    for channel, plane in enumerate(pixels):
        flat = plane.reshape(-1)
        if n == 0:
            continue
        sums = np.add.reduceat(flat, starts, dtype=np.uint64)[run_of_cell].astype(np.float64)
        mean[:, channel] = total(sums) / area
        peaks = np.maximum.reduceat(flat, starts)[run_of_cell]
        maximum[:, channel] = np.maximum.reduceat(peaks[by_cell], first)
    return Detections(
        sequence=frame.sequence,
        time_s=frame.time_s,
        shape=frame.shape,
        yx=np.stack([cy, cx], axis=1),
        area=area,
        bbox=_boxes(y[by_cell], x0[by_cell], length[by_cell].astype(np.int64), first, n),
        mean=mean,
        maximum=maximum,
        moments=np.stack([yy, xx, yx], axis=1),
        stage_um=frame.stage_um,
        pixel_size_um=frame.pixel_size_um,
    )


def _runs(image: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Return flat start, length and label of every horizontal run of equal label, background included."""
    flat = image.reshape(-1)
    change = np.empty(flat.size, bool)
    np.not_equal(flat[1:], flat[:-1], out=change[1:])
    change[:: image.shape[1]] = True  # a run ends with its row
    starts = np.flatnonzero(change)
    return starts, np.diff(starts, append=flat.size), flat[starts]


def _boxes(
    y: NDArray[np.int64], x0: NDArray[np.int64], length: NDArray[np.int64], first: NDArray[np.int64], n: int
) -> NDArray[np.int32]:
    """Return (n, 4) int32 y0, x0, y1, x1 from runs sorted by cell."""
    box = np.empty((n, 4), np.int32)
    if n:
        box[:, 0] = np.minimum.reduceat(y, first)
        box[:, 1] = np.minimum.reduceat(x0, first)
        box[:, 2] = np.maximum.reduceat(y, first) + 1
        box[:, 3] = np.maximum.reduceat(x0 + length, first)
    return box
