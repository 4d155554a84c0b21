"""The decoder of our own nets, on masks that are encoded as a perfect net would answer."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import ModelError
from cytoloop.models.decoders import core as core_module
from cytoloop.models.decoders import enlarge, flood, holes
from cytoloop.models.decoders.core import CoreDecoder
from cytoloop.models.decoders.decoder import Decoder, Grid
from cytoloop.models.scores import match
from cytoloop.models.training.targets import CAP_PX, depths
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

DATA = Path(__file__).parents[3] / "shared" / "data"


def logits(probability):
    probability = np.clip(probability, 0.02, 0.98)
    return np.log(probability / (1 - probability)).astype(np.float32)


def encoded(mask, grid=1, measured=None):
    """Return what a perfect net with so many frame px per output px would say of a mask."""
    measured = measured or depths(mask)
    inside = (mask > 0).astype(np.float64)
    core = np.minimum(measured.depth / np.clip(measured.deepest[mask], 1e-3, CAP_PX * grid), 1) * inside
    maps = []
    for plane in (inside, core):
        plane = np.pad(plane, [(0, -n % grid) for n in plane.shape], mode="edge")
        blocks = plane.reshape(plane.shape[0] // grid, grid, plane.shape[1] // grid, grid)
        maps.append(logits(blocks.mean(axis=(1, 3))))
    return (np.stack([*maps, np.zeros_like(maps[0])])[np.newaxis],)


def back(mask, grid=1, **options):
    return CoreDecoder(**options).decode(encoded(mask, grid), Grid(mask.shape, (float(grid), float(grid))))


def discs(shape, *places):
    """Return a mask of discs (y, x, radius); later ones lie below."""
    row, column = np.indices(shape)
    mask = np.zeros(shape, np.int32)
    for number, (y, x, radius) in enumerate(places, 1):
        mask[(mask == 0) & ((row - y) ** 2 + (column - x) ** 2 <= radius**2)] = number
    return mask


def test_it_keeps_the_protocol():
    assert isinstance(CoreDecoder(), Decoder)


# --- masks of real cells, there and back -----------------------------------------------------------------------


@cache
def real(kind):
    """Return masks of real cells, cut out, and the depths that they are encoded by."""
    if kind == "nuclei":
        with (DATA / "DSB2018" / "index.csv").open() as file:
            names = [row["id"] for row in csv.DictReader(file) if row["category"] == "fluorescence"]
        files = [DATA / "DSB2018" / "masks" / f"{name}.tif" for name in names[::40]]
    else:
        folder, every = {
            "spread cells": ("Usiigaci-PhC/masks", 9),
            "rods": ("Bact-trpL-early/01_GT/SEG", 15),
        }[kind]
        files = sorted((DATA / folder).glob("*.tif"))[::every]
    masks = []
    for file in files:
        mask = tifffile.imread(file)
        y, x = (int(np.median(place)) for place in np.nonzero(mask))
        mask = mask[max(y - 256, 0) : y + 256, max(x - 256, 0) : x + 256]
        truth = np.searchsorted(np.unique(np.append(mask, 0)), mask).astype(np.int32)
        masks.append((truth, depths(truth)))
    return masks


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")
@pytest.mark.parametrize(
    ("kind", "grid", "least_iou", "least_f1"),
    [
        ("nuclei", 1, 0.94, 0.97),
        ("nuclei", 2, 0.92, 0.96),
        ("spread cells", 1, 0.96, 0.98),
        ("spread cells", 2, 0.95, 0.97),
        ("spread cells", 4, 0.92, 0.95),
        ("rods", 1, 0.99, 1.0),
        ("rods", 2, 0.98, 1.0),
        ("rods", 4, 0.93, 0.95),
    ],
)
def test_real_masks_come_back_from_grids_of_1_2_and_4_px(kind, grid, least_iou, least_f1):
    ious, matched, cells = [], 0, 0
    for truth, measured in real(kind):
        outputs = encoded(truth, grid, measured)
        found = CoreDecoder().decode(outputs, Grid(truth.shape, (float(grid), float(grid))))
        overlaps = match(truth, found.image)
        best = np.zeros(len(overlaps.truth))
        np.maximum.at(best, overlaps.row, overlaps.iou)
        ious += best.tolist()
        matched += len(overlaps.at(0.5).iou)
        cells += len(overlaps.truth) + found.count
    assert len(ious) > 30
    assert np.mean(ious) >= least_iou
    assert 2 * matched / cells >= least_f1


# --- what every result is --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    pitch=st.tuples(
        st.sampled_from([0.5, 1.0, 1.41, 2.0, 2.83, 7.5, 16.0]), st.sampled_from([0.5, 0.7, 2.0, 5.66])
    ),
    smooth=st.sampled_from([0.0, 1.0, 2.5]),
)
def test_any_maps_give_labels_that_are_1_to_count_by_their_first_px(seed, shape, pitch, smooth):
    random = np.random.default_rng(seed)
    maps = ndimage.gaussian_filter(random.normal(size=(1, 3, *shape)), (0, 0, smooth, smooth))
    maps = (maps * 6 / maps.std()).astype(np.float32)
    frame = tuple(max(1, round(n * p)) for n, p in zip(shape, pitch, strict=True))
    decoder = CoreDecoder(smallest=0, smallest_px=0, doubtful=0)
    labels = decoder.decode((maps,), Grid(frame, pitch))
    assert labels.image.shape == frame and labels.image.dtype == np.int32
    used, first = np.unique(labels.image, return_index=True)
    assert used[used > 0].tolist() == list(range(1, labels.count + 1))
    assert (np.diff(first[used > 0]) > 0).all()
    assert labels.confidence is not None and labels.confidence.dtype == np.float32
    assert labels.confidence.shape == (labels.count,)
    assert ((labels.confidence >= 0) & (labels.confidence <= 1)).all()
    maps.flags.writeable = False
    again = CoreDecoder(smallest=0, smallest_px=0, doubtful=0).decode((maps,), Grid(frame, pitch))
    assert np.array_equal(again.image, labels.image) and np.array_equal(again.confidence, labels.confidence)


def test_frames_before_change_nothing_and_are_not_changed():
    decoder = CoreDecoder()
    masks = [
        discs((60, 80), (20, 20, 12), (40, 55, 15)),
        discs((60, 80), (30, 30, 9)),
        discs((40, 40), (20, 20, 9)),
    ]
    given = [(encoded(mask, 2), Grid(mask.shape, (2.0, 2.0))) for mask in masks]
    kept = [decoder.decode(*each) for each in given]
    for labels, each in zip(kept, given, strict=True):
        alone = CoreDecoder().decode(*each)
        assert np.array_equal(labels.image, alone.image) and np.array_equal(
            labels.confidence, alone.confidence
        )
    assert [labels.count for labels in kept] == [2, 1, 1]


@pytest.mark.parametrize("level", [-9.0, 9.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 5)])
def test_an_even_map_is_no_cell_or_one(level, shape):
    frame = (4 * shape[0], 4 * shape[1])
    labels = CoreDecoder(smallest_px=0).decode(
        (np.full((1, 3, *shape), level, np.float32),), Grid(frame, (4.0, 4.0))
    )
    assert labels.count == (level > 0)
    assert (labels.image == labels.count).all()


# --- outlines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pitch", [(0.5, 0.5), (1.0, 1.0), (2.0, 2.0), (2.83, 1.41), (7.5, 4.2), (16.0, 16.0)]
)
def test_outlines_lie_where_the_foreground_crosses_its_threshold_at_any_pitch(pitch):
    # A cone has straight flanks, so that interpolating between any px of it gives its height.
    height, width = 30, 36
    y, x = np.indices((height, width))
    radius = 11.3
    distance = np.hypot(y - 14.2, x - 17.9)
    maps = np.stack([radius - distance, 4 - 0.1 * distance, 0 * distance])[np.newaxis].astype(np.float32)
    frame = (int(height * pitch[0]), int(width * pitch[1]))
    labels = CoreDecoder().decode((maps,), Grid(frame, pitch))
    at_y = (np.indices(frame)[0] + 0.5) / pitch[0] - 0.5
    at_x = (np.indices(frame)[1] + 0.5) / pitch[1] - 0.5
    from_edge = np.hypot(at_y - 14.2, at_x - 17.9) - radius
    assert labels.count == 1
    assert (labels.image[from_edge < -0.06] == 1).all() and (labels.image[from_edge > 0.06] == 0).all()


def test_outlines_of_a_coarse_grid_are_no_staircases():
    mask = discs((160, 160), (80.3, 79.1, 47.0))
    found = back(mask, 8)
    assert match(mask, found.image).iou.max() > 0.97
    steps = np.abs(np.diff([np.flatnonzero(row).min() for row in found.image[60:100]]))
    assert steps.max() <= 2  # repeating px of the grid would step by 8


def test_the_line_between_two_cells_is_at_frame_resolution_too():
    row, column = np.indices((120, 160))
    mask = np.where(row + 0.5 * column < 100, 1, 2).astype(np.int32)
    found = back(mask, 8)
    assert found.count == 2
    assert (found.image == mask).mean() > 0.985


def test_a_shifted_frame_gives_shifted_cells():
    mask = discs((80, 96), (30, 30, 12), (30, 52, 11), (60, 60, 9))
    base = back(mask, 4).image
    moved = back(np.roll(mask, (8, 12), (0, 1)), 4).image
    assert np.array_equal(moved[8:, 12:], base[:-8, :-12])


# --- holes and specks ------------------------------------------------------------------------------------------


def test_a_hole_in_a_cell_is_filled_and_one_between_cells_is_not():
    ring = discs((60, 60), (30, 30, 22))
    ring[discs((60, 60), (30, 30, 6)) > 0] = 0
    assert back(ring).image[30, 30] == 1
    column = np.arange(60)
    halves = np.where(ring > 0, np.where(column < 30, 1, 2), 0).astype(np.int32)
    found = back(halves)
    assert found.count == 2 and found.image[30, 30] == 0
    at_edge = ring.copy()
    at_edge[27:34, :30] = 0
    assert back(at_edge).image[30, 30] == 0


def test_a_hole_larger_than_the_cell_around_it_stays():
    ring = discs((90, 90), (45, 45, 40))
    ring[discs((90, 90), (45, 45, 34)) > 0] = 0
    found = back(ring)
    assert found.count == 1 and found.image[45, 45] == 0


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 3),
        ({"smallest": 0.0}, 4),
        ({"smallest": 0.3}, 2),
        ({"smallest": 0.0, "smallest_px": 60}, 3),
    ],
)
def test_what_is_too_small_for_a_cell_is_dropped(options, count):
    mask = discs((100, 100), (30, 30, 20), (70, 70, 18), (20, 80, 8), (80, 15, 3))
    assert back(mask, 1, **options).count == count


# --- parting ---------------------------------------------------------------------------------------------------


def test_a_shallow_valley_parts_cells_only_below_its_persistence():
    maps = np.full((1, 3, 20, 40), 4.0, np.float32)
    maps[0, 1] = 3.0
    maps[0, 1, :, 20] = 0.5
    counts = {
        p: CoreDecoder(persistence=p).decode((maps,), Grid((20, 40), (1.0, 1.0))).count for p in (2.3, 2.7)
    }
    assert counts == {2.3: 2, 2.7: 1}


# --- confidence ------------------------------------------------------------------------------------------------


def test_a_cell_that_the_net_is_less_sure_of_has_less_confidence():
    mask = discs((60, 150), (30, 30, 20), (30, 75, 20), (30, 120, 20))
    (maps,) = encoded(mask)
    for number, share in ((2, 0.6), (3, 0.3)):
        maps[0, 0][mask == number] *= share
    labels = CoreDecoder().decode((maps,), Grid(mask.shape, (1.0, 1.0)))
    assert labels.confidence is not None
    one, two, three = (labels.confidence[labels.image[30, x] - 1] for x in (30, 75, 120))
    assert one > 0.9 and one > two > three > 0.4
    assert CoreDecoder(doubtful=0.7).decode((maps,), Grid(mask.shape, (1.0, 1.0))).count == 2


def test_cells_that_are_hardly_apart_have_less_confidence_than_those_that_clearly_are():
    def parted(valley):
        maps = np.full((1, 3, 20, 40), 5.0, np.float32)
        maps[0, 1, :, 20] = 5.0 - valley
        return CoreDecoder(persistence=0.5).decode((maps,), Grid((20, 40), (1.0, 1.0))).confidence

    rising = [parted(valley) for valley in (1.5, 3.0, 6.0)]
    assert all(sure.shape == (2,) for sure in rising)
    assert rising[0].max() < rising[1].min() and rising[1].max() < rising[2].min()


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ((), "one output"),
        ((np.zeros((1, 3, 8, 8), np.float32),) * 2, "one output"),
        ((np.zeros((1, 2, 8, 8), np.float32),), r"\(1, 2, 8, 8\)"),
        ((np.zeros((2, 3, 8, 8), np.float32),), r"\(2, 3, 8, 8\)"),
        ((np.zeros((3, 8, 8), np.float32),), r"\(3, 8, 8\)"),
        ((np.zeros((1, 3, 8, 4), np.float32),), "along x"),
        ((np.zeros((1, 3, 16, 8), np.float32),), "along y"),
        ((np.zeros((1, 3, 0, 8), np.float32),), "along y"),
        ((np.full((1, 3, 8, 8), np.nan, np.float32),), "NaN"),
        ((np.where(np.arange(192).reshape(1, 3, 8, 8) == 70, np.inf, 0).astype(np.float32),), "infinity"),
    ],
)
def test_outputs_of_another_kind_or_broken_ones_are_refused(outputs, reason):
    with pytest.raises(ModelError, match=reason):
        CoreDecoder().decode(outputs, Grid((16, 16), (2.0, 2.0)))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("foreground", 0.0),
        ("foreground", 1.0),
        ("persistence", 0.0),
        ("persistence", 16.0),
        ("smallest", -0.1),
        ("smallest", 1.0),
        ("smallest_px", -1.0),
        ("smallest_px", float("nan")),
        ("doubtful", 1.0),
    ],
)
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(ValueError, match=option):
        CoreDecoder(**{option: value})


def test_a_built_decoder_has_nothing_left_to_compile():
    decoder = CoreDecoder()
    kernels = [
        kernel
        for module in (core_module, enlarge, flood, holes)
        for kernel in vars(module).values()
        if hasattr(kernel, "signatures")
    ]
    before = [len(kernel.signatures) for kernel in kernels]
    mask = discs((60, 70), (20, 20, 12), (20, 43, 11), (50, 50, 2))
    assert decoder.decode(encoded(mask, 2), Grid(mask.shape, (2.0, 2.0))).count == 2
    assert len(kernels) > 10 and [len(kernel.signatures) for kernel in kernels] == before
