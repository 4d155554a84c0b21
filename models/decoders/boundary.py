"""The decoder of nets that mark the outlines of cells: U-Nets with foreground and boundary, or with three classes.

What is inside and no boundary falls apart into cells; those then grow back over the boundary, half way to each other.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..kernels import frozen
from ..labels import Labels
from . import components, maps, raster
from .decoder import Grid, Tensor
from .maps import Activation, Plane

Channel = Literal["foreground", "interior", "boundary", "background", "ignored"]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

USUAL: dict[int, list[Channel]] = {
    2: ["foreground", "boundary"],
    3: ["background", "interior", "boundary"],
}
"""What two and three maps are if nothing else is said."""


class BoundaryDecoder:
    """Makes cells of maps of the inside and of the boundary of cells.

    Parameters
    ----------
    channels
        What each map is, through all outputs: ``"foreground"`` (cells with their boundary), ``"interior"`` (cells
        without), ``"boundary"``, ``"background"`` or ``"ignored"``. By default two maps are foreground and
        boundary, three are background, interior and boundary.
    activation
        What is still to be done to the maps that are not ignored: ``"none"`` if they are probabilities,
        ``"sigmoid"``, or ``"softmax"`` over them.
    foreground
        Probability above which a px is part of a cell.
    core
        Probability above which a px is inside a cell and not part of its boundary. Cells that stay together along
        a faint boundary need a higher value.
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
        activation: Activation = "none",
        foreground: float = 0.5,
        core: float = 0.5,
        smallest_px: float = 12.0,
    ) -> None:
        if channels is not None:
            _check_channels(channels)
        for name, value in (("foreground", foreground), ("core", core)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        if not smallest_px >= 0:
            raise ValueError(f"smallest_px must be 0 or more, got {smallest_px}")
        self._channels = channels
        self._activation: Activation = activation
        self._foreground, self._core, self._smallest = np.float32(foreground), np.float32(core), smallest_px
        self._warm_up()

    def decode(self, outputs: tuple[Tensor, ...], grid: Grid) -> Labels:
        """Return the cells; the confidence of one says how clearly its px are foreground, on average."""
        inside, whole, core = self._regions(outputs, grid)
        cells, count = components.label(core, diagonal=False)
        components.grow(cells, whole)
        rest = whole & (cells == 0)
        if rest.any():  # cells so small that they are all boundary
            more, n = components.label(rest, diagonal=False)
            np.add(more, count, out=cells, where=rest)
            count += n
        area, mean = raster.areas_and_means(cells, count, inside)
        certainty = 2 * (mean + float(self._foreground)) - 1
        return raster.finish(cells, area, certainty, inside, grid, self._smallest)

    def _regions(self, outputs: tuple[Tensor, ...], grid: Grid) -> tuple[Floats, Mask, Mask]:
        """Return by how much each px is foreground, which ones are, and which are so without the boundary."""
        counts = f"{len(self._channels)} maps" if self._channels else "2 or 3 maps"
        needs = f"{counts} (1, channels, y, x) for the boundary decoder"
        planes = maps.planes(outputs, grid, needs)
        channels = self._channels or USUAL.get(len(planes))
        if channels is None or len(channels) != len(planes):
            raise maps.misfit(outputs, needs)
        used = [(name, plane) for name, plane in zip(channels, planes, strict=True) if name != "ignored"]
        maps.check_finite(*(plane for _, plane in used))
        found = maps.probabilities([plane for _, plane in used], self._activation)
        of = dict(zip((name for name, _ in used), found, strict=True))
        nothing = np.zeros((0, 0), np.float32)
        inside = np.empty(planes[0].shape, np.float32)
        whole, core = np.empty(planes[0].shape, np.bool_), np.empty(planes[0].shape, np.bool_)
        _split(
            of.get("foreground", frozen(nothing, np.float32)),
            of.get("interior", frozen(nothing, np.float32)),
            of.get("boundary", frozen(nothing, np.float32)),
            self._foreground,
            self._core,
            inside,
            whole,
            core,
        )
        return inside, whole, core

    def _warm_up(self) -> None:
        """Compile the kernels, or load them if they were compiled before."""
        names = self._channels or USUAL[2]
        values = np.full((1, len(names), 4, 4), 0.9, np.float32)
        values[0, :, :, 2] = 0.1
        self.decode((values,), Grid((4, 4), (1.0, 1.0)))


def _check_channels(channels: list[Channel]) -> None:
    named = [name for name in channels if name != "ignored"]
    if len(set(named)) != len(named):
        raise ValueError(f"channels: a name occurs twice in {', '.join(channels)}")
    if "interior" not in named and not {"foreground", "boundary"} <= set(named):
        raise ValueError(
            f"channels must hold interior, or foreground and boundary; got {', '.join(channels)}"
        )


@njit(cache=True, nogil=True)
def _split(
    foreground: Plane,
    interior: Plane,
    boundary: Plane,
    least_foreground: np.float32,
    least_core: np.float32,
    inside: Floats,
    whole: Mask,
    core: Mask,
) -> None:
    """Fill the regions; maps that the net does not have are empty.

    Foreground that is missing is interior and boundary together, interior that is missing foreground without
    boundary.
    """
    has_foreground, has_interior, has_boundary = foreground.size > 0, interior.size > 0, boundary.size > 0
    for y in range(inside.shape[0]):
        for x in range(inside.shape[1]):
            edge = boundary[y, x] if has_boundary else np.float32(0)
            part = interior[y, x] if has_interior else foreground[y, x] - edge
            cell = foreground[y, x] if has_foreground else part + edge
            inside[y, x] = cell - least_foreground
            whole[y, x] = cell > least_foreground
            core[y, x] = part > least_core and cell > least_foreground
