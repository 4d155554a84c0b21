"""From true masks to what a perfect net of each family would answer: the targets that the families train on.

Written from the papers and documentations of the families. Masks are (y, x) int32: 0 is background, each cell has a
number of its own. What comes back is float32, as a runtime would return it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.int32]
Crop = NDArray[np.bool_]
Box = tuple[slice, slice]
Maps = NDArray[np.float32]
Doubles = NDArray[np.float64]

CELLPOSE_GAIN = 5.0
"""Cellpose and Omnipose train on five times the unit vectors."""
OMNIPOSE_OUTSIDE = -5.0
"""Distance that Omnipose gives to the background."""
REACH = 16.0
"""InstanSeg offsets are within so many px, 4 of its units."""
PX_PER_UNIT = 4.0


def cells_of(mask: Mask) -> Iterator[tuple[int, Box, Crop]]:
    """Yield (number, slices, crop) of each cell; the crop is its mask with a border of one px of background."""
    found: list[Box | None] = cast(Any, ndimage.find_objects(mask))  # None where a number is missing
    for number, box in enumerate(found, 1):
        if box is not None:
            yield number, box, np.pad(mask[box] == number, 1)


def _edges(mask: Mask) -> Crop:
    """Return which px have another number above, below, left or right; the frame's border is none."""
    padded = np.pad(mask, 1, mode="edge")
    sides = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.any([side != mask for side in sides], axis=0)


def boundary(mask: Mask) -> Maps:
    """Foreground and boundary, (1, 2, y, x): the boundary is two px thick, one on each side."""
    inside = mask > 0
    return np.stack([inside, _edges(mask)])[np.newaxis].astype(np.float32)


def three_classes(mask: Mask) -> Maps:
    """Background, interior and boundary within the cells, (1, 3, y, x)."""
    inside, edge = mask > 0, _edges(mask)
    return np.stack([~inside, inside & ~edge, inside & edge])[np.newaxis].astype(np.float32)


def distances(mask: Mask) -> Maps:
    """DeepCell's inner distance 1 / (1 + d / sqrt(area)) from the centre, and the outer one, normalised per cell."""
    inner, outer = np.zeros(mask.shape, np.float32), np.zeros(mask.shape, np.float32)
    for _, box, crop in cells_of(mask):
        y, x = np.nonzero(crop)
        far = np.hypot(y - y.mean(), x - x.mean())
        inner[box][crop[1:-1, 1:-1]] = 1 / (1 + far / np.sqrt(len(y)))
        reach = ndimage.distance_transform_edt(crop)
        outer[box][crop[1:-1, 1:-1]] = (reach / reach.max())[crop]
    return np.stack([inner, outer])[np.newaxis]


def stardist(mask: Mask, rays: int = 32, grid: int = 1) -> tuple[Maps, Maps]:
    """Probability (1, 1, y, x) and distances (1, rays, y, x) on every ``grid``-th px, as StarDist samples them.

    A ray goes in steps of one px and ends at the edge of the last px of the cell; the probability is the distance
    from the outline, 1 in the middle.
    """
    probability = np.zeros(mask.shape, np.float32)
    for _, box, crop in cells_of(mask):
        reach = ndimage.distance_transform_edt(crop)
        probability[box][crop[1:-1, 1:-1]] = (reach / reach.max())[crop]
    height, width = mask.shape
    y, x = np.nonzero(mask[::grid, ::grid])
    own = mask[y * grid, x * grid]
    distance = np.zeros((rays, *mask[::grid, ::grid].shape), np.float32)
    for ray in range(rays):
        angle = 2 * np.pi * ray / rays
        dy, dx = np.sin(angle), np.cos(angle)
        length, going, step = np.zeros(len(y)), np.arange(len(y)), 0
        while going.size:
            step += 1
            i = np.rint(y[going] * grid + step * dy).astype(int)
            j = np.rint(x[going] * grid + step * dx).astype(int)
            within = (i >= 0) & (i < height) & (j >= 0) & (j < width)
            within[within] = mask[i[within], j[within]] == own[going[within]]
            length[going[~within]] = step - 1 + 0.5 / max(abs(dy), abs(dx))
            going = going[within]
        distance[ray, y, x] = length
    return probability[np.newaxis, np.newaxis, ::grid, ::grid], distance[np.newaxis]


def cellpose(mask: Mask) -> Maps:
    """Flows y and x from heat that spreads from the centre of each cell, and the logit of being inside."""
    flow = np.zeros((2, *mask.shape), np.float64)
    for _, box, crop in cells_of(mask):
        y, x = np.nonzero(crop)
        middle = np.argmin((y - y.mean()) ** 2 + (x - x.mean()) ** 2)
        heat = np.zeros(crop.shape)
        for _ in range(2 * sum(crop.shape)):
            heat[y[middle], x[middle]] += 1
            heat = ndimage.uniform_filter(heat, 3, mode="constant") * crop
        down = np.zeros_like(heat), np.zeros_like(heat)
        down[0][1:-1], down[1][:, 1:-1] = heat[2:] - heat[:-2], heat[:, 2:] - heat[:, :-2]
        size = np.maximum(np.hypot(down[0], down[1]), 1e-60)
        for axis in range(2):
            flow[axis][box][crop[1:-1, 1:-1]] = (down[axis] / size)[crop]
    logit = np.where(mask > 0, 6.0, -6.0)
    return np.concatenate([CELLPOSE_GAIN * flow, logit[np.newaxis]])[np.newaxis].astype(np.float32)


def omnipose(mask: Mask) -> Maps:
    """Flows y and x up the smooth distance from the outline, that distance in px, and the logit of the outline."""
    flow, distance = np.zeros((2, *mask.shape)), np.full(mask.shape, OMNIPOSE_OUTSIDE)
    for _, box, crop in cells_of(mask):
        inner = crop[1:-1, 1:-1]
        reach = _eikonal(crop)
        slope = np.gradient(reach)
        size = np.maximum(np.hypot(slope[0], slope[1]), 1e-9)
        distance[box][inner] = reach[crop]
        for axis in range(2):
            flow[axis][box][inner] = (slope[axis] / size)[crop]
    outline = np.where(_edges(mask) & (mask > 0), CELLPOSE_GAIN, -CELLPOSE_GAIN)
    maps = [CELLPOSE_GAIN * flow, distance[np.newaxis], outline[np.newaxis]]
    return np.concatenate(maps)[np.newaxis].astype(np.float32)


def _eikonal(crop: Crop) -> Doubles:
    """Return the distance from the outside, relaxed from the neighbours on the axes and on the diagonals in turn.

    Both solve |gradient| = 1; their mean is smooth across the middle line, as Omnipose wants it.
    """
    reach = np.zeros(crop.shape)
    for _ in range(int(1.16 * ndimage.distance_transform_edt(crop).max()) + 2):
        p = np.pad(reach, 1)
        pairs = [
            (np.minimum(p[:-2, 1:-1], p[2:, 1:-1]), np.minimum(p[1:-1, :-2], p[1:-1, 2:]), 1.0),
            (np.minimum(p[:-2, :-2], p[2:, 2:]), np.minimum(p[:-2, 2:], p[2:, :-2]), np.sqrt(2)),
        ]
        solutions = []
        for a, b, step in pairs:
            apart = np.abs(a - b)
            both = (a + b + np.sqrt(np.maximum(2 * step**2 - apart**2, 0))) / 2
            solutions.append(np.where(apart < step, both, np.minimum(a, b) + step))
        reach = np.where(crop, np.sqrt(solutions[0] * solutions[1]), 0)
    return reach


def instanseg(mask: Mask) -> Maps:
    """What InstanSeg's backbone answers, (1, 5, y, x): offsets x and y, two spreads, seed; all before activation.

    Offsets point to the px that is deepest in the cell, as far as they reach; the first spread is large outside cells.
    """
    field, seed = np.zeros((2, *mask.shape)), np.full(mask.shape, -7.5)
    for _, box, crop in cells_of(mask):
        inner = crop[1:-1, 1:-1]
        reach = ndimage.distance_transform_edt(crop)
        middle = np.unravel_index(np.argmax(reach), crop.shape)
        y, x = np.nonzero(crop)
        offset = np.stack([middle[1] - x, middle[0] - y]) / PX_PER_UNIT
        for axis in range(2):
            field[axis][box][inner] = offset[axis]
        seed[box][inner] = 15 * ((reach / reach.max())[crop] - 0.5)
    share = np.clip(field / (2 * REACH / PX_PER_UNIT) + 0.5, 0.01, 0.99)
    spread = np.stack([np.where(mask > 0, 0.0, 3.0), np.zeros(mask.shape)])
    return np.concatenate([np.log(share / (1 - share)), spread, seed[np.newaxis]])[np.newaxis].astype(
        np.float32
    )


def instanseg_classifier(reach: float = 2.0, steepness: float = 6.0) -> list[list[float]]:
    """A pixel classifier of InstanSeg, layer by layer: likely where |dx| + |dy| + spread is below the reach.

    It is as large as those that are published, five units in each hidden layer; of the second, one is used.
    """
    first = [[1, 0, 0, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0]]
    second = [[1] * 5, *[[0] * 5] * 4]
    layers = (first, [0] * 5, second, [0] * 5, [[-steepness, 0, 0, 0, 0]], [steepness * reach])
    return [np.array(layer, float).ravel().tolist() for layer in layers]


def boxes(mask: Mask, size: int = 28) -> tuple[Maps, Maps, Maps, Maps]:
    """Boxes (n, 4) x0, y0, x1, y1, labels (n,), scores (n,) and masks (n, 1, size, size) as Mask R-CNN answers."""
    corners, small = [], []
    for number, box, _ in cells_of(mask):
        y, x = box
        corners.append([x.start, y.start, x.stop, y.stop])
        # Centres of the px of the small mask, each sampled at 4 x 4 places.
        rows, columns = (
            (s.start + (np.arange(4 * size) + 0.5) * (s.stop - s.start) / (4 * size)).astype(int) for s in box
        )
        inside = mask[np.ix_(rows, columns)] == number
        small.append(inside.reshape(size, 4, size, 4).mean(axis=(1, 3)))
    n = len(corners)
    return (
        np.array(corners, np.float32).reshape(n, 4),
        np.ones(n, np.float32),
        np.linspace(0.99, 0.9, n, dtype=np.float32),
        np.array(small, np.float32).reshape(n, 1, size, size),
    )
