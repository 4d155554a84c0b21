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


def run(runtime: Runtime, planes: NDArray[np.float32], step: int, grid: int) -> tuple[Tensor, ...]:
    """Return what a net says of planes of any size.

    Parameters
    ----------
    runtime
        The net.
    planes
        (channels, y, x) float32.
    step
        Both sides of what the net is given are multiples of it (in px).
    grid
        Input px per output px.

    Returns
    -------
    tuple of arrays
        float32; maps are (1, outputs, ceil(y / grid), ceil(x / grid)), other outputs (boxes) as they come. They
        may be views of the runtime's memory.

    Raises
    ------
    ModelError
        If a frame needs tiles, and the net answers with something else than maps.
    """
    height, width = planes.shape[-2:]
    if max(height, width) <= TILE_PX:
        return _part(runtime, planes, step, grid)
    size, overlap = TILE_PX - TILE_PX % step, OVERLAP_PX + -OVERLAP_PX % (2 * step)
    whole: list[Tensor] = []
    for y0, y1, top in _cuts(height, size, overlap):
        for x0, x1, left in _cuts(width, size, overlap):
            parts = _part(runtime, planes[:, y0:y1, x0:x1], step, grid)
            covered = (-(-(y1 - y0) // grid), -(-(x1 - x0) // grid))
            for index, part in enumerate(parts):
                if part.ndim != 4 or part.shape[-2:] != covered:
                    raise ModelError(
                        f"a frame of {height} x {width} px needs tiles of {TILE_PX} px, and output {index} of the net"
                        f" is no map of them (shape {part.shape}): scale the frames down, or set diameter_px"
                    )
                if len(whole) <= index:
                    whole.append(
                        np.empty((1, part.shape[1], -(-height // grid), -(-width // grid)), np.float32)
                    )
                # Later tiles overwrite what earlier ones said beyond the middle of what they share.
                kept = part[:, :, (top - y0) // grid :, (left - x0) // grid :]
                y, x = top // grid, left // grid
                whole[index][:, :, y : y + kept.shape[2], x : x + kept.shape[3]] = kept
    return tuple(whole)


def _cuts(length: int, size: int, overlap: int) -> list[tuple[int, int, int]]:
    """Return start and end of each tile along one axis, and from where on its result is taken."""
    if length <= size:
        return [(0, length, 0)]
    starts = list(range(0, length - overlap, size - overlap))
    return [(s, min(s + size, length), s + overlap // 2 if s else 0) for s in starts]


def _part(runtime: Runtime, planes: NDArray[np.float32], step: int, grid: int) -> tuple[Tensor, ...]:
    """Run planes that fit, and cut what the padding added off the maps."""
    height, width = planes.shape[-2:]
    bottom, right = -height % step, -width % step
    if bottom or right:  # mirrored as in training, so that a cell at the edge looks like one
        planes = np.pad(planes, ((0, 0), (0, bottom), (0, right)), mode="symmetric")
    answers = runtime.run(np.ascontiguousarray(planes[np.newaxis]))
    padded = (planes.shape[-2] // grid, planes.shape[-1] // grid)
    covered = (slice(None), slice(None), slice(-(-height // grid)), slice(-(-width // grid)))
    return tuple(a[covered] if a.ndim == 4 and a.shape[-2:] == padded else a for a in answers)
