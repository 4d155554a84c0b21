"""What every registered segmenter must do."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import tifffile
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.plugins import find_class, known_names
from cytoloop.models.segmenter import Remembering, Segmenter

SHAPE = (120, 150)


@pytest.fixture(params=known_names("segmenters"))
def make(request, tmp_path):
    """Return a function that builds the segmenter anew."""
    options = {}
    if request.param == "given":
        for number in range(3):
            tifffile.imwrite(tmp_path / f"man_seg{number:03d}.tif", np.eye(*SHAPE, dtype=np.uint16) * 5)
        options["path"] = str(tmp_path)
    if request.param == "paired":
        options = {"nuclei": {"use": "classical"}, "cells": {"ring_px": 4}}
    if request.param == "process":
        options = {"worker": str(tmp_path / "worker.py")}
        (tmp_path / "worker.py").write_text("load = lambda: lambda image: (image > 150) * 7")
    return lambda: find_class("segmenters", request.param)(**options)


@pytest.fixture
def frames(draw_nuclei):
    return [Frame(draw_nuclei(SHAPE, 6, seed=k)[0], sequence=k, axes={"time": k}) for k in range(3)]


def test_it_keeps_the_protocol(make):
    assert isinstance(make(), Segmenter)


def test_labels_are_1_to_count_each_used_in_the_frame_s_shape(make, frames):
    segmenter = make()
    for frame in frames:
        labels = segmenter.segment(frame)
        assert labels.image.shape == SHAPE
        assert labels.image.dtype == np.int32
        assert np.unique(labels.image[labels.image > 0]).tolist() == list(range(1, labels.count + 1))


def test_the_same_frames_give_the_same_labels_and_stay_as_they_were(make, frames):
    before = [frame.pixels.copy() for frame in frames]
    first, second = make(), make()
    for frame in frames:
        assert np.array_equal(first.segment(frame).image, second.segment(frame).image)
    assert all(np.array_equal(frame.pixels, old) for frame, old in zip(frames, before, strict=True))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_constant_image_is_no_reason_to_fail(make, dtype):
    make().segment(Frame(np.full(SHAPE, 200, dtype), axes={"time": 0}))


def test_one_that_remembers_goes_on_elsewhere_as_if_it_had_seen_all_frames(make, frames):
    live, other = make(), make()
    if not isinstance(live, Remembering):
        pytest.skip("it looks at each frame alone")
    for frame in frames[:2]:
        live.segment(frame)
        memory = msgspec.json.decode(msgspec.json.encode(live.memory(frame)))
        other.recall(replace(frame, pixels=np.zeros_like(frame.pixels)), memory)
    assert other.memory(frames[1]) == live.memory(frames[1])
    assert np.array_equal(live.segment(frames[2]).image, other.segment(frames[2]).image)


def test_one_that_remembers_can_forget(make, frames):
    used, fresh = make(), make()
    if not isinstance(used, Remembering):
        pytest.skip("it looks at each frame alone")
    for frame in frames:
        used.segment(frame)
    used.reset()
    assert np.array_equal(used.segment(frames[0]).image, fresh.segment(frames[0]).image)
    assert used.memory(frames[0]) == fresh.memory(frames[0])
