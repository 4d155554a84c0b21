"""Finding what lies near, among circles up to the size of the image: square bins, a layer of them for each size.

A circle lies in the bin of its centre, in the layer whose bins are as broad as the circle or up to twice. So what may
touch a circle lies in few bins of each layer, and one large circle makes nothing slower for the small ones.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int64]

SMALLEST = 8.0
"""Side of the smallest bins, px."""


@njit(cache=True, nogil=True)
def build(height: float, width: float) -> tuple[Ints, Ints]:
    """Return (layers, 3) rows, columns and first bin of each layer over an area, and the bins: all -1, empty."""
    layers = 1
    while SMALLEST * 2.0 ** (layers - 1) < 4 * max(height, width):
        layers += 1
    shape = np.empty((layers, 3), np.int64)
    total = 0
    for layer in range(layers):
        side = SMALLEST * 2.0**layer
        shape[layer, 0], shape[layer, 1] = int(height / side) + 1, int(width / side) + 1
        shape[layer, 2] = total
        total += shape[layer, 0] * shape[layer, 1]
    return shape, np.full(total, -1, np.int64)


@njit(cache=True, nogil=True)
def bin_of(shape: Ints, y: float, x: float, radius: float) -> tuple[int, int]:
    """Return the layer and the bin of a circle; centres outside the area count as on its border."""
    layer = 0
    while SMALLEST * 2.0**layer < 2 * radius and layer < len(shape) - 1:
        layer += 1
    side = SMALLEST * 2.0**layer
    row = min(max(int(y / side), 0), shape[layer, 0] - 1)
    column = min(max(int(x / side), 0), shape[layer, 1] - 1)
    return layer, shape[layer, 2] + row * shape[layer, 1] + column


@njit(cache=True, nogil=True)
def window(shape: Ints, layer: int, y: float, x: float, radius: float) -> tuple[int, int, int, int]:
    """Return first and last row and column of the bins of a layer with circles that may touch this one."""
    side = SMALLEST * 2.0**layer
    reach = radius + side / 2
    rows, columns = shape[layer, 0] - 1, shape[layer, 1] - 1
    return (
        min(max(int((y - reach) / side), 0), rows),
        min(max(int((y + reach) / side), 0), rows),
        min(max(int((x - reach) / side), 0), columns),
        min(max(int((x + reach) / side), 0), columns),
    )
