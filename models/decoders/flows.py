"""The decoder of Cellpose and Omnipose nets: each px says which way to go to the middle of its cell.

In Cellpose [1]_ the flows of a cell meet in its centre. Px follow them in steps of about one px, and those that end at
the same place are one cell; cells whose flows are not those that their shape would have are dropped
(:mod:`.flow_error`).

In Omnipose [2]_ they lead away from the outline, to the middle line of the cell, however long and bent it is; the net
also gives the distance from the outline. Its peaks are parts of cells (:mod:`.flood`), and parts that the flows do
not part are one cell (:mod:`.merging`): the same cells as of following the flows and joining what ends side
by side, and noise in single px does no harm.

.. [1] Stringer et al. 2021, doi 10.1038/s41592-020-01018-x.
.. [2] Cutler et al. 2022, doi 10.1038/s41592-022-01639-4.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..labels import Labels
from . import components, flood, maps, merging, raster
from .decoder import Grid, Tensor
from .flow_error import flow_errors
from .maps import Plane

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

GAIN = 5.0
"""The nets are trained on so many times the unit vectors."""
OWN_STEPS = 2
"""A px goes so many steps by itself before it joins others, or others join it."""
WAITING_STEPS = 5
"""A px that is still on the same px after so many steps has come to its end."""
MEETING_PX = 3
"""Ends that are so near to each other are one place."""
FEW = 2
"""Where no more px than this end is no place of its own."""
HYSTERESIS_PX = 1.0
"""Omnipose: px with so much less distance are inside, too, if they are connected with such as have enough."""
LEVELS, LEVELS_PER_PX = 255, 8.0
"""Omnipose: steps of the distance."""
PERSISTENCE_PX = 1.0
"""Omnipose: a peak of the distance that stands out by less is no part of its own."""
APART = 0.6
"""Omnipose: see :func:`.merging.join`."""


class FlowDecoder:
    """Makes cells of flows and of the probability, or distance, of being inside.

    The first output is (1, 3 or more, y, x): the flow along y, that along x, and for Cellpose the logit of being
    inside a cell, for Omnipose the distance from the outline in px. Further channels (Omnipose's boundary) and
    outputs (Cellpose's style) are not looked at.

    Parameters
    ----------
    family
        ``"cellpose"`` or ``"omnipose"``.
    cellprob_threshold
        Logit, or distance in px, above which a px is inside a cell.
    flow_threshold
        Cellpose: largest mean squared difference between the flows of a cell, as unit vectors, and those of its
        shape: 0 is perfect, 2 is chance. 0 takes all cells.
    smallest_px
        What is smaller, in px of the frame, is dropped.

    Raises
    ------
    ValueError
        Names the option and what it may be.
    """

    def __init__(
        self,
        *,
        family: Literal["cellpose", "omnipose"] = "cellpose",
        cellprob_threshold: float = 0.0,
        flow_threshold: float = 0.4,
        smallest_px: float = 15.0,
    ) -> None:
        if not math.isfinite(cellprob_threshold):
            raise ValueError(f"cellprob_threshold must be a number, got {cellprob_threshold}")
        for name, value in (("flow_threshold", flow_threshold), ("smallest_px", smallest_px)):
            if not value >= 0:
                raise ValueError(f"{name} must be 0 or more, got {value}")
        self._omnipose = family == "omnipose"
        self._threshold, self._flow_threshold, self._smallest = (
            cellprob_threshold,
            flow_threshold,
            smallest_px,
        )
        self._warm_up()

    def decode(self, outputs: tuple[Tensor, ...], grid: Grid) -> Labels:
        """Return the cells.

        The confidence of one, for Cellpose, says how clearly its px are inside, on average, and how well its flows
        agree with its shape; for Omnipose, how well flows and distances agree.
        """
        down, right, judge = self._maps(outputs, grid)
        inside = self._inside(judge)
        flow = _unit_flow(down, right, inside)
        margin = judge - np.float32(self._threshold)
        if self._omnipose:
            cells, count = _joined(judge, inside, flow)
            area, certainty = raster.areas_and_means(cells, count, _agreement(flow, judge))
        else:
            cells, count = _meet(_ends_in_centres(flow, inside))
            area, certainty = raster.areas_and_means(cells, count, np.tanh(margin / 2))
            if self._flow_threshold:
                error = flow_errors(cells, count, flow)
                wrong = error > self._flow_threshold
                raster.remove(cells, wrong)
                area[wrong] = 0
                certainty *= np.clip(1 - error / 2, 0, 1)
        return raster.finish(cells, area, certainty, margin, grid, self._smallest)

    def _maps(self, outputs: tuple[Tensor, ...], grid: Grid) -> tuple[Plane, Plane, Plane]:
        """Return the flows and the map by which px are inside."""
        needs = "(1, 3 or more, y, x) as the first output: flow y, flow x, probability or distance"
        planes = maps.planes(outputs[:1], grid, needs)
        if len(planes) < 3:
            raise maps.misfit(outputs, needs)
        maps.check_finite(*planes[:3])
        return planes[0], planes[1], planes[2]

    def _inside(self, judge: Plane) -> Mask:
        inside = judge > self._threshold
        if self._omnipose:
            near, count = components.label(judge > self._threshold - HYSTERESIS_PX, diagonal=False)
            sure = np.zeros(count + 1, np.bool_)
            sure[near[inside]] = True
            sure[0] = False
            inside = sure[near]
        return inside

    def _warm_up(self) -> None:
        """Compile the kernels, or load them if they were compiled before."""
        values = np.full((1, 3, 4, 4), 1.0, np.float32)
        self.decode((values,), Grid((4, 4), (1.0, 1.0)))


@njit(cache=True, nogil=True)
def _unit_flow(down: Plane, right: Plane, inside: Mask) -> Floats:
    """Return (y, x, 2) flows in px per step, 0 outside."""
    flow = np.zeros((*inside.shape, 2), np.float32)
    share = np.float32(1 / GAIN)
    for y in range(inside.shape[0]):
        for x in range(inside.shape[1]):
            if inside[y, x]:
                flow[y, x, 0], flow[y, x, 1] = down[y, x] * share, right[y, x] * share
    return flow


@njit(cache=True, nogil=True)
def _at(flow: Floats, y: np.float32, x: np.float32) -> tuple[np.float32, np.float32]:
    """Return the flow between px, interpolated linearly; the place must be within the image."""
    i, j = int(y), int(x)
    k, m = min(i + 1, flow.shape[0] - 1), min(j + 1, flow.shape[1] - 1)
    v, u = y - np.float32(i), x - np.float32(j)
    a, b = (np.float32(1) - v) * (np.float32(1) - u), (np.float32(1) - v) * u
    c, d = v * (np.float32(1) - u), v * u
    return (
        a * flow[i, j, 0] + b * flow[i, m, 0] + c * flow[k, j, 0] + d * flow[k, m, 0],
        a * flow[i, j, 1] + b * flow[i, m, 1] + c * flow[k, j, 1] + d * flow[k, m, 1],
    )


@njit(cache=True, nogil=True)
def _ends_in_centres(flow: Floats, inside: Mask) -> Ints:
    """Return for each px inside the place in the image where it ends, -1 outside.

    A px goes on until it comes to where it has been before (around a centre, px circle) or to a px whose end is
    known, which is then its own. All that it has come by, but for the first few, which may lie beside the line
    to another cell, end there too: so each stretch of way is gone once.
    """
    height, width = inside.shape
    end = np.full((height, width), -1, np.int32)
    seen = np.full((height, width), -1, np.int32)
    path = np.empty((2 * (height + width), 2), np.int32)
    bottom, last = np.float32(height - 1), np.float32(width - 1)
    for row in range(height):
        for column in range(width):
            if not inside[row, column] or end[row, column] >= 0:
                continue
            me = row * width + column
            y, x = np.float32(row), np.float32(column)
            i, j, waited, steps = row, column, 0, 0
            for step in range(len(path)):
                dy, dx = _at(flow, y, x)
                y = min(max(y + dy, np.float32(0)), bottom)
                x = min(max(x + dx, np.float32(0)), last)
                before, i, j = i * width + j, int(y + np.float32(0.5)), int(x + np.float32(0.5))
                if step >= OWN_STEPS and end[i, j] >= 0:
                    break
                if i * width + j == before:
                    waited += 1
                    if waited == WAITING_STEPS:
                        break
                elif seen[i, j] == me:
                    break
                else:
                    waited, seen[i, j] = 0, me
                path[steps, 0], path[steps, 1] = i, j
                steps += 1
            place = end[i, j] if end[i, j] >= 0 else i * width + j
            end[row, column] = place
            for step in range(OWN_STEPS, steps):
                i, j = path[step]
                if inside[i, j] and end[i, j] < 0:
                    end[i, j] = place
    return end


@njit(cache=True, nogil=True)
def _agreement(flow: Floats, distance: Plane) -> Floats:
    """Return the cosine between flow and slope of the distance, 0 where there is none."""
    height, width = distance.shape
    cosine = np.zeros((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            dy, dx = flow[y, x]
            if dy == 0 and dx == 0:
                continue
            down = distance[min(y + 1, height - 1), x] - distance[max(y - 1, 0), x]
            over = distance[y, min(x + 1, width - 1)] - distance[y, max(x - 1, 0)]
            size = math.sqrt((dy * dy + dx * dx) * (down * down + over * over))
            if size > 0:
                cosine[y, x] = (dy * down + dx * over) / size
    return cosine


def _joined(distance: Plane, inside: Mask, flow: Floats) -> tuple[Ints, int]:
    """Return the cells of Omnipose, and their largest number."""
    scale = min(LEVELS_PER_PX, LEVELS / max(float(distance.max()), 1.0))
    level = np.clip(distance * np.float32(scale), 0, LEVELS).astype(np.uint8)
    parts, count = flood.flood(level, inside, max(round(PERSISTENCE_PX * scale), 1))
    return merging.join(parts, count, flow, APART)[parts], count


def _meet(end: Ints) -> tuple[Ints, int]:
    """Return cells of the px that end at the same place, and their largest number."""
    places, count = components.label(_places(end, MEETING_PX), diagonal=True)
    cells = np.zeros(end.shape, np.int32)
    _take_over(end, places, cells)
    return cells, count


@njit(cache=True, nogil=True)
def _places(end: Ints, reach: int) -> Mask:
    """Return where px end, each place enlarged so that those within reach of each other touch."""
    height, width = end.shape
    ended = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            if end[y, x] >= 0:
                ended[end[y, x] // width, end[y, x] % width] += 1
    places = np.zeros((height, width), np.bool_)
    for y in range(height):
        for x in range(width):
            if ended[y, x] > FEW:
                places[y : y + reach, x : x + reach] = True
    return places


@njit(cache=True, nogil=True)
def _take_over(end: Ints, places: Ints, cells: Ints) -> None:
    width = end.shape[1]
    for y in range(end.shape[0]):
        for x in range(width):
            if end[y, x] >= 0:
                cells[y, x] = places[end[y, x] // width, end[y, x] % width]
