"""How the default tracker follows motion: cells that wander, travel, drift with the field, or pass at other heights."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.trackers.lap import LapTracker


def identities(tracks, order=None):
    """Return the identity of each cell, whatever the order of the rows."""
    names = np.empty(len(tracks), np.int64)
    names[order if order is not None else slice(None)] = tracks.track
    return names.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_cells_that_wander_and_cells_that_travel_are_both_followed(detections, seed):
    random, tracker = np.random.default_rng(seed), LapTracker()
    grid = np.stack(np.meshgrid(np.arange(10), np.arange(10)), -1).reshape(-1, 2) * 40.0 + 40
    start = grid[random.permutation(100)]
    angle = random.uniform(0, 2 * np.pi, 12)
    speed = np.zeros((100, 2))
    speed[:12] = 5 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    start[:12] = random.uniform(130, 310, (12, 2))  # so that they stay in the field, and pass others
    area = random.uniform(60, 140, 100)
    yx, first, kept, said = start, None, [], []
    for sequence in range(26):
        seen = random.permutation(100)
        tracks = tracker.update(detections(yx[seen], sequence, area=area[seen], shape=(440, 440)))
        names = identities(tracks, seen)
        first = first or names
        kept.append([one == other for one, other in zip(names, first, strict=True)])
        back = np.argsort(seen)
        said.append(tracks.velocity[back])
        yx = yx + speed + random.normal(0, np.where(np.arange(100) < 12, 0.3, 1.0)[:, np.newaxis], yx.shape)
    whole = np.array(kept)[-1]
    assert whole[:12].sum() >= 10  # some pass others too closely to be told apart
    assert whole[12:].mean() >= 0.97
    late = np.mean(said[18:], axis=0)[whole]
    travels = np.flatnonzero(whole) < 12
    assert np.linalg.norm(late[travels] - speed[whole][travels], axis=1) == pytest.approx(0, abs=1.5)
    assert np.linalg.norm(late[~travels], axis=1).mean() < 0.5


def test_a_cell_that_stops_is_soon_said_to_stand(detections):
    tracker = LapTracker()
    grid = np.stack(np.meshgrid(np.arange(5), np.arange(5)), -1).reshape(-1, 2) * 60.0 + 60
    x = 20.0
    for sequence in range(30):
        x += 6.0 * (sequence < 15)
        tracks = tracker.update(detections(np.concatenate([grid, [[400.0, x]]]), sequence))
        if sequence == 14:
            assert tracks.velocity[-1] == pytest.approx([0, 6], abs=2)
    assert np.abs(tracks.velocity[-1]).max() < 0.5
    assert tracks.age[-1] == 29


def test_two_cells_that_travel_through_each_other_go_on_as_themselves(detections):
    tracker, before = LapTracker(), None
    for sequence in range(24):
        away = 5.0 * (sequence - 11.5)
        tracks = tracker.update(detections([[250 + away, 250 - 4], [250 - away, 250 + 4]], sequence))
        before = tracks.track.tolist() if sequence == 8 else before
    assert tracks.track.tolist() == before


@pytest.mark.parametrize(
    ("shift", "stage"),
    [((6.0, -4.0), False), ((-25.0, 10.0), False), ((6.0, -4.0), True), ((0.0, 0.0), True)],
)
def test_the_drift_is_what_the_field_has_moved_beyond_what_the_stage_says(detections, shift, stage):
    random, tracker = np.random.default_rng(3), LapTracker()
    cells = random.uniform(100, 400, (80, 2))
    area = random.uniform(60, 200, 80)
    moved, at, first = np.zeros(2), np.array([500.0, 700.0]), None
    for sequence in range(6):
        step = np.array(shift) if sequence == 3 else np.zeros(2)
        go = np.array([40.0, -30.0]) if stage and sequence == 3 else np.zeros(2)  # px in y and x
        moved = moved + step - go
        at = at + go[::-1] * 0.5
        yx = cells + moved + random.normal(0, 0.5, cells.shape)
        more = {"stage_um": tuple(at.tolist()), "pixel_size_um": 0.5} if stage else {}
        tracks = tracker.update(detections(yx, sequence, area=area, **more))
        first = first or tracks.track.tolist()
        assert tracks.drift_px == pytest.approx(tuple(step.tolist()), abs=0.6 + 0.03 * np.abs(step).max())
    assert tracks.track.tolist() == first


def test_cells_that_stand_do_not_drift_because_some_travel(detections):
    random, tracker = np.random.default_rng(4), LapTracker()
    cells = random.uniform(30, 470, (60, 2))
    for sequence in range(10):
        cells = cells + random.normal(0, 0.5, cells.shape)
        cells[:10] += (4.0, 0.0)
        tracks = tracker.update(detections(cells, sequence))
        assert tracks.drift_px == pytest.approx((0, 0), abs=0.5)


def test_cells_that_cross_at_different_heights_keep_their_identities(detections):
    tracker, random = LapTracker(), np.random.default_rng(2)
    rows = 60.0 + 50 * np.arange(8)
    low, high, first = np.full(8, 10.0), np.full(8, 40.0), None
    for sequence in range(21):
        away = 4.0 * (sequence - 10)
        ones = np.stack([rows, np.full(8, 250.0 + away)], axis=1)
        others = np.stack([rows, np.full(8, 250.0 - away)], axis=1)
        seen = random.permutation(16)
        yx, z = np.concatenate([ones, others]), np.concatenate([low, high])
        yx = yx + random.normal(0, 0.5, yx.shape)
        tracks = tracker.update(detections(yx[seen], sequence, z=(z + random.normal(0, 0.5, 16))[seen]))
        first = first or identities(tracks, seen)
        assert identities(tracks, seen) == first
        assert tracks.velocity.shape == (16, 2)
        assert tracks.divisions == ()


def test_cells_above_each_other_at_one_place_are_told_apart(detections):
    tracker, random = LapTracker(), np.random.default_rng(5)
    yx = np.repeat(random.uniform(50, 450, (10, 2)), 3, axis=0)
    z, first = np.tile([0.0, 30.0, 60.0], 10), None
    for sequence in range(8):
        seen = random.permutation(30)
        places = (yx + random.normal(0, 1, yx.shape))[seen]
        tracks = tracker.update(detections(places, sequence, z=(z + random.normal(0, 1, 30))[seen]))
        first = first or identities(tracks, seen)
        assert identities(tracks, seen) == first


def test_all_cells_at_one_height_are_followed_as_those_of_a_plane_are(detections):
    flat, deep, random = LapTracker(), LapTracker(), np.random.default_rng(6)
    yx, area = random.uniform(50, 450, (60, 2)), random.uniform(60, 140, 60)
    for sequence in range(10):
        yx = yx + random.normal(0, 1.5, yx.shape)
        seen = np.flatnonzero(random.random(60) > 0.05)
        given = {"area": area[seen]}
        one = flat.update(detections(yx[seen], sequence, **given))
        other = deep.update(detections(yx[seen], sequence, z=np.full(len(seen), 12.0), **given))
        assert other.track.tolist() == one.track.tolist()
        assert other.velocity.shape == (len(seen), 2)
