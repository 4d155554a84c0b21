"""The rule ``sort``: it foresees passages, treats coincidences by the policy, and the gate takes the right cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cytoloop.acquire.commands import Trigger
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.simulated.flow import FlowChannel, FlowGate
from cytoloop.models.detections import Detections
from cytoloop.realtime.bench import sort as bench
from cytoloop.realtime.pipeline import Pipeline
from cytoloop.realtime.progress import silent
from cytoloop.realtime.rules.passage import Passage, Passing, chance_within
from cytoloop.realtime.rules.rule import Explaining, Moment
from cytoloop.realtime.rules.sort import Sort
from cytoloop.realtime.rules.sort_policy import Neighbour, refusal
from cytoloop.trackers.tracks import Tracks

SHAPE = (64, 256)
RATE = 1000.0  # frames per s


def moment(index, cells, along=1):
    """Return a frame with cells {track: (x, y, mean)}; ``along`` 0 exchanges x and y."""
    n = len(cells)
    places = np.array([(y, x) if along else (x, y) for x, y, _ in cells.values()]).reshape(n, 2)
    mean = np.array([value for *_, value in cells.values()]).reshape(n, 1)
    shape = SHAPE if along else SHAPE[::-1]
    low, high = np.maximum(places - 4, 0), np.minimum(places + 5, shape)
    found = Detections(
        sequence=index,
        time_s=index / RATE,
        shape=shape,
        yx=places,
        area=np.full(n, 50.0),
        bbox=np.concatenate([low, high], axis=1).astype(np.int32),
        mean=mean,
        maximum=mean,
        moments=np.ones((n, 3)),
    )
    tracks = Tracks(
        found,
        np.array(list(cells), np.int64),
        np.zeros(n, np.int64),
        np.zeros(n, np.int32),
        np.zeros((n, 2)),
        np.ones((n, 3)),
        np.ones(n),
    )
    frame = Frame(np.zeros((1, 1), np.uint8), index, index / RATE)
    return Moment(frame, tracks, None, measured={"mean": mean[:, 0]})


def flow(rule, cells, frames=30, along=1):
    """Let cells {track: (enters_s, px per s, y, mean)} cross the field; return the decisions and messages."""
    decisions, messages = [], []
    for index in range(frames):
        now = index / RATE
        seen = {
            track: ((now - enters) * speed, y, mean)
            for track, (enters, speed, y, mean) in cells.items()
            if 0 <= (now - enters) * speed < SHAPE[1]
        }
        verdict = rule.decide(moment(index, seen, along))
        decisions += verdict.decisions
        messages += verdict.messages
    return decisions, messages


def test_a_wanted_cell_gets_one_trigger_in_the_middle_of_which_it_passes():
    decisions, _ = flow(
        Sort(gate_px=400.0, above=100.0, width_ms=0.5, output="gate"), {1: (0.0031, 20_000.0, 30.0, 150.0)}
    )
    (decision,) = decisions
    assert isinstance(decision.command, Trigger)
    assert (decision.command.output, decision.command.width_ms) == ("gate", 0.5)
    assert decision.at_s == pytest.approx(0.0031 + 0.02, abs=1e-6)
    assert decision.command.at_s == pytest.approx(decision.at_s - 0.00025)
    assert decision.time_s < decision.command.at_s == decision.expires_s
    assert decision.at_px == pytest.approx((400.0, 30.0))
    assert decision.velocity_px_s == pytest.approx((20_000.0, 0.0))
    assert not decision.refused
    assert "mean 150" in decision.reasons[0]
    assert "passes the gate in" in decision.reasons[1]


def test_a_cell_that_is_not_wanted_gets_none():
    assert flow(Sort(gate_px=400.0, above=100.0), {1: (0.0, 20_000.0, 30.0, 90.0)})[0] == []
    assert flow(Sort(gate_px=400.0, below=100.0), {1: (0.0, 20_000.0, 30.0, 150.0)})[0] == []


def test_cells_may_go_along_y():
    decisions, _ = flow(Sort(gate_px=400.0, axis="y", above=1.0), {1: (0.0, 20_000.0, 30.0, 9.0)}, along=0)
    assert decisions[0].at_px == pytest.approx((30.0, 400.0))
    assert decisions[0].at_s == pytest.approx(0.02)


@pytest.mark.parametrize(("policy", "open_for"), [("purity", []), ("yield", [1]), ("enrich", [1])])
def test_another_cell_in_the_opening_is_treated_by_the_policy(policy, open_for):
    cells = {1: (0.0, 20_000.0, 20.0, 150.0), 2: (0.0001, 20_000.0, 45.0, 50.0)}
    decisions, _ = flow(Sort(gate_px=400.0, above=100.0, policy=policy), cells)
    assert [each.track for each in decisions] == [1]  # the refused one is told, too
    assert [each.track for each in decisions if not each.refused] == open_for
    if policy == "purity":
        assert decisions[0].refused.startswith("policy purity: cell 2 passes 0.100 ms later")


def test_a_faster_cell_that_catches_up_at_the_gate_is_foreseen():
    cells = {1: (0.0, 20_000.0, 20.0, 150.0), 2: (0.001, 21_052.0, 45.0, 50.0)}  # both at 400 px after 20 ms
    decisions, _ = flow(Sort(gate_px=400.0, above=100.0), cells)
    assert decisions[0].refused.startswith("policy purity")


def test_two_wanted_cells_together_are_both_taken():
    cells = {1: (0.0, 20_000.0, 20.0, 150.0), 2: (0.0001, 20_000.0, 45.0, 150.0)}
    decisions, _ = flow(Sort(gate_px=400.0, above=100.0), cells)
    assert [(each.track, each.refused) for each in decisions] == [(1, ""), (2, "")]


def test_a_cell_that_was_seen_too_seldom_is_left_alone_with_a_message():
    decisions, messages = flow(
        Sort(gate_px=700.0, above=1.0, min_frames=5), {1: (0.0, 100_000.0, 30.0, 9.0)}, frames=60
    )
    assert decisions == []
    assert any("5 are needed" in each or "lost before" in each for each in messages)


def test_a_gate_that_cannot_be_reached_in_time_is_refused():
    decisions, _ = flow(Sort(gate_px=40.0, above=1.0), {1: (0.0, 20_000.0, 30.0, 9.0)})
    assert "too early for a trigger" in decisions[0].refused


def test_why_and_why_not_is_said_of_every_cell():
    rule = Sort(gate_px=400.0, above=100.0)
    assert isinstance(rule, Explaining)
    for index in range(3):
        now = moment(index, {1: (20.0 + 20 * index, 30.0, 150.0), 2: (40.0 + 20 * index, 30.0, 50.0)})
        rule.decide(now)
    assert rule.explain(now, 0).verdict.startswith("not yet")
    clauses = rule.explain(now, 1).clauses
    assert (clauses[0].value, clauses[0].threshold, clauses[0].holds) == (50.0, 100.0, False)


def test_the_doubt_of_a_passage_is_as_large_as_its_errors():
    random = np.random.default_rng(0)
    errors = []
    for _ in range(400):
        cell, speed = Passing(), random.uniform(15_000, 25_000)
        for frame in range(10):
            t = frame / RATE
            cell.see(t, speed * t + random.normal(0, 0.5), 0.0, 1.0, whole=True)
        passage = cell.passage(400.0)
        assert passage is not None
        errors.append((passage.at_s - 400.0 / speed) / passage.sigma_s)
    assert np.std(errors) == pytest.approx(1.0, abs=0.15)


def test_half_a_cell_at_the_edge_does_not_count_for_its_speed():
    cell = Passing()
    cell.see(0.0, 5.0, 0.0, 1.0, whole=False)
    for frame in range(1, 5):
        cell.see(frame / RATE, 20.0 * frame, 0.0, 1.0, whole=True)
    assert cell.frames == 4
    passage = cell.passage(400.0)
    assert passage is not None
    assert passage.speed_px_s == pytest.approx(20_000.0)


def test_a_cell_that_rests_or_goes_back_has_no_passage():
    for speed in (0.0, -10.0):
        cell = Passing()
        for frame in range(5):
            cell.see(frame / RATE, 100.0 + speed * frame, 0.0, 1.0, whole=True)
        assert cell.passage(400.0) is None


def test_the_chance_to_pass_within_a_time_adds_up():
    passage = Passage(1.0, 0.1, 1.0)
    assert chance_within(passage, 0.9, 1.1) == pytest.approx(math.erf(1 / math.sqrt(2)))
    assert chance_within(passage, -9.0, 9.0) == pytest.approx(1.0)
    assert chance_within(Passage(1.0, 0.0, 1.0), 0.9, 1.1) == pytest.approx(1.0)


def test_enrich_refuses_only_where_others_outnumber_the_wanted():
    other, wanted = Neighbour(2, False, 1.0, 1e-4), Neighbour(3, True, 1.0, -1e-4)
    assert refusal("enrich", [other], 0.1) == ""
    assert "2.0 unwanted and 1.0 wanted" in refusal("enrich", [other, other], 0.1)
    assert refusal("enrich", [other, other, wanted], 0.1) == ""
    assert refusal("purity", [wanted], 0.0) == ""
    assert refusal("purity", [Neighbour(2, False, 0.05, 0.0)], 0.1) == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "above or below"),
        ({"above": 1.0, "axis": "z"}, "axis"),
        ({"above": 1.0, "policy": "best"}, "policy"),
        ({"above": 1.0, "width_ms": 0}, "width_ms"),
        ({"above": 1.0, "min_frames": 1}, "min_frames"),
        ({"above": 1.0, "contamination": 2}, "contamination"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(options, said):
    with pytest.raises(ValueError, match=said):
        Sort(gate_px=400.0, **options)


def test_a_measure_that_nobody_takes_is_named():
    verdict = Sort(gate_px=400.0, above=1.0, measure="gfp").decide(moment(0, {1: (9.0, 9.0, 1.0)}))
    assert verdict.messages == ("cannot sort: nothing is called 'gfp'; measured: mean",)


def sorted_channel(policy, rate=300.0):
    channel = FlowChannel(events_per_s=rate, seconds=1.5, speed_px_s=20_000.0, seed=5)
    gate = FlowGate(400.0)
    pipeline = Pipeline(bench.stream_of(gate.x_px, 20_000.0, 0.4, policy))
    for frame in channel.frames():
        for decision in pipeline.step(frame).reply.decisions:
            if not decision.refused:
                gate.actuate(decision)
    return gate.score(channel, from_s=0.05)


def test_bright_cells_of_a_simulated_channel_are_sorted():
    score = sorted_channel("purity", rate=100.0)
    assert score.targets > 15
    assert score.purity >= 0.9
    assert score.yielded >= 0.8


def test_purity_costs_yield_and_the_other_way_round():
    pure, all_of_them = sorted_channel("purity", 800.0), sorted_channel("yield", 800.0)
    assert pure.purity > all_of_them.purity
    assert pure.yielded < all_of_them.yielded


@pytest.mark.timeout(300)
def test_the_measurement_counts_every_frame_on_both_paths():
    result = bench.run(silent, seconds=0.5, frames_per_s=100.0, speed_px_s=5_000.0, rate=(40.0,))
    assert [row["path"] for row in result["rows"]] == ["link", "in process"]
    for row in result["rows"]:
        assert row["unanswered"] == 0
        assert row["decided"] >= row["withheld"]
        assert set(row["latency_ms"]) == {"p50", "p99", "p99.9"}
    assert result["published"]["events_per_s"] == 2000.0
