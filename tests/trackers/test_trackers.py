"""What every registered tracker of a live stream must do; those of whole movies are in test_batch_trackers.py."""

from __future__ import annotations

import copy
import inspect
from dataclasses import fields, replace

import numpy as np
import pytest
from cytoloop.acquire.plugins import find_class, known_names
from cytoloop.trackers.tracker import BatchTracker, Restorable, Tracker

CLASSES = {name: find_class("trackers", name) for name in known_names("trackers")}
NAMES = [name for name, cls in CLASSES.items() if not issubclass(cls, BatchTracker)]
RESTORABLE = [name for name in NAMES if issubclass(CLASSES[name], Restorable)]


@pytest.fixture
def detections(detections):
    """Return a function like that of all tests; the cells are discs, with their boxes and a mask."""

    def made(yx, sequence=0, **more):
        found = detections(yx, sequence, **more)
        radius = np.sqrt(found.area / np.pi)[:, np.newaxis]
        height, width = found.shape
        low = np.clip(np.floor(found.yx - radius), 0, [height - 1, width - 1])
        high = np.clip(np.ceil(found.yx + radius) + 1, 1, [height, width])
        boxes = np.concatenate([low, high], axis=1).astype(np.int32)
        mask = np.zeros(found.shape, np.int32)
        for number, (y0, x0, y1, x1) in enumerate(boxes.tolist(), start=1):
            y, x = np.ogrid[y0:y1, x0:x1]
            disc = (y - found.yx[number - 1, 0]) ** 2 + (x - found.yx[number - 1, 1]) ** 2
            mask[y0:y1, x0:x1][disc <= radius[number - 1] ** 2] = number
        return replace(found, bbox=boxes, mask=mask)

    return made


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
        moved = (yx + random.normal(0, 1, yx.shape))[order]
        tracks = tracker.update(detections(moved, sequence, area=400.0))
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


@pytest.mark.parametrize("option", ["max_distance_px", "min_iou", "max_gap"])
@pytest.mark.parametrize("value", [-1, -3])
def test_an_option_that_makes_no_sense_is_refused_by_name(make, option, value):
    if option not in inspect.signature(make).parameters:
        pytest.skip(f"it has no {option}")
    with pytest.raises(ValueError, match=option):
        make(**{option: value})


def halfway(tracker, detections, frames=6):
    """Let a tracker see half of a movie; return the rest of it."""
    movie = list(walk(detections))
    for given in movie[:frames]:
        tracker.update(given)
    return movie[frames:]


def same(one, two):
    """Return whether two values are the same, arrays in type and value."""
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and np.array_equal(one, two, equal_nan=one.dtype.kind == "f")
    return one == two


@pytest.mark.parametrize("name", RESTORABLE)
@pytest.mark.parametrize("frames", [0, 1, 6, 9])
def test_one_that_takes_over_a_state_goes_on_as_the_other_would_have(name, frames, detections):
    first, fresh = CLASSES[name](), CLASSES[name]()
    rest = halfway(first, detections, frames)
    fresh.restore(copy.deepcopy(first.state()))
    for given in rest:
        one, two = first.update(given), fresh.update(given)
        assert [
            each.name for each in fields(one) if not same(getattr(one, each.name), getattr(two, each.name))
        ] == []


@pytest.mark.parametrize("name", RESTORABLE)
def test_a_state_takes_the_place_of_what_a_tracker_knew(name, detections):
    first, other = CLASSES[name](), CLASSES[name]()
    rest = halfway(first, detections)
    for given in walk(detections, frames=3, seed=8):
        other.update(given)
    other.restore(first.state())
    for given in rest:
        assert first.update(given).track.tolist() == other.update(given).track.tolist()


def is_plain(value):
    """Return whether a value is made of numbers, text, arrays, and lists and tables of them."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return isinstance(value, int | float | str | np.ndarray | type(None))


@pytest.mark.parametrize("name", RESTORABLE)
def test_a_state_can_be_written_down_and_does_not_change_as_its_tracker_goes_on(name, detections):
    tracker = CLASSES[name]()
    rest = halfway(tracker, detections)
    state = tracker.state()
    before = copy.deepcopy(state)
    for given in rest:
        tracker.update(given)
    assert same(state, before)
    assert is_plain(state)


@pytest.mark.parametrize("name", RESTORABLE)
def test_a_state_of_another_kind_is_refused(name, detections):
    tracker = CLASSES[name]()
    halfway(tracker, detections)
    state = tracker.state()
    for wrong in ({"tracker": "another"}, dict(list(state.items())[:-1])):
        with pytest.raises(ValueError):
            CLASSES[name]().restore(wrong)
