"""Measuring cells, against plain sums over their pixels."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.acquire.errors import FrameError
from cytoloop.acquire.frame import Frame
from cytoloop.models.labels import Labels
from cytoloop.models.measure import measure
from scipy import ndimage


def blobs(shape=(90, 70), seed=0):
    """Return a mask of ragged cells that touch each other and the border."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    image, count = ndimage.label(field > 0.02)
    return Labels(image.astype(np.int32), count)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_column_is_what_summing_over_the_pixels_gives(channels):
    labels = blobs()
    pixels = np.random.default_rng(1).integers(0, 65536, (channels, *labels.image.shape)).astype(np.uint16)
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
