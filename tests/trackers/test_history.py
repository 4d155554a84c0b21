"""The past of cells: descent, measurements of late, what corrections do to them, and that little is remembered."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.acquire.reply import Correction, Division
from cytoloop.trackers.history import History
from cytoloop.trackers.tracks import Ended, Tracks


@pytest.fixture
def said(detections):
    """Return a function (sequence, {track: parent}, ...) -> Tracks, as a tracker might say."""

    def made(sequence, cells, *, divisions=(), ended=(), corrections=(), time_s=None):
        n = len(cells)
        found = detections(np.zeros((n, 2)), sequence if time_s is None else time_s)
        object.__setattr__(found, "sequence", sequence)
        zeros = np.zeros(n)
        return Tracks(
            detections=found,
            track=np.array(list(cells), np.int64),
            parent=np.array(list(cells.values()), np.int64),
            age=zeros.astype(np.int32),
            velocity=np.zeros((n, 2)),
            covariance=np.zeros((n, 3)),
            confidence=zeros + 1,
            divisions=tuple(Division(mother, daughters) for mother, daughters in divisions),
            ended=tuple(Ended(track, "lost") for track in ended),
            corrections=tuple(Correction(*each, "seen better since") for each in corrections),
        )

    return made


def area(*values):
    return {"area": np.array(values, float)}


def nan_to(values, missing=-1.0):
    return np.nan_to_num(values, nan=missing).tolist()


def test_daughters_know_their_generation_their_sister_and_when_they_were_born(said):
    history = History()
    history.update(said(10, {1: 0, 2: 0}, time_s=100.0), area(10, 20))
    history.update(said(13, {2: 0, 3: 1, 4: 1}, time_s=103.5, divisions=[(1, (3, 4))]), area(20, 5, 6))
    later = said(16, {4: 1, 5: 3, 6: 3, 2: 0}, time_s=110.0, divisions=[(3, (5, 6))])
    descent = history.update(later, area(6, 2, 3, 20))
    assert descent.generation.tolist() == [1, 2, 2, 0]
    assert descent.sister.tolist() == [3, 6, 5, 0]
    assert descent.born_sequence.tolist() == [13, 16, 16, 10]
    assert descent.born_s.tolist() == [103.5, 110.0, 110.0, 100.0]
    assert nan_to(descent.since_division_s) == [6.5, 0.0, 0.0, -1.0]


def test_a_daughter_of_a_mother_whom_nobody_remembers_is_of_the_first_generation(said):
    descent = History().update(said(0, {7: 3}), area(1))
    assert descent.generation.tolist() == [1]


def test_the_past_of_a_cell_follows_it_through_the_rows_and_begins_with_nothing(said):
    history = History()
    history.update(said(0, {1: 0, 2: 0}), area(10, 20))
    history.update(said(1, {2: 0, 1: 0, 3: 0}), area(21, 11, 31))
    assert nan_to(history.past("area", 3)) == [[-1, 20, 21], [-1, 10, 11], [-1, -1, 31]]
    history.update(said(2, {3: 0}), area(32))  # the others are missed
    history.update(said(3, {1: 0, 3: 0}), area(13, 33))
    assert nan_to(history.past("area", 3)) == [[10, 11, 13], [31, 32, 33]]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_of_a_long_past_the_newest_is_kept(said, depth):
    history = History(depth)
    for sequence in range(13):
        history.update(said(sequence, {1: 0}), area(sequence))
        for frames in range(1, depth + 1):
            last = [number if number >= 0 else -1 for number in range(sequence - frames + 1, sequence + 1)]
            assert nan_to(history.past("area", frames)) == [last]


def test_what_was_not_measured_in_a_frame_is_unknown_there(said):
    history = History()
    history.update(said(0, {1: 0}), {"area": np.array([1.0]), "mean": np.array([5.0])})
    history.update(said(1, {1: 0}), {"area": np.array([2.0]), "other": np.array([9.0])})
    history.update(said(2, {1: 0}), {"area": np.array([3.0]), "mean": np.array([7.0])})
    assert nan_to(history.past("mean", 3)) == [[5, -1, 7]]
    with pytest.raises(KeyError, match="nothing is called 'other'; there are area, mean"):
        history.past("other", 1)


@pytest.mark.parametrize("frames", [0, 5, -1])
def test_a_past_that_is_longer_than_what_is_kept_is_refused(said, frames):
    history = History(4)
    history.update(said(0, {1: 0}), area(1))
    with pytest.raises(ValueError, match="frames must be 1 to 4"):
        history.past("area", frames)


def test_a_depth_of_nothing_is_refused():
    with pytest.raises(ValueError, match="depth"):
        History(0)


def test_frames_without_cells_have_no_past(said):
    history = History()
    assert len(history.update(said(0, {}), area()).sister) == 0
    assert history.past("area", 2).shape == (0, 2)
    history.update(said(1, {1: 0}), area(4))
    history.update(said(2, {}), area())
    history.update(said(3, {1: 0}), area(5))
    assert nan_to(history.past("area", 2)) == [[4, 5]]


def test_a_mother_whose_division_is_revoked_has_all_her_past_and_goes_on(said):
    history = History()
    history.update(said(0, {1: 0}), area(10))
    history.update(said(1, {1: 0}), area(11))
    history.update(said(2, {2: 1, 3: 1}, divisions=[(1, (2, 3))]), area(7, 5))
    revoked = [(2, 2, 1, 0), (2, 3, 3, 0)]
    descent = history.update(said(3, {1: 0}, corrections=revoked, ended=[3]), area(13))
    assert nan_to(history.past("area", 5)) == [[-1, 10, 11, 7, 13]]
    assert (descent.generation[0], descent.sister[0], descent.born_sequence[0]) == (0, 0, 0)
    assert np.isnan(descent.since_division_s[0])
    assert len(history) == 1
    descent = history.update(said(4, {4: 1, 5: 1}, divisions=[(1, (4, 5))]), area(6, 7))
    assert descent.generation.tolist() == [1, 1]


def test_a_daughter_that_is_nobodys_after_all_has_no_descent(said):
    history = History()
    history.update(said(0, {1: 0}), area(10))
    history.update(said(1, {2: 1, 3: 1}, divisions=[(1, (2, 3))]), area(9, 5))
    descent = history.update(said(2, {1: 0, 3: 0}, corrections=[(1, 2, 1, 0), (1, 3, 3, 0)]), area(10, 5))
    assert descent.generation.tolist() == [0, 0]
    assert descent.sister.tolist() == [0, 0]
    assert np.isnan(descent.since_division_s).all()
    assert nan_to(history.past("area", 3)) == [[10, 9, 10], [-1, 5, 5]]


def test_daughters_of_a_late_division_were_born_when_it_happened(said):
    history = History()
    history.update(said(0, {1: 0}, time_s=0.0), area(10))
    history.update(said(5, {1: 0, 2: 0}, time_s=50.0), area(6, 5))  # two pieces
    late = [(5, 1, 3, 1), (5, 2, 2, 1)]
    tracks = said(6, {3: 1, 2: 1}, time_s=60.0, divisions=[(1, (3, 2))], corrections=late)
    descent = history.update(tracks, area(6, 5))
    assert descent.generation.tolist() == [1, 1]
    assert descent.sister.tolist() == [2, 3]
    assert descent.born_sequence.tolist() == [5, 5]
    assert descent.since_division_s.tolist() == [10.0, 10.0]


def test_what_is_over_is_forgotten_and_its_place_is_used_again(said):
    history = History(depth=8)
    for sequence in range(2_000):  # five new cells in each frame, each seen in two: ten thousand in all
        first = 11 + 5 * sequence
        cells = dict.fromkeys(range(first - 5, first + 5), 0)
        history.update(said(sequence, cells, ended=range(first - 10, first - 5)), area(*cells))
        assert len(history) == 10
        assert nan_to(history.past("area", 2)[-5:]) == [[-1, track] for track in range(first, first + 5)]
    assert max(array.nbytes for array in vars(history).values() if isinstance(array, np.ndarray)) < 4_096
    assert max(len(each) for each in vars(history).values() if isinstance(each, dict | list)) < 64


def test_a_cell_that_was_seen_in_all_of_the_last_frames_is_in_their_table_as_in_its_own_past(said):
    random, history, shorter = np.random.default_rng(4), History(), 0
    cells = dict.fromkeys(range(1, 9), 0)
    for sequence in range(60):
        ended = []
        if sequence % 9 == 8:  # one is over and its place is given to another at once
            ended = [next(iter(cells))]
            del cells[ended[0]]
            cells[100 + sequence] = 0
        seen = {track: 0 for track in random.permutation(list(cells)).tolist() if random.random() > 0.1}
        history.update(said(sequence, seen, ended=ended), area(*random.uniform(0, 1, len(seen))))
        recent, past, times = history.recent, history.past("area", 16), history.past_s(16)
        for row, place in enumerate(history.places):
            frames = min(int(recent.in_a_row[place]), 16)
            shorter += frames < 16
            rows = recent.order[-frames:]
            assert recent.table("area")[rows, place].tolist() == past[row, -frames:].tolist()
            assert recent.times_s[rows].tolist() == times[row, -frames:].tolist()
    assert 0 < shorter < 60 * 8


def test_a_cell_that_was_missed_or_has_just_begun_was_not_seen_in_all_of_the_last_frames(said):
    history = History()
    for sequence, cells in enumerate(({1: 0, 2: 0}, {1: 0, 2: 0}, {2: 0}, {1: 0, 2: 0, 3: 0})):
        history.update(said(sequence, cells), area(*cells))
    assert history.recent.in_a_row[history.places].tolist() == [1, 4, 1]


def test_the_table_of_the_last_frames_goes_on_with_what_a_revoked_daughter_was(said):
    history = History()
    history.update(said(0, {1: 0}), area(10))
    history.update(said(1, {2: 1, 3: 1}, divisions=[(1, (2, 3))]), area(7, 5))
    history.update(said(2, {1: 0}, corrections=[(1, 2, 1, 0), (1, 3, 3, 0)], ended=[3]), area(13))
    recent, (place,) = history.recent, history.places
    assert recent.in_a_row[place] == 2
    assert recent.table("area")[recent.order[-2:], place].tolist() == [7, 13]
