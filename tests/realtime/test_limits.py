from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.commands import (
    Call,
    Command,
    Disarm,
    MoveFocus,
    MoveStage,
    Pause,
    Revisit,
    SetChannel,
    SetExposure,
    SetInterval,
    SetProperty,
    Skip,
    SnapExtra,
    Stimulate,
    Stop,
    Trigger,
    Webhook,
)
from cytoloop.acquire.coordinates import Affine
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.governor.limits import Limits
from cytoloop.acquire.reply import Decision
from cytoloop.models.detections import Detections
from cytoloop.realtime.limiter import Limiter
from cytoloop.realtime.rules.rule import Moment, Verdict
from cytoloop.trackers.tracks import Tracks
from hypothesis import given, settings
from hypothesis import strategies as st

SHAPE = (30, 40)  # its diagonal is 50 px
ORIGIN = (100.0, -100.0)


def moment(
    time_s: float = 1.0, stage: tuple[float, float] | None = ORIGIN, pixel_size_um: float | None = 2.0
) -> Moment:
    frame = Frame(np.zeros(SHAPE, np.uint8), time_s=time_s, stage_um=stage, z_um=0.0)
    nothing = np.empty((0, 4))
    found = Detections(
        0, time_s, SHAPE, nothing[:, :2], nothing[:, 0], nothing.astype(np.int32), nothing[:, :1], nothing[:, :1],
        nothing[:, :3],
    )  # fmt: skip
    ids = np.empty(0, np.int64)
    tracks = Tracks(found, ids, ids, ids.astype(np.int32), nothing[:, :2], nothing[:, :3], nothing[:, 0])
    return Moment(frame, tracks, None if pixel_size_um is None else Affine.from_pixel_size(pixel_size_um))


def decide(command: Any, **changes: Any) -> Decision:
    return Decision(
        **({"rule": "r", "command": command, "sequence": 0, "time_s": 1.0, "expires_s": 2.0} | changes)
    )


def check(command: Command, limits: Limits | None = None, **about: Any) -> str:
    """Return why a single command is refused, with its message checked."""
    verdict = Limiter(limits or Limits()).check(moment(**about), (decide(command),), ORIGIN)
    (decision,) = verdict.decisions
    assert bool(decision.refused) == bool(verdict.messages)
    assert decision.command == command
    return decision.refused


ALLOWED = {
    "a step of one field": (MoveStage(200.0, -100.0), Limits()),
    "ends of the box": (MoveStage(110.0, -90.0), Limits(x_um=(0, 110), y_um=(-90, 0))),
    "focus in its box": (MoveFocus(5.0), Limits(z_um=(0, 5))),
    "exposure": (SetExposure(1000.0), Limits()),
    "light": (Stimulate(points_px=((0.0, 29.4),), duration_ms=1000.0), Limits()),
    "mask": (Stimulate(mask=(1199, 1)), Limits()),
    "property": (SetProperty("LED", "State", "1"), Limits(properties=("LED.State",))),
    "trigger": (Trigger("gate", 1.0), Limits()),
    "snap": (SnapExtra(), Limits()),
    "skip": (Skip(100), Limits()),
    "pause": (Pause(60.0), Limits()),
    "stop": (Stop("enough"), Limits()),
}
REFUSED = {
    "a longer step": (
        MoveStage(201.0, -100.0),
        Limits(),
        "step of 101.0 um, the longest allowed is 100.0 um",
    ),
    "a configured step": (MoveStage(104.0, -100.0), Limits(max_step_um=3), "the longest allowed is 3.0 um"),
    "x": (MoveStage(111.0, -100.0), Limits(x_um=(0, 110)), "x_um 111 um: allowed 0 to 110 um"),
    "y": (MoveStage(100.0, -100.0), Limits(y_um=(-99, 0)), "y_um -100 um: allowed -99 to 0 um"),
    "x nan": (MoveStage(math.nan, -100.0), Limits(), "command is not finite"),
    "y infinite": (MoveStage(100.0, -math.inf), Limits(), "command is not finite"),
    "focus without a box": (MoveFocus(0.0), Limits(), "no limits.z_um is given"),
    "move with focus without a box": (MoveStage(100.0, -100.0, 0.0), Limits(), "no limits.z_um is given"),
    "focus": (MoveFocus(5.1), Limits(z_um=(0, 5)), "z_um 5.1 um: allowed 0 to 5 um"),
    "move with focus": (MoveStage(100.0, -100.0, -1.0), Limits(z_um=(0, 5)), "z_um -1 um"),
    "short exposure": (SetExposure(0.05), Limits(), "exposure_ms 0.05 ms: allowed 0.1 to 1000 ms"),
    "snap exposure": (SnapExtra(2000.0), Limits(), "exposure_ms 2000"),
    "long light": (Stimulate(points_px=((1.0, 1.0),), duration_ms=1001.0), Limits(), "duration_ms 1001"),
    "strong light": (
        Stimulate(points_px=((1.0, 1.0),), power=0.6),
        Limits(stimulation_power_max=0.5),
        "power 0.6: allowed 0 to 0.5",
    ),
    "light outside": (
        Stimulate(points_px=((1.0, 1.0), (40.0, 1.0))),
        Limits(),
        "outside the image of 40 x 30 px",
    ),
    "light nowhere": (Stimulate(), Limits(), "neither points nor a mask"),
    "wide light": (Stimulate(points_px=((1.0, 1.0),), radius_px=41.0), Limits(), "radius_px 41"),
    "wrong mask": (Stimulate(mask=(5, 5)), Limits(), "mask of 10 px"),
    "negative mask": (Stimulate(mask=(1201, -1)), Limits(), "mask of 1200 px"),
    "property": (SetProperty("LED", "State", "1"), Limits(properties=("LED.Power",)), "allowed: LED.Power"),
    "wide trigger": (Trigger("gate", 1.0, 101.0), Limits(), "width_ms 101"),
    "past trigger": (Trigger("gate", 0.5), Limits(), "before the frame's time"),
    "trigger beyond its expiry": (Trigger("gate", 2.5), Limits(), "after it expires at 2 s"),
    "negative skip": (Skip(-1), Limits(), "events -1"),
    "long pause": (Pause(61.0), Limits(), "pause 61 s: allowed 0 to 60 s"),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_a_command_within_the_limits_passes(case: str) -> None:
    assert check(*ALLOWED[case]) == ""


@pytest.mark.parametrize("case", REFUSED)
def test_a_command_outside_the_limits_is_refused_with_reason_and_message(case: str) -> None:
    command, limits, reason = REFUSED[case]
    refused = check(command, limits)
    assert refused
    assert reason in refused


def test_without_a_box_the_stage_stays_within_ten_fields_of_where_it_began() -> None:
    limits = Limits(max_step_um=1e6)
    assert check(MoveStage(1100.0, -100.0), limits) == ""
    assert "x_um 1101 um: allowed -900 to 1100 um" in check(MoveStage(1101.0, -100.0), limits)


def test_a_move_that_cannot_be_checked_is_refused() -> None:
    move = MoveStage(100.0, -100.0)
    assert "does not say where the stage is" in check(move, stage=None)
    assert "nor a pixel size" in check(move, pixel_size_um=None)
    assert "limits.y_um nor a pixel size" in check(
        move, Limits(max_step_um=5, x_um=(0, 200)), pixel_size_um=None
    )
    assert check(move, Limits(max_step_um=5, x_um=(0, 200), y_um=(-200, 0)), pixel_size_um=None) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_s": math.nan},
        {"expires_s": 0.5},
        {"time_s": math.inf},
        {"at_px": (1.0, math.nan)},
        {"covariance_px2": (1.0, math.inf, 1.0)},
        {"stage_um": (math.nan, 0.0)},
    ],
)
def test_a_decision_with_numbers_that_are_none_is_refused(changes: dict[str, Any]) -> None:
    verdict = Limiter(Limits()).check(moment(), (decide(Skip(), **changes),), ORIGIN)
    assert verdict.decisions[0].refused
    assert len(verdict.messages) == 1


def test_what_a_rule_refused_itself_stays_refused() -> None:
    verdict = Limiter(Limits()).check(moment(), (decide(Skip(), refused="not now"),), ORIGIN)
    assert verdict.decisions[0].refused == "not now"


@pytest.mark.parametrize(
    "junk",
    [
        "move left",
        decide("move left"),
        decide(MoveStage("far", 0.0)),  # type: ignore[arg-type]
        decide(Skip(1.5)),  # type: ignore[arg-type]
        decide(Skip(), track="cell"),
        decide(SetProperty("LED", "State", None)),  # type: ignore[arg-type]
        decide(Stimulate(points_px=("ab",))),  # type: ignore[arg-type]
        decide(object()),
    ],
)
def test_a_malformed_decision_is_dropped_with_a_message_and_the_others_are_kept(junk: Any) -> None:
    verdict = Limiter(Limits()).check(moment(), (junk, decide(Skip())), ORIGIN)
    assert [decision.command for decision in verdict.decisions] == [Skip()]
    assert "malformed" in verdict.messages[0]


def passed(limiter: Limiter, time_s: float, count: int, command: Command | None = None) -> int:
    verdict = limiter.check(moment(time_s), (decide(command or Skip()),) * count, ORIGIN)
    assert len(verdict.decisions) == count
    return sum(not decision.refused for decision in verdict.decisions)


def test_commands_per_second_are_counted_in_frame_time() -> None:
    limiter = Limiter(Limits(commands_per_s=3))
    assert [passed(limiter, time_s, 2) for time_s in (1.0, 1.5, 1.9, 2.0, 2.5, 60.0)] == [2, 1, 0, 2, 1, 2]


def test_a_rate_below_one_per_second_spaces_commands_out() -> None:
    limiter = Limiter(Limits(commands_per_s=0.5))
    assert [passed(limiter, time_s, 1) for time_s in (1.0, 2.0, 2.9, 3.0, 4.0, 5.0)] == [1, 0, 0, 1, 0, 1]


def test_times_that_stand_still_run_backwards_or_are_nan_do_not_open_the_rate() -> None:
    limiter = Limiter(Limits(commands_per_s=2))
    assert [passed(limiter, time_s, 2) for time_s in (9.0, 9.0, 1.0, math.nan, math.inf)] == [2, 0, 0, 0, 0]


def test_the_very_first_times_count_too_when_they_are_nan() -> None:
    limiter = Limiter(Limits(commands_per_s=2))
    assert passed(limiter, math.nan, 5) <= 2


def test_stopping_is_never_held_back_by_the_rate() -> None:
    limiter = Limiter(Limits(commands_per_s=1))
    assert passed(limiter, 1.0, 5) == 1
    assert passed(limiter, 1.0, 3, Stop("enough")) == 3


numbers = st.one_of(st.floats(), st.floats(-300, 300), st.sampled_from([0.0, 100.0, -100.0, 1e308]))
points = st.lists(st.tuples(numbers, numbers), max_size=3).map(tuple)
text = st.sampled_from(["LED", "State", "Power", ""])
commands = st.one_of(
    st.builds(MoveStage, numbers, numbers, st.none() | numbers),
    st.builds(MoveFocus, numbers),
    st.builds(SetExposure, numbers),
    st.builds(SetProperty, text, text, text),
    st.builds(
        Stimulate, points, numbers, st.lists(st.integers(-5, 1300), max_size=3).map(tuple), numbers, numbers
    ),
    st.builds(Trigger, text, numbers, numbers),
    st.builds(SnapExtra, st.none() | numbers, text),
    st.builds(Skip, st.integers(-5, 300)),
    st.builds(Pause, numbers),
    st.builds(Stop, text),
)
pair = st.none() | st.tuples(numbers, numbers)
decisions = st.builds(decide, commands, time_s=numbers, expires_s=numbers, at_px=pair, stage_um=pair)
intervals = st.none() | st.tuples(st.floats(-300, 300), st.floats(-300, 300)).map(
    lambda ends: (min(ends), max(ends))
)
some_limits = st.builds(
    Limits,
    x_um=intervals,
    y_um=intervals,
    z_um=intervals,
    max_step_um=st.none() | st.floats(0.1, 500),
    commands_per_s=st.floats(0.1, 50),
    stimulation_power_max=st.floats(0, 1),
    properties=st.sampled_from([(), ("LED.State",)]),
)


def assert_inside(command: Any, limits: Limits) -> None:
    """State the limits once more, independently of the code that keeps them."""
    for value in getattr(command, "__struct_fields__", ()):
        number = getattr(command, value)
        assert not isinstance(number, float) or math.isfinite(number)
    name = type(command).__name__
    if name == "MoveStage":
        assert math.dist((command.x_um, command.y_um), ORIGIN) <= (limits.max_step_um or 100.0)
        for value, box, start in ((command.x_um, limits.x_um, 100.0), (command.y_um, limits.y_um, -100.0)):
            low, high = box or (start - 1000, start + 1000)
            assert low <= value <= high
    if name in ("MoveStage", "MoveFocus") and command.z_um is not None:
        assert limits.z_um is not None
        assert limits.z_um[0] <= command.z_um <= limits.z_um[1]
    if name in ("SetExposure", "SnapExtra") and command.exposure_ms is not None:
        assert 0.1 <= command.exposure_ms <= 1000
    if name == "SetProperty":
        assert f"{command.device}.{command.property}" in limits.properties
    if name == "Stimulate":
        assert 0 <= command.duration_ms <= 1000
        assert 0 <= command.power <= limits.stimulation_power_max
        assert all(-0.5 <= x <= 39.5 and -0.5 <= y <= 29.5 for x, y in command.points_px)
        assert command.points_px or sum(command.mask) == 1200
        assert min(command.mask, default=0) >= 0
    if name == "Trigger":
        assert 0 <= command.width_ms <= 100
    if name == "Pause":
        assert 0 <= command.seconds <= 60
    if name == "Skip":
        assert 1 <= command.events <= 100


@settings(max_examples=300, deadline=None)
@given(some_limits, st.lists(st.tuples(numbers, st.lists(decisions, max_size=6)), max_size=6))
def test_no_command_outside_the_limits_ever_passes(
    limits: Limits, frames: list[tuple[float, list[Decision]]]
) -> None:
    limiter = Limiter(limits)
    acted: list[float] = []
    latest = -math.inf
    for time_s, wanted in frames:
        latest = max(latest, time_s) if math.isfinite(time_s) else latest
        verdict: Verdict = limiter.check(moment(time_s), tuple(wanted), ORIGIN)
        assert len(verdict.decisions) == len(wanted)
        assert len(verdict.messages) == sum(bool(decision.refused) for decision in verdict.decisions)
        for decision in verdict.decisions:
            if not decision.refused:
                assert_inside(decision.command, limits)
                acted += [latest] * (type(decision.command) is not Stop)
    most = max(1, int(limits.commands_per_s))
    for start in acted:
        end = start + 0.999 * most / limits.commands_per_s
        assert sum(start <= time_s < end for time_s in acted) <= most


def lit(track: int = 1, at: tuple[float, float] = (20.0, 10.0), **more: Any) -> Decision:
    return decide(
        Stimulate(points_px=(at,), duration_ms=100.0, power=0.5, radius_px=1.0, **more), track=track
    )


def refusals(limiter: Limiter, scene: Moment, *decisions: Decision) -> list[str]:
    return [each.refused for each in limiter.check(scene, decisions, (0.0, 0.0)).decisions]


def test_a_cell_gets_no_more_light_than_its_dose_and_another_one_does() -> None:
    limiter = Limiter(Limits(dose_ms_per_cell=100.0))
    said = refusals(limiter, moment(), lit(1), lit(1), lit(1), lit(2))
    assert said[:2] == ["", ""]
    assert said[2] == "dose_ms_per_cell: 150 ms of full power would be given, allowed 100 ms"
    assert said[3] == ""


def test_light_that_was_refused_counts_for_nothing_and_points_count_each_in_the_run() -> None:
    limiter = Limiter(Limits(dose_ms_per_run=150.0, stimulation_ms_max=100.0))
    strong = decide(Stimulate(points_px=((20.0, 10.0),), duration_ms=200.0, power=0.5))
    pair = decide(Stimulate(points_px=((20.0, 10.0), (5.0, 5.0)), duration_ms=100.0, power=0.5))
    said = refusals(limiter, moment(), strong, pair, pair, lit())
    assert "duration_ms" in said[0]
    assert said[1] == ""
    assert said[2].startswith("dose_ms_per_run: 200")
    assert said[3] == ""


def test_a_square_of_the_sample_gets_its_dose_wherever_the_stage_stands() -> None:
    limiter = Limiter(Limits(dose_ms_per_area=50.0, dose_area_um=10.0))
    here = moment(stage=(0.0, 0.0), pixel_size_um=1.0)
    height, width = here.tracks.detections.shape
    centre = (width - 1) / 2, (height - 1) / 2
    away = moment(stage=(-6.0, 0.0), pixel_size_um=1.0)
    beside = centre[0] + 6.0, centre[1]  # the same place of the sample after the stage has gone by 6 um
    assert refusals(limiter, here, lit(1, centre)) == [""]
    assert refusals(limiter, away, lit(2, beside))[0].startswith("dose_ms_per_area: 100")
    assert refusals(limiter, here, lit(3, (centre[0] - 15.0, centre[1]))) == [""]


def test_pulses_of_outputs_end_at_their_number() -> None:
    limiter = Limiter(Limits(triggers_max=2))
    pulses = [decide(Trigger("gate", at_s=1.5)) for _ in range(3)]
    assert refusals(limiter, moment(), *pulses) == ["", "", "triggers_max 2 is reached"]


@pytest.mark.parametrize(
    ("command", "limits", "reason"),
    [
        (SetChannel("Channel", "DAPI"), {}, "channel 'Channel.DAPI' is not allowed; allowed: none"),
        (SetChannel("Channel", "DAPI"), {"channels": ("Channel.DAPI",)}, ""),
        (SetInterval(0.01), {}, "interval_s 0.01 s: allowed 0.1 to 86400 s"),
        (
            Webhook("https://evil.example/x"),
            {"webhooks": ("https://lab.example/",)},
            "no allowed address begins",
        ),
        (Webhook("https://lab.example/x"), {"webhooks": ("https://lab.example/",)}, ""),
        (Call("start"), {}, "call 'start' is not allowed; allowed: none"),
        (Call("start"), {"calls": ("start",)}, ""),
        (Disarm("lost"), {"commands_per_s": 1e-6}, ""),
        (Revisit(1e6, 0.0), {}, "step of"),
        (Revisit(0.0, 0.0, z_um=3.0), {}, "focus is never moved"),
        (Revisit(0.0, 0.0, channel="DAPI"), {}, "channel 'DAPI' is not allowed"),
    ],
    ids=str,
)
def test_what_is_not_allowed_by_name_or_bounds_is_refused(
    command: Any, limits: dict[str, Any], reason: str
) -> None:
    scene = moment(stage=(0.0, 0.0), pixel_size_um=1.0)
    said = refusals(Limiter(Limits(**limits)), scene, decide(command))[0]
    assert said == reason or (reason and reason in said)
