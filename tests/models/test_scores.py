"""Scores of instance masks: cases worked out by hand, and what must hold of any two masks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from cytoloop.acquire.errors import FrameError
from cytoloop.models.scores import THRESHOLDS, match, overlaps, pool, score
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

masks = arrays(np.int32, (6, 7), elements=st.integers(0, 4))


def mask_of(*rows):
    return np.array([[int(letter) for letter in row] for row in rows])


def best_matching(truth, found, threshold):
    """Return (most pairs, largest sum of IoU) over all matchings, each tried."""
    trues, founds = (sorted(set(mask.ravel().tolist()) - {0}) for mask in (truth, found))
    iou = {
        (t, f): ((truth == t) & (found == f)).sum() / ((truth == t) | (found == f)).sum()
        for t in trues
        for f in founds
    }
    padded = founds + [None] * len(trues)
    best = (0, 0.0)
    for chosen in itertools.permutations(padded, len(trues)):
        values = [iou[pair] for pair in zip(trues, chosen, strict=True) if pair[1] is not None]
        values = [value for value in values if value >= threshold]
        best = max(best, (len(values), sum(values)))
    return best


def test_overlaps_count_every_px_once_background_included():
    truth = mask_of("0077", "0077", "0990")
    found = mask_of("1111", "0022", "0000")
    pairs, counts = overlaps(truth, found)
    assert dict(zip(map(tuple, pairs.tolist()), counts.tolist(), strict=True)) == {
        (0, 0): 4,
        (0, 1): 2,
        (7, 1): 2,
        (7, 2): 2,
        (9, 0): 2,
    }


def test_one_right_one_missed_and_one_that_is_not_there():
    truth = mask_of("11100000", "11100000", "00000222")
    found = mask_of("55500000", "55500000", "00700000")
    scores = score(truth, found)
    assert (scores.cells_true, scores.cells_found) == (2, 2)
    for threshold in THRESHOLDS:
        assert scores.ap[threshold] == pytest.approx(1 / 3)
        assert scores.f1[threshold] == scores.precision[threshold] == scores.recall[threshold] == 0.5
        assert scores.pq[threshold] == 0.5
    assert scores.seg == 0.5


def test_an_iou_counts_from_the_threshold_on_that_it_reaches():
    truth = mask_of("1111100000")
    found = mask_of("1110000000")
    scores = score(truth, found)
    assert {threshold: ap for threshold, ap in scores.ap.items() if ap} == {0.5: 1, 0.55: 1, 0.6: 1}
    assert scores.pq[0.5] == scores.mean_iou[0.5] == scores.seg == pytest.approx(0.6)
    assert math.isnan(scores.mean_iou[0.65])


def test_two_halves_of_a_cell_are_one_match_at_most():
    truth, found = mask_of("1111"), mask_of("3388")
    scores = score(truth, found)
    assert scores.matched.tolist() == [1] + [0] * 8
    assert scores.ap[0.5] == 0.5
    assert scores.seg == 0  # neither covers more than half


def test_two_pairs_are_better_than_the_one_that_overlaps_most():
    truth, found = mask_of("111111112222"), mask_of("555666666660")
    pairs = match(truth, found).at(0.3)
    assert list(zip(pairs.truth, pairs.found, pairs.iou, strict=True)) == [(1, 5, 3 / 8), (2, 6, 3 / 9)]
    assert match(truth, found).at(0.4).iou.tolist() == [5 / 11]


def test_seg_counts_what_covers_most_of_a_cell_even_if_it_covers_another_too():
    truth, found = mask_of("111222"), mask_of("444444")
    scores = score(truth, found)
    assert scores.seg == 0.5
    assert scores.matched[0] == 1


def test_of_nothing_nothing_is_judged_and_what_is_found_in_it_is_wrong():
    nothing = np.zeros((3, 4), np.uint16)
    scores = score(nothing, nothing)
    assert all(math.isnan(value) for value in (*scores.ap.values(), *scores.f1.values(), scores.seg))
    assert score(nothing, np.ones_like(nothing)).ap[0.5] == 0


def test_pooled_scores_are_those_of_all_images_side_by_side():
    random = np.random.default_rng(2)
    truths, founds = (random.integers(0, 3, (4, 5, 6)) for _ in range(2))
    apart = [score(truth, found) for truth, found in zip(truths, founds, strict=True)]
    shifts = 10 * np.arange(4)
    beside = [
        np.hstack([np.where(mask, mask + shift, 0) for mask, shift in zip(stack, shifts, strict=True)])
        for stack in (truths, founds)
    ]
    pooled, whole = pool(apart), score(beside[0], beside[1])
    assert pooled.matched.tolist() == whole.matched.tolist()
    assert pooled.matched_iou == pytest.approx(whole.matched_iou)
    assert pooled.seg == pytest.approx(whole.seg)
    assert whole.cells_true > 4


@given(truth=masks, found=masks, threshold=st.sampled_from([0.1, 0.25, 0.5, 0.6]))
def test_the_matching_has_the_most_pairs_and_of_those_the_largest_iou(truth, found, threshold):
    pairs = match(truth, found).at(threshold)
    count, total = best_matching(truth, found, threshold)
    assert len(pairs.iou) == count
    assert pairs.iou.sum() == pytest.approx(total)
    assert len(set(pairs.truth.tolist())) == len(set(pairs.found.tolist())) == count
    for t, f, iou in zip(pairs.truth, pairs.found, pairs.iou, strict=True):
        assert iou == ((truth == t) & (found == f)).sum() / ((truth == t) | (found == f)).sum() >= threshold


@given(truth=masks, found=masks, offset=st.integers(1, 2**31 - 5))
def test_scores_do_not_depend_on_the_numbers_and_swapping_masks_swaps_precision_and_recall(
    truth, found, offset
):
    scores, swapped = score(truth, found), score(found, truth)
    renumbered = score(np.where(truth, truth.astype(np.int64) + offset, 0), 5 - found - 5 * (found == 0))
    assert scores.matched.tolist() == swapped.matched.tolist() == renumbered.matched.tolist()
    for threshold in THRESHOLDS:
        assert scores.precision[threshold] == pytest.approx(swapped.recall[threshold], nan_ok=True)
        assert scores.ap[threshold] == pytest.approx(renumbered.ap[threshold], nan_ok=True)


@given(truth=masks)
def test_a_mask_agrees_with_itself(truth):
    scores = score(truth, truth.astype(np.uint16))
    if truth.any():
        assert set(scores.ap.values()) == set(scores.pq.values()) == {1.0}
        assert scores.seg == pytest.approx(1)


@pytest.mark.parametrize(
    ("truth", "found", "reason"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"\(2, 3\) and \(3, 2\)"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), "true mask must hold integers, got float64"),
        (np.zeros((2, 3), int), np.full((2, 3), -1), "found mask holds numbers from -1"),
        (np.zeros((2, 3), int), np.full((2, 3), 2**31), "2147483647 are allowed"),
    ],
)
def test_masks_that_cannot_be_compared_are_refused(truth, found, reason):
    with pytest.raises(FrameError, match=reason):
        match(truth, found)


def test_scores_at_other_thresholds_are_not_pooled_and_nothing_is_not_either():
    mask = np.ones((2, 2), int)
    with pytest.raises(ValueError, match="cannot be added"):
        pool([score(mask, mask), score(mask, mask, (0.3,))])
    with pytest.raises(ValueError, match="no scores"):
        pool([])
