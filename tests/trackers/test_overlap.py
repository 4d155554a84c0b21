"""What only the tracker of overlaps does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cytoloop.acquire.frame import Frame
from cytoloop.models.labels import Labels
from cytoloop.models.measure import measure
from cytoloop.trackers.overlap import OverlapTracker


def frame(*boxes, size=(60, 80), sequence=0):
    """Return detections of rectangles y0, x0, y1, x1."""
    mask = np.zeros(size, np.int32)
    for number, (y0, x0, y1, x1) in enumerate(boxes, start=1):
        mask[y0:y1, x0:x1] = number
    return measure(Frame(np.ones(size, np.uint8), sequence), Labels(mask, len(boxes)))


def test_detections_without_a_mask_are_refused_by_name():
    with pytest.raises(ValueError, match=r"Detections\.mask is None"):
        OverlapTracker().update(replace(frame((1, 1, 9, 9)), mask=None))


def test_a_cell_goes_on_where_it_overlaps_most_and_says_by_how_much():
    tracker = OverlapTracker()
    before = tracker.update(frame((0, 0, 10, 10), (0, 10, 10, 40)))
    after = tracker.update(frame((0, 5, 10, 15), (0, 16, 10, 40)))
    assert after.track.tolist() == before.track.tolist()
    assert after.confidence.tolist() == [50 / 150, 240 / 300]
    assert after.velocity[0].tolist() == [0, 5]


def test_the_whole_frame_is_linked_best_and_not_each_cell_by_itself():
    tracker = OverlapTracker(divisions=False)
    first, second = tracker.update(frame((0, 0, 10, 20), (0, 20, 10, 30))).track.tolist()
    # The first overlaps the long one most, but the second has nothing else.
    after = tracker.update(frame((0, 0, 10, 9), (0, 9, 10, 30)))
    assert after.track.tolist() == [first, second]


def test_less_than_the_least_overlap_is_no_link():
    tracker = OverlapTracker(min_iou=0.5)
    tracker.update(frame((0, 0, 10, 10)))
    assert tracker.update(frame((0, 4, 10, 14))).track.tolist() == [2]


def test_a_cell_that_becomes_two_of_about_the_same_size_has_divided():
    tracker = OverlapTracker()
    tracker.update(frame((0, 0, 10, 30), (40, 40, 50, 50)))
    after = tracker.update(frame((0, 0, 10, 14), (0, 16, 10, 30), (40, 40, 50, 50)))
    (division,) = after.divisions
    assert (division.mother, division.daughters) == (1, (3, 4))
    assert after.track.tolist() == [3, 4, 2]
    assert after.parent.tolist() == [1, 1, 0]
    assert [(each.track, each.why) for each in after.ended] == [(1, "division")]


@pytest.mark.parametrize("parts", [((0, 0, 10, 26), (0, 27, 10, 30)), ((0, 0, 10, 30), (10, 0, 20, 30))])
def test_a_splinter_or_a_new_neighbour_is_no_division(parts):
    tracker = OverlapTracker()
    tracker.update(frame((0, 0, 10, 30)))
    after = tracker.update(frame(*parts))
    assert after.divisions == ()
    assert after.track.tolist() == [1, 2]


def test_cells_that_may_not_divide_do_not():
    tracker = OverlapTracker(divisions=False)
    tracker.update(frame((0, 0, 10, 30)))
    assert tracker.update(frame((0, 0, 10, 14), (0, 16, 10, 30))).divisions == ()


@pytest.mark.parametrize(("max_gap", "missed", "found"), [(0, 1, 3), (1, 1, 1), (1, 2, 3), (3, 3, 1)])
def test_a_missed_cell_is_found_again_where_it_was(max_gap, missed, found):
    tracker = OverlapTracker(max_gap=max_gap)
    cell, other = (0, 0, 10, 10), (30, 30, 40, 40)
    tracker.update(frame(cell, other))
    for _ in range(missed):
        tracker.update(frame(other))
    after = tracker.update(frame(other, cell))
    assert after.track.tolist() == [2, found]
    assert after.age.tolist() == [missed + 1, missed + 1 if found == 1 else 0]


def test_a_missed_cell_is_over_once_others_lie_where_it_was():
    tracker = OverlapTracker(max_gap=9, min_iou=0.6)
    tracker.update(frame((0, 0, 10, 10)))
    after = tracker.update(frame((0, 0, 20, 20)))
    assert after.track.tolist() == [2]
    assert [each.track for each in after.ended] == [1]


def test_frames_of_another_size_have_nothing_in_common():
    tracker = OverlapTracker()
    tracker.update(frame((0, 0, 10, 10)))
    after = tracker.update(frame((0, 0, 10, 10), size=(30, 30)))
    assert after.track.tolist() == [2]
    assert [each.track for each in after.ended] == [1]
