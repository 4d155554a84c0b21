"""Resizing a plane in one pass, together with its normalisation.

Along each axis an output pixel is the mean of the input that it covers, or, when enlarging, the linear
interpolation at its centre. A pixel that is covered in part counts by its value in the middle of that part, on
the line to its neighbour: so a linear ramp stays one at any factor, and blocks of whole pixels are plain means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .kernels import frozen

LOWEST, HIGHEST = -1.0, 4.0
"""What normalised values are cut to."""
DTYPES = tuple(np.dtype(name) for name in ("uint8", "uint16", "float32"))

Floats = NDArray[np.float32]
Places = NDArray[np.int64]


def resize(
    plane: NDArray[Any], shape: tuple[int, int], low: float | None = None, high: float | None = None
) -> Floats:
    """Return a plane at another size; the outer edges of both coincide.

    Parameters
    ----------
    plane
        (y, x) uint8, uint16 or float32.
    shape
        (height, width) wanted, in px.
    low, high
        If given, values become ``(value - low) / (high - low)``, cut to -1 .. 4.

    Returns
    -------
    array
        (height, width) float32.

    Raises
    ------
    ValueError
        If the plane has another type, a side is below 1, or ``low`` is not below ``high``.
    """
    if plane.ndim != 2 or plane.dtype not in DTYPES:
        raise ValueError(f"resize takes (y, x) uint8, uint16 or float32, got {plane.dtype} {plane.shape}")
    if min(*plane.shape, *shape) < 1:
        raise ValueError(f"cannot resize {plane.shape} to {shape}: every side must be 1 px or more")
    normalise = low is not None or high is not None
    start, gain = 0.0, 1.0
    if normalise:
        if low is None or high is None or not low < high:
            raise ValueError(f"low must be below high, got {low} and {high}")
        start, gain = float(low), 1 / (float(high) - float(low))
    result = np.empty(shape, np.float32)
    rows, columns = (_weights(n, wanted) for n, wanted in zip(plane.shape, shape, strict=True))
    _resize(frozen(plane), result, *rows, *columns, np.float32(start), np.float32(gain), normalise)
    return result


def warm_up() -> None:
    """Compile the kernels, or load them if they were compiled before."""
    for dtype in DTYPES:
        resize(np.zeros((2, 2), dtype), (1, 1))


def _weights(size: int, wanted: int) -> tuple[Places, Floats]:
    """Return the first of the pixels that each output pixel is made of, (n,), and their weights, (taps, n)."""
    factor = size / wanted
    index = np.arange(wanted)
    if factor < 1:
        centre = np.clip((index + 0.5) * factor - 0.5, 0, size - 1)
        first = np.minimum(np.floor(centre), max(size - 2, 0)).astype(np.int64)
        share = centre - first
        return first, np.stack([1 - share, share])[: min(size, 2)].astype(np.float32)
    start, end = index * factor, np.minimum((index + 1) * factor, size)
    first, last = np.floor(start).astype(np.int64), np.ceil(end).astype(np.int64) - 1
    taps = int((last - first).max()) + 1
    first = np.minimum(first, size - taps)
    pixel = first + np.arange(taps)[:, np.newaxis]
    covered = np.clip(np.minimum(pixel + 1, end) - np.maximum(pixel, start), 0, 1)
    # The middle of the covered part lies this far from the pixel's centre: a share of it is its neighbour's.
    off = np.where(covered > 0, (np.minimum(pixel + 1, end) + np.maximum(pixel, start)) / 2 - pixel - 0.5, 0)
    weights = covered * (1 - np.abs(off))
    weights[1:] += (covered * np.maximum(off, 0))[:-1]
    weights[:-1] += (covered * np.maximum(-off, 0))[1:]
    return first, (weights / factor).astype(np.float32)


@njit(cache=True, nogil=True)
def _resize(
    plane: NDArray[Any],
    result: Floats,
    top: Places,
    row_weights: Floats,
    left: Places,
    column_weights: Floats,
    start: np.float32,
    gain: np.float32,
    normalise: bool,
) -> None:
    """Fill the result row by row: the rows that make one are added up, then the columns of that."""
    taps, width = len(column_weights), result.shape[1]
    line = np.empty(plane.shape[1], np.float32)
    lowest, highest = np.float32(LOWEST), np.float32(HIGHEST)
    # Blocks of whole pixels are the usual case, and need no look at where they start.
    even = plane.shape[1] == taps * width
    for y in range(result.shape[0]):
        line[:] = np.float32(0)
        for k in range(len(row_weights)):
            weight, source = row_weights[k, y], plane[top[y] + k]
            if weight != 0:
                for x in range(line.size):
                    line[x] += weight * np.float32(source[x])
        row = result[y]
        row[:] = np.float32(0)
        for k in range(taps):
            weights = column_weights[k]
            if even:
                for x in range(width):
                    row[x] += weights[x] * line[x * taps + k]
            else:
                for x in range(width):
                    row[x] += weights[x] * line[left[x] + k]
        if normalise:
            for x in range(width):
                row[x] = min(max((row[x] - start) * gain, lowest), highest)
