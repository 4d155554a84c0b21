"""The persistence watershed, against thresholds tried one by one and against what the eye says of drawn shapes."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.models.decoders.flood import flood, warm_up
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

EIGHT = np.ones((3, 3), int)
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def maps(draw):
    """Return levels (few, so that there are plateaus, or many), a mask and a persistence."""
    shape = draw(SHAPES)
    most = draw(st.sampled_from([1, 3, 6, 255]))
    level = draw(arrays(np.uint8, shape, elements=st.integers(0, most)))
    inside = draw(arrays(np.bool_, shape, elements=st.sampled_from([True, True, True, False])))
    return level, inside, draw(st.integers(0, most + 2))


def peaks_by_threshold(level, inside, persistence):
    """Return the peaks, each as (pixels, whether it is a cell, the pixels that it can see where it joins a higher one).

    The threshold is lowered one level at a time; wherever parts of the mask join, all but the highest peak end.
    """
    alive, ended = [], []
    for threshold in range(int(level.max(initial=0)), -1, -1):
        parts, count = ndimage.label(inside & (level >= threshold), EIGHT)
        plateaus, n = ndimage.label(inside & (level == threshold), EIGHT)
        for number in range(1, n + 1):
            plateau = plateaus == number
            if not (parts == parts[plateau][0])[inside & (level > threshold)].any():
                alive.append((threshold, plateau))
        for number in range(1, count + 1):
            part = parts == number
            here = [peak for peak in alive if part[peak[1]].any()]
            for top, plateau in sorted(here, key=lambda peak: (peak[0], -peak[1].argmax()))[:-1]:
                alive = [peak for peak in alive if peak[1] is not plateau]
                ended.append((plateau, top - threshold >= persistence, part))
    return ended + [(plateau, True, None) for _, plateau in alive]


@given(maps())
def test_the_peaks_that_stand_out_by_the_persistence_are_the_cells(drawn):
    level, inside, persistence = drawn
    labels, count = flood(*drawn)
    assert np.array_equal(labels > 0, inside)
    assert sorted(set(labels[inside].tolist())) == list(range(1, count + 1))
    cells, others = [], []
    for plateau, stands_out, around in peaks_by_threshold(level, inside, persistence):
        of_peak = set(labels[plateau].tolist())
        assert len(of_peak) == 1
        (cells if stands_out else others).append((of_peak.pop(), around))
    assert sorted(label for label, _ in cells) == list(range(1, count + 1))
    for label, around in others:  # those that do not are part of a cell behind their highest pass
        assert (labels[around] == label).any() and around[labels == label].any()
    for label in range(1, count + 1):
        assert ndimage.label(labels == label, EIGHT)[1] == 1


@given(maps())
def test_every_pixel_is_of_a_peak_that_the_steepest_way_up_leads_to(drawn):
    level, inside, _ = drawn
    labels, _ = flood(level, inside, 0)
    height = np.pad(np.where(inside, level.astype(int), -1), 1, constant_values=-1)
    around = np.pad(labels, 1)
    # How many steps over level ground lead to a pixel with a higher neighbour.
    rises = (ndimage.maximum_filter(height, footprint=EIGHT) > height) & (height >= 0)
    way = np.where(rises, 0, 10_000)
    for _ in range(labels.size):
        for y, x in np.argwhere(height >= 0):
            block = (slice(y - 1, y + 2), slice(x - 1, x + 2))
            level_ground = height[block] == height[y, x]
            way[y, x] = min(way[y, x], way[block][level_ground].min() + 1)
    for y, x in np.argwhere(height >= 0):
        block = (slice(y - 1, y + 2), slice(x - 1, x + 2))
        if way[y, x] == 0:
            ahead = height[block] == height[block].max()
        elif way[y, x] < 10_000:
            ahead = (height[block] == height[y, x]) & (way[block] == way[y, x] - 1)
        else:
            ahead = height[block] == height[y, x]
        assert around[y, x] in around[block][ahead]


@given(maps(), st.integers(0, 3), st.integers(0, 3))
def test_neither_a_wider_frame_nor_a_common_offset_changes_anything(drawn, above, left):
    level, inside, persistence = drawn
    labels, count = flood(*drawn)
    pad = ((above, 1), (left, 2))
    wider, same = flood(np.pad(level, pad, constant_values=77), np.pad(inside, pad), persistence)
    assert same == count and np.array_equal(wider, np.pad(labels, pad))
    raised = level // 2 + 100
    assert np.array_equal(flood(raised, inside, persistence)[0], flood(level // 2, inside, persistence)[0])
    level[~inside] = 255  # what is outside is not looked at
    assert np.array_equal(flood(level, inside, persistence)[0], labels)


@given(maps())
def test_a_mirrored_or_turned_map_has_as_many_cells(drawn):
    level, inside, persistence = drawn
    count = flood(*drawn)[1]
    for turned in (lambda image: image[::-1], lambda image: image[:, ::-1], np.transpose):
        assert flood(turned(level), turned(inside), persistence)[1] == count


@given(maps())
def test_cells_are_numbered_by_their_first_pixel(drawn):
    labels, count = flood(*drawn)
    first = [int(np.argmax(labels.reshape(-1) == label)) for label in range(1, count + 1)]
    assert first == sorted(first)


@settings(max_examples=20)
@given(st.integers(0, 99))
def test_a_higher_persistence_only_joins_cells(seed):
    level = (40 * ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(60, 50)), 2)).clip(-5, 5)
    level = (level * 20 + 128).astype(np.uint8)
    inside = level > 110
    counts = [flood(level, inside, persistence)[1] for persistence in (1, 10, 30, 100, 256)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == ndimage.label(inside, EIGHT)[1] < counts[0]


def depth(*cells, cap=4):
    """Return levels and mask of drawn cells: the distance to each cell's own outline, capped."""
    mask = np.zeros(cells[0].shape, int)
    for number, cell in enumerate(cells, 1):
        mask[cell & (mask == 0)] = number
    distance = sum(
        ndimage.distance_transform_edt(np.pad(mask == n, 1))[1:-1, 1:-1] for n in range(1, mask.max() + 1)
    )
    return (np.minimum(distance / cap, 1) * 255).astype(np.uint8), mask > 0, mask


def disc(y, x, radius, shape=(60, 100)):
    row, column = np.indices(shape)
    return (row - y) ** 2 + (column - x) ** 2 <= radius**2


def box(y0, x0, y1, x1, shape=(60, 100)):
    row, column = np.indices(shape)
    return (row >= y0) & (row < y1) & (column >= x0) & (column < x1)


def agreement(labels, mask):
    """Return the share of px whose cell is the one that most of its drawn cell has."""
    right = sum(np.bincount(labels[mask == number]).max() for number in range(1, mask.max() + 1))
    return right / (mask > 0).sum()


@pytest.mark.parametrize(
    ("cells", "count"),
    [
        pytest.param((disc(30, 30, 15), disc(30, 58, 15)), 2, id="two discs that touch"),
        pytest.param(
            (disc(30, 30, 15) | disc(30, 62, 15) | box(29, 30, 32, 62),), 2, id="discs on a thin neck"
        ),
        pytest.param((disc(30, 30, 15) | disc(30, 62, 15) | box(25, 30, 36, 62),), 1, id="a dumbbell"),
        pytest.param(tuple(box(5 + 8 * k, 5, 13 + 8 * k, 95) for k in range(6)), 6, id="rods side by side"),
        pytest.param(tuple(box(20, 5 + 30 * k, 27, 35 + 30 * k) for k in range(3)), 3, id="rods end to end"),
        pytest.param((disc(30, 50, 25) & ~disc(30, 50, 12),), 1, id="a ring"),
        pytest.param((box(0, 0, 60, 100),), 1, id="all of the frame"),
        pytest.param((box(30, 50, 31, 51), disc(10, 10, 6)), 2, id="a single px beside a disc"),
    ],
)
def test_drawn_cells_are_counted_and_parted_right(cells, count):
    level, inside, mask = depth(*cells)
    labels, found = flood(level, inside, 76)
    assert found == count
    if len(cells) > 1:
        assert agreement(labels, mask) > 0.97


def test_a_bridge_of_one_level_is_shared_out_half_and_half():
    level = np.full((9, 40), 50, np.uint8)
    level[4, 2] = level[4, 37] = 200
    labels, count = flood(level, np.ones(level.shape, np.bool_), 76)
    assert count == 2
    assert (labels[:, :18] == labels[4, 2]).all() and (labels[:, 22:] == labels[4, 37]).all()


def test_a_broad_peak_is_one_cell_and_two_of_them_are_two():
    level = np.full((12, 30), 20, np.uint8)
    level[3:9, 3:12] = 255
    level[3:9, 20:28] = 255
    labels, count = flood(level, np.ones(level.shape, np.bool_), 76)
    assert count == 2
    assert len(np.unique(labels[3:9, 3:12])) == len(np.unique(labels[3:9, 20:28])) == 1
    assert labels[5, 15] in labels[5, [14, 16]]


def test_nothing_inside_gives_no_cells():
    for shape in ((5, 7), (1, 1), (0, 4)):
        labels, count = flood(np.full(shape, 9, np.uint8), np.zeros(shape, np.bool_), 10)
        assert (labels.shape, labels.dtype, count) == (shape, np.int32, 0)


def test_maps_of_different_shapes_are_refused():
    warm_up()
    with pytest.raises(ValueError, match="shape"):
        flood(np.zeros((3, 4), np.uint8), np.zeros((4, 3), np.bool_), 10)
