"""Resizing: means when shrinking, lines when enlarging, and nothing shifted."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.models.resize import resize, warm_up
from hypothesis import given
from hypothesis import strategies as st

SIDES = st.integers(1, 40)
WANTED = st.integers(1, 60)


def ramp(shape, slope_y=3.0, slope_x=-7.0):
    """Return a plane that rises evenly, as a function of the position of a pixel's centre in 0..1."""
    y, x = ((np.arange(n) + 0.5) / n for n in shape)
    return (1000 + slope_y * y[:, np.newaxis] + slope_x * x).astype(np.float32)


@given(SIDES, SIDES, WANTED, WANTED, st.sampled_from([np.uint8, np.uint16, np.float32]))
def test_a_constant_stays_one_at_any_size(height, width, tall, wide, dtype):
    out = resize(np.full((height, width), 200, dtype), (tall, wide))
    assert out.shape == (tall, wide) and out.dtype == np.float32
    assert out == pytest.approx(np.full((tall, wide), 200.0), rel=1e-6)


@given(SIDES, SIDES, WANTED, WANTED)
def test_a_ramp_keeps_its_place_and_slope_away_from_the_edges(height, width, tall, wide):
    out, expected = resize(ramp((height, width)), (tall, wide)), ramp((tall, wide))
    # Beyond the centres of the outermost pixels there is nothing to go by when enlarging.
    y, x = -(-tall // height), -(-wide // width)
    inner = (slice(y, -y), slice(x, -x))
    assert out[inner] == pytest.approx(expected[inner], abs=2e-3)


@given(SIDES, SIDES, st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_shrinking_looks_at_all_pixels_and_makes_up_none(height, width, tall, wide, seed):
    tall, wide = min(tall, height), min(wide, width)
    plane = np.random.default_rng(seed).integers(0, 65536, (height, width)).astype(np.uint16)
    out = resize(plane, (tall, wide))
    assert out.min() >= plane.min() * (1 - 1e-6) and out.max() <= plane.max() * (1 + 1e-6)
    # Each pixel moves the result, upwards and by no more than its share.
    y, x = seed % height, (7 * seed) % width
    brighter = plane.astype(np.float32)
    brighter[y, x] += 10_000
    gain = (resize(brighter, (tall, wide)) - out).sum() / 10_000
    assert 0.2 * tall * wide / (height * width) < gain < 1.3


def test_blocks_of_whole_pixels_become_their_means():
    plane = np.random.default_rng(3).integers(0, 65536, (12, 15)).astype(np.uint16)
    blocks = plane.reshape(4, 3, 3, 5).astype(float).mean(axis=(1, 3))
    assert resize(plane, (4, 3)) == pytest.approx(blocks, rel=1e-6)


def test_the_same_size_gives_the_same_values():
    plane = np.random.default_rng(4).integers(0, 65536, (9, 11)).astype(np.uint16)
    assert np.array_equal(resize(plane, (9, 11)), plane)


def test_enlarging_draws_lines_between_pixels():
    out = resize(np.array([[0, 8]], np.uint8), (1, 8))
    assert out[0].tolist() == [0, 0, 1, 3, 5, 7, 8, 8]


def test_a_mirrored_plane_gives_the_mirrored_result():
    plane = np.random.default_rng(5).normal(size=(31, 23)).astype(np.float32)
    for shape in ((11, 9), (40, 50)):
        assert resize(plane[::-1, ::-1], shape) == pytest.approx(resize(plane, shape)[::-1, ::-1], abs=1e-5)


def test_normalising_maps_low_to_0_and_high_to_1_and_cuts_what_is_far_off():
    plane = np.array([[100, 300, 200, 0, 65535]], np.uint16)
    out = resize(plane, (1, 5), 100, 300)
    assert out[0].tolist() == [0.0, 1.0, 0.5, -0.5, 4.0]
    assert resize(plane, (1, 5), 1000, 1100)[0, 3] == -1.0


def test_read_only_and_strided_planes_give_what_plain_ones_do():
    plane = np.random.default_rng(6).integers(0, 256, (20, 30)).astype(np.uint8)
    read_only = np.frombuffer(plane.tobytes(), np.uint8).reshape(20, 30)
    expected = resize(plane, (7, 9))
    assert np.array_equal(resize(read_only, (7, 9)), expected)
    assert np.array_equal(resize(np.asfortranarray(plane), (7, 9)), expected)
    assert plane.flags.writeable


@pytest.mark.parametrize(
    ("plane", "shape", "bounds", "reason"),
    [
        (np.zeros((4, 4)), (2, 2), (), "float64"),
        (np.zeros((1, 4, 4), np.uint8), (2, 2), (), "1, 4, 4"),
        (np.zeros((4, 4), np.uint8), (2, 0), (), "1 px or more"),
        (np.zeros((0, 4), np.uint8), (2, 2), (), "1 px or more"),
        (np.zeros((4, 4), np.uint8), (2, 2), (3, 3), "below"),
        (np.zeros((4, 4), np.uint8), (2, 2), (float("nan"), 3), "below"),
        (np.zeros((4, 4), np.uint8), (2, 2), (3,), "below"),
    ],
)
def test_what_cannot_be_resized_is_named(plane, shape, bounds, reason):
    with pytest.raises(ValueError, match=reason):
        resize(plane, shape, *bounds)


def test_warming_up_leaves_nothing_to_compile():
    warm_up()
    from cytoloop.models.resize import _resize

    known = len(_resize.signatures)
    for dtype in (np.uint8, np.uint16, np.float32):
        resize(np.zeros((5, 6), dtype), (3, 9), 1, 2)
    assert known == len(_resize.signatures) == 3
