"""Nuclei and cells paired, against counting every pair of numbers by itself."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.acquire.errors import FrameError
from cytoloop.models.labels import Labels
from cytoloop.models.pairing import pair, paired, ring
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage


def labels_of(rows):
    image = np.array([[int(letter) for letter in row] for row in rows], np.int32)
    return Labels(image, int(image.max()))


def renumbered(image):
    """Return a mask in which the numbers 1..count are all used."""
    present, image = np.unique(np.concatenate([[0], image.ravel()]), return_inverse=True)
    return Labels(image[1:].astype(np.int32), len(present) - 1)


masks = arrays(np.int32, (9, 11), elements=st.integers(0, 5)).map(
    lambda image: Labels(renumbered(image).image.reshape(9, 11), renumbered(image).count)
)


@given(nuclei=masks, cells=masks, share=st.sampled_from([0.01, 0.3, 0.5, 0.75, 1.0]))
def test_each_nucleus_goes_to_the_cell_that_holds_most_of_it(nuclei, cells, share):
    pairs = pair(nuclei, cells, share)
    for number in range(1, nuclei.count + 1):
        under = cells.image[nuclei.image == number]
        held = {
            cell: int((under == cell).sum()) for cell in range(1, cells.count + 1) if (under == cell).any()
        }
        most = max(held.values(), default=0)
        assert pairs.share[number - 1] == pytest.approx(most / len(under))
        assert pairs.cell[number - 1] == (
            min(cell for cell, px in held.items() if px == most) if most / len(under) >= share else 0
        )
    assert pairs.per_cell.tolist() == [(pairs.cell == cell).sum() for cell in range(1, cells.count + 1)]
    assert pairs.outside.tolist() == [n for n in range(1, nuclei.count + 1) if pairs.cell[n - 1] == 0]


def test_cells_without_a_nucleus_with_several_and_nuclei_outside_are_told():
    nuclei = labels_of(["1100022000", "1100022033", "0004400000", "0000000055"])
    cells = labels_of(["1111111000", "1111111000", "2222200003", "2222200003"])
    pairs = pair(nuclei, cells)
    assert pairs.cell.tolist() == [1, 1, 0, 2, 3]
    assert pairs.share.tolist() == [1.0, 1.0, 0.0, 1.0, 0.5]
    assert pairs.multinucleate.tolist() == [1]
    assert pairs.outside.tolist() == [3]
    assert pair(nuclei, cells, 0.6).empty.tolist() == [3]


def test_a_paired_nucleus_bears_the_number_of_its_cell_and_ends_where_that_does():
    nuclei = labels_of(["0110", "0110", "0220"])
    cells = labels_of(["2220", "2200", "0011"])
    found = paired(nuclei, cells, pair(nuclei, cells))
    assert found.image.tolist() == [[0, 2, 2, 0], [0, 2, 0, 0], [0, 0, 1, 0]]
    assert found.per_cell.tolist() == [1, 1]


def test_no_nuclei_or_no_cells_are_no_reason_to_fail():
    some, none = labels_of(["011"]), Labels(np.zeros((1, 3), np.int32), 0)
    assert pair(none, some).per_cell.tolist() == [0]
    assert pair(some, none).cell.tolist() == [0]
    assert paired(some, none, pair(some, none)).image.max() == 0
    assert len(pair(none, none).cell) == 0


@pytest.mark.parametrize(
    ("nuclei", "cells", "named"),
    [
        (labels_of(["01"]), labels_of(["011"]), r"nuclei of \(1, 2\) px"),
        (
            Labels(np.array([[0, 3]], np.int32), 2),
            labels_of(["01"]),
            "2 nuclei and 1 cells hold other numbers",
        ),
        (labels_of(["01"]), Labels(np.array([[0, -1]], np.int32), 1), "hold other numbers"),
    ],
)
def test_masks_that_do_not_fit_are_refused(nuclei, cells, named):
    with pytest.raises(FrameError, match=named):
        pair(nuclei, cells)


@given(nuclei=masks, width=st.floats(1, 6))
def test_a_ring_holds_every_px_within_its_width_of_the_nearest_nucleus(nuclei, width):
    grown = ring(nuclei.image, width)
    y, x = np.nonzero(nuclei.image)
    for at in np.ndindex(nuclei.image.shape):
        squared = (y - at[0]) ** 2 + (x - at[1]) ** 2
        nearest = squared == squared.min(initial=10**6)
        within = squared.min(initial=10**6) <= width * width
        assert grown[at] == (nuclei.image[y, x][nearest].min() if within else 0)


def test_a_ring_on_a_large_image_agrees_with_the_distance_transform():
    blobs, count = ndimage.label(
        ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(300, 400)), 4) > 0.06
    )
    assert count > 50
    distance = ndimage.distance_transform_edt(blobs == 0)
    grown = ring(blobs.astype(np.int32), 5.0)
    assert np.array_equal(grown > 0, distance <= 5.0)
    assert np.array_equal(grown[blobs > 0], blobs[blobs > 0])
    alone = ndimage.grey_dilation(blobs, size=11) == ndimage.grey_erosion(
        np.where(blobs == 0, 999, blobs), size=11
    )
    assert np.array_equal(
        grown[alone & (grown > 0)], ndimage.grey_dilation(blobs, size=11)[alone & (grown > 0)]
    )
