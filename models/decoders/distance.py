"""The decoder of nets that answer with distances: high in the middle of each cell, low along outlines.

Cells are the basins of a watershed of that map (:mod:`.flood`): a peak is a cell if it stands out, and cells that
touch are parted along the valley between them. As in DeepCell, a second map may say what is inside cells at all.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..labels import Labels
from . import flood, maps, raster
from .decoder import Grid, Tensor
from .maps import Activation, Plane

Channel = Literal["distance", "outer", "foreground", "ignored"]
Floats = NDArray[np.float32]

LEVELS = 255


class DistanceDecoder:
    """Makes cells of maps of distances.

    Parameters
    ----------
    channels
        What each map is, through all outputs: ``"distance"`` (the one whose peaks are cells: DeepCell's inner
        distance, or any other that is highest in the middle of each cell), ``"outer"`` (distance from the outline,
        0 outside), ``"foreground"`` (probability of being inside a cell) or ``"ignored"``. By default the first
        is the distance and the second, if there is one, the outer distance.
    activation
        ``"sigmoid"`` if the foreground comes as logits.
    top
        Value of the distance in the middle of a typical cell: 1 where distances are normalised, half the breadth
        of a cell where they are px. Higher ones count as this.
    detection
        Share of ``top`` that a peak must reach to be a cell.
    persistence
        Share of ``top`` by which a peak must stand above the highest pass to a higher one.
    threshold
        Value of the foreground, else of the outer distance, else of the distance, above which a px is inside a
        cell. By default 0.5, 0.01 and 0.1 of ``top``.
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
        channels: list[Channel] | None = None,
        activation: Literal["none", "sigmoid"] = "none",
        top: float = 1.0,
        detection: float = 0.1,
        persistence: float = 0.1,
        threshold: float | None = None,
        smallest_px: float = 12.0,
    ) -> None:
        if channels is not None:
            named = [name for name in channels if name != "ignored"]
            if len(set(named)) != len(named) or "distance" not in named:
                raise ValueError(f"channels must hold distance, and no name twice; got {', '.join(channels)}")
        if not 0 < top < np.inf:
            raise ValueError(f"top must be above 0, got {top}")
        for name, value in (("detection", detection), ("persistence", persistence)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        if threshold is not None and not np.isfinite(threshold):
            raise ValueError(f"threshold must be a number, got {threshold}")
        if not smallest_px >= 0:
            raise ValueError(f"smallest_px must be 0 or more, got {smallest_px}")
        self._channels, self._top, self._threshold = channels, top, threshold
        self._activation: Activation = activation
        self._detection, self._persistence = detection, max(1, round(persistence * LEVELS))
        self._smallest = smallest_px
        self._warm_up()

    def decode(self, outputs: tuple[Tensor, ...], grid: Grid) -> Labels:
        """Return the cells; the confidence of one is the height of its peak, and how clearly its px are inside."""
        of = self._maps(outputs, grid)
        distance = of["distance"]
        judge, usual = distance, 0.1 * self._top
        if "foreground" in of:
            (judge,), usual = maps.probabilities([of["foreground"]], self._activation), 0.5
        elif "outer" in of:
            judge, usual = of["outer"], 0.01
        threshold = usual if self._threshold is None else self._threshold
        inside = np.empty(distance.shape, np.float32)
        height = np.zeros((distance.shape[0] + 2, distance.shape[1] + 2), np.uint16)
        smooth = _smoothed(distance)
        _rise(smooth, judge, np.float32(threshold), np.float32(LEVELS / self._top), height, inside)
        cells, count = flood.flood_heights(height, self._persistence)
        peak = _peaks(cells, count, smooth) / self._top
        low = peak < self._detection
        low[0] = False
        if low.any():
            raster.remove(cells, low)
        area, mean = raster.areas_and_means(cells, count, inside)
        confidence = (
            peak
            if "foreground" not in of
            else np.clip(2 * (mean + threshold) - 1, 0, 1) * np.minimum(peak, 1)
        )
        return raster.finish(cells, area, confidence, inside, grid, self._smallest)

    def _maps(self, outputs: tuple[Tensor, ...], grid: Grid) -> dict[str, Plane]:
        """Return the maps by name."""
        counts = f"{len(self._channels)} map(s)" if self._channels else "1 or 2 maps"
        needs = f"{counts} (1, channels, y, x) for the distance decoder"
        planes = maps.planes(outputs, grid, needs)
        usual: list[Channel] = ["distance", "outer"]
        channels = self._channels or usual[: len(planes)]
        if len(channels) != len(planes):
            raise maps.misfit(outputs, needs)
        of = {name: plane for name, plane in zip(channels, planes, strict=True) if name != "ignored"}
        maps.check_finite(*of.values())
        return {str(name): plane for name, plane in of.items()}

    def _warm_up(self) -> None:
        """Compile the kernels, or load them if they were compiled before."""
        channels = self._channels or ["distance"]
        values = np.full((1, len(channels), 4, 4), 0.9 * self._top, np.float32)
        values[0, :, :, 2] = 0.0
        self.decode((values,), Grid((4, 4), (1.0, 1.0)))


@njit(cache=True, nogil=True)
def _smoothed(distance: Plane) -> Floats:
    """Return the map smoothed over 5 x 5 px (1 4 6 4 1, about a Gaussian of 1 px), the border px repeated."""
    height, width = distance.shape
    smooth = np.empty((height, width), np.float32)
    line = np.empty(width + 4, np.float32)
    four, six, share = np.float32(4), np.float32(6), np.float32(1 / 256)
    for y in range(height):
        a, b = distance[max(y - 2, 0)], distance[max(y - 1, 0)]
        c, d = distance[min(y + 1, height - 1)], distance[min(y + 2, height - 1)]
        here, row = distance[y], smooth[y]
        for x in range(width):
            line[x + 2] = a[x] + d[x] + four * (b[x] + c[x]) + six * here[x]
        line[0] = line[1] = line[2]
        line[width + 2] = line[width + 3] = line[width + 1]
        for x in range(width):
            row[x] = share * (line[x] + line[x + 4] + four * (line[x + 1] + line[x + 3]) + six * line[x + 2])
    return smooth


@njit(cache=True, nogil=True)
def _rise(
    distance: Floats,
    judge: Plane,
    threshold: np.float32,
    scale: np.float32,
    height: NDArray[np.uint16],
    inside: Floats,
) -> None:
    """Fill the heights that are flooded, 0 outside, and by how much the px are inside."""
    top = np.float32(LEVELS)
    for y in range(distance.shape[0]):
        for x in range(distance.shape[1]):
            above = judge[y, x] - threshold
            inside[y, x] = above
            if above > 0:
                level = distance[y, x] * scale + np.float32(0.5)
                height[y + 1, x + 1] = 1 + int(min(max(level, np.float32(0)), top))


@njit(cache=True, nogil=True)
def _peaks(cells: NDArray[np.int32], count: int, distance: Floats) -> NDArray[np.float64]:
    """Return (count + 1,) the highest distance in each cell."""
    peak = np.zeros(count + 1, np.float64)
    for y in range(cells.shape[0]):
        for x in range(cells.shape[1]):
            if cells[y, x]:
                peak[cells[y, x]] = max(peak[cells[y, x]], distance[y, x])
    return peak
