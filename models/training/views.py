"""Views: parts of training images, turned, scaled and bent on the device that the net learns on.

All images lie one behind the other in flat tensors there, so that a batch of views is a few gathers, whatever
their sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .images import TrainingImage

DRAWN_FOR = 4096
"""Cells of a view that can each be dimmed or left out by chance of their own; beyond, numbers are shared."""
BEND_NODES = 5
"""Places along a view's edge that are moved; between them it bends smoothly."""


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where views lie.

    Attributes
    ----------
    image
        (n,) index of the image of each.
    matrix
        (n, 2, 2), image px (y, x) per px (y, x) of the view.
    centre
        (n, 2), y and x of the view's middle in the image, in px.
    scale
        (n,), px of the view per image px.
    bend_px
        (n,), standard deviation of how far places of the view are moved, in its px.
    uneven
        (n,), how unevenly its cells are dimmed: 0 not at all, 1 down to a sixth.
    kept
        (n,), share of the cells that are shown as cells; the others count as background.
    """

    image: NDArray[np.int64]
    matrix: NDArray[np.float64]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    bend_px: NDArray[np.float64]
    uneven: NDArray[np.float64]
    kept: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Views and what is known of them; each (n, y, x) float32.

    Attributes
    ----------
    plane
        Intensities, normalised as the image is.
    inside
        Share of the px that is in a cell.
    known
        1 where the mask says what is there.
    depth, deepest
        Px to the outline of the cell, and the largest of that in the cell; 0 outside.
    """

    plane: Tensor
    inside: Tensor
    known: Tensor
    depth: Tensor
    deepest: Tensor


class Stock:
    """Images on a device.

    Parameters
    ----------
    images
        At least one.
    device
        Where they are kept and viewed.
    """

    def __init__(self, images: Sequence[TrainingImage], device: torch.device) -> None:
        def flat(arrays: Sequence[NDArray[np.generic]]) -> Tensor:
            return torch.from_numpy(np.concatenate([array.reshape(-1) for array in arrays])).to(device)

        def starts(lengths: Sequence[int]) -> Tensor:
            return torch.from_numpy(np.cumsum([0, *lengths[:-1]])).to(device)

        self._device = device
        self._plane = flat([image.plane for image in images])
        self._depth = flat([image.depth for image in images])
        self._label = flat([image.mask.astype(np.int32) for image in images])
        self._known = flat([image.known for image in images])
        self._deepest = flat([image.deepest for image in images])
        self._first_px = starts([image.plane.size for image in images])
        self._first_cell = starts([len(image.deepest) for image in images])
        sides = [image.plane.shape for image in images]
        self._sides = torch.tensor(sides, dtype=torch.float32, device=device)
        back = [float(np.median(image.plane[::8, ::8])) for image in images]
        self._back = torch.tensor(back, dtype=torch.float32, device=device)

    def view(self, places: Places, size: int, generator: torch.Generator) -> Views:
        """Return views of (size, size) px: linear in intensities and depths, mirrored at the image's edge.

        Parameters
        ----------
        places
            Where they lie.
        size
            Edge of a view in px.
        generator
            Draws how they bend and which cells are dimmed or left out.
        """
        image = torch.from_numpy(places.image).to(self._device)
        at = self._positions(places, size, generator)
        corner = at.floor()
        part = at - corner
        height, width = (self._sides[image, axis, None, None] for axis in (0, 1))
        row_px, first = width.long(), self._first_px[image, None, None]
        dimmed, kept = self._chance(places, generator)
        row = torch.arange(len(image), device=self._device)[:, None, None] * DRAWN_FOR
        back = self._back[image, None, None]
        plane, inside, depth = (torch.zeros_like(part[..., 0]) for _ in range(3))
        nearest = torch.zeros_like(plane, dtype=torch.long)
        lower, right = (part[..., axis] >= 0.5 for axis in (0, 1))
        for a in (0, 1):
            weight_y = part[..., 0] if a else 1 - part[..., 0]
            y = first + _mirrored(corner[..., 0] + a, height).long() * row_px
            for b in (0, 1):
                place = y + _mirrored(corner[..., 1] + b, width).long()
                weight = weight_y * (part[..., 1] if b else 1 - part[..., 1])
                value, label = self._plane[place], self._label[place]
                if dimmed is not None:
                    value = back + (value - back) * dimmed[row + label % DRAWN_FOR]
                share = label > 0
                if kept is not None:
                    share = share & kept[row + label % DRAWN_FOR]
                plane += weight * value
                inside += weight * share
                depth += weight * self._depth[place] * share
                nearest = torch.where((lower == bool(a)) & (right == bool(b)), place, nearest)
        label = self._label[nearest]
        deepest = self._deepest[self._first_cell[image, None, None] + label]
        if kept is not None:
            deepest = deepest * kept[row + label % DRAWN_FOR]
        scale = _column(places.scale, self._device)
        return Views(plane, inside, self._known[nearest].float(), depth * scale, deepest * scale)

    def _positions(self, places: Places, size: int, generator: torch.Generator) -> Tensor:
        """Return (n, size, size, 2), y and x in the image of every px."""
        n = len(places.image)
        along = torch.arange(size, device=self._device, dtype=torch.float32) + 0.5 - size / 2
        grid = torch.stack(torch.meshgrid(along, along, indexing="ij"), dim=-1).expand(n, size, size, 2)
        if places.bend_px.any():
            nodes = torch.randn(n, 2, BEND_NODES, BEND_NODES, generator=generator, device=self._device)
            bent = functional.interpolate(nodes, (size, size), mode="bicubic", align_corners=True)
            grid = grid + _column(places.bend_px, self._device)[..., None] * bent.permute(0, 2, 3, 1)
        matrix = torch.from_numpy(places.matrix).to(self._device, torch.float32)
        centre = torch.from_numpy(places.centre).to(self._device, torch.float32)
        return torch.einsum("nyxj,nij->nyxi", grid, matrix) + (centre - 0.5)[:, None, None]

    def _chance(self, places: Places, generator: torch.Generator) -> tuple[Tensor | None, Tensor | None]:
        """Return (n * DRAWN_FOR,) factors and whether cells are kept; None where all are alike."""
        shape = len(places.image), DRAWN_FOR
        dimmed = kept = None
        if places.uneven.any():
            drawn = torch.rand(shape, generator=generator, device=self._device) * 2.0 - 1.8
            drawn[:, 0] = 0  # the background
            dimmed = torch.exp(drawn * _column(places.uneven, self._device)[..., 0]).reshape(-1)
        if (places.kept < 1).any():
            drawn = torch.rand(shape, generator=generator, device=self._device)
            kept = (drawn < _column(places.kept, self._device)[..., 0]).reshape(-1)
        return dimmed, kept


def _column(values: NDArray[np.float64], device: torch.device) -> Tensor:
    """Return (n, 1, 1) float32."""
    return torch.from_numpy(values).to(device, torch.float32)[:, None, None]


def _mirrored(at: Tensor, side: Tensor) -> Tensor:
    """Return whole positions within 0 ... side - 1, mirrored at the edges as often as it takes; all float32."""
    at = at - 2 * side * (at / (2 * side)).floor()
    return torch.minimum(at, 2 * side - 1 - at)


def heap(lower: Views, upper: Views, reach_px: float) -> Views:
    """Return views on which the cells of others lie; what is under them is hidden.

    Depths of hidden cells are those of what is left of them, as far as ``reach_px``; how deep they would be as a
    whole stays as it was.
    """
    cover = upper.inside
    on_top = cover > 0.5
    away = _distance(on_top, int(reach_px) + 1)
    return Views(
        torch.lerp(lower.plane, upper.plane, cover),
        torch.maximum(lower.inside, cover),
        torch.where(on_top, upper.known, lower.known),
        torch.where(on_top, upper.depth, torch.minimum(lower.depth, away)),
        torch.where(on_top, upper.deepest, lower.deepest),
    )


def _distance(marked: Tensor, reach: int) -> Tensor:
    """Return (n, y, x) float32, px to the nearest marked one; infinity beyond a reach along y or x."""
    squared = torch.where(marked, 0.0, float("inf"))
    for axis in (1, 2):  # squares of distances add up, one axis after the other
        size = squared.shape[axis]
        edges = (reach, reach) if axis == 2 else (0, 0, reach, reach)
        padded = functional.pad(squared, edges, value=float("inf"))
        for step in range(-reach, reach + 1):
            squared = torch.minimum(squared, padded.narrow(axis, reach + step, size) + float(step * step))
    return squared.sqrt()
