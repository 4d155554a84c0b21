"""What only SORT does, and that it is what was published."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.trackers import sort
from cytoloop.trackers.sort import SortTracker


@pytest.fixture
def boxes(detections):
    """Return a function (boxes y0 x0 y1 x1, sequence) -> detections with these boxes."""

    def made(given, sequence=0):
        given = np.asarray(given, np.int32).reshape(-1, 4)
        found = detections((given[:, :2] + given[:, 2:]) / 2, sequence)
        found.bbox[:] = given
        return found

    return made


def test_a_cell_is_expected_where_its_speed_takes_it(boxes):
    tracker = SortTracker(min_iou=0.2)
    for sequence in (0, 1, 2, 3, 5):
        tracks = tracker.update(boxes([10, 6 * sequence, 20, 6 * sequence + 10], sequence))
        if sequence == 3:
            tracker.update(
                boxes([], 4)
            )  # it is missed, and has moved on by more than its width when found again
    assert (tracks.track.tolist(), tracks.age.tolist()) == ([1], [5])
    assert tracks.velocity[0] == pytest.approx([0, 6], abs=0.5)


@pytest.mark.parametrize(("max_gap", "missed", "found"), [(0, 1, 2), (1, 1, 1), (1, 2, 2), (3, 3, 1)])
def test_a_missed_cell_is_found_again_after_as_many_frames_as_allowed(boxes, max_gap, missed, found):
    tracker = SortTracker(max_gap=max_gap)
    here = boxes([10, 10, 20, 20])
    tracker.update(here)
    for _ in range(missed):
        tracker.update(boxes([]))
    assert tracker.update(here).track.tolist() == [found]


def test_the_filters_are_the_published_one_of_seven_numbers():
    rng = np.random.default_rng(3)
    along = np.eye(7)
    along[[0, 1, 2], [4, 5, 6]] = 1
    look = np.eye(4, 7)
    spread = np.diag([10.0] * 4 + [1e4] * 3)
    added = np.diag([1.0] * 4 + [0.01, 0.01, 1e-4])
    measured = np.diag([1.0, 1.0, 10.0, 10.0])
    seen = np.array([50.0, 60.0, 400.0, 1.2])
    state = np.concatenate([seen, np.zeros(3)])
    ours = sort._Alive.beginning(np.array([1]), seen[np.newaxis])
    for _ in range(12):
        state, spread = along @ state, along @ spread @ along.T + added
        ours = ours.one_frame_on()
        seen = seen + rng.normal(0, [2, 2, 20, 0.1])
        if rng.random() < 0.3:
            continue
        gain = spread @ look.T @ np.linalg.inv(look @ spread @ look.T + measured)
        state, spread = state + gain @ (seen - look @ state), (np.eye(7) - gain @ look) @ spread
        ours = ours.corrected(seen[np.newaxis])
    assert ours.place[0] == pytest.approx(state[:4])
    assert ours.speed[0, :3] == pytest.approx(state[4:])
    assert ours.spread[0] == pytest.approx(np.diag(spread)[:4])
    assert ours.spread_speed[0, :3] == pytest.approx(np.diag(spread)[4:])


@pytest.mark.parametrize("least", [0.05, 0.3, 0.8])
def test_every_pair_of_boxes_that_overlaps_enough_is_found_whatever_their_sizes(least):
    rng = np.random.default_rng(int(100 * least))
    corner = rng.uniform(0, 200, (300, 2))
    size = np.exp(rng.uniform(0, 5, (300, 1))) * rng.uniform(0.5, 1.5, (300, 2))
    one = np.concatenate([corner, corner + size], axis=1)
    other = one + rng.normal(0, 0.1, one.shape) * np.tile(size, 2)
    other[:, 2:] = np.maximum(other[:, 2:], other[:, :2] + 0.1)
    rows, columns, iou = sort._overlapping(one, other, least)
    every = sort._iou(np.repeat(one, 300, axis=0), np.tile(other, (300, 1))).reshape(300, 300)
    assert list(zip(rows, columns, strict=True)) == [tuple(pair) for pair in np.argwhere(every >= least)]
    assert iou == pytest.approx(every[rows, columns])


def test_a_few_large_boxes_do_not_pair_all_small_ones(monkeypatch):
    compared = 0
    near_pairs = sort.near_pairs

    def counted(*given):
        nonlocal compared
        found = near_pairs(*given)
        compared += len(found[0])
        return found

    monkeypatch.setattr(sort, "near_pairs", counted)
    corner = np.stack(np.meshgrid(np.arange(50), np.arange(50)), -1).reshape(-1, 2) * 12.0
    small = np.concatenate([corner, corner + 10], axis=1)
    boxes = np.concatenate([small, [[0.0, 0.0, 600.0, 600.0]]])
    rows, _, _ = sort._overlapping(boxes, boxes, 0.3)
    assert len(rows) == len(boxes)
    assert compared < 40 * len(boxes)
