"""Decoders of other families: what a perfect net would answer comes back as the cells it was made from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import ModelError
from cytoloop.models.decoders.boundary import BoundaryDecoder
from cytoloop.models.decoders.boxes import BoxesDecoder
from cytoloop.models.decoders.decoder import Decoder, Grid
from cytoloop.models.decoders.distance import DistanceDecoder
from cytoloop.models.decoders.flows import FlowDecoder
from cytoloop.models.decoders.instanseg import InstansegDecoder
from cytoloop.models.decoders.stardist import StarDistDecoder
from cytoloop.models.scores import score

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
_SPEC = importlib.util.spec_from_file_location("encoders", Path(__file__).with_name("encoders.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
encoders = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(encoders)

FAMILIES = {
    "boundary": (BoundaryDecoder, lambda mask: (encoders.boundary(mask),)),
    "distance": (DistanceDecoder, lambda mask: (encoders.distances(mask),)),
    "stardist": (StarDistDecoder, encoders.stardist),
    "cellpose": (FlowDecoder, lambda mask: (encoders.cellpose(mask),)),
    "instanseg": (
        lambda: InstansegDecoder(classifier=encoders.instanseg_classifier()),
        lambda mask: (encoders.instanseg(mask),),
    ),
    "boxes": (BoxesDecoder, encoders.boxes),
}


def answer_of(encode, mask):
    outputs = encode(mask)
    return tuple(np.ascontiguousarray(output, np.float32) for output in outputs)


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
    make, encode = FAMILIES[request.param]
    return request.param, make(), encode


def test_it_keeps_the_protocol(family):
    assert isinstance(family[1], Decoder)


def test_drawn_cells_come_back(family, draw_nuclei):
    _, decoder, encode = family
    mask = draw_nuclei((160, 200), 14, seed=3)[1]
    found = score(mask, decode(decoder, answer_of(encode, mask), mask.shape).image)
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
    found = score(mask, decode(decoder, answer_of(encode, mask), mask.shape).image)
    assert found.f1[0.5] >= least, name


def test_an_empty_answer_holds_no_cells(family):
    _, decoder, encode = family
    mask = np.zeros((64, 80), np.int32)
    assert decode(decoder, answer_of(encode, mask), mask.shape).count == 0


def test_the_same_answer_gives_the_same_cells_and_stays_as_it_was(family, draw_nuclei):
    _, decoder, encode = family
    mask = draw_nuclei((120, 120), 8, seed=1)[1]
    outputs = answer_of(encode, mask)
    before = [output.copy() for output in outputs]
    one, two = (decode(decoder, outputs, mask.shape) for _ in range(2))
    assert np.array_equal(one.image, two.image)
    assert all(np.array_equal(output, old) for output, old in zip(outputs, before, strict=True))


@pytest.mark.parametrize("damage", ["nan", "channels", "count", "rank"])
def test_answers_of_another_kind_are_refused(family, draw_nuclei, damage):
    name, decoder, encode = family
    outputs = answer_of(encode, draw_nuclei((96, 96), 5)[1])
    if damage == "nan":
        outputs = tuple(np.full_like(output, np.nan) for output in outputs)
    elif damage == "channels":
        few = name in ("stardist", "cellpose")
        outputs = (np.zeros((1, 2 if few else 7, 96, 96), np.float32),)
    elif damage == "count":
        outputs = ()
    else:
        outputs = tuple(output.reshape(-1) for output in outputs)
    with pytest.raises(ModelError):
        decoder.decode(outputs, Grid((96, 96), (1.0, 1.0)))
