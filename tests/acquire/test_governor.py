"""The governor by itself: rates, doses and the stage's time, counted again by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from cytoloop.acquire.commands import Disarm, MoveStage, Revisit, Skip, Stimulate, Stop, Trigger
from cytoloop.acquire.coordinates import Affine
from cytoloop.acquire.governor.governor import Governor
from cytoloop.acquire.governor.limits import Limits
from cytoloop.acquire.governor.places import Seen
from cytoloop.acquire.reply import Correction, Decision
from hypothesis import given
from hypothesis import strategies as st

SEEN = Seen(0.0, (0.0, 0.0), (21, 21), Affine.from_pixel_size(1.0), (0.0, 0.0))  # centre: (10, 10) px
ROOM: dict[str, Any] = {"x_um": (-1e6, 1e6), "y_um": (-1e6, 1e6), "max_step_um": 1e6}


def of(command: Any, track: int = 0) -> Decision:
    return Decision("r", command, 0, 0.0, 1e9, track=track)


def light(
    track: int = 1, dose_ms: float = 50.0, points: tuple[tuple[float, float], ...] = ((10.0, 10.0),)
) -> Decision:
    """Return a light at half power with this dose at each point."""
    return of(Stimulate(points_px=points, radius_px=1.0, duration_ms=2 * dose_ms, power=0.5), track)


def pulse() -> Decision:
    return of(Trigger("gate", at_s=1e6))


def let(governor: Governor, time_s: float, decision: Decision, seen: Seen = SEEN) -> str:
    """Ask and, if it may pass, count; return why it may not."""
    governor.see(time_s)
    reason = governor.refusal(decision, seen)
    if not reason:
        governor.count(decision, seen)
    return reason


def passes(governor: Governor, decision: Decision, times_s: tuple[float, ...]) -> list[bool]:
    return [let(governor, time_s, decision) == "" for time_s in times_s]


@pytest.mark.parametrize(
    ("per_s", "times_s", "passed"),
    [
        (2.0, (0.0, 0.0, 0.0, 0.9, 1.0, 1.0, 1.0), [True, True, False, False, True, True, False]),
        (1.0, (0.0, 0.5, 1.0, 1.5, 2.0), [True, False, True, False, True]),
        (0.25, (0.0, 3.9, 4.0, 7.9, 8.0), [True, False, True, False, True]),
        (0.01, (0.0, 99.0, 100.0), [True, False, True]),
    ],
)
def test_commands_pass_at_their_rate_above_and_below_one_per_second(
    per_s: float, times_s: tuple[float, ...], passed: list[bool]
) -> None:
    assert passes(Governor(Limits(commands_per_s=per_s)), of(Skip()), times_s) == passed


@pytest.mark.parametrize(
    ("per_s", "times_s", "passed"),
    [
        (3.0, (0.0, 0.25, 0.5, 0.75, 1.0, 1.125, 1.25), [True, True, True, False, True, False, True]),
        (0.5, (0.0, 1.0, 2.0, 3.0, 4.0), [True, False, True, False, True]),
    ],
)
def test_pulses_have_a_rate_of_their_own(
    per_s: float, times_s: tuple[float, ...], passed: list[bool]
) -> None:
    governor = Governor(Limits(triggers_per_s=per_s))
    assert passes(governor, pulse(), times_s) == passed
    assert let(governor, times_s[-1], of(Skip())) == ""


def test_the_reason_says_which_rate_is_full() -> None:
    governor = Governor(Limits(triggers_per_s=1, commands_per_s=3))
    assert let(governor, 0.0, pulse()) == ""
    assert let(governor, 0.0, pulse()) == "more than 1 pulses per second of frame time"
    assert [let(governor, 0.0, of(Skip())) for _ in range(2)] == ["", ""]
    assert let(governor, 0.0, of(Skip())) == "more than 3 commands per second of frame time"
    assert [let(governor, 0.0, of(command)) for command in (Stop("x"), Disarm("x"))] == ["", ""]


@pytest.mark.parametrize("kind", [MoveStage, Revisit])
def test_a_move_takes_the_time_of_the_stage_that_its_way_needs(kind: Any) -> None:
    governor = Governor(Limits(stage_um_per_s=50.0, **ROOM))
    assert let(governor, 10.0, of(kind(300.0, 400.0))) == ""  # 500 um: 10 s
    assert let(governor, 10.0, of(kind(0.0, 0.0))) == "stage_um_per_s 50: the moves before take 10.00 s more"
    assert let(governor, 19.9, of(kind(300.0, 400.0))).endswith("take 0.10 s more")
    assert let(governor, 19.9, of(Skip())) == ""  # only moves wait
    assert (
        let(governor, 20.0, of(kind(300.0, 410.0))) == ""
    )  # 10 um from there, though it was seen at 0: 0.2 s
    assert let(governor, 20.1, of(kind(300.0, 410.0)))
    assert let(governor, 20.25, of(kind(300.0, 410.0))) == ""


def test_times_that_run_backwards_or_are_none_do_not_give_the_stage_more_time() -> None:
    governor = Governor(Limits(stage_um_per_s=1.0, **ROOM))
    assert let(governor, 100.0, of(MoveStage(10.0, 0.0))) == ""
    for time_s in (0.0, math.nan, math.inf, 109.0):
        assert let(governor, time_s, of(MoveStage(0.0, 0.0)))
    assert let(governor, 110.0, of(MoveStage(0.0, 0.0))) == ""


def test_what_passes_in_a_frame_that_comes_late_counts_in_the_latest_time_seen() -> None:
    governor = Governor(Limits(commands_per_s=1))
    governor.see(10.0)
    assert let(governor, 5.0, of(Skip())) == ""
    assert let(governor, 10.0, of(Skip()))
    assert let(governor, 11.0, of(Skip())) == ""


def test_a_light_on_several_points_counts_once_for_each_in_the_run_and_once_for_its_cell() -> None:
    pair = light(1, 50.0, ((5.0, 5.0), (15.0, 15.0)))
    governor = Governor(Limits(dose_ms_per_run=190.0))
    assert let(governor, 0.0, pair) == ""
    assert let(governor, 0.0, pair).startswith("dose_ms_per_run: 200 ms")
    assert let(governor, 0.0, light(2, 90.0)) == ""
    governor = Governor(Limits(dose_ms_per_cell=100.0))
    assert [let(governor, 0.0, pair) == "" for _ in range(3)] == [True, True, False]


def test_asking_counts_nothing_and_counting_does() -> None:
    limits = Limits(
        commands_per_s=1, triggers_per_s=1, triggers_max=1, stage_um_per_s=1.0, dose_ms_per_cell=50.0, **ROOM
    )
    for decision in (pulse(), light(), of(MoveStage(5.0, 0.0)), of(Skip())):
        governor = Governor(limits)
        governor.see(1.0)
        assert [governor.refusal(decision, SEEN) for _ in range(20)] == [""] * 20
        governor.count(decision, SEEN)
        assert governor.refusal(decision, SEEN)


def test_what_was_given_stays_given_when_other_limits_come() -> None:
    governor = Governor(Limits())  # nothing of it is limited yet
    assert let(governor, 0.0, light(1, 60.0)) == ""
    assert let(governor, 0.0, pulse()) == ""
    governor.limits = Limits(dose_ms_per_cell=100.0)
    assert let(governor, 1.0, light(1, 60.0)).startswith("dose_ms_per_cell: 120 ms")
    assert let(governor, 1.0, light(2, 60.0)) == ""
    governor.limits = Limits(dose_ms_per_run=150.0)
    assert let(governor, 2.0, light(3, 60.0)).startswith("dose_ms_per_run: 180 ms")
    governor.limits = Limits(triggers_max=1)
    assert let(governor, 3.0, pulse()) == "triggers_max 1 is reached"
    governor.limits = Limits(triggers_max=2)
    assert let(governor, 4.0, pulse()) == ""


def test_a_square_of_the_sample_keeps_its_dose_when_the_limit_is_another() -> None:
    governor = Governor(Limits(dose_ms_per_area=100.0))
    assert let(governor, 0.0, light(1, 60.0)) == ""
    governor.limits = Limits(dose_ms_per_area=110.0)
    assert let(governor, 1.0, light(2, 60.0)).startswith("dose_ms_per_area: 120 ms")


@pytest.mark.parametrize("side_um", [5.0, 7.0, 20.0, 33.0])
def test_a_place_keeps_its_dose_when_squares_get_another_size(side_um: float) -> None:
    governor = Governor(Limits(dose_ms_per_area=100.0, dose_area_um=10.0))
    there = SEEN._replace(stage_um=(123.0, -77.0))
    assert let(governor, 0.0, light(1, 60.0), there) == ""
    governor.limits = Limits(dose_ms_per_area=100.0, dose_area_um=side_um)
    assert let(governor, 1.0, light(2, 60.0), there).startswith("dose_ms_per_area: 120 ms")
    assert let(governor, 1.0, light(3, 60.0), SEEN) == ""


def test_without_a_speed_any_more_the_stage_need_not_wait() -> None:
    governor = Governor(Limits(stage_um_per_s=1.0, **ROOM))
    assert let(governor, 0.0, of(MoveStage(100.0, 0.0))) == ""
    governor.limits = Limits(**ROOM)
    assert let(governor, 1.0, of(MoveStage(0.0, 0.0))) == ""


def test_other_limits_open_no_rate_that_is_full() -> None:
    governor = Governor(Limits(commands_per_s=2, stage_um_per_s=10.0, **ROOM))
    assert let(governor, 0.0, of(MoveStage(20.0, 0.0))) == ""
    assert let(governor, 0.0, of(Skip())) == ""
    governor.limits = Limits(commands_per_s=1, stage_um_per_s=1e6, **ROOM)
    assert let(governor, 0.9, of(Skip()))
    assert let(governor, 1.0, of(MoveStage(0.0, 0.0)))  # the stage is still on its way
    assert let(governor, 2.0, of(MoveStage(0.0, 0.0))) == ""


def test_the_dose_of_a_cell_follows_it_when_it_is_corrected_and_ends_with_it() -> None:
    governor = Governor(Limits(dose_ms_per_cell=100.0))
    assert let(governor, 0.0, light(1, 60.0)) == ""
    governor.see(1.0, (Correction(0, old=1, new=7, parent=0, reason="swapped"),))
    assert let(governor, 1.0, light(7, 60.0))
    governor.see(2.0, (), (7,))
    assert let(governor, 2.0, light(7, 60.0)) == ""


STAGES = st.sampled_from([(0.0, 0.0), (5.0, 0.0), (40.0, -15.0)])
SPOTS = st.lists(st.tuples(*[st.integers(0, 20).map(float)] * 2), min_size=1, max_size=3).map(tuple)
WANTED = st.one_of(
    st.just(of(Skip())),
    st.just(pulse()),
    st.builds(light, st.integers(0, 2), st.sampled_from([10.0, 25.0, 40.0]), SPOTS),
    st.builds(lambda x, y: of(MoveStage(x, y)), *[st.integers(-5, 5).map(lambda n: 8.0 * n)] * 2),
)
RATES = st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0])
SOME_LIMITS = st.builds(
    lambda **given: Limits(**ROOM, **given),
    commands_per_s=st.sampled_from([0.25, 1.0, 3.0, 50.0]),
    triggers_per_s=st.none() | RATES,
    triggers_max=st.none() | st.integers(0, 4),
    stage_um_per_s=st.none() | st.sampled_from([4.0, 16.0]),
    dose_ms_per_cell=st.none() | st.sampled_from([30.0, 80.0]),
    dose_ms_per_run=st.none() | st.sampled_from([60.0, 120.0]),
    dose_ms_per_area=st.none() | st.sampled_from([30.0, 60.0]),
)


def assert_rate(times_s: list[float], per_s: float | None) -> None:
    """Count in every whole second, or look at every gap."""
    if per_s is None:
        return
    if per_s >= 1:
        for start in times_s:
            assert sum(start <= time_s < start + 1 for time_s in times_s) <= per_s
    else:
        gaps = [after - before for before, after in itertools.pairwise(times_s)]
        assert min(gaps, default=math.inf) * per_s >= 1


def assert_stage(moves: list[tuple[float, tuple[float, float]]], um_per_s: float | None) -> None:
    if um_per_s is None:
        return
    at = (0.0, 0.0)  # where it was seen first
    for (start_s, to), (next_s, _) in itertools.pairwise(moves):
        assert (next_s - start_s) * um_per_s >= math.dist(at, to) - 1e-6
        at = to


def assert_doses(lights: list[tuple[Decision, tuple[float, float]]], limits: Limits) -> None:
    """Add up, in ms of full power, what each cell, each lit place and the run were given."""
    cells: dict[int, float] = {}
    places: dict[tuple[int, int], float] = {}
    run = 0.0
    for decision, (stage_x, stage_y) in lights:
        shone = decision.command
        assert isinstance(shone, Stimulate)
        ms = shone.duration_ms / 2
        run += ms * len(shone.points_px)
        if decision.track:
            cells[decision.track] = cells.get(decision.track, 0.0) + ms
        hit = {(int((stage_x + x - 10) // 10), int((stage_y + y - 10) // 10)) for x, y in shone.points_px}
        for place in hit:
            places[place] = places.get(place, 0.0) + ms
    assert run <= (limits.dose_ms_per_run or math.inf)
    assert max(cells.values(), default=0) <= (limits.dose_ms_per_cell or math.inf)
    assert max(places.values(), default=0) <= (limits.dose_ms_per_area or math.inf)


@given(
    SOME_LIMITS,
    st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.25, 1.0, -1.0]), WANTED, STAGES), max_size=40),
)
def test_no_sequence_of_accepted_commands_exceeds_a_rate_or_a_dose(
    limits: Limits, wanted: list[tuple[float, Decision, tuple[float, float]]]
) -> None:
    governor, clock_s, latest_s = Governor(limits), 0.0, -math.inf
    taken: list[tuple[float, Decision, tuple[float, float]]] = []
    for step_s, decision, stage in wanted:
        clock_s += step_s
        latest_s = max(latest_s, clock_s)
        seen = SEEN._replace(stage_um=(0.0, 0.0) if isinstance(decision.command, MoveStage) else stage)
        if let(governor, clock_s, decision, seen) == "":
            taken.append((latest_s, decision, stage))
    assert_rate([time_s for time_s, _, _ in taken], limits.commands_per_s)
    pulses = [time_s for time_s, decision, _ in taken if isinstance(decision.command, Trigger)]
    assert_rate(pulses, limits.triggers_per_s)
    assert limits.triggers_max is None or len(pulses) <= limits.triggers_max
    assert_doses(
        [(decision, stage) for _, decision, stage in taken if isinstance(decision.command, Stimulate)], limits
    )
    moves = [(time_s, each.command) for time_s, each, _ in taken if isinstance(each.command, MoveStage)]
    assert_stage([(time_s, (move.x_um, move.y_um)) for time_s, move in moves], limits.stage_um_per_s)
