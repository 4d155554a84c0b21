"""A sample with two channels: the same cells at the same moment, other light."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.acquire.simulated import presets
from scipy import ndimage


def two_channels(seed=4, size_px=256):
    microscope = presets.translocation(seed, size_px=size_px)
    planes = {}
    for channel in ("DAPI", "FITC"):
        microscope.channel = channel
        planes[channel] = microscope.snap().astype(float)
    return microscope, planes


def test_channels_show_the_same_moment_and_a_repeated_one_the_next():
    microscope, _ = two_channels()
    microscope.channel = "DAPI"
    microscope.snap()
    truths = [microscope.truth(frame) for frame in range(3)]
    assert [truth.channel for truth in truths] == ["DAPI", "FITC", "DAPI"]
    assert truths[0].time_s == truths[1].time_s < truths[2].time_s == microscope.interval_s
    assert np.array_equal(truths[0].mask, truths[1].mask)


def test_the_light_of_nucleus_and_cytoplasm_is_what_the_truth_says():
    microscope, planes = two_channels()
    truth = microscope.truth(1)
    nuclear, cytoplasmic = microscope.channels["FITC"].amounts(truth.identity)
    assert ((nuclear / cytoplasmic > 0.33) & (nuclear / cytoplasmic < 3.01)).all()
    light = planes["FITC"] - np.median(planes["FITC"])
    inside = ndimage.distance_transform_edt(truth.mask)
    beyond = ndimage.distance_transform_edt(truth.mask == 0)
    nearest = truth.mask[tuple(ndimage.distance_transform_edt(truth.mask == 0, return_indices=True)[1])]
    whole = truth.identity[truth.visible > 0.99]
    assert len(whole) > 3
    measured, true = [], []
    for identity in whole:
        row = truth.identity == identity
        core = light[(truth.mask == identity) & (inside > 2)].mean()
        around = light[(nearest == identity) & (beyond > 2) & (beyond < 6)].mean()
        measured.append(core / around)
        true.append(float((nuclear / cytoplasmic)[row][0]))
    assert measured == pytest.approx(true, rel=0.15)


def test_the_amounts_of_a_cell_stay_and_its_nucleus_is_seen_in_the_other_channel_only():
    microscope, planes = two_channels()
    truth = microscope.truth(0)
    reporter = microscope.channels["FITC"]
    first, again = reporter.amounts(truth.identity), reporter.amounts(truth.identity[::-1])
    assert np.array_equal(first[0], again[0][::-1])
    contrast = {
        name: plane[truth.mask > 0].mean() / plane[truth.mask == 0].mean() for name, plane in planes.items()
    }
    assert contrast["DAPI"] > contrast["FITC"]
