"""Running a net on planes of any size: padded to what the net needs, and in tiles where memory would not do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import ModelError
from ..runtimes.runtime import Runtime, Tensor

TILE_PX = 3072
"""Planes with a longer side are computed in tiles of at most this many px."""
OVERLAP_PX = 128
"""Tiles share this many px: more than a net sees around a px, so that no seam shows."""


def run(runtime: Runtime, planes: NDArray[np.float32], step: int, grid: int) -> Tensor:
    """Return the map that a net makes of planes of any size.

    Parameters
    ----------
    runtime
        The net; its only output, or the first, is a map.
    planes
        (channels, y, x) float32.
    step
        Both sides of what the net is given are multiples of it (in px).
    grid
        Input px per output px.

    Returns
    -------
    (1, outputs, ceil(y / grid), ceil(x / grid)) float32
        May be a view of the runtime's memory.
    """
    height, width = planes.shape[-2:]
    if max(height, width) <= TILE_PX:
        return _part(runtime, planes, step, grid)
    size, overlap = TILE_PX - TILE_PX % step, OVERLAP_PX + -OVERLAP_PX % (2 * step)
    whole: Tensor | None = None
    for y0, y1, top in _cuts(height, size, overlap):
        for x0, x1, left in _cuts(width, size, overlap):
            part = _part(runtime, planes[:, y0:y1, x0:x1], step, grid)
            if whole is None:
                whole = np.empty((1, part.shape[1], -(-height // grid), -(-width // grid)), np.float32)
            kept = part[:, :, (top - y0) // grid :, (left - x0) // grid :]
            # Later tiles overwrite what earlier ones said beyond the middle of what they share.
            whole[:, :, top // grid :, left // grid :][:, :, : kept.shape[2], : kept.shape[3]] = kept
    assert whole is not None
    return whole


def _cuts(length: int, size: int, overlap: int) -> list[tuple[int, int, int]]:
    """Return start and end of each tile along one axis, and from where on its result is taken."""
    if length <= size:
        return [(0, length, 0)]
    starts = list(range(0, length - overlap, size - overlap))
    return [(s, min(s + size, length), s + overlap // 2 if s else 0) for s in starts]


def _part(runtime: Runtime, planes: NDArray[np.float32], step: int, grid: int) -> Tensor:
    height, width = planes.shape[-2:]
    bottom, right = -height % step, -width % step
    if bottom or right:  # mirrored as in training, so that a cell at the edge looks like one
        planes = np.pad(planes, ((0, 0), (0, bottom), (0, right)), mode="symmetric")
    answer = runtime.run(np.ascontiguousarray(planes[np.newaxis]))[0]
    expected = (planes.shape[-2] // grid, planes.shape[-1] // grid)
    if answer.ndim != 4 or answer.shape[-2:] != expected:
        raise ModelError(
            f"the net answered with shape {answer.shape} to {planes.shape}; expected (1, outputs, {expected[0]}, {expected[1]})"
        )
    return answer[:, :, : -(-height // grid), : -(-width // grid)]
