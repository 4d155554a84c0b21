from __future__ import annotations

import csv

import numpy as np
import pytest
import tifffile
from cytoloop.models.recipes import rod_kernels
from cytoloop.models.recipes.data import simulated
from cytoloop.models.recipes.masks import instances
from cytoloop.models.recipes.simulated import KINDS, draw, generator, main, write
from cytoloop.models.training.targets import depths
from scipy import ndimage

SHAPE = (160, 224)
COUNT = 24


@pytest.fixture(scope="module")
def drawings():
    return {kind: [draw(kind, generator(kind, 5, n), SHAPE) for n in range(COUNT)] for kind in KINDS}


def contrasts(image, mask):
    """Return for each cell the level of its middle less that of the ground around it, in spreads of the image."""
    ground = ndimage.distance_transform_edt(mask == 0)
    inner = depths(mask).depth
    spread = np.percentile(image, 99) - np.percentile(image, 1) + 1e-6
    found = []
    for cell in range(1, int(mask.max()) + 1):
        inside = mask == cell
        middle = inside & (inner >= 0.5 * inner[inside].max())
        around = ndimage.binary_dilation(inside, iterations=6) & (ground > 2)
        if around.sum() > 20:
            found.append((np.median(image[middle]) - np.median(image[around])) / spread)
    return np.array(found)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_draws_the_same_image_and_another_number_draws_another(kind):
    first, second = (draw(kind, generator(kind, 3, 7), SHAPE) for _ in range(2))
    other = draw(kind, generator(kind, 3, 8), SHAPE)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_numbered_without_gaps_connected_and_large_enough_to_see(drawings, kind):
    cells = 0
    for image, mask in drawings[kind]:
        assert image.shape == mask.shape == SHAPE
        assert image.dtype == np.float32 and mask.dtype == np.int32
        assert np.isfinite(image).all()
        areas = np.bincount(mask.ravel(), minlength=mask.max() + 1)[1:]
        assert (areas >= 12).all()
        for cell, box in enumerate(ndimage.find_objects(mask), start=1):
            assert box is not None
            assert ndimage.label(mask[box] == cell)[1] == 1
        cells += len(areas)
    assert cells > 5 * COUNT


@pytest.mark.parametrize(
    ("kind", "small", "large"), [("rods", 11, 17), ("nuclei", 16, 40), ("phase_cells", 18, 40)]
)
def test_breadths_differ_widely_from_image_to_image(drawings, kind, small, large):
    breadths = np.array([depths(mask).breadth_px for _, mask in drawings[kind] if mask.any()])
    assert breadths.min() < small
    assert breadths.max() > large
    assert breadths.min() > 3


def test_nuclei_are_brighter_than_what_surrounds_them(drawings):
    found = np.concatenate([contrasts(image, mask) for image, mask in drawings["nuclei"]])
    assert len(found) > 50
    assert (found > 0).mean() > 0.9


@pytest.mark.parametrize("kind", ["rods", "phase_cells"])
def test_cells_in_transmitted_light_can_be_told_from_the_ground_and_look_alike_in_an_image(drawings, kind):
    visible, alike = [], []
    for image, mask in drawings[kind]:
        found = contrasts(image, mask)
        if len(found) > 3:
            visible.append(np.median(np.abs(found)))
            alike.append(max((found > 0).mean(), (found < 0).mean()))
    assert len(visible) > COUNT / 3
    assert np.median(visible) > 0.08
    assert np.median(alike) > 0.8


def test_masks_of_dark_rods_end_about_half_way_up_to_the_halo():
    shares = []
    for number in range(40):
        image, mask = draw("rods", generator("rods", 11, number), SHAPE)
        if mask.max() < 2 or np.median(image[mask > 0]) >= np.median(image[mask == 0]):
            continue
        inner, outer = ndimage.distance_transform_edt(mask > 0), ndimage.distance_transform_edt(mask == 0)
        half = np.median([inner[mask == cell].max() for cell in range(1, mask.max() + 1)])
        dark = image[inner > 0.6 * half].mean()
        rim = image[(inner == 1) | (outer == 1)].mean()
        halo = max(image[(outer > k) & (outer <= k + 1)].mean() for k in range(int(half) + 1))
        shares.append((rim - dark) / (halo - dark))
    assert len(shares) > 10
    assert 0.35 < np.median(shares) < 0.65


def test_some_fields_are_empty_some_crowded_with_cells_that_touch(drawings):
    for kind, images in drawings.items():
        counts = [int(mask.max()) for _, mask in images]
        assert min(counts) < 4, kind
        assert max(counts) > 15, kind
        touching = 0
        for _, mask in images:
            left, right = mask[:, :-2], mask[:, 2:]  # a line of background may part them
            touching += np.count_nonzero((left != right) & (left > 0) & (right > 0))
        assert touching > 100, kind


def test_written_images_are_read_as_training_data_and_do_not_depend_on_how_many_are_written(tmp_path):
    write(tmp_path / "one" / "rods", "rods", 2, seed=4, shape=(96, 128))
    write(tmp_path / "more" / "rods", "rods", 3, seed=4, shape=(96, 128))
    first, second = (list(simulated(tmp_path / name)) for name in ("one", "more"))
    assert [pair.kind for pair in second] == ["rods"] * 3
    for a, b in zip(first, second, strict=False):
        assert a.name == b.name
        assert a.image.dtype == np.uint16
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.mask, b.mask)
    with (tmp_path / "more" / "rods" / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [pair.name for pair in second]
    assert [int(row["cells"]) for row in rows] == [int(pair.mask.max()) for pair in second]


def test_the_command_writes_a_folder_for_each_kind(tmp_path):
    main([str(tmp_path), "--kinds", "nuclei", "phase_cells", "--count", "1", "--size", "64", "--seed", "9"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nuclei", "phase_cells"]
    image = tifffile.imread(next((tmp_path / "nuclei" / "images").glob("*.tif")))
    assert image.shape == (64, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("yeast", np.random.default_rng(0)), "kind 'yeast': known are nuclei, phase_cells, rods"),
        (("rods", np.random.default_rng(0), (16, 384)), "at least 32 px"),
        (("rods", np.random.default_rng(0), (384,)), "two sides"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_reason(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw(*arguments)


@pytest.mark.parametrize(("changed", "message"), [({"count": 0}, "count 0"), ({"seed": -1}, "seed -1")])
def test_what_cannot_be_written_is_refused_before_a_folder_is_made(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "rods", "rods", **{"count": 1, **changed})
    assert not (tmp_path / "rods").exists()


def test_pushed_rods_no_longer_overlap_and_stay_where_they_were_on_average():
    random = np.random.default_rng(1)
    rods = np.zeros((12, rod_kernels.PLACED))
    rods[:, [rod_kernels.X, rod_kernels.Y]] = random.uniform(0, 40, (12, 2))
    rods[:, rod_kernels.ANGLE] = random.uniform(0, np.pi, 12)
    rods[:, rod_kernels.LENGTH] = 30
    before = rods.copy()
    for _ in range(20):
        left = rod_kernels.push_apart(rods, 12, 10.0, 50)
    assert left < 0.2
    np.testing.assert_allclose(rods.mean(axis=0)[:2], before.mean(axis=0)[:2], atol=1e-6)
    assert not np.allclose(rods, before)


def test_a_cell_that_others_cut_keeps_its_largest_part_and_slivers_go():
    owner = np.zeros((12, 12), np.int32)
    owner[1:4, 1:11] = 5
    owner[1:4, 4] = 2  # cuts it into 9 and 18 px, and is itself a sliver of 3
    owner[8:12, 0:4] = 9
    mask = instances(owner, 6)
    assert mask.max() == 2
    assert (mask[1:4, 5:11] == 1).all() and np.count_nonzero(mask == 1) == 18
    assert (mask[8:12, 0:4] == 2).all() and np.count_nonzero(mask == 2) == 16
