"""What every registered tracker must do."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.acquire.plugins import find_class, known_names
from cytoloop.trackers.tracker import Tracker

NAMES = known_names("trackers")


def walk(detections, frames=12, seed=0):
    """Yield detections of cells that wander; some are missed, some false, one frame is empty."""
    random = np.random.default_rng(seed)
    yx = random.uniform(20, 480, (40, 2))
    for sequence in range(frames):
        yx = yx + random.normal(0, 1.5, yx.shape)
        seen = yx[random.random(len(yx)) > 0.1] if sequence != 5 else yx[:0]
        false = random.uniform(0, 500, (2 if sequence != 5 else 0, 2))
        both = np.concatenate([seen, false])
        yield detections(both, sequence, area=random.uniform(60, 140, len(both)))


@pytest.fixture(params=NAMES)
def make(request):
    return find_class("trackers", request.param)


def test_it_keeps_the_protocol(make):
    assert isinstance(make(), Tracker)


def test_every_row_has_one_identity_and_all_columns_fit(make, detections):
    tracker = make()
    for given in walk(detections):
        tracks = tracker.update(given)
        n = len(given)
        assert tracks.detections is given
        assert (tracks.track > 0).all()
        assert len(set(tracks.track.tolist())) == n
        columns = (tracks.parent, tracks.age, tracks.confidence, tracks.velocity, tracks.covariance)
        assert [len(column) for column in columns] == [n] * 5
        assert ((tracks.confidence >= 0) & (tracks.confidence <= 1)).all()
        assert np.isfinite(tracks.velocity).all()
        assert (tracks.covariance[:, 0] * tracks.covariance[:, 1] >= tracks.covariance[:, 2] ** 2).all()


def test_an_identity_is_never_used_again_after_its_end(make, detections):
    tracker, ended, seen = make(), set(), set()
    for given in walk(detections):
        tracks = tracker.update(given)
        now = set(tracks.track.tolist())
        assert not now & ended
        assert {each.track for each in tracks.ended} <= seen
        born = tracks.track[tracks.age == 0].tolist()
        assert not set(born) & seen
        ended |= {each.track for each in tracks.ended} | {division.mother for division in tracks.divisions}
        seen |= now


def test_the_same_detections_give_the_same_tracks(make, detections):
    first, second = make(), make()
    for given in walk(detections):
        one, two = first.update(given), second.update(given)
        assert one.track.tolist() == two.track.tolist()
        assert one.confidence.tolist() == two.confidence.tolist()
        assert (one.divisions, one.ended) == (two.divisions, two.ended)


def test_cells_that_barely_move_keep_their_identity_in_whatever_order_they_come(make, detections):
    random = np.random.default_rng(4)
    yx = np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(-1, 2) * 50.0 + 40
    tracker, identity = make(), None
    for sequence in range(6):
        order = random.permutation(len(yx))
        tracks = tracker.update(detections((yx + random.normal(0, 1, yx.shape))[order], sequence))
        found = dict(zip(order.tolist(), tracks.track.tolist(), strict=True))
        identity = identity or found
        assert found == identity
        assert (tracks.age == sequence).all()


@pytest.mark.parametrize("counts", [(0, 0, 3, 0, 3), (1, 1, 0, 1), (2, 0, 0, 0, 2), (1, 5000)])
def test_any_number_of_cells_may_follow_any_other(make, detections, counts):
    random, tracker = np.random.default_rng(0), make()
    for sequence, count in enumerate(counts):
        tracks = tracker.update(detections(random.uniform(0, 500, (count, 2)), sequence))
        assert len(tracks) == count


def test_cells_at_one_and_the_same_place_are_no_reason_to_fail(make, detections):
    tracker = make()
    for sequence in range(3):
        assert len(tracker.update(detections(np.full((6, 2), 100.0), sequence))) == 6


@pytest.mark.parametrize("reach", [0.0, -3.0])
def test_a_distance_that_is_not_above_zero_is_refused_by_name(make, reach):
    with pytest.raises(ValueError, match="max_distance_px"):
        make(max_distance_px=reach)
