"""What the default tracker promises whatever happens: movies in which cells do all that cells and segmenters can do."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import msgspec
import numpy as np
import pytest
from cytoloop.acquire.reply import Cells
from cytoloop.trackers.graph import GraphBuilder
from cytoloop.trackers.history import History
from cytoloop.trackers.lap import LapTracker
from cytoloop.trackers.lineage import LineageBuilder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def wild(detections, seed, frames=30, *, cells=14, z=False):
    """Yield a movie of cells that wander, come, go, divide, touch, break, jump; some frames are empty or absurd."""
    random = np.random.default_rng(seed)
    side = random.choice([80.0, 200.0, 400.0])
    yx = random.uniform(0, side, (cells, 2))
    area, mean = random.uniform(40, 160, cells), random.uniform(0, 80, cells)
    height, sequence = random.uniform(0, 40, cells), 0
    for _ in range(frames):
        sequence += int(random.choice([1, 1, 1, 3]))
        yx = yx + random.normal(0, random.choice([0.5, 4.0]), yx.shape)
        if random.random() < 0.1:
            yx = yx + random.normal(0, 15, 2)  # the sample jumps
        stay = random.random(len(yx)) > 0.04
        yx, area, mean, height = yx[stay], area[stay], mean[stay], height[stay]
        two = random.random(len(yx)) < 0.08  # divide for good
        way = random.normal(0, 5, (int(two.sum()), 2))
        new = random.uniform(0, side, (int(random.random() < 0.3), 2))
        yx = np.concatenate([yx[~two], yx[two] + way, yx[two] - way, new])
        area = np.concatenate([area[~two] * 1.04, area[two] / 2, area[two] / 2, np.full(len(new), 100.0)])
        area = np.clip(area, 1, 300)
        mean = np.concatenate([mean[~two], mean[two], mean[two], np.full(len(new), 40.0)])
        height = np.concatenate([height[~two], height[two], height[two], np.full(len(new), 20.0)])
        keep = random.permutation(len(yx))[:40]
        yx, area, mean, height = yx[keep], area[keep], mean[keep], height[keep]
        yield _seen(detections, random, sequence, yx, area, mean, height if z else None)


def _seen(detections, random, sequence, yx, area, mean, height):
    """Return what a poor segmenter makes of the cells of a frame."""
    rows = [
        [*place, size, light, 0.0 if height is None else height[row]]
        for row, (place, size, light) in enumerate(zip(yx, area, mean, strict=True))
        if random.random() > 0.06
    ]
    out = []
    while rows:
        y, x, size, light, z = rows.pop()
        near = [k for k, other in enumerate(rows) if np.hypot(other[0] - y, other[1] - x) < 7]
        draw = random.random()
        if near and draw < 0.5:  # seen as one
            other = rows.pop(near[0])
            both = size + other[2]
            y, x = (size * y + other[2] * other[0]) / both, (size * x + other[2] * other[1]) / both
            out.append([y, x, both, light, z])
        elif draw > 0.9:  # in pieces
            step = np.sqrt(size) / 4
            out += [[y + step, x, size / 2, light, z], [y - step, x, size / 2, light, z]]
        else:
            out.append([y, x, size, light, z])
    absurd = random.random()
    if absurd < 0.06:
        out = []
    elif absurd < 0.12 and out:
        out += [out[0], out[0]]  # identical
    elif absurd < 0.18 and out:
        out[0][2], out[-1][2] = 1.0, 60_000.0
        out[0][3] = 0.0
    table = np.array(out, float).reshape(-1, 5)[random.permutation(len(out))]
    width = np.sqrt(table[:, 2] / (4 * np.pi))[:, np.newaxis]
    flat = random.uniform(0.7, 1.4, (len(table), 1))
    moments = np.concatenate([width**2 * flat, width**2 / flat, 0.2 * width**2], axis=1)
    classes = {"mitotic": random.random(len(table)).astype(np.float32)} if random.random() < 0.3 else {}
    return detections(
        table[:, :2],
        sequence,
        area=table[:, 2],
        mean=table[:, 3],
        moments=moments,
        classes=classes,
        z=None if height is None else table[:, 4],
    )


class Witness:
    """Hears all that a tracker says of a movie, and objects to what cannot be."""

    def __init__(self):
        self.seen, self.over, self.mothers, self.lineage = set(), set(), set(), LineageBuilder()
        self.spoken = Counter()

    def hear(self, tracks):
        now, sequence = set(tracks.track.tolist()), tracks.detections.sequence
        assert len(now) == len(tracks) == len(tracks.detections)
        assert all(track > 0 for track in now)
        self.mothers -= {each.new for each in tracks.corrections}  # did not divide
        assert not now & self.over
        assert not now & self.mothers
        for division in tracks.divisions:
            assert set(division.daughters) <= now
            assert len(set(division.daughters)) == 2
            assert division.mother in self.seen
        for each in tracks.corrections:
            assert each.since < sequence
            assert each.old in self.seen
            assert each.new in self.seen | now
            assert each.parent in self.seen | {0}
            assert each.reason
        over = [each.track for each in tracks.ended]
        assert len(set(over)) == len(over)
        assert set(over) <= self.seen and not set(over) & (self.over | now)
        assert {each.track for each in tracks.ended if each.why == "division"} <= self.mothers
        assert set(tracks.parent.tolist()) <= self.seen | {0}
        self._check_numbers(tracks)
        for merge in tracks.merges:
            assert merge.track in now
            assert set(merge.hidden) <= self.seen - now - self.over
        self.lineage.add(sequence, tracks.track, tracks.divisions, tracks.corrections)
        self.mothers |= {division.mother for division in tracks.divisions}
        self.over |= set(over)
        self.seen |= now
        self.spoken.update(divisions=len(tracks.divisions), merges=len(tracks.merges), ended=len(over))
        self.spoken.update("late" if each.parent == each.old else "revoked" for each in tracks.corrections)

    @staticmethod
    def _check_numbers(tracks):
        assert ((tracks.confidence >= 0) & (tracks.confidence <= 1)).all()
        assert (tracks.margin >= 0).all()
        assert np.isfinite(tracks.velocity).all() and np.isfinite(tracks.covariance).all()
        assert (tracks.age >= 0).all()
        assert not (tracks.provisional & (tracks.age > 0) & (tracks.parent == 0)).any()
        assert tracks.provisional[tracks.age == 0].all()


@pytest.mark.parametrize("seed", range(40))
def test_nothing_that_it_says_contradicts_what_it_said(detections, seed):
    tracker, witness = LapTracker(max_gap=seed % 3), Witness()
    for given_ in wild(detections, seed, z=seed % 5 == 4):
        tracks = tracker.update(given_)
        witness.hear(tracks)
        lineage = (
            witness.lineage.build()
        )  # what holds after the corrections so far is what the tracker says now
        frame = len(lineage.sequences) - 1
        assert lineage.refused == ()
        assert lineage.ages(frame, tracks.track).tolist() == tracks.age.tolist()
        assert lineage.parents_of(tracks.track).tolist() == tracks.parent.tolist()
    assert min(witness.spoken[what] for what in ("divisions", "ended", "revoked", "late")) > 0


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.integers(0, 60),
                st.integers(0, 60),
                st.sampled_from([1.0, 20.0, 100.0, 5e4]),
                st.sampled_from([0.0, 50.0, 6e4]),
            ),
            max_size=7,
        ),
        min_size=2,
        max_size=8,
    ),
    st.integers(0, 2),
)
def test_any_cells_may_follow_any_others_without_contradiction(detections, movie, max_gap):
    tracker, witness = LapTracker(max_gap=max_gap), Witness()
    for sequence, cells in enumerate(movie):
        table = np.array(cells, float).reshape(-1, 4)
        witness.hear(tracker.update(detections(table[:, :2], sequence, area=table[:, 2], mean=table[:, 3])))
    assert witness.lineage.build().refused == ()


@pytest.mark.parametrize("seed", range(6))
def test_a_wild_run_becomes_a_graph_in_which_no_two_cells_are_one(detections, seed):
    tracker, builder, count = LapTracker(), GraphBuilder(), 0
    for given_ in wild(detections, 100 + seed):
        tracks = tracker.update(given_)
        y, x = given_.yx.astype(np.float32).T
        builder.add(
            given_.sequence,
            Cells(tracks.track, x, y, {"age": tracks.age.astype(np.float32)}),
            time_s=given_.time_s,
            divisions=tracks.divisions,
            merges=tracks.merges,
            corrections=tracks.corrections,
        )
        count += len(tracks)
    graph = builder.build()
    assert len(graph) == count
    assert graph.refused == ()
    assert graph.divisions > 0


@pytest.mark.parametrize("seed", range(12))
def test_the_past_of_cells_can_be_kept_through_a_wild_run_and_none_that_is_over_is_remembered(
    detections, seed
):
    tracker, history, over, mothers = LapTracker(), History(depth=5), set(), set()
    for given_ in wild(detections, 200 + seed):
        tracks = tracker.update(given_)
        descent = history.update(tracks, {"area_px": given_.area})
        assert np.array_equal(history.past("area_px", 1)[:, 0], given_.area.astype(np.float32))
        assert ((descent.generation > 0) >= (tracks.parent > 0)).all()
        over |= {each.track for each in tracks.ended}
        mothers -= {each.new for each in tracks.corrections}
        mothers |= {each.mother for each in tracks.divisions}
        memory = tracker.state()["memory"]
        # In view or missed, hidden, or a mother whose division may yet be revoked: nobody else.
        going_on = len(memory["alive"]["track"]) + len(memory["hidden"]["carrier"])
        assert len(history) <= going_on + len(mothers - over)


def written(value):
    """Return a state as it comes back from a file."""

    def plain(each):
        return {"array": each.tobytes(), "dtype": each.dtype.str, "shape": each.shape}

    def whole(each):
        if isinstance(each, dict) and "array" in each:
            return np.frombuffer(each["array"], each["dtype"]).reshape(each["shape"])
        return {key: whole(inner) for key, inner in each.items()} if isinstance(each, dict) else each

    return whole(msgspec.msgpack.decode(msgspec.msgpack.encode(value, enc_hook=plain)))


def awkward(tracker):
    """Return whether a division is not certain, a cell is hidden and another missed, all at once."""
    memory = tracker.state()["memory"]
    waits = (memory["alive"]["missed"] > 0).any()
    return bool(memory["splits"]["divided"].any() and len(memory["hidden"]["carrier"]) and waits)


def same(one, other):
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return one == other


def test_one_that_takes_over_in_an_awkward_moment_says_all_that_the_other_would_have(detections):
    taken = 0
    for seed in range(300, 312):
        first, heirs = LapTracker(), []
        for given_ in wild(detections, seed, frames=50):
            one = first.update(given_)
            for heir in heirs:
                other = heir.update(given_)
                names = [each.name for each in fields(one)]
                assert [n for n in names if not same(getattr(one, n), getattr(other, n))] == []
            if awkward(first) and len(heirs) < 3:
                heirs.append(LapTracker())
                heirs[-1].restore(written(first.state()))
        taken += len(heirs)
    assert taken > 10


def paths(value, at=()):
    for key, inner in value.items():
        yield (*at, key), inner
        if isinstance(inner, dict):
            yield from paths(inner, (*at, key))


def damaged(state, path, value):
    """Return a state with another value in one place; ... takes the place away."""
    head, *rest = path
    if rest:
        return state | {head: damaged(state[head], rest, value)}
    return {k: v for k, v in state.items() if k != head} if value is ... else state | {head: value}


def test_a_state_that_is_damaged_anywhere_is_refused(detections):
    tracker = LapTracker()
    for given_ in wild(detections, 303, frames=60):
        tracker.update(given_)
        if awkward(tracker):
            break
    state = tracker.state()
    LapTracker().restore(state)
    for path, value in paths(state):
        wrong = [..., "text", {}]
        if isinstance(value, np.ndarray):
            wrong += [value[:-1], value[np.newaxis], value.astype(str), np.array(1.0), None]
            wrong.append(np.zeros(value.shape, float if value.dtype.kind in "ib" else int))
        elif path[-1] != "memory" and not isinstance(value, dict | None):
            wrong.append(None)
        if path[-1] in ("mask", "stage_um"):
            wrong = [..., "text"]
        for each in wrong:
            with pytest.raises(ValueError):
                LapTracker().restore(damaged(state, path, each))
