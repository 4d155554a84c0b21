"""The decoder of our own nets: foreground and cores on a coarse grid -> cells with outlines at frame resolution.

The net answers with a map of three channels: the logit that a px is inside a cell; the logit of its core, a soft
distance to the outline of its own cell that is 0 there and 1 in the middle of every cell; and how broad the cell is,
which is used elsewhere. The valleys of the core part touching cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ...acquire.errors import ModelError
from ..kernels import frozen
from ..labels import Labels
from . import enlarge, flood, holes
from .decoder import Grid, Tensor

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

CHANNELS = 3
SURE = 5.5
"""Logits beyond this count as this, 0.4 % from certain: how much surer a net is of one middle than of another says
nothing of where one cell ends."""
LEVELS = 255
"""Steps of the core's logit from one end to the other."""
SURENESS_STEPS = 1024
TOLD_APART = 2.0
"""A cell that stands out by this many logits from its neighbours is taken for one at 63 %, then ever more surely.
With it the mean confidence of many cells is about the share of them that is right (IoU above 0.5)."""


@dataclass(frozen=True, slots=True)
class _Space:
    """Memory of the size of the grid, used again for every frame: to be handed out new pages takes long."""

    height: NDArray[np.uint16]
    margin: Floats
    cells: Ints
    up: Ints
    flat: Ints

    @staticmethod
    def of(shape: tuple[int, ...]) -> _Space:
        height = np.zeros((shape[0] + 2, shape[1] + 2), np.uint16)
        up, flat = np.empty((2, height.size), np.int32)
        return _Space(height, np.empty(shape, np.float32), np.empty(shape, np.int32), up, flat)


class CoreDecoder:
    """Makes cells of what our own nets say.

    Parameters
    ----------
    foreground
        Probability above which a px is inside a cell.
    persistence
        By how much, in logits, the core of a cell must stand out above the highest way to another cell. Logits
        part the cells of real nets better than probabilities do, which are all near 1 in the middle of cells.
    smallest
        What is smaller than this share of a typical cell is dropped. Typical is the cell that the middle one of
        all px in cells belongs to, so that many specks do not count.
    smallest_px
        What is smaller than this, in px of the frame, is dropped as well.
    doubtful
        A cell with a lower confidence than this is dropped: more of these are wrong than right.

    Raises
    ------
    ValueError
        Names the option and what it may be.
    """

    def __init__(
        self,
        *,
        foreground: float = 0.5,
        persistence: float = 2.0,
        smallest: float = 0.05,
        smallest_px: float = 12.0,
        doubtful: float = 0.4,
    ) -> None:
        if not 0 < foreground < 1:
            raise ValueError(f"foreground must be between 0 and 1, got {foreground}")
        if not 0 < persistence < 2 * SURE:
            raise ValueError(f"persistence must be between 0 and {2 * SURE:g}, got {persistence}")
        if not 0 <= smallest < 1:
            raise ValueError(f"smallest must be 0 or more and below 1, got {smallest}")
        if not 0 <= smallest_px < math.inf:
            raise ValueError(f"smallest_px must be 0 or more, got {smallest_px}")
        if not 0 <= doubtful < 1:
            raise ValueError(f"doubtful must be 0 or more and below 1, got {doubtful}")
        self._edge = np.float32(math.log(foreground / (1 - foreground)))
        self._persistence = max(1, round(persistence * LEVELS / (2 * SURE)))
        self._smallest, self._smallest_px, self._doubtful = smallest, smallest_px, doubtful
        logit = np.linspace(-SURE, SURE, SURENESS_STEPS + 1)
        self._sureness = np.tanh(logit / 2).astype(np.float32)  # 2 p - 1
        self._space: _Space | None = None
        warm_up()

    def decode(self, outputs: tuple[Tensor, ...], grid: Grid) -> Labels:
        """Return the cells and their confidences.

        A confidence is how decided the net is that the px of the cell are inside one, times how surely the cell
        stands out from those that it touches.
        """
        foreground, core = _checked(outputs, grid)
        if self._space is None or self._space.cells.shape != foreground.shape:
            self._space = _Space.of(foreground.shape)
        height, margin, cells = self._space.height, self._space.margin, self._space.cells
        _rise(foreground, core, self._edge, height, margin)
        count = flood.flood_into(cells, height, self._persistence, self._space.up, self._space.flat)
        area, confidence = _judge(cells, count, foreground, height, self._sureness)
        dropped = (area < self._least_area(area, grid)) | (confidence < self._doubtful)
        if dropped[1:].any():
            _drop(cells, dropped)
            area[dropped] = 0
        holes.fill_holes(cells, area)
        image, order = enlarge.enlarge(cells, count, margin, grid)
        return Labels(image, len(order), confidence[order])

    def _least_area(self, area: NDArray[np.int64], grid: Grid) -> float:
        """Return the area below which an object is no cell, in px of the grid."""
        by_size = np.sort(area[1:])
        inside = np.cumsum(by_size)
        typical = float(by_size[np.searchsorted(inside, inside[-1] / 2)]) if by_size.size else 0.0
        return max(self._smallest * typical, self._smallest_px / (grid.pitch[0] * grid.pitch[1]))


def warm_up() -> None:
    """Compile the kernels, or load them if they were compiled before."""
    flood.warm_up()
    holes.warm_up()
    enlarge.warm_up()
    foreground, core = _checked((np.ones((1, CHANNELS, 2, 2), np.float32),), Grid((2, 2), (1.0, 1.0)))
    space = _Space.of((2, 2))
    _rise(foreground, core, np.float32(0), space.height, space.margin)
    count = flood.flood_into(space.cells, space.height, 1, space.up, space.flat)
    _judge(space.cells, count, foreground, space.height, np.ones(SURENESS_STEPS + 1, np.float32))
    _drop(space.cells, np.ones(count + 1, np.bool_))


def _checked(outputs: tuple[Tensor, ...], grid: Grid) -> tuple[Floats, Floats]:
    """Return the maps of foreground and core, if the outputs are such."""
    shapes = ", ".join(str(output.shape) for output in outputs)
    if len(outputs) != 1 or outputs[0].ndim != 4 or outputs[0].shape[:2] != (1, CHANNELS):
        raise ModelError(
            f"the core decoder needs one output (1, {CHANNELS}, y, x), the net has {len(outputs)}: {shapes};"
            " choose the decoder that fits the model"
        )
    maps = outputs[0]
    for axis, size, wanted, pitch in zip("yx", maps.shape[2:], grid.shape, grid.pitch, strict=True):
        if size < 1 or abs(size * pitch - wanted) >= pitch + 0.5:
            raise ModelError(
                f"the net's output has {size} px along {axis}; {wanted / pitch:.1f} cover the frame of {wanted} px"
            )
    with np.errstate(all="ignore"):
        if not np.isfinite(maps.sum()):
            raise ModelError("the net's output holds values that are no numbers (NaN or infinity)")
    maps = frozen(maps, np.float32)
    return maps[0, 0], maps[0, 1]


@njit(cache=True, nogil=True)
def _rise(
    foreground: Floats, core: Floats, edge: np.float32, height: NDArray[np.uint16], margin: Floats
) -> None:
    """Fill the heights that are flooded, 0 outside, and by how much the foreground is above its threshold."""
    steps = np.float32(LEVELS / (2 * SURE))
    for y in range(foreground.shape[0]):
        for x in range(foreground.shape[1]):
            above = foreground[y, x] - edge
            margin[y, x] = above
            level = (core[y, x] + np.float32(SURE)) * steps + np.float32(0.5)
            level = min(max(level, np.float32(0)), np.float32(LEVELS))
            height[y + 1, x + 1] = np.int32(level) + 1 if above > 0 else 0


@njit(cache=True, nogil=True)
def _judge(
    cells: Ints, count: int, foreground: Floats, height: NDArray[np.uint16], sureness: Floats
) -> tuple[NDArray[np.int64], Floats]:
    """Return (count + 1,) areas and confidences."""
    area = np.zeros(count + 1, np.int64)
    sure = np.zeros(count + 1, np.float64)
    peak, way = np.zeros(count + 1, np.int32), np.zeros(count + 1, np.int32)  # highest px, highest way out
    last = np.float32(SURENESS_STEPS)
    steps = np.float32(SURENESS_STEPS / (2 * SURE))
    for y in range(cells.shape[0]):
        for x in range(cells.shape[1]):
            cell = cells[y, x]
            if cell == 0:
                continue
            own = np.int32(height[y + 1, x + 1])
            area[cell] += 1
            at = (foreground[y, x] + np.float32(SURE)) * steps
            sure[cell] += sureness[int(min(max(at, np.float32(0)), last))]
            peak[cell] = max(peak[cell], own)
            for k in range(2):
                if (k == 0 and x == 0) or (k == 1 and y == 0):
                    continue
                other = cells[y, x - 1] if k == 0 else cells[y - 1, x]
                if other != cell and other != 0:
                    there = np.int32(height[y + 1, x] if k == 0 else height[y, x + 1])
                    way[cell] = max(way[cell], min(own, there))
                    way[other] = max(way[other], min(own, there))
    confidence = np.zeros(count + 1, np.float32)
    for cell in range(1, count + 1):
        apart = 1.0
        if way[cell]:
            apart = 1 - np.exp(-(peak[cell] - way[cell]) * (2 * SURE / LEVELS) / TOLD_APART)
        confidence[cell] = max(sure[cell] / area[cell], 0.0) * apart
    return area, confidence


@njit(cache=True, nogil=True)
def _drop(cells: Ints, dropped: NDArray[np.bool_]) -> None:
    for y in range(cells.shape[0]):
        for x in range(cells.shape[1]):
            if cells[y, x] and dropped[cells[y, x]]:
                cells[y, x] = 0
