"""Parity: what two masks of the same frame have in common, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.acquire.errors import FrameError
from cytoloop.models.parity import Agreement, compare
from hypothesis import given
from hypothesis import strategies as st


def discs(centres, radius=8, shape=(128, 160)):
    y, x = np.indices(shape)
    mask = np.zeros(shape, np.int32)
    for number, (cy, cx) in enumerate(centres, 1):
        mask[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    return mask


CENTRES = [(20, 20), (20, 60), (60, 20), (60, 80), (100, 120), (100, 40)]


def test_a_mask_agrees_with_itself_whatever_its_cells_are_called():
    mask = discs(CENTRES)
    renamed = np.array([0, 40, 3, 9, 1, 77, 5], np.uint16)[mask]
    parity = compare(mask, renamed)
    assert parity.f1 == {0.5: 1.0, 0.75: 1.0, 0.9: 1.0}
    assert (parity.disagreement, parity.shift_px(100)) == (0.0, 0.0)
    assert parity.failures(Agreement()) == []


def test_a_missed_cell_a_shift_and_a_merge_are_each_seen_as_what_they_are():
    mask = discs(CENTRES)
    area = int((mask == 1).sum())

    missed = compare(mask, discs(CENTRES[1:]))
    assert missed.f1[0.9] == pytest.approx(10 / 11)
    assert missed.px_apart == area
    assert missed.shift_px(100) == 0

    shifted = compare(mask, discs([(y, x + 1) for y, x in CENTRES]))
    assert shifted.f1[0.75] == 1
    assert shifted.f1[0.9] == 0
    assert shifted.shift_px(50) == shifted.shift_px(100) == pytest.approx(1)

    merged_mask = np.where(mask == 2, 1, mask)
    merged = compare(mask, merged_mask)
    assert merged.scores.cells_found == 5
    assert merged.f1[0.5] == pytest.approx(
        2 * 5 / 11
    )  # one of the two reaches an IoU of 0.5 with their union
    assert merged.px_apart == area


def test_each_demand_that_is_not_met_is_named():
    mask = discs(CENTRES)
    (f1_75, f1_90, px) = compare(mask, discs(CENTRES[1:])).failures(Agreement())
    assert f1_75 == "F1@0.75 is 0.9091, needs 0.99"
    assert f1_90 == "F1@0.9 is 0.9091, needs 0.97"
    assert "of the px disagree, allowed 0.50%" in px
    shifted = compare(mask, discs([(y, x + 1) for y, x in CENTRES])).failures(Agreement())
    assert shifted[-1] == "centroids shift by 1.00 px (p99), allowed 0.5"
    assert compare(mask, discs(CENTRES[1:])).failures(Agreement(((0.5, 0.9),), 0.02, 0.1)) == []


def test_frames_without_cells_agree_and_cells_out_of_nothing_do_not():
    empty = np.zeros((40, 50), np.int32)
    parity = compare(empty, empty)
    assert (parity.f1[0.9], parity.disagreement, parity.shift_px(99)) == (1.0, 0.0, 0.0)
    assert parity.failures(Agreement()) == []
    assert compare(empty, discs([(20, 20)], shape=(40, 50))).failures(Agreement())


def test_several_frames_are_judged_together():
    mask, worse = discs(CENTRES), discs(CENTRES[1:])
    together = compare(mask, mask) + compare(mask, worse)
    assert together.scores.cells_true == 12
    assert together.f1[0.9] == pytest.approx(2 * 11 / 23)
    assert together.px == 2 * mask.size
    assert together.shifts_px.size == 11


def test_masks_of_different_frames_are_refused():
    with pytest.raises(FrameError, match="shapes"):
        compare(np.zeros((4, 5), np.int32), np.zeros((5, 4), np.int32))


@given(st.data())
def test_px_are_counted_as_a_loop_over_them_would(data):
    shape = (6, 7)
    one, other = (
        np.array(data.draw(st.lists(st.integers(0, 3), min_size=42, max_size=42))).reshape(shape)
        for _ in range(2)
    )
    parity = compare(one, other)
    partner = {}
    for a in range(1, 4):
        for b in range(1, 4):
            shared = np.sum((one == a) & (other == b))
            if shared and 2 * shared >= np.sum((one == a) | (other == b)):
                partner.setdefault(a, []).append(b)
    if any(len(found) > 1 for found in partner.values()) or len(partner) != len(
        {b for [b] in partner.values()}
    ):
        return  # at exactly 0.5 a cell may have two partners
    apart = sum((a, b) != (0, 0) and partner.get(a) != [b] for a, b in zip(one.flat, other.flat, strict=True))
    assert parity.px_apart == apart
    assert parity.shifts_px.size == len(partner)
