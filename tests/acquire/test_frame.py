"""A frame holds only images that every room accepts; the others are refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.errors import FrameError
from cytoloop.acquire.frame import Frame


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (2, 5, 7)])
def test_gray_images_of_one_or_more_channels_are_taken(dtype: str, shape: tuple[int, ...]):
    frame = Frame(np.ones(shape, dtype), channels=("a", "b")[: len(shape) - 1] if len(shape) == 3 else ("",))
    assert frame.shape == shape[-2:]
    assert frame.channel(0).shape == shape[-2:]


@pytest.mark.parametrize(
    ("pixels", "named"),
    [
        (np.zeros((64, 64, 3), np.uint8), "RGB"),
        (np.zeros((64, 64, 4), np.uint8), "RGB"),
        (np.zeros((64, 64), np.uint32), "uint32.*RGB.*allowed: uint8, uint16"),
        (np.zeros((64, 64), np.float32), "float32.*allowed: uint8, uint16"),
        (np.zeros((64, 64), np.int16), "int16"),
        (np.zeros((64, 64), bool), "bool"),
        (np.zeros((64, 64), ">u2" if np.little_endian else "<u2"), "byte order"),
        (np.zeros((64, 128), np.uint16)[:, ::2], "C-contiguous"),
        (np.zeros(64, np.uint16), "shape"),
        (np.zeros((1, 2, 3, 4), np.uint16), "shape"),
        (np.zeros((0, 64), np.uint16), "1 to 65536 px"),
        ([[1, 2], [3, 4]], "numpy array, got list"),
        (None, "NoneType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_all_other_images_are_refused_by_name(pixels: Any, named: str):
    with pytest.raises(FrameError, match=named):
        Frame(pixels)


def test_every_channel_needs_a_name():
    with pytest.raises(FrameError, match="2 channel"):
        Frame(np.zeros((2, 5, 7), np.uint8), channels=("a",))


def test_a_channel_is_found_by_name_or_index_and_an_unknown_one_names_the_known():
    frame = Frame(np.stack([np.full((4, 6), value, np.uint8) for value in (3, 7)]), channels=("DAPI", "GFP"))
    for which, value in ((0, 3), (1, 7), ("DAPI", 3), ("GFP", 7)):
        assert (frame.channel(which) == value).all()
    assert (frame.channel_index("GFP"), frame.channel_index(1)) == (1, 1)
    for wrong in (2, -1, "gfp", ""):
        with pytest.raises(FrameError, match="the frame has 'DAPI', 'GFP'"):
            frame.channel(wrong)
    with pytest.raises(FrameError, match="Did you mean 'GFP'"):
        frame.channel_index("GFPP")


def test_an_image_of_one_channel_answers_to_its_own_name_and_to_any_index():
    frame = Frame(np.ones((4, 6), np.uint8), channels=("DAPI",))
    assert frame.channel("DAPI") is frame.channel(0) is frame.channel(3) is frame.pixels
    with pytest.raises(FrameError, match="the frame has 'DAPI'"):
        frame.channel("GFP")
