from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.commands import MoveStage, Stimulate, Stop
from cytoloop.acquire.coordinates import Affine
from cytoloop.acquire.errors import PluginError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.plugins import OptionError, build, find_class, known_names
from cytoloop.acquire.reply import Decision, Division
from cytoloop.models.detections import Detections
from cytoloop.realtime.cell_table import measured_of
from cytoloop.realtime.rules.follow import Follow
from cytoloop.realtime.rules.on_division import OnDivision
from cytoloop.realtime.rules.rule import Moment, Rule, Verdict
from cytoloop.realtime.rules.stop_at_count import StopAtCount
from cytoloop.trackers.history import History
from cytoloop.trackers.tracks import Ended, Tracks

SHAPE = (101, 201)  # the centre is at x = 100, y = 50
ROTATED = Affine(0.0, -0.5, 0.5, 0.0)


def moment(
    cells: dict[int, tuple[float, float]],
    index: int = 0,
    stage: tuple[float, float] | None = (1000.0, 2000.0),
    affine: Affine | None = ROTATED,
    interval_s: float = 10.0,
    divisions: tuple[Division, ...] = (),
    ended: tuple[int, ...] = (),
    area: dict[int, float] | None = None,
    brightness: dict[int, tuple[float, ...]] | None = None,
    time_s: float | None = None,
    channel: int = 0,
    covariance: tuple[float, float, float] = (1.0, 2.0, 0.5),
) -> Moment:
    """Return a frame with cells at (x, y) in px by identity."""
    n = len(cells)
    when = index * interval_s if time_s is None else time_s
    mean = np.array([(brightness or {}).get(track, (0.0, 0.0)) for track in cells]).reshape(n, 2)
    found = Detections(
        sequence=index,
        time_s=when,
        shape=SHAPE,
        yx=np.array([(y, x) for x, y in cells.values()]).reshape(n, 2),
        area=np.array([(area or {}).get(track, 50.0) for track in cells]),
        bbox=np.array([(y - 4, x - 4, y + 5, x + 5) for x, y in cells.values()])
        .reshape(n, 4)
        .astype(np.int32),
        mean=mean,
        maximum=mean,
        moments=np.ones((n, 3)),
        stage_um=stage,
    )
    tracks = Tracks(
        detections=found,
        track=np.array(list(cells), np.int64),
        parent=np.zeros(n, np.int64),
        age=np.zeros(n, np.int32),
        velocity=np.zeros((n, 2)),
        covariance=np.tile(covariance, (n, 1)),
        confidence=np.ones(n),
        divisions=divisions,
        ended=tuple(map(Ended, ended)),
    )
    # Rules read no pixels: a recorded frame has none, and here they have not even the shape.
    frame = Frame(np.zeros((1, 1), np.uint8), sequence=index, time_s=when, stage_um=stage)
    history, measured = History(), measured_of(tracks, ("",))
    return Moment(frame, tracks, affine, channel, history, history.update(tracks, measured), measured)


def only(verdict: Verdict) -> Decision:
    (decision,) = verdict.decisions
    return decision


def test_every_registered_rule_satisfies_the_protocol_and_says_nothing_of_an_empty_frame() -> None:
    needed: dict[str, dict[str, Any]] = {
        "stop_at_count": {"count": 1},
        "when": {"action": {"do": "stop"}},
        "sort": {"gate_px": 300.0, "above": 1.0},
    }
    for name in known_names("rules"):
        rule = build(find_class("rules", name), needed.get(name, {}))
        assert isinstance(rule, Rule)
        assert rule.name == name
        assert rule.examples()
        assert rule.decide(moment({})) == Verdict()
        assert rule.decide(moment({}, 1, stage=None, affine=None)).decisions == ()


@pytest.mark.parametrize(
    ("which", "expected"),
    [("centre", 2), ("brightest", 3), ("largest", 1), (3, 3)],
    ids=lambda value: str(value),
)
def test_follow_picks_the_cell_that_was_asked_for(which: Any, expected: int) -> None:
    cells = {1: (10.0, 10.0), 2: (120.0, 50.0), 3: (150.0, 90.0)}
    scene = moment(cells, area={1: 90.0}, brightness={1: (9.0, 0.0), 3: (0.0, 5.0)}, channel=1)
    verdict = Follow(which=which).decide(scene)
    assert only(verdict).track == expected
    assert verdict.messages == (f"following cell {expected}",)


def test_follow_centres_a_resting_cell_through_a_rotated_camera() -> None:
    decision = only(Follow().decide(moment({7: (120.0, 60.0)})))
    # 20 px right and 10 px down; x_um = -0.5 * dy, y_um = 0.5 * dx.
    assert decision.command == MoveStage(1000.0 - 5.0, 2000.0 + 10.0)
    assert decision.at_px == pytest.approx((120.0, 60.0))
    assert decision.covariance_px2 == (2.0, 0.5, 1.0)
    assert decision.stage_um == (1000.0, 2000.0)
    assert "11.18 um from the centre" in decision.reasons[0]


def test_follow_keeps_the_stage_still_within_the_deadband() -> None:
    assert Follow(deadband_um=11.2).decide(moment({7: (120.0, 60.0)})).decisions == ()
    assert Follow(deadband_um=11.1).decide(moment({7: (120.0, 60.0)})).decisions


@pytest.mark.parametrize("late", [0, 1, 3])
def test_follow_brings_a_moving_cell_to_the_centre_of_the_next_frame_while_the_stage_moves(late: int) -> None:
    """The cell runs straight on; moves arrive ``late`` frames after they are asked for, so the stage is behind."""
    rule = Follow(deadband_um=0.0)
    start, velocity = np.array([1003.0, 1998.0]), np.array([4.0, -2.5])
    stage = (1000.0, 2000.0)
    asked: list[tuple[float, float]] = []
    for index in range(30):
        cell = tuple(start + velocity * index)
        at_px = ROTATED.image_position(cell, SHAPE, stage)
        verdict = rule.decide(moment({7: at_px}, index, stage=stage))
        expected = tuple(start + velocity * (index + 1))
        if index >= 1:
            move = only(verdict).command
            assert isinstance(move, MoveStage)
            assert (move.x_um, move.y_um) == pytest.approx(expected)
        asked.extend((d.command.x_um, d.command.y_um) for d in verdict.decisions)  # type: ignore[union-attr]
        if len(asked) > late:
            stage = asked[-1 - late]
    lag = math.dist(stage, start + velocity * 30)
    assert lag == pytest.approx(late * float(np.hypot(*velocity)), abs=1e-6)


def test_follow_keeps_the_identity_when_another_cell_comes_nearer_to_the_centre() -> None:
    rule = Follow()
    assert only(rule.decide(moment({1: (110.0, 50.0), 2: (150.0, 50.0)}))).track == 1
    assert only(rule.decide(moment({1: (160.0, 50.0), 2: (100.0, 50.0)}, 1))).track == 1


def test_follow_goes_on_with_the_daughter_nearer_to_where_the_mother_was_going() -> None:
    rule = Follow(deadband_um=0.0)
    for index in range(3):
        rule.decide(moment({1: (100.0 + 10 * index, 50.0)}, index))
    split = moment({5: (118.0, 50.0), 6: (129.0, 50.0)}, 3, divisions=(Division(1, (5, 6)),))
    verdict = rule.decide(split)
    assert verdict.messages == ("cell 1 divided; following its daughter 6",)
    assert only(verdict).track == 6
    assert only(rule.decide(moment({5: (100.0, 50.0), 6: (135.0, 50.0)}, 4))).track == 6


def test_follow_waits_for_a_cell_that_is_not_seen_and_goes_on_when_it_is_back() -> None:
    rule = Follow(deadband_um=0.0)
    for index in range(3):
        rule.decide(moment({1: (100.0 + 10 * index, 50.0)}, index))
    assert rule.decide(moment({}, 3)) == Verdict((), ("cell 1 is not seen; the stage waits",))
    assert rule.decide(moment({2: (100.0, 50.0)}, 4)) == Verdict()
    at_px = only(rule.decide(moment({1: (150.0, 50.0)}, 5))).at_px
    assert at_px == pytest.approx((160.0, 50.0))  # 10 px per frame, the frames that were missed included


def test_follow_says_that_its_cell_is_lost_and_stays_for_good() -> None:
    rule = Follow()
    rule.decide(moment({1: (120.0, 50.0)}))
    verdict = rule.decide(moment({2: (130.0, 50.0)}, 1, ended=(1,)))
    assert verdict == Verdict((), ("cell 1 is lost; the stage stays where it is",))
    assert rule.decide(moment({1: (130.0, 50.0), 2: (150.0, 50.0)}, 2)) == Verdict()


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ({"affine": None}, "give a pixel size"),
        ({"stage": None}, "where it is"),
        ({"stage": (math.nan, 0.0)}, "where"),
    ],
)
def test_follow_says_once_why_it_cannot_move_and_starts_when_it_can(missing: Any, reason: str) -> None:
    rule = Follow()
    verdict = rule.decide(moment({1: (120.0, 50.0)}, **missing))
    assert verdict.decisions == ()
    assert reason in verdict.messages[0]
    assert rule.decide(moment({1: (120.0, 50.0)}, 1, **missing)) == Verdict()
    assert only(rule.decide(moment({1: (120.0, 50.0)}, 2))).track == 1


def test_follow_survives_a_division_while_it_cannot_place_the_cell() -> None:
    rule = Follow()
    rule.decide(moment({1: (120.0, 50.0)}))
    split = (Division(1, (5, 6)),)
    verdict = rule.decide(moment({5: (90.0, 50.0), 6: (140.0, 50.0)}, 1, stage=None, divisions=split))
    assert verdict.messages[0] == "cell 1 divided; following its daughter 5"
    assert only(rule.decide(moment({5: (90.0, 50.0), 6: (100.0, 50.0)}, 2))).track == 5


def test_follow_takes_a_daughter_that_is_not_seen_yet() -> None:
    rule = Follow()
    rule.decide(moment({1: (120.0, 50.0)}))
    rule.decide(moment({}, 1, divisions=(Division(1, (5, 6)),)))
    rule.decide(moment({}, 2, divisions=(Division(5, (8, 9)),)))
    assert only(rule.decide(moment({8: (120.0, 50.0)}, 3))).track == 8


def test_each_daughter_is_stimulated_once_where_it_will_be() -> None:
    rule = OnDivision(duration_ms=50.0, power=0.5, radius_px=4.0)
    assert rule.decide(moment({1: (50.0, 50.0)})) == Verdict()
    split = (Division(1, (2, 3)),)
    first = rule.decide(moment({2: (45.0, 50.0), 3: (55.0, 50.0)}, 1, divisions=split))
    assert [decision.track for decision in first.decisions] == [2, 3]
    command = first.decisions[0].command
    assert isinstance(command, Stimulate)
    assert command.points_px[0] == pytest.approx((45.0, 50.0))
    assert (command.radius_px, command.duration_ms, command.power) == (4.0, 50.0, 0.5)
    assert first.decisions[0].reasons[:2] == (
        "cell 1 divided into 2 and 3",
        "0 frame(s) after the division, allowed 0 to 3",
    )
    again = moment({2: (45.0, 50.0), 3: (55.0, 50.0)}, 2, divisions=split)
    assert rule.decide(again) == Verdict()


@pytest.mark.parametrize("cut", [(3.0, 50.0), (197.0, 50.0), (50.0, 2.0), (50.0, 98.0)])
def test_a_division_at_the_edge_of_the_image_is_left_alone(cut: tuple[float, float]) -> None:
    verdict = OnDivision().decide(moment({2: (45.0, 50.0), 3: cut}, divisions=(Division(1, (2, 3)),)))
    assert verdict == Verdict((), ("cell 1 divided at the edge of the image and is left alone",))


@pytest.mark.parametrize(
    "stages", [None, [(0.0, 0.0), (0.0, 0.0), (0.0, 0.0)], [(0.0, 0.0), (30.0, -9.0), (7.0, 3.0)]]
)
def test_a_delayed_stimulation_is_aimed_ahead_of_the_daughter_also_when_the_stage_moves(stages: Any) -> None:
    rule = OnDivision(delay_frames=2)
    verdict = Verdict()
    for index in range(3):
        at_px = (60.0 + 6 * index, 40.0 + 2 * index)
        if stages:
            target = ROTATED.stage_target(at_px, SHAPE, (0.0, 0.0))
            at_px = ROTATED.image_position(target, SHAPE, stages[index])
        split = (Division(1, (2, 3)),) if index == 0 else ()
        stage = stages[index] if stages else None
        verdict = rule.decide(moment({2: at_px}, index, stage=stage, divisions=split))
        assert bool(verdict.decisions) == (index == 2)
    ahead = only(verdict).at_px
    assert ahead is not None
    if stages:
        ahead = ROTATED.image_position(ROTATED.stage_target(ahead, SHAPE, stages[2]), SHAPE, (0.0, 0.0))
    assert ahead == pytest.approx((78.0, 46.0))


def test_a_daughter_that_is_seen_late_is_stimulated_late_and_one_never_seen_is_named() -> None:
    rule = OnDivision(within_frames=2)
    rule.decide(moment({}, divisions=(Division(1, (2, 3)),)))
    assert rule.decide(moment({}, 1)) == Verdict()
    verdict = rule.decide(moment({2: (20.0, 20.0)}, 2))
    assert only(verdict).track == 2
    assert verdict.messages == (
        "cell 1 divided into 2 and 3; daughter 3 was not seen in time and is left alone",
    )
    assert rule.decide(moment({2: (20.0, 20.0), 3: (30.0, 20.0)}, 3)) == Verdict()


def test_what_rules_remember_is_bounded_by_the_cells_in_view() -> None:
    rule = OnDivision()
    for index in range(500):
        mother, daughters = 3 * index + 1, (3 * index + 2, 3 * index + 3)
        cells = {daughters[0]: (20.0, 20.0), daughters[1]: (30.0, 20.0)}
        rule.decide(
            moment(cells, index, divisions=(Division(mother, daughters),), ended=tuple(range(mother)))
        )
    assert len(rule._done) + len(rule._waiting) <= 8


def test_stop_asks_once_the_count_has_been_held_without_a_gap() -> None:
    rule = StopAtCount(count=2, dwell_frames=2)
    two, one = {1: (10.0, 10.0), 2: (20.0, 20.0)}, {1: (10.0, 10.0)}
    asked = [
        bool(rule.decide(moment(cells, index)).decisions)
        for index, cells in enumerate([two, one, two, two, two])
    ]
    assert asked == [False, False, False, True, True]
    decision = only(rule.decide(moment(two, 5)))
    assert decision.command == Stop("2 cells, enough are 2; held for 4 frames, needed 2")


@pytest.mark.parametrize(("interval_s", "good_s"), [(0.01, 1.0), (1.0, 3.0), (300.0, 900.0)])
def test_a_decision_is_good_for_three_frame_intervals_and_at_least_a_second(
    interval_s: float, good_s: float
) -> None:
    rule = StopAtCount(count=1, dwell_frames=1)
    for index in range(5):
        rule.decide(moment({1: (1.0, 1.0)}, index, interval_s=interval_s))
    decision = only(rule.decide(moment({1: (1.0, 1.0)}, 5, interval_s=interval_s)))
    assert decision.expires_s - decision.time_s == pytest.approx(good_s)


def test_a_stated_expiry_is_kept() -> None:
    decision = only(Follow(expires_after_s=0.25).decide(moment({1: (10.0, 10.0)}, time_s=4.0)))
    assert decision.expires_s == 4.25


def test_rules_outlive_times_that_stand_still_run_backwards_or_are_nan() -> None:
    rules: list[Rule] = [Follow(), OnDivision(), StopAtCount(count=1, dwell_frames=1)]
    for index, time_s in enumerate([5.0, 5.0, 3.0, math.nan, math.inf, -1e300, 5.0]):
        for rule in rules:
            scene = moment(
                {index + 1: (10.0, 10.0)}, index, time_s=time_s, divisions=(Division(index, (index + 1, 99)),)
            )
            for decision in rule.decide(scene).decisions:
                assert not decision.expires_s <= decision.time_s or math.isinf(time_s) or abs(time_s) > 1e100


def test_an_unknown_uncertainty_is_left_out_and_not_passed_on_as_nan() -> None:
    scene = moment({1: (10.0, 10.0)}, covariance=(1.0, math.inf, 0.0))
    assert only(Follow().decide(scene)).covariance_px2 is None


@pytest.mark.parametrize(
    ("name", "options", "wrong"),
    [
        ("follow", {"which": "center"}, "which"),
        ("follow", {"which": 0}, "which"),
        ("follow", {"deadband_um": -1.0}, "deadband_um"),
        ("follow", {"deadband_um": math.nan}, "deadband_um"),
        ("follow", {"expires_after_s": 0.0}, "expires_after_s"),
        ("follow", {"expires_after_s": math.nan}, "expires_after_s"),
        ("on_division", {"action": "stimulte"}, "action"),
        ("on_division", {"within_frames": -1}, "within_frames"),
        ("on_division", {"delay_frames": 4}, "delay_frames"),
        ("on_division", {"within_frames": 2, "delay_frames": 3}, "delay_frames"),
        ("on_division", {"duration_ms": 0.0}, "duration_ms"),
        ("on_division", {"duration_ms": math.inf}, "duration_ms"),
        ("on_division", {"power": 1.1}, "power"),
        ("on_division", {"radius_px": 0}, "radius_px"),
        ("stop_at_count", {}, "count"),
        ("stop_at_count", {"count": 0}, "count"),
        ("stop_at_count", {"count": 3, "dwell_frames": 0}, "dwell_frames"),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_name(
    name: str, options: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(OptionError) as caught:
        build(find_class("rules", name), options)
    assert caught.value.option == wrong


def test_an_unknown_rule_is_answered_with_the_known_names() -> None:
    with pytest.raises(PluginError, match="follow, on_division, sort, stop_at_count, when"):
        find_class("rules", "folow")
