"""Measuring cells, against plain sums over their pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cytoloop.acquire.errors import FrameError
from cytoloop.acquire.frame import Frame
from cytoloop.models.labels import Labels
from cytoloop.models.measure import measure
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage


def blobs(shape=(90, 70), seed=0):
    """Return a mask of ragged cells that touch each other and the border."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    image, count = ndimage.label(field > 0.02)
    return Labels(image.astype(np.int32), count)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_column_is_what_summing_over_the_pixels_gives(channels, dtype):
    labels = blobs()
    pixels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, (channels, *labels.image.shape))
    pixels = pixels.astype(dtype)
    frame = Frame(pixels, sequence=7, time_s=2.5, channels=tuple("abc")[:channels], stage_um=(1.0, 2.0))
    found = measure(frame, labels)
    assert (found.sequence, found.time_s, found.stage_um, len(found)) == (7, 2.5, (1.0, 2.0), labels.count)
    for row in range(labels.count):
        y, x = np.nonzero(labels.image == row + 1)
        assert found.area[row] == len(y)
        assert found.yx[row] == pytest.approx([y.mean(), x.mean()])
        assert found.bbox[row].tolist() == [y.min(), x.min(), y.max() + 1, x.max() + 1]
        covariance = np.cov(y, x, bias=True)
        expected = [covariance[0, 0], covariance[1, 1], covariance[0, 1]]
        assert found.moments[row] == pytest.approx(expected, abs=1e-6)
        assert found.mean[row] == pytest.approx(pixels[:, y, x].mean(axis=1))
        assert found.maximum[row].tolist() == pixels[:, y, x].max(axis=1).tolist()


@given(
    arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 4)),
    st.integers(0, 9),
)
def test_scattered_pixels_of_a_label_are_one_cell(image, seed):
    used = np.unique(np.append(image, 0))
    image = np.searchsorted(used, image).astype(np.int32)
    pixels = np.random.default_rng(seed).integers(0, 65536, image.shape).astype(np.uint16)
    found = measure(Frame(pixels), Labels(image, len(used) - 1))
    assert len(found) == len(used) - 1
    for row in range(len(found)):
        y, x = np.nonzero(image == row + 1)
        assert (found.area[row], found.mean[row, 0]) == (len(y), pytest.approx(pixels[y, x].mean()))
        assert found.yx[row] == pytest.approx([y.mean(), x.mean()], abs=1e-12)
        assert found.bbox[row].tolist() == [y.min(), x.min(), y.max() + 1, x.max() + 1]
        assert found.moments[row] == pytest.approx(
            [y.var(), x.var(), np.cov(y, x, bias=True)[0, 1]], abs=1e-9
        )
        assert found.maximum[row, 0] == pixels[y, x].max()


def test_the_shape_of_a_small_cell_is_exact_far_from_the_origin():
    image = np.zeros((40, 30_000), np.int32)
    image[30:33, 29_990:29_998] = 1
    found = measure(Frame(np.ones(image.shape, np.uint8)), Labels(image, 1))
    assert found.yx[0].tolist() == [31.0, 29_993.5]
    assert found.moments[0].tolist() == [2 / 3, 5.25, 0.0]  # (k * k - 1) / 12 for k px in a row


def test_sums_of_a_cell_as_large_as_the_frame_do_not_overflow():
    image = np.ones((2100, 2100), np.int32)
    found = measure(Frame(np.full(image.shape, 65535, np.uint16)), Labels(image, 1))
    assert found.mean[0, 0] == found.maximum[0, 0] == 65535
    assert found.moments[0, :2] == pytest.approx((2100**2 - 1) / 12, rel=1e-12)


def test_images_in_shared_memory_and_slices_of_larger_ones_are_measured_alike():
    labels = blobs()
    pixels = np.random.default_rng(2).integers(0, 256, labels.image.shape).astype(np.uint8)
    expected = measure(Frame(pixels), labels)
    shared = np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape)
    wide = np.repeat(labels.image, 2, axis=1)[:, ::2]
    found = measure(Frame(shared), Labels(wide, labels.count))
    for name in ("yx", "area", "bbox", "mean", "maximum", "moments"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def test_what_the_segmenter_says_of_its_cells_and_of_the_frame_is_passed_on():
    labels = blobs()
    frame = Frame(np.ones(labels.image.shape, np.uint8))
    assert measure(frame, labels).confidence is None and measure(frame, labels).novelty is None
    sure = np.linspace(0, 1, labels.count, dtype=np.float32)
    found = measure(frame, replace(labels, confidence=sure, novelty=1.5))
    assert found.confidence is not None and found.confidence.tolist() == sure.tolist()
    assert found.novelty == 1.5
    with pytest.raises(FrameError, match="confidences of shape"):
        measure(frame, replace(labels, confidence=sure[1:]))


def test_two_cells_that_touch_across_a_row_end_stay_apart():
    image = np.zeros((3, 4), np.int32)
    image[0, 3], image[1, 0] = 1, 1
    found = measure(Frame(np.ones((3, 4), np.uint8)), Labels(image, 1))
    assert found.bbox[0].tolist() == [0, 0, 2, 4]
    assert found.yx[0].tolist() == [0.5, 1.5]


def test_no_cells_give_empty_columns_of_the_right_width():
    frame = Frame(np.ones((2, 8, 8), np.uint8), channels=("a", "b"))
    found = measure(frame, Labels(np.zeros((8, 8), np.int32), 0))
    assert len(found) == 0
    shapes = [column.shape for column in (found.yx, found.bbox, found.mean, found.maximum, found.moments)]
    assert shapes == [(0, 2), (0, 4), (0, 2), (0, 2), (0, 3)]


@pytest.mark.parametrize(
    ("image", "count", "reason"),
    [
        (np.zeros((4, 5), np.int32), 0, "shape"),
        (np.full((4, 4), 3, np.int32), 2, "label 3"),
        (np.full((4, 4), 1, np.int32), 2, "label 2"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(image, count, reason):
    with pytest.raises(FrameError, match=reason):
        measure(Frame(np.ones((4, 4), np.uint8)), Labels(image, count))
