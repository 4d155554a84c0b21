"""Actions with light: on chosen cells, or on all but them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...acquire.commands import Command, Stimulate, encode_mask
from .aim import Aim, Answers
from .rule import Moment
from .shapes import Patch, cell_patch, clipped, grown, raster, ring, runs_of

MOST_POINTS = 4096
_GONE = "it will be outside the image"


@dataclass(frozen=True, kw_only=True)
class StimulateCell:
    """``do = "stimulate"``: light on each chosen cell, where it will be.

    Attributes
    ----------
    shape
        ``"spot"``: a disc around the centroid; ``"cell"``: the cell's own outline (an ellipse where no mask is kept);
        ``"ring"``: a band around the outline.
    radius_px
        Radius of the spot, or width of the ring, in px.
    margin_px
        By how much the outline is moved outwards, or inwards where it is negative, in px; the ring begins there.
    duration_ms, power
        Length in ms; power as a fraction of the device's maximum (0 to 1).
    """

    per_cell: ClassVar[bool] = True

    shape: Literal["spot", "cell", "ring"] = "spot"
    radius_px: float = 5.0
    margin_px: float = 0.0
    duration_ms: float = 100.0
    power: float = 1.0

    def __post_init__(self) -> None:
        _check_light(self.duration_ms, self.power)
        if not 0 < self.radius_px < math.inf:
            raise ValueError(f"radius_px must be > 0, got {self.radius_px}")
        if not math.isfinite(self.margin_px) or (self.margin_px < 0 and self.shape == "ring"):
            raise ValueError(f"margin_px must be finite, and 0 or more for a ring, got {self.margin_px}")
        if self.margin_px != 0 and self.shape == "spot":
            raise ValueError(f"margin_px must be 0 for a spot, got {self.margin_px}; it has a radius_px")

    @property
    def needs_masks(self) -> bool:
        """Whether it looks at the outlines of cells."""
        return self.shape != "spot"

    def examples(self) -> tuple[Command, ...]:
        """Return the light, without its place."""
        return (Stimulate(duration_ms=self.duration_ms, power=self.power),)

    def commands(self, moment: Moment, rows: NDArray[np.int64], at: Aim) -> Answers:
        """Return the light on each cell, or that it will have left the image."""
        return [(int(row), self._one(moment, int(row), _point(at, k))) for k, row in enumerate(rows)]

    def _one(self, moment: Moment, row: int, at_px: tuple[float, float]) -> Command | str:
        found = moment.tracks.detections
        if not all(map(math.isfinite, at_px)):
            return "nobody knows where it will be"
        if self.shape == "spot":
            if not _inside(at_px, found.shape):
                return _GONE
            return Stimulate((at_px,), self.radius_px, (), self.duration_ms, self.power)
        patch = cell_patch(found, row, at_px)
        margin, width = self.margin_px, self.radius_px
        patch = ring(patch, margin, width) if self.shape == "ring" else grown(patch, margin)
        if not patch.mask.any():
            return f"nothing of it is left within margin_px {self.margin_px:g}"
        runs = runs_of(patch, found.shape)
        return Stimulate(mask=runs, duration_ms=self.duration_ms, power=self.power) if runs else _GONE


@dataclass(frozen=True, kw_only=True)
class Isolate:
    """``do = "isolate"``: light on the whole of each chosen cell, or on everything but the chosen cells.

    Attributes
    ----------
    how
        ``"region"``: one pattern, for a device that shows masks; ``"raster"``: point by point, each for
        ``duration_ms``, for a device that points.
    side
        ``"inside"``: on each chosen cell; ``"around"``: on all of the image but them, in one command, that of the
        first of them.
    spacing_px
        Distance of the points of a raster in px; each is a spot of half of it.
    margin_px
        By how much the outlines are moved outwards first, or inwards where it is negative, in px.
    duration_ms, power
        As for light on cells.
    """

    per_cell: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = True

    how: Literal["region", "raster"] = "region"
    side: Literal["inside", "around"] = "inside"
    spacing_px: float = 10.0
    margin_px: float = 0.0
    duration_ms: float = 100.0
    power: float = 1.0

    def __post_init__(self) -> None:
        _check_light(self.duration_ms, self.power)
        if not 1 <= self.spacing_px < math.inf:
            raise ValueError(f"spacing_px must be 1 or more, got {self.spacing_px}")
        if not math.isfinite(self.margin_px):
            raise ValueError(f"margin_px must be finite, got {self.margin_px}")

    def examples(self) -> tuple[Command, ...]:
        """Return the light, without its place."""
        return (Stimulate(duration_ms=self.duration_ms, power=self.power),)

    def commands(self, moment: Moment, rows: NDArray[np.int64], at: Aim) -> Answers:
        """Return the light for each cell, or for the first of them where it is around all."""
        if self.side == "around":
            return self._around(moment, rows, at)
        return [(int(row), self._inside(moment, int(row), _point(at, k))) for k, row in enumerate(rows)]

    def _patch(self, moment: Moment, row: int, at_px: tuple[float, float]) -> Patch:
        return grown(cell_patch(moment.tracks.detections, row, at_px), self.margin_px)

    def _inside(self, moment: Moment, row: int, at_px: tuple[float, float]) -> Command | str:
        shape = moment.tracks.detections.shape
        if not all(map(math.isfinite, at_px)):
            return "nobody knows where it will be"
        patch = clipped(self._patch(moment, row, at_px), shape)
        if not patch.mask.any():
            return _GONE
        if self.how == "region":
            return Stimulate(mask=runs_of(patch, shape), duration_ms=self.duration_ms, power=self.power)
        corner = np.array([patch.left, patch.top])
        through = (at_px[0] - patch.left, at_px[1] - patch.top)
        return self._points(raster(patch.mask, self.spacing_px, through) + corner)

    def _around(self, moment: Moment, rows: NDArray[np.int64], at: Aim) -> Answers:
        if not len(rows):
            return []
        shape = moment.tracks.detections.shape
        first, others = int(rows[0]), [int(row) for row in rows[1:]]
        if not np.isfinite(at.at_px).all():
            return [(int(row), "nobody knows where one of the cells will be") for row in rows]
        lit = np.ones(shape, np.bool_)
        for k, row in enumerate(rows):
            mask, top, left = clipped(self._patch(moment, int(row), _point(at, k)), shape)
            lit[top : top + mask.shape[0], left : left + mask.shape[1]] &= ~mask
        if self.how == "raster":
            half = self.spacing_px / 2
            light = self._points(raster(lit, self.spacing_px, (half, half)))
        elif not lit.any():
            light = "there is nothing around the cells"
        else:
            light = Stimulate(mask=encode_mask(lit), duration_ms=self.duration_ms, power=self.power)
        together = f"it is isolated together with cell {int(moment.tracks.track[first])}"
        whys = [(row, light if isinstance(light, str) else together) for row in others]
        return [(first, light), *whys]

    def _points(self, points: NDArray[np.float64]) -> Command | str:
        if not len(points):
            return f"no point of a raster of spacing_px {self.spacing_px:g} falls on it"
        if len(points) > MOST_POINTS:
            return f"{len(points)} points, at most {MOST_POINTS}: choose a larger spacing_px"
        spots = tuple((float(x), float(y)) for x, y in points)
        return Stimulate(spots, self.spacing_px / 2, (), self.duration_ms, self.power)


def _check_light(duration_ms: float, power: float) -> None:
    if not 0 < duration_ms < math.inf:
        raise ValueError(f"duration_ms must be > 0, got {duration_ms}")
    if not 0 <= power <= 1:
        raise ValueError(f"power must be from 0 to 1, got {power}")


def _point(at: Aim, k: int) -> tuple[float, float]:
    return float(at.at_px[k, 0]), float(at.at_px[k, 1])


def _inside(at_px: tuple[float, float], shape: tuple[int, int]) -> bool:
    return -0.5 <= at_px[0] <= shape[1] - 0.5 and -0.5 <= at_px[1] <= shape[0] - 0.5
