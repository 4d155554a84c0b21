"""Crops: what one step of the training sees. Each is a random view of an image, degraded as microscopes do.

A view is turned, flipped, scaled (the depths scale with it) and bent, and single cells are dimmed; cells of another
view may be laid on it. Then light falls off, focus is lost, contrast is set wrongly and noise is added.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .images import TrainingImage
from .net import WORKING_RANGE, Architecture
from .targets import CAP_PX
from .views import Places, Stock, Views, heap

NEAR_CELLS = 0.75
"""Share of the crops that are taken around a cell; the others may show none."""
WORKING_SCALES = 0.65
"""Share of the crops whose cells have a breadth at which the segmenter shows them."""
FAR_SCALES = 0.1
"""Share of the crops whose cells may be half or twice as broad as the range: so the net learns to say so."""
STRETCH = 0.17
"""Views are made longer one way and shorter the other by up to this share."""
BEND = 0.02
"""Places of a view are moved by up to this share of its edge (standard deviation)."""
HEAPED = 0.3
"""Share of the crops of a heaped kind that get cells of another one laid on them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Crops and what the net shall say of them.

    Attributes
    ----------
    planes
        (n, 1, y, x) float32, normalised.
    inside, core, breadth
        (n, y / grid, x / grid) float32: share of the px that is in a cell; 0 at outlines to 1 in the middle;
        log2 of the breadth of the cell over the reference of the net, meaningful where ``inside``.
    known
        (n, y / grid, x / grid) float32: share of the px of which the mask says what they are.
    """

    planes: Tensor
    inside: Tensor
    core: Tensor
    breadth: Tensor
    known: Tensor


class Crops:
    """Draws batches without end.

    Parameters
    ----------
    images
        What to draw from, by kind.
    shares
        How often each kind is drawn, in any unit.
    architecture
        Whose scale and grid to draw for.
    size_px, count
        Edge of a crop, and how many make a batch.
    seed
        The same seed draws the same batches.
    device
        Where batches are made, and stay.
    heaped
        Kinds on whose crops cells of another crop of the kind are laid now and then, so that more of them touch.
    """

    def __init__(
        self,
        images: Sequence[TrainingImage],
        shares: Mapping[str, float],
        architecture: Architecture,
        *,
        size_px: int = 256,
        count: int = 16,
        seed: int = 0,
        device: str = "cpu",
        heaped: Sequence[str] = (),
    ) -> None:
        self._device = torch.device(device)
        drawn = [image for image in images if shares.get(image.kind)]
        self._stock = Stock(drawn, self._device)
        self._middles = [image.middles for image in drawn]
        self._sides = np.array([image.plane.shape for image in drawn], float)
        self._breadths = np.array([image.breadth_px for image in drawn])
        groups = {kind: [n for n, image in enumerate(drawn) if image.kind == kind] for kind in shares}
        self._groups = [np.array(group) for group in groups.values() if group]
        self._often = [_often([len(self._middles[n]) for n in group]) for group in self._groups]
        self._heaped = np.array([kind in heaped for kind, group in groups.items() if group])
        weights = np.array([shares[kind] for kind, group in groups.items() if group], float)
        self._weights = weights / weights.sum()
        self._architecture = architecture
        self._size, self._count = size_px, count
        self._random = np.random.default_rng(seed)
        self._noise = torch.Generator(self._device).manual_seed(seed)

    def batch(self) -> Batch:
        """Return the next batch."""
        kinds = self._random.choice(len(self._groups), self._count, p=self._weights)
        breadths = self._breadth()
        views = self._stock.view(self._places(kinds, breadths), self._size, self._noise)
        above = self._heaped[kinds] & (self._random.random(self._count) < HEAPED)
        if above.any():
            places = self._places(kinds, breadths)
            kept = np.where(above, self._random.uniform(0.2, 0.9, self._count), 0.0)
            upper = self._stock.view(replace(places, kept=kept), self._size, self._noise)
            views = heap(views, upper, CAP_PX * self._architecture.grid)
        return self._targets(self._degrade(views.plane), views)

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs to go on with the very next batch."""
        return {"random": str(self._random.bit_generator.state), "noise": self._noise.get_state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was taken."""
        self._random.bit_generator.state = literal_eval(state["random"])
        self._noise.set_state(state["noise"].cpu())  # states of generators lie there, also of a card's

    def _places(self, kinds: NDArray[np.int64], breadths: NDArray[np.float64]) -> Places:
        """Draw where in images of these kinds the crops lie, so that cells are as broad as they shall be."""
        random, n, size = self._random, self._count, self._size
        image = np.array(
            [self._groups[kind][np.searchsorted(self._often[kind], random.random())] for kind in kinds]
        )
        own = self._breadths[image]
        scale = np.clip(breadths / np.where(own > 0, own, breadths), 0.1, 8.0)
        angle = random.uniform(0, 2 * np.pi, n)
        angle = np.where(random.random(n) < 0.5, angle, random.integers(4, size=n) * np.pi / 2)
        turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(
            n, 2, 2
        )
        longer = 1 + random.uniform(0, STRETCH, n) * (random.random(n) < 0.5)
        along = np.stack([longer, random.choice((-1.0, 1.0), n) / longer], axis=1)
        matrix = turn * along[:, None, :] / scale[:, None, None]
        half = (size / 2 / scale)[:, None]
        sides = self._sides[image]
        centre = random.uniform(0, 1, (n, 2)) * sides
        for row in np.flatnonzero(random.random(n) < NEAR_CELLS):
            middles = self._middles[image[row]]
            if len(middles):
                centre[row] = (
                    middles[random.integers(len(middles))] + random.uniform(-1, 1, 2) * half[row] * 0.7
                )
        centre = np.clip(centre, np.minimum(half, sides / 2), np.maximum(sides - half, sides / 2))
        # Cells of one field differ in expression and depth.
        uneven = random.uniform(0, 1, n) * (random.random(n) < 0.35)
        bend_px = random.uniform(0, BEND, n) * size * (random.random(n) < 0.35)
        return Places(image, matrix, centre, scale, bend_px, uneven, np.ones(n))

    def _breadth(self) -> NDArray[np.float64]:
        """Draw how broad the cells of each crop are, in its px."""
        random, n, architecture = self._random, self._count, self._architecture
        drawn = random.random(n)
        far = 1 + (drawn > 1 - FAR_SCALES)
        low, high = architecture.diameter_range
        lows, highs = low / far, high * far
        usual = drawn < WORKING_SCALES
        lows = np.where(usual, WORKING_RANGE[0] * architecture.diameter_px, lows)
        highs = np.where(usual, WORKING_RANGE[1] * architecture.diameter_px, highs)
        return np.exp(random.uniform(np.log(lows), np.log(highs)))

    def _degrade(self, planes: Tensor) -> Tensor:
        """Return (n, 1, y, x) with illumination, focus, debris, contrast and noise varied."""
        n, size = self._count, self._size
        random = self._random

        def on_device(values: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(values.astype(np.float32)).to(self._device)[:, None, None]

        def often(share: float) -> Tensor:
            return on_device(random.random(n) < share)

        def drawn(low: float, high: float) -> Tensor:
            return on_device(random.uniform(low, high, n))

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=self._noise, device=self._device)

        field = normal(n, 1, 3, 3)
        field = functional.interpolate(field, (size, size), mode="bicubic", align_corners=True)[:, 0]
        planes = planes * (1 + often(0.4) * drawn(0, 0.25) * field)
        field = normal(n, 1, 4, 4)
        field = functional.interpolate(field, (size, size), mode="bicubic", align_corners=True)[:, 0]
        planes = planes + often(0.3) * drawn(0, 0.12) * field
        planes = _blurred(planes, (often(0.4) * drawn(0.3, 2.2))[:, 0, 0])
        gamma = torch.exp(often(0.4) * drawn(-0.5, 0.5))
        planes = planes.clamp(min=1e-3) ** gamma + planes.clamp(max=0)
        planes = planes * torch.exp(drawn(-0.35, 0.35) + often(0.06) * drawn(0.3, 1.0))
        planes = planes + often(0.5) * drawn(-0.15, 0.15)
        noise = normal(*planes.shape)
        noise = _blurred(noise, (often(0.25) * drawn(0.4, 0.9))[:, 0, 0])
        level = often(0.8) * torch.exp(drawn(float(np.log(0.003)), float(np.log(0.12))))
        planes = planes + level * noise * (0.4 + planes.clamp(0, 1)).sqrt()
        return planes.clamp(-1, 4)[:, None].contiguous()

    def _targets(self, planes: Tensor, views: Views) -> Batch:
        grid = self._architecture.grid
        core = (views.depth / views.deepest.clamp(1e-3, CAP_PX * grid)).clamp(max=1)
        breadth = torch.log2((2 * views.deepest).clamp(min=1e-3) / self._architecture.diameter_px)
        certain = views.inside * (views.deepest > 0)

        def pooled(values: Tensor) -> Tensor:
            return functional.avg_pool2d(values[:, None], grid)[:, 0]

        return Batch(
            planes,
            pooled(views.inside),
            pooled(core * views.inside),
            pooled(breadth * certain) / pooled(certain).clamp(min=1e-3),
            pooled(views.known),
        )


def _often(cells: Sequence[int]) -> NDArray[np.float64]:
    """Return (n,) rising to 1, how often images are drawn: by the root of their cells, as crowds teach most."""
    share = np.sqrt(np.maximum(cells, 1))
    rising = np.cumsum(share) / share.sum()
    rising[-1] = 1.0
    return rising


def _blurred(planes: Tensor, sigma: Tensor) -> Tensor:
    """Return each plane under a Gaussian of its own standard deviation in px, cut at 6 px."""
    n = len(planes)
    at = torch.arange(-6, 7, dtype=torch.float32, device=planes.device)
    kernel = torch.exp(-0.5 * (at[None] / sigma.clamp(min=1e-2)[:, None]) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    padded = functional.pad(planes[None], (6, 6, 6, 6), mode="reflect")
    rows = functional.conv2d(padded, kernel[:, None, None, :], groups=n)
    return functional.conv2d(rows, kernel[:, None, :, None], groups=n)[0]
