"""Decoders of other families: what a perfect net would answer comes back as the cells it was made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import ModelError
from cytoloop.models.decoders.decoder import Decoder, Grid
from cytoloop.models.scores import score
from cytoloop.realtime.bench.families import FAMILIES

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def decode(decoder, outputs, shape):
    labels = decoder.decode(outputs, Grid(shape, (1.0, 1.0)))
    assert labels.image.shape == shape
    assert labels.image.dtype == np.int32
    assert np.unique(labels.image[labels.image > 0]).tolist() == list(range(1, labels.count + 1))
    assert labels.confidence is not None
    assert labels.confidence.shape == (labels.count,)
    assert ((labels.confidence >= 0) & (labels.confidence <= 1)).all()
    return labels


@pytest.fixture(params=FAMILIES)
def family(request):
    chosen = FAMILIES[request.param]
    return request.param, chosen.build(), chosen.encode


def test_it_keeps_the_protocol(family):
    assert isinstance(family[1], Decoder)


def test_drawn_cells_come_back(family, draw_nuclei):
    _, decoder, encode = family
    mask = draw_nuclei((160, 200), 14, seed=3)[1]
    found = score(mask, decode(decoder, encode(mask), mask.shape).image)
    assert found.f1[0.5] == 1.0
    assert found.mean_iou[0.5] > 0.9


@pytest.mark.parametrize(
    ("movie", "least"),
    [
        ("Fluo-N2DH-SIM+/01_GT/SEG/man_seg040.tif", 0.95),
        ("Bact-trpL-early/01_GT/SEG/man_seg020.tif", 0.9),
    ],
)
def test_true_masks_of_real_movies_come_back(family, movie, least):
    name, decoder, encode = family
    if name == "instanseg" and "Bact" in movie:
        pytest.skip("its offsets reach 16 px from a seed, and these rods are longer")
    path = DATA / movie
    if not path.is_file():
        pytest.skip("the shared data are not here")
    mask = np.unique(tifffile.imread(path), return_inverse=True)[1].reshape(
        -1, tifffile.imread(path).shape[1]
    )
    mask = mask.astype(np.int32)
    found = score(mask, decode(decoder, encode(mask), mask.shape).image)
    assert found.f1[0.5] >= least, name
    # Outlines of rods are no stars; of all others nearly everything comes back.
    assert found.mean_iou[0.5] >= (0.8 if name == "stardist" and "Bact" in movie else 0.9), name


def test_an_empty_answer_holds_no_cells(family):
    _, decoder, encode = family
    mask = np.zeros((64, 80), np.int32)
    assert decode(decoder, encode(mask), mask.shape).count == 0


def test_the_same_answer_gives_the_same_cells_and_stays_as_it_was(family, draw_nuclei):
    _, decoder, encode = family
    mask = draw_nuclei((120, 120), 8, seed=1)[1]
    outputs = encode(mask)
    before = [output.copy() for output in outputs]
    one, two = (decode(decoder, outputs, mask.shape) for _ in range(2))
    assert np.array_equal(one.image, two.image)
    assert all(np.array_equal(output, old) for output, old in zip(outputs, before, strict=True))


@pytest.mark.parametrize("damage", ["nan", "channels", "count", "rank"])
def test_answers_of_another_kind_are_refused(family, draw_nuclei, damage):
    name, decoder, encode = family
    outputs = encode(draw_nuclei((96, 96), 5)[1])
    if damage == "nan":
        outputs = tuple(np.full_like(output, np.nan) for output in outputs)
    elif damage == "channels":
        few = name in ("stardist", "cellpose", "omnipose")
        outputs = (np.zeros((1, 2 if few else 7, 96, 96), np.float32),)
    elif damage == "count":
        outputs = ()
    else:
        outputs = tuple(output.reshape(-1) for output in outputs)
    with pytest.raises(ModelError):
        decoder.decode(outputs, Grid((96, 96), (1.0, 1.0)))
