"""Crops: what one step of the training sees. Each is a random view of an image, degraded as microscopes do.

A view is turned, flipped and scaled (the depths scale with it); then single cells are dimmed, light falls off,
focus is lost, debris shines, contrast is set wrongly and noise is added.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .images import TrainingImage
from .net import WORKING_RANGE, Architecture
from .targets import CAP_PX

Floats = NDArray[np.float32]

NEAR_CELLS = 0.75
"""Share of the crops that are taken around a cell; the others may show none."""
WORKING_SCALES = 0.65
"""Share of the crops whose cells have a breadth at which the segmenter shows them."""
FAR_SCALES = 0.1
"""Share of the crops whose cells may be half or twice as broad as the range: so the net learns to say so."""
STRETCH = 0.17
"""Views are made longer one way and shorter the other by up to this share."""


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
    ) -> None:
        self._kinds = {kind: [i for i in images if i.kind == kind] for kind in shares}
        self._kinds = {kind: group for kind, group in self._kinds.items() if group}
        self._often = {kind: _often(group) for kind, group in self._kinds.items()}
        weights = np.array([shares[kind] for kind in self._kinds], float)
        self._weights = weights / weights.sum()
        self._architecture = architecture
        self._size, self._count = size_px, count
        self._random = np.random.default_rng(seed)
        self._noise = torch.Generator().manual_seed(seed)

    def batch(self) -> Batch:
        """Return the next batch."""
        size, n = self._size, self._count
        planes = np.empty((n, size, size), np.float32)
        depth, deepest = np.empty_like(planes), np.empty_like(planes)
        inside, known = np.empty_like(planes), np.empty_like(planes)
        kinds = list(self._kinds)
        for row in range(n):
            kind = kinds[self._random.choice(len(kinds), p=self._weights)]
            image = self._kinds[kind][int(np.searchsorted(self._often[kind], self._random.random()))]
            self._view(image, planes[row], inside[row], known[row], depth[row], deepest[row])
        return self._targets(self._degrade(torch.from_numpy(planes)), inside, known, depth, deepest)

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs to go on with the very next batch."""
        return {"random": str(self._random.bit_generator.state), "noise": self._noise.get_state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was taken."""
        self._random.bit_generator.state = literal_eval(state["random"])
        self._noise.set_state(state["noise"])

    def _view(
        self,
        image: TrainingImage,
        plane: Floats,
        inside: Floats,
        known: Floats,
        depth: Floats,
        deepest: Floats,
    ) -> None:
        """Fill one crop from a random place of an image."""
        random, size = self._random, self._size
        breadth = self._breadth()
        scale = float(np.clip(breadth / (image.breadth_px or breadth), 0.1, 8.0))
        angle = random.uniform(0, 2 * np.pi) if random.random() < 0.5 else random.integers(4) * np.pi / 2
        flip = random.choice((-1.0, 1.0))
        height, width = image.plane.shape
        half = size / 2 / scale
        y, x = random.uniform(0, height), random.uniform(0, width)
        if len(image.deepest) > 1 and random.random() < NEAR_CELLS:
            place = image.middles[random.integers(len(image.middles))]
            y, x = place + random.uniform(-half, half, 2) * 0.7
        y = np.clip(y, min(half, height / 2), max(height - half, height / 2))
        x = np.clip(x, min(half, width / 2), max(width - half, width / 2))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        longer = 1 + random.uniform(0, STRETCH) if random.random() < 0.5 else 1.0
        matrix = turn @ np.diag([longer, flip / longer]) / scale
        gains = np.ones(len(image.deepest), np.float32)
        if random.random() < 0.35:  # cells of one field differ in expression and depth
            gains[1:] = np.exp(random.uniform(-1.8, 0.2, len(gains) - 1)) ** random.uniform(0, 1)
        back = float(np.median(image.plane[::8, ::8]))
        _warp(
            image.plane, image.mask, image.known, image.depth, image.deepest, matrix, np.array([y, x]), gains,
            np.float32(back), np.float32(scale), plane, inside, known, depth, deepest,
        )  # fmt: skip

    def _breadth(self) -> float:
        """Draw how broad the cells of a crop are, in its px."""
        random, architecture = self._random, self._architecture
        low, high = architecture.diameter_range
        drawn = random.random()
        if drawn < WORKING_SCALES:
            low, high = (limit * architecture.diameter_px for limit in WORKING_RANGE)
        elif drawn > 1 - FAR_SCALES:
            low, high = low / 2, high * 2
        return float(np.exp(random.uniform(np.log(low), np.log(high))))

    def _degrade(self, planes: Tensor) -> Tensor:
        """Return (n, 1, y, x) with illumination, focus, debris, contrast and noise varied."""
        n, size = self._count, self._size
        random, generator = self._random, self._noise

        def often(share: float) -> Tensor:
            return torch.from_numpy((random.random(n) < share).astype(np.float32))[:, None, None]

        def drawn(low: float, high: float) -> Tensor:
            return torch.from_numpy(random.uniform(low, high, n).astype(np.float32))[:, None, None]

        field = torch.randn(n, 1, 3, 3, generator=generator)
        field = functional.interpolate(field, (size, size), mode="bicubic", align_corners=True)[:, 0]
        planes = planes * (1 + often(0.4) * drawn(0, 0.25) * field)
        field = torch.randn(n, 1, 4, 4, generator=generator)
        field = functional.interpolate(field, (size, size), mode="bicubic", align_corners=True)[:, 0]
        planes = planes + often(0.3) * drawn(0, 0.12) * field
        planes = _blurred(planes, (often(0.4) * drawn(0.3, 2.2))[:, 0, 0])
        gamma = torch.exp(often(0.4) * drawn(-0.5, 0.5))
        planes = planes.clamp(min=1e-3) ** gamma + planes.clamp(max=0)
        planes = planes * torch.exp(drawn(-0.35, 0.35) + often(0.06) * drawn(0.3, 1.0))
        planes = planes + often(0.5) * drawn(-0.15, 0.15)
        noise = torch.randn(planes.shape, generator=generator)
        noise = _blurred(noise, (often(0.25) * drawn(0.4, 0.9))[:, 0, 0])
        level = often(0.8) * torch.exp(drawn(float(np.log(0.003)), float(np.log(0.12))))
        planes = planes + level * noise * (0.4 + planes.clamp(0, 1)).sqrt()
        return planes.clamp(-1, 4)[:, None].contiguous()

    def _targets(
        self, planes: Tensor, inside: Floats, known: Floats, depth: Floats, deepest: Floats
    ) -> Batch:
        grid = self._architecture.grid
        cap = CAP_PX * grid
        reach = np.minimum(np.maximum(deepest, 1e-3), cap)
        core = torch.from_numpy(np.minimum(depth / reach, 1.0))
        breadth = np.log2(np.maximum(2 * deepest, 1e-3) / self._architecture.diameter_px)
        share = torch.from_numpy(inside)
        certain = torch.from_numpy(inside * (deepest > 0))
        sure = functional.avg_pool2d(certain[:, None], grid)[:, 0]
        broad = functional.avg_pool2d((torch.from_numpy(breadth) * certain)[:, None], grid)[:, 0]
        return Batch(
            planes,
            functional.avg_pool2d(share[:, None], grid)[:, 0],
            functional.avg_pool2d((core * share)[:, None], grid)[:, 0],
            broad / sure.clamp(min=1e-3),
            functional.avg_pool2d(torch.from_numpy(known)[:, None], grid)[:, 0],
        )


def _often(images: Sequence[TrainingImage]) -> NDArray[np.float64]:
    """Return (n,) rising to 1, how often images are drawn: by the root of their cells, as crowds teach most."""
    share = np.sqrt([max(len(image.middles), 1) for image in images])
    rising = np.cumsum(share) / share.sum()
    rising[-1] = 1.0
    return rising


def _blurred(planes: Tensor, sigma: Tensor) -> Tensor:
    """Return each plane under a Gaussian of its own standard deviation in px, cut at 6 px."""
    n = len(planes)
    at = torch.arange(-6, 7, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (at[None] / sigma.clamp(min=1e-2)[:, None]) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    padded = functional.pad(planes[None], (6, 6, 6, 6), mode="reflect")
    rows = functional.conv2d(padded, kernel[:, None, None, :], groups=n)
    return functional.conv2d(rows, kernel[:, None, :, None], groups=n)[0]


@njit(cache=True, nogil=True)
def _warp(
    source: Floats,
    mask: NDArray[np.uint16],
    certain: NDArray[np.bool_],
    depths: Floats,
    deepest_of: Floats,
    matrix: NDArray[np.float64],
    centre: NDArray[np.float64],
    gains: Floats,
    back: np.float32,
    scale: np.float32,
    plane: Floats,
    inside: Floats,
    known: Floats,
    depth: Floats,
    deepest: Floats,
) -> None:
    """Fill the crop: intensities and depths interpolated linearly, mirrored at the image's edge."""
    height, width = source.shape
    size = plane.shape[0]
    for i in range(size):
        for j in range(size):
            u, v = i + 0.5 - size / 2, j + 0.5 - size / 2
            y = matrix[0, 0] * u + matrix[0, 1] * v + centre[0] - 0.5
            x = matrix[1, 0] * u + matrix[1, 1] * v + centre[1] - 0.5
            y0, x0 = int(np.floor(y)), int(np.floor(x))
            fy, fx = y - y0, x - x0
            light, reach, share = 0.0, 0.0, 0.0
            for a in range(2):
                for b in range(2):
                    weight = (fy if a else 1 - fy) * (fx if b else 1 - fx)
                    p, q = _mirrored(y0 + a, height), _mirrored(x0 + b, width)
                    value = source[p, q]
                    label = mask[p, q]
                    if label:
                        value = back + (value - back) * gains[label]
                        share += weight
                    light += weight * value
                    reach += weight * depths[p, q]
            p, q = _mirrored(int(np.floor(y + 0.5)), height), _mirrored(int(np.floor(x + 0.5)), width)
            plane[i, j] = light
            depth[i, j] = reach * scale
            inside[i, j] = share
            known[i, j] = certain[p, q]
            deepest[i, j] = deepest_of[mask[p, q]] * scale


@njit(cache=True, nogil=True)
def _mirrored(at: int, size: int) -> int:
    if 0 <= at < size:
        return at
    period = 2 * size
    at = at % period
    return at if at < size else period - 1 - at
