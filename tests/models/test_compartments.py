"""Nucleus and cytoplasm measured, against plain means over their pixels."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.acquire.errors import FrameError
from cytoloop.acquire.frame import Frame
from cytoloop.models.compartments import measure_cells
from cytoloop.models.labels import Labels, Nuclei
from scipy import ndimage

NAMES = ("DAPI", "GFP", "Cy5")


def cells_with_nuclei(seed=0, shape=(90, 70)):
    """Return ragged cells; most have a nucleus, some have none, one is all nucleus."""
    rng = np.random.default_rng(seed)
    image, count = ndimage.label(ndimage.gaussian_filter(rng.normal(size=shape), 3) > 0.02)
    inside = ndimage.gaussian_filter(rng.normal(size=shape), 2) > 0.02
    inside |= image == 1
    nuclei = np.where(inside & (image != 2), image, 0).astype(np.int32)
    per_cell = np.array([(nuclei == cell).any() for cell in range(1, count + 1)], np.int32)
    return Labels(image.astype(np.int32), count, nuclei=Nuclei(nuclei, per_cell))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_mean_is_that_of_the_pixels_of_nucleus_and_cytoplasm(channels, dtype):
    labels = cells_with_nuclei()
    assert labels.count > 8
    shape = (channels, *labels.image.shape)
    pixels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    found = measure_cells(Frame(pixels if channels > 1 else pixels[0], channels=NAMES[:channels]), labels)
    assert found.channels == NAMES[:channels]
    parts = found.compartments
    empty = 0
    for row in range(labels.count):
        cell = labels.image == row + 1
        nucleus = labels.nuclei.image == row + 1
        for mask, area, mean in (
            (nucleus, parts.nuclear_area[row], parts.nuclear_mean[row]),
            (cell & ~nucleus, parts.cytoplasm_area[row], parts.cytoplasm_mean[row]),
        ):
            assert area == mask.sum()
            if mask.any():
                assert mean == pytest.approx(pixels[:, mask].mean(axis=1), rel=1e-12)
            else:
                empty += 1
                assert np.isnan(mean).all()
        assert found.mean[row] == pytest.approx(pixels[:, cell].mean(axis=1))
    assert empty >= 2
    assert parts.nuclei.tolist() == labels.nuclei.per_cell.tolist()


def test_labels_without_nuclei_are_measured_as_whole_cells():
    labels = cells_with_nuclei()
    found = measure_cells(
        Frame(np.ones(labels.image.shape, np.uint8), channels=("GFP",)), Labels(labels.image, labels.count)
    )
    assert found.compartments is None
    assert found.channels == ("GFP",)


def test_no_cells_give_empty_columns_of_the_right_width():
    empty = np.zeros((8, 9), np.int32)
    labels = Labels(empty, 0, nuclei=Nuclei(empty, np.zeros(0, np.int32)))
    found = measure_cells(Frame(np.ones((2, 8, 9), np.uint8), channels=("a", "b")), labels)
    assert found.compartments.nuclear_mean.shape == found.compartments.cytoplasm_mean.shape == (0, 2)


def test_a_nucleus_that_does_not_fit_its_cell_is_refused():
    cells = np.array([[1, 1, 0, 2]], np.int32)
    for nuclei, per_cell, named in (
        ([[0, 1, 1, 0]], [1, 0], "within its cell"),
        ([[2, 0, 0, 0]], [1, 0], "within its cell"),
        ([[1, 0, 0]], [1, 0], "nuclei of"),
        ([[1, 0, 0, 0]], [1], "1 cells"),
    ):
        labels = Labels(cells, 2, nuclei=Nuclei(np.array(nuclei, np.int32), np.array(per_cell, np.int32)))
        with pytest.raises(FrameError, match=named):
            measure_cells(Frame(np.ones((1, 4), np.uint8)), labels)
