"""The default tracker: gaps, drift, moves of the stage, divisions, what it learns and how sure it is."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.trackers.lap import LapTracker
from cytoloop.trackers.tracks import Ended

GRID = np.stack(np.meshgrid(np.arange(6), np.arange(6)), -1).reshape(-1, 2) * 60.0 + 90


def test_a_cell_missed_once_comes_back_as_itself_and_missed_twice_does_not(detections):
    tracker, away = LapTracker(), np.delete(GRID, 14, axis=0)
    first = tracker.update(detections(GRID, 0)).track
    tracker.update(detections(away, 1))
    back = tracker.update(detections(GRID, 2))
    assert back.track.tolist() == first.tolist()
    assert (back.age == 2).all()
    tracker.update(detections(away, 3))
    gone = tracker.update(detections(away, 4))
    assert gone.ended == (Ended(int(first[14])),)
    assert tracker.update(detections(GRID, 5)).track[14] not in first


def test_without_gaps_a_cell_missed_once_is_given_up(detections):
    tracker = LapTracker(max_gap=0)
    first = tracker.update(detections(GRID, 0)).track
    assert tracker.update(detections(GRID[1:], 1)).ended == (Ended(int(first[0])),)


@pytest.mark.parametrize("shift", [(7.0, -3.0), (-22.0, 24.0)])
def test_a_shift_of_the_whole_field_costs_no_identity(detections, shift):
    random = np.random.default_rng(1)
    scattered = random.uniform(60, 440, (50, 2))
    area = random.uniform(60, 200, 50)
    tracker = LapTracker()
    first = tracker.update(detections(scattered, 0, area=area)).track
    tracker.update(detections(scattered + random.normal(0, 0.5, scattered.shape), 1, area=area))
    moved = tracker.update(detections(scattered + shift, 2, area=area)).track
    assert (moved == first).mean() == 1.0


@pytest.mark.parametrize("mirror", [(1, 1), (1, -1), (-1, -1)])
def test_a_known_move_of_the_stage_is_taken_out_however_the_camera_is_mounted(detections, mirror):
    random, tracker = np.random.default_rng(2), LapTracker()
    cells = random.uniform(0, 900, (80, 2))

    def view(left_top, stage, sequence):
        yx = cells - left_top
        seen = ((yx >= 0) & (yx < 500)).all(axis=1)
        given = detections(yx[seen], sequence, stage_um=stage, pixel_size_um=0.5)
        return dict(zip(np.flatnonzero(seen).tolist(), tracker.update(given).track.tolist(), strict=True))

    before = view(np.array([100.0, 100.0]), (1000.0, 1000.0), 0)
    # The stage goes 75 um in x and 50 um in y: 150 px and 100 px.
    moved = view(100 + np.array([mirror[0] * 100.0, mirror[1] * 150.0]), (1075.0, 1050.0), 1)
    both = before.keys() & moved.keys()
    assert len(both) > 5
    assert all(before[cell] == moved[cell] for cell in both)


def test_a_steady_cell_is_expected_where_its_velocity_takes_it(detections):
    tracker = LapTracker()
    for sequence in range(25):
        runner = np.array([[60.0 + 6 * sequence, 480.0]])
        tracks = tracker.update(detections(np.concatenate([GRID, runner]), sequence))
    assert len(set(tracks.track.tolist()) - set(range(1, 38))) == 0
    assert tracks.velocity[-1] == pytest.approx([6, 0], abs=2.5)
    assert np.abs(tracks.velocity[:-1]).max() < 0.5


def test_a_division_ends_the_mother_and_begins_two_daughters_in_the_same_frame(detections):
    tracker = LapTracker()
    for sequence in range(5):
        before = tracker.update(detections(GRID, sequence, area=300.0))
    mother, place, apart = before.track[14], GRID[14], np.array([0, 9])
    yx = np.concatenate([np.delete(GRID, 14, axis=0), [place + apart, place - apart]])
    area = np.r_[np.full(35, 300.0), 145.0, 155.0]
    after = tracker.update(detections(yx, 5, area=area))
    daughters = tuple(sorted(after.track[-2:].tolist()))
    assert [(d.mother, tuple(sorted(d.daughters))) for d in after.divisions] == [(mother, daughters)]
    assert after.parent[-2:].tolist() == [mother, mother]
    assert mother not in after.track
    assert after.ended == ()
    assert (after.age[-2:] == 0).all()
    later = tracker.update(detections(yx, 6, area=area))
    assert later.divisions == ()
    assert later.parent[-2:].tolist() == [mother, mother]


def test_a_rod_divides_along_its_axis_into_halves_that_lie_far_apart(detections):
    tracker = LapTracker()
    rows = np.stack([60.0 + 22 * np.arange(8), np.full(8, 250.0)], axis=1)
    long = np.tile([12.0, 300.0, 0.0], (8, 1))  # 60 px long, 12 px wide, lying in x
    for sequence in range(4):
        before = tracker.update(detections(rows, sequence, area=700.0, moments=long))
    halves = np.concatenate([np.delete(rows, 3, axis=0), [rows[3] + (0, 17), rows[3] - (0, 16)]])
    # Both ends of each are round, and they part.
    moments = np.concatenate([long[:7], [[12.0, 78.0, 0.0]] * 2])
    after = tracker.update(detections(halves, 4, area=np.r_[np.full(7, 700.0), 360, 370], moments=moments))
    assert [d.mother for d in after.divisions] == [before.track[3]]
    assert after.track[:7].tolist() == np.delete(before.track, 3).tolist()


@pytest.mark.parametrize(("where", "size"), [((14.0, 0.0), 300.0), ((0.0, 35.0), 150.0), ((9.0, 0.0), 12.0)])
def test_a_new_cell_beside_an_unchanged_one_is_no_division(detections, where, size):
    tracker = LapTracker()
    for sequence in range(5):
        tracker.update(detections(GRID, sequence, area=300.0))
    yx = np.concatenate([GRID, [GRID[14] + where]])
    assert tracker.update(detections(yx, 5, area=np.r_[np.full(36, 300.0), size])).divisions == ()


def test_divisions_can_be_switched_off(detections):
    tracker = LapTracker(divisions=False)
    tracker.update(detections([[100, 100], [300, 300]], 0, area=300.0))
    after = tracker.update(detections([[100, 91], [100, 109], [300, 300]], 1, area=[150.0, 150.0, 300.0]))
    assert after.divisions == ()
    assert (after.parent == 0).all()


def test_a_link_with_a_rival_is_less_sure_than_one_without(detections):
    tracker = LapTracker()
    for sequence in range(3):
        tracker.update(detections(GRID, sequence))
    pair = np.array([GRID[14] + (0, 5), GRID[14] - (0, 5)])
    crowded = tracker.update(detections(np.concatenate([np.delete(GRID, 14, axis=0), pair]), 3))
    assert crowded.confidence[:30].min() > 0.98
    linked = crowded.age[-2:] > 0
    assert crowded.confidence[-2:][linked].max(initial=0) < 0.8


def test_no_step_is_longer_than_the_distance_that_was_set(detections):
    tracker = LapTracker(max_distance_px=5.0)
    first = tracker.update(detections([[100, 100], [200, 200]], 0)).track
    second = tracker.update(detections([[104, 100], [206, 200]], 1)).track
    assert second[0] == first[0]
    assert second[1] != first[1]


def test_a_negative_gap_is_refused_by_name():
    with pytest.raises(ValueError, match="max_gap"):
        LapTracker(max_gap=-1)
