"""Shapes of light against what they are of the whole image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from cytoloop.acquire.commands import encode_mask
from cytoloop.acquire.frame import Frame
from cytoloop.models.labels import Labels
from cytoloop.models.measure import measure
from cytoloop.realtime.rules.shapes import Patch, cell_patch, clipped, grown, raster, ring, runs_of


def test_runs_of_a_patch_are_those_of_the_whole_image() -> None:
    chance = np.random.default_rng(0)
    for _ in range(300):
        shape = tuple(chance.integers(1, 12, 2))
        mask = chance.random(tuple(chance.integers(1, 14, 2))) < chance.choice([0.2, 0.8, 1.0])
        top, left = chance.integers(-6, 12, 2)
        image = np.zeros(shape, np.bool_)
        for y, x in np.argwhere(mask) + np.array((top, left)):
            if 0 <= y < shape[0] and 0 <= x < shape[1]:
                image[y, x] = True
        assert runs_of(Patch(mask, int(top), int(left)), shape) == (encode_mask(image) if image.any() else ())


def test_the_smallest_cells_have_an_outline_too() -> None:
    image = np.zeros((30, 30), np.int32)
    image[4, 4], image[10, 8:16], image[20:23, 20:23] = 1, 2, np.eye(3, dtype=np.int32) * 3
    found = measure(Frame(np.ones(image.shape, np.uint16)), Labels(image, 3))
    for row in range(3):
        patch = cell_patch(found, row, (10.0, 10.0))
        assert patch.mask[10 - patch.top, 10 - patch.left]
        assert patch.mask.sum() < 3 * (image == row + 1).sum() + 3
        assert grown(patch, 1.0).mask.sum() > patch.mask.sum()
        band = ring(patch, 1.0, 2.0)
        inner = grown(patch, 1.0)
        assert band.mask.sum() == grown(patch, 3.0).mask.sum() - inner.mask.sum()


def test_an_ellipse_without_a_mask_has_the_area_of_its_cell() -> None:
    y, x = np.mgrid[:80, :80]
    image = ((((x - 40) + (y - 38)) / 30) ** 2 + (((x - 40) - (y - 38)) / 12) ** 2 <= 1).astype(np.int32)
    found = measure(Frame(np.ones(image.shape, np.uint16)), Labels(image, 1))
    at = (float(found.yx[0, 1]), float(found.yx[0, 0]))
    patch = cell_patch(found, 0, at)
    assert abs(patch.mask.sum() / image.sum() - 1) < 0.03
    own = cell_patch(replace(found, mask=image), 0, at)
    assert np.array_equal(runs_of(own, image.shape), encode_mask(image == 1))


def test_what_lies_outside_the_image_is_cut_off() -> None:
    patch = Patch(np.ones((4, 6), np.bool_), -1, 8)
    assert clipped(patch, (20, 10)).mask.shape == (3, 2)
    assert clipped(patch, (20, 8)).mask.size == 0
    assert runs_of(patch, (20, 8)) == ()


def test_a_raster_goes_through_its_point_and_stays_on_the_mask() -> None:
    mask = np.ones((10, 20), np.bool_)
    mask[:, 12:] = False
    points = raster(mask, 4.0, (6.0, 5.0))
    assert sorted(map(tuple, points.tolist())) == [(x, y) for x in (2.0, 6.0, 10.0) for y in (1.0, 5.0, 9.0)]
    assert len(raster(np.zeros((3, 3), np.bool_), 1.0, (1.0, 1.0))) == 0
