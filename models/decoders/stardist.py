"""The decoder of StarDist nets: each px says how likely it is the middle of a cell, and the cell's outline from there.

As StarDist does [1]_: of the outlines of all likely px, the likeliest is a cell, and every other that shares
more than a
part of the smaller of the two with it is not; then the likeliest of the rest, and so on. Where cells overlap, the
likelier one is on top.

.. [1] Schmidt et al. 2018, doi 10.1007/978-3-030-00934-2_30.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ...acquire.errors import ModelError
from ..kernels import frozen
from ..labels import Labels
from . import maps, polygons, raster
from .decoder import Grid, Tensor
from .maps import Activation, Plane
from .outlines import Outlines, suppress

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

LEAST_RAYS = 3
PART = 2048
"""Distances of so many px fit into fast memory."""


class StarDistDecoder:
    """Makes cells of probabilities and star-convex outlines.

    The outputs are a map of probabilities and one of distances along rays, at even angles from the x axis
    towards y: two outputs, or one with the probability first. A third output, of classes, is not looked at.

    Parameters
    ----------
    prob_threshold
        Probability above which a px may be the middle of a cell.
    nms_threshold
        Share of the smaller of two outlines above which the less likely one is dropped.
    grid
        Input px per output px of the net, as in its configuration. Its outputs are for input px 0, grid, 2 grid, ...
    activation
        ``"sigmoid"`` if the probability comes as a logit.
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
        prob_threshold: float = 0.5,
        nms_threshold: float = 0.4,
        grid: int = 1,
        activation: Literal["none", "sigmoid"] = "none",
        smallest_px: float = 12.0,
    ) -> None:
        for name, value in (("prob_threshold", prob_threshold), ("nms_threshold", nms_threshold)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        if grid < 1:
            raise ValueError(f"grid must be 1 or more, got {grid}")
        if not smallest_px >= 0:
            raise ValueError(f"smallest_px must be 0 or more, got {smallest_px}")
        self._probability, self._overlap, self._grid = np.float32(prob_threshold), nms_threshold, grid
        self._activation: Activation = activation
        self._smallest = smallest_px
        self._warm_up()

    def decode(self, outputs: tuple[Tensor, ...], grid: Grid) -> Labels:
        """Return the cells; the confidence of one is its probability."""
        probability, rays = self._split(outputs, grid)
        place = np.flatnonzero(probability.reshape(-1) > self._probability)
        likely = probability.reshape(-1)[place]
        order = np.argsort(-likely, kind="stable")  # of equals, in the order of the px
        distance = np.empty((len(place), len(rays)), np.float32)
        rank = np.empty(len(place), np.int64)
        rank[order] = np.arange(len(place))
        _gather(rays.reshape(len(rays), -1), place, rank, distance)
        largest = math.hypot(*grid.shape) / min(grid.pitch) * self._grid
        if not _clip(distance, np.float32(largest)):
            raise ModelError("the net's output holds distances that are no numbers (NaN or infinity)")
        row, column = np.divmod(place[order], probability.shape[1])
        outlines = Outlines(float(self._grid) * row, float(self._grid) * column, distance)
        kept = suppress(outlines, probability.shape, float(self._grid), self._overlap)
        image = np.zeros(grid.shape, np.int32)
        chosen = Outlines(outlines.y[kept], outlines.x[kept], distance[kept])
        _draw(image, chosen, np.array([pitch / self._grid for pitch in grid.pitch]))
        area = np.bincount(image.reshape(-1), minlength=len(kept) + 1)
        raster.drop(image, area, self._smallest)
        shown = order[kept][raster.renumber(image, len(kept)) - 1]
        return Labels(image, len(shown), np.clip(likely[shown], 0, 1))

    def _split(self, outputs: tuple[Tensor, ...], grid: Grid) -> tuple[Plane, Tensor]:
        """Return the probabilities, (y, x), and the distances, (rays, y, x), read-only."""
        needs = f"(1, 1, y, x) and (1, rays, y, x), or (1, 1 + rays, y, x), {LEAST_RAYS} rays or more, for StarDist"
        outputs = outputs[:2]
        planes = maps.planes(outputs, grid, needs)
        if len(planes) < 1 + LEAST_RAYS or (len(outputs) > 1 and outputs[0].shape[1] != 1):
            raise maps.misfit(outputs, needs)
        maps.check_finite(planes[0])
        (probability,) = maps.probabilities(planes[:1], self._activation)
        last = list(outputs)[-1][0]  # of the two, or of the only one
        return probability, frozen(last if len(outputs) > 1 else last[1:], np.float32)

    def _warm_up(self) -> None:
        """Compile the kernels, or load them if they were compiled before."""
        values = np.full((1, 1 + LEAST_RAYS, 4, 4), 0.9, np.float32)
        shape = (4 * self._grid, 4 * self._grid)
        self.decode((values,), Grid(shape, (float(self._grid), float(self._grid))))


@njit(cache=True, nogil=True)
def _gather(rays: Tensor, place: Longs, rank: Longs, distance: Floats) -> None:
    """Fill the (n, rays) distances of px from (rays, px) maps, in the order of their ranks."""
    for start in range(0, place.size, PART):
        for ray in range(len(rays)):
            for k in range(start, min(start + PART, place.size)):
                distance[rank[k], ray] = rays[ray, place[k]]


@njit(cache=True, nogil=True)
def _clip(distance: Floats, largest: np.float32) -> bool:
    """Cut distances to 0 and the largest that makes sense, in place; return False if one is no number."""
    for k in range(len(distance)):
        for ray in range(distance.shape[1]):
            value = distance[k, ray]
            if not np.isfinite(value):
                return False
            distance[k, ray] = min(max(value, np.float32(0)), largest)
    return True


@njit(cache=True, nogil=True)
def _draw(image: Ints, chosen: Outlines, scale: Doubles) -> None:
    """Draw outlines, which are in px of the net's input, on the frame: the first on top.

    ``scale`` is (2,) px of the frame per px of the input, along y and x.
    """
    rays = chosen.distance.shape[1]
    sine, cosine = polygons.directions(rays)
    corner = np.empty((2, rays + 1))
    crossing, crossings = np.empty((image.shape[0], rays)), np.empty(image.shape[0], np.int32)
    for k in range(chosen.y.size):
        polygons.corners(chosen.y[k], chosen.x[k], chosen.distance[k], sine, cosine, corner)
        for axis in range(2):
            for i in range(rays + 1):
                corner[axis, i] = (corner[axis, i] + 0.5) * scale[axis] - 0.5
        polygons.paint(image, corner, k + 1, crossing, crossings)
