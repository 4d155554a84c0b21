"""Outlines of cells as signed distances, and the patches of an image in which they lie.

Pixels near a cell are computed from its outline directly, at sub-pixel accuracy; the same outline gives the
ground truth, so that what is seen and what is true cannot differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..coordinates import Affine

# float32 when run; to a type checker, float32 with a number is float64
Array: TypeAlias = NDArray[np.floating[Any]]

_CHUNK = 24  # cells computed at once: their patches stay in the processor's cache


class Shapes(Protocol):
    """Outlines of n cells.

    ``local`` and ``distance_um`` are called with px offsets from the centres of the cells ``index``.
    """

    @property
    def reach_um(self) -> NDArray[np.float64]:
        """(n,) radius of a circle around each centre that holds the whole cell, in um."""
        ...

    def local(self, index: NDArray[np.int64], dx: Array, dy: Array, affine: Affine) -> tuple[Array, Array]:
        """Return the offsets (k, s, s) in um along and across the cells' own axes."""
        ...

    def distance_um(self, index: NDArray[np.int64], u: Array, v: Array) -> Array:
        """Return the signed distance (k, s, s) in um to the outline, negative inside, from local offsets."""
        ...

    def relative(self, index: NDArray[np.int64], u: Array, v: Array) -> tuple[Array, Array]:
        """Return local offsets as fractions of the cell's half axes, for its texture."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Nuclei:
    """Ellipses with a three-lobed deviation.

    Attributes
    ----------
    semi_um
        (n, 2) semi-axes in um, the major one first.
    angle
        (n,) direction of the major axis in rad, from x towards y of the stage.
    lobes
        (n, 2) cosine and sine amplitude of the third harmonic, as a fraction of the radius.
    """

    semi_um: NDArray[np.float64]
    angle: NDArray[np.float64]
    lobes: NDArray[np.float64]

    @property
    def reach_um(self) -> NDArray[np.float64]:
        """(n,) radius of an enclosing circle in um."""
        return self.semi_um[:, 0] * (1 + np.abs(self.lobes).sum(axis=1))

    def local(self, index: NDArray[np.int64], dx: Array, dy: Array, affine: Affine) -> tuple[Array, Array]:
        """Return offsets in um along and across the major axis."""
        return _rotated(self.angle[index], dx, dy, affine)

    def relative(self, index: NDArray[np.int64], u: Array, v: Array) -> tuple[Array, Array]:
        """Return offsets in semi-axes."""
        semi = self.semi_um[index].astype(np.float32)
        return u / semi[:, 0, None, None], v / semi[:, 1, None, None]

    def distance_um(self, index: NDArray[np.int64], u: Array, v: Array) -> Array:
        """Return the distance to first order: exact on the outline itself."""
        semi, lobes = self.semi_um[index].astype(np.float32), self.lobes[index].astype(np.float32)
        p, q = self.relative(index, u, v)
        rho = np.sqrt(p * p + q * q) + np.float32(1e-6)
        c, s = p / rho, q / rho
        outline = (
            1 + lobes[:, 0, None, None] * c * (4 * c * c - 3) + lobes[:, 1, None, None] * s * (3 - 4 * s * s)
        )
        # one over the length of the gradient of rho
        scale = 1 / np.sqrt((c / semi[:, 0, None, None]) ** 2 + (s / semi[:, 1, None, None]) ** 2)
        return (rho - outline) * scale


@dataclass(frozen=True, slots=True, eq=False)
class Rods:
    """Sphero-cylinders with a waist that narrows before they divide.

    Attributes
    ----------
    half_um
        (n, 2) half length from pole to pole and half width in um.
    angle
        (n,) direction of the long axis in rad, from x towards y of the stage.
    waist
        (n,) how far the septum has closed, 0 to 1.
    """

    half_um: NDArray[np.float64]
    angle: NDArray[np.float64]
    waist: NDArray[np.float64]

    @property
    def reach_um(self) -> NDArray[np.float64]:
        """(n,) radius of an enclosing circle in um."""
        return self.half_um[:, 0]

    def local(self, index: NDArray[np.int64], dx: Array, dy: Array, affine: Affine) -> tuple[Array, Array]:
        """Return offsets in um along and across the long axis."""
        return _rotated(self.angle[index], dx, dy, affine)

    def relative(self, index: NDArray[np.int64], u: Array, v: Array) -> tuple[Array, Array]:
        """Return offsets in half lengths and half widths."""
        half = self.half_um[index].astype(np.float32)
        return u / half[:, 0, None, None], v / half[:, 1, None, None]

    def distance_um(self, index: NDArray[np.int64], u: Array, v: Array) -> Array:
        """Return the distance to a capsule, plus the depth of the waist near the middle."""
        half, waist = self.half_um[index].astype(np.float32), self.waist[index].astype(np.float32)
        width = half[:, 1, None, None]
        beyond = np.maximum(np.abs(u) - (half[:, 0, None, None] - width), 0)
        distance = np.sqrt(beyond * beyond + v * v) - width
        middle = u / (np.float32(0.45) * width)
        return distance + waist[:, None, None] * width * np.exp(-middle * middle)


def _rotated(angle: NDArray[np.float64], dx: Array, dy: Array, affine: Affine) -> tuple[Array, Array]:
    c, s = np.cos(angle), np.sin(angle)
    ux, uy = c * affine.xx + s * affine.yx, c * affine.xy + s * affine.yy
    vx, vy = c * affine.yx - s * affine.xx, c * affine.yy - s * affine.xy
    m: Array = np.stack([ux, uy, vx, vy]).astype(np.float32)[:, :, None, None]
    return m[0] * dx + m[1] * dy, m[2] * dx + m[3] * dy


@dataclass(frozen=True, slots=True)
class View:
    """Which part of the sample an image shows.

    Attributes
    ----------
    shape
        (height, width) in px.
    affine
        From px to um, as everywhere in cytoloop.
    stage_um
        (x, y) of the stage in um: the point of the sample at the image's centre.
    """

    shape: tuple[int, int]
    affine: Affine
    stage_um: tuple[float, float]

    def to_px(self, xy_um: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the (n, 2) image positions (x, y) in px of points (n, 2) of the sample in um."""
        a = self.affine
        ux, uy = xy_um[:, 0] - self.stage_um[0], xy_um[:, 1] - self.stage_um[1]
        det = a.xx * a.yy - a.xy * a.yx
        x = (a.yy * ux - a.xy * uy) / det + (self.shape[1] - 1) / 2
        y = (a.xx * uy - a.yx * ux) / det + (self.shape[0] - 1) / 2
        return np.stack([x, y], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Equal square patches of the image around k cells.

    Attributes
    ----------
    index
        (k,) which cells.
    corner
        (k, 2) x and y of the first px of each patch; may lie outside the image.
    dx, dy
        (k, 1, s) and (k, s, 1) offset in px from the cell's centre.
    """

    index: NDArray[np.int64]
    corner: NDArray[np.int64]
    dx: Array
    dy: Array

    def windows(
        self, shape: tuple[int, int]
    ) -> Iterator[tuple[int, tuple[slice, slice], tuple[slice, slice]]]:
        """Yield (row, place in the image, place in the patch) of every patch that meets the image."""
        size = self.dx.shape[2]
        for row, (x, y) in enumerate(self.corner.tolist()):
            x0, x1, y0, y1 = max(x, 0), min(x + size, shape[1]), max(y, 0), min(y + size, shape[0])
            if x0 < x1 and y0 < y1:
                yield row, (slice(y0, y1), slice(x0, x1)), (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))


def patches(shapes: Shapes, xy_um: NDArray[np.float64], view: View, margin_um: float) -> Iterator[Patches]:
    """Yield patches around every cell that reaches into the view, widened by a margin."""
    at = view.to_px(xy_um)
    longest = max(math.hypot(view.affine.xx, view.affine.yx), math.hypot(view.affine.xy, view.affine.yy))
    shortest = view.affine.pixel_size_um**2 / longest
    reach = np.ceil((shapes.reach_um + margin_um) / shortest).astype(np.int64) + 1
    height, width = view.shape
    near = (
        (at[:, 0] > -reach) & (at[:, 0] < width + reach) & (at[:, 1] > -reach) & (at[:, 1] < height + reach)
    )
    index = np.flatnonzero(near)
    index = index[np.argsort(reach[index], kind="stable")]  # equal sizes together: no work on empty margins
    for start in range(0, len(index), _CHUNK):
        chunk = index[start : start + _CHUNK]
        half = int(reach[chunk].max())
        corner = np.round(at[chunk]).astype(np.int64) - half
        offset = (corner - at[chunk]).astype(np.float32)
        grid = np.arange(2 * half + 1, dtype=np.float32)
        yield Patches(chunk, corner, (offset[:, :1] + grid)[:, None, :], (offset[:, 1:] + grid)[:, :, None])


def label_image(shapes: Shapes, xy_um: NDArray[np.float64], view: View) -> NDArray[np.int32]:
    """Return (y, x) int32: row + 1 of the cell that each px lies in, 0 for none.

    Where outlines overlap, a px belongs to the cell whose outline it lies deepest in.
    """
    labels = np.zeros(view.shape, np.int32)
    depth = np.zeros(view.shape, np.float32)
    for patch in patches(shapes, xy_um, view, 0.0):
        u, v = shapes.local(patch.index, patch.dx, patch.dy, view.affine)
        distance = shapes.distance_um(patch.index, u, v)
        for row, place, part in patch.windows(view.shape):
            deeper = distance[row][part] < depth[place]
            labels[place][deeper] = patch.index[row] + 1
            depth[place][deeper] = distance[row][part][deeper]
    return labels
