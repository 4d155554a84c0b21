"""Channel, interval and visits in a real pycro-manager acquisition."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from cytoloop.acquire.commands import (
    MoveStage,
    Revisit,
    SetChannel,
    SetExposure,
    SetInterval,
    Skip,
    SnapExtra,
    Stop,
    Trigger,
)
from cytoloop.acquire.errors import AcquisitionError
from cytoloop.acquire.micromanager.loop import Loop
from cytoloop.acquire.reply import Decision

pytestmark = [pytest.mark.engine, pytest.mark.timeout(60)]
MODES = ["free", "barrier", "lockstep"]


@pytest.fixture
def run(core: Any) -> Callable[..., Any]:
    """Return what acquires events with a loop, and notes stage, preset and planned start at each snap."""
    from pycromanager import Acquisition

    def acquire(loop: Loop, events: Any, notes: list[Any] | None = None) -> Any:
        def note(event: Any) -> Any:
            if notes is not None:
                place = round(core.getXPosition()), round(core.getYPosition()), round(core.getPosition())
                notes.append((place, core.getCurrentConfig("Channel"), event.get("min_start_time")))
            return event

        with Acquisition(
            None,
            "test",
            image_process_fn=loop.on_image,
            pre_hardware_hook_fn=loop.before_event,
            post_hardware_hook_fn=note,
        ) as acq:
            acq.taken = loop.guard(acq).acquire(events)
        return acq

    return acquire


def times(count: int, interval_s: float | None = None, **more: Any) -> list[dict[str, Any]]:
    starts = [{} if interval_s is None else {"min_start_time": index * interval_s} for index in range(count)]
    return [{"axes": {"time": index}, **start, **more} for index, start in enumerate(starts)]


def two_channels(count: int) -> list[dict[str, Any]]:
    return [
        {"axes": {"time": time, "channel": name}, "config_group": ["Channel", name], "exposure": 2.0}
        for time in range(count)
        for name in ("DAPI", "FITC")
    ]


def once(sequence: int, *commands: Any) -> Any:
    return lambda frame: commands if frame.sequence == sequence else ()


@pytest.mark.parametrize("mode", ["barrier", "lockstep"])
def test_a_preset_takes_the_place_of_the_frames_channel_in_all_later_events(
    mode: Any, scripted: Any, run: Any
) -> None:
    link = scripted(once(0, SetChannel("Channel", "Cy5")))
    notes: list[Any] = []
    loop = Loop(link, mode=mode)
    run(loop, two_channels(3), notes)
    assert [preset for _, preset, _ in notes] == ["DAPI", "FITC", "Cy5", "FITC", "Cy5", "FITC"]
    # What the image is of in the plan does not change: trackers and storage go on.
    assert [frame.channels for frame in link.frames] == [("DAPI",), ("FITC",)] * 3
    assert (loop.stats.applied, loop.stats.failed, loop.stats.errors) == (1, 0, 0)


def test_a_preset_without_a_group_is_of_the_group_that_was_planned(scripted: Any, run: Any) -> None:
    notes: list[Any] = []
    run(Loop(scripted(once(1, SetChannel("", "Rhodamine"))), mode="lockstep"), two_channels(2), notes)
    assert [preset for _, preset, _ in notes] == ["DAPI", "FITC", "DAPI", "Rhodamine"]


def test_events_without_a_channel_take_the_preset_too(scripted: Any, core: Any, run: Any) -> None:
    core.setConfig("Channel", "DAPI")
    notes: list[Any] = []
    run(Loop(scripted(once(1, SetChannel("Channel", "FITC"))), mode="lockstep"), times(4), notes)
    assert [preset for _, preset, _ in notes] == ["DAPI", "DAPI", "FITC", "FITC"]


@pytest.mark.parametrize("mode", ["barrier", "lockstep"])
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (SetChannel("Channel", "FITCC"), "did you mean 'FITC'"),
        (SetChannel("Chanel", "FITC"), "did you mean 'Channel'"),
        (SetChannel("Channel", ""), "both must be given"),
    ],
)
def test_a_preset_that_does_not_exist_is_refused_and_the_plan_kept(
    command: Any, message: str, mode: Any, scripted: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop(scripted(once(0, command)), mode=mode)
    notes: list[Any] = []
    assert run(loop, two_channels(2), notes).taken == 4
    assert [preset for _, preset, _ in notes] == ["DAPI", "FITC"] * 2
    assert message in caplog.text
    assert loop.stats.failed == 1


def test_an_exposure_still_finds_its_channel_when_another_preset_stands_there(
    scripted: Any, run: Any
) -> None:
    def script(frame: Any) -> Any:
        return {0: [SetChannel("Channel", "Cy5")], 2: [SetExposure(4.0)]}.get(frame.sequence, [])

    link = scripted(script)
    run(Loop(link, mode="lockstep"), two_channels(3))
    assert [frame.exposure_ms for frame in link.frames] == [2.0, 2.0, 2.0, 2.0, 4.0, 2.0]


def test_a_shorter_interval_begins_with_the_next_time_point(scripted: Any, run: Any) -> None:
    notes: list[Any] = []
    loop = Loop(scripted(once(1, SetInterval(0.05))), mode="lockstep")
    # As planned, the third image would come after an hour, and the test would not end.
    events = [{"axes": {"time": t}, "min_start_time": start} for t, start in enumerate([0, 0.01, 3600, 7200])]
    assert run(loop, events, notes).taken == 4
    starts = [start for *_, start in notes]
    assert starts[1] == 0.01
    assert 0.06 <= starts[2] <= starts[3] - 0.05 + 1e-3
    assert loop.stats.applied == 1


def test_a_longer_interval_holds_for_all_images_of_a_time_point(scripted: Any, run: Any) -> None:
    link = scripted(once(0, SetInterval(0.2)))
    notes: list[Any] = []
    run(Loop(link, mode="lockstep"), two_channels(3), notes)
    starts = [start for *_, start in notes]
    assert starts[0] is None
    assert starts[2] == starts[3] >= 0.2  # when both planes could begin; the first time point began at once
    assert starts[4] == starts[5] >= starts[2] + 0.199
    taken = [frame.time_s for frame in link.frames]
    assert min(taken[4] - taken[2], taken[2] - taken[0]) > 0.15


def test_an_interval_holds_for_one_acquisition_only(scripted: Any, run: Any) -> None:
    loop = Loop(scripted(once(0, SetInterval(0.02))), mode="lockstep")
    for expected in (False, True):
        notes: list[Any] = []
        run(loop, times(3), notes)
        assert all(start is None for *_, start in notes[1:]) is expected


def test_time_points_that_are_skipped_still_count(scripted: Any, run: Any) -> None:
    link = scripted(once(0, SetInterval(0.05), Skip(2)))
    notes: list[Any] = []
    run(Loop(link, mode="lockstep"), times(5), notes)
    assert [frame.axes["time"] for frame in link.frames] == [0, 3, 4]
    assert notes[1][2] >= 0.149


@pytest.mark.parametrize("mode", ["free", "barrier"])
@pytest.mark.parametrize("command", [SetInterval(1.0), Revisit(1.0, 1.0)])
def test_interval_and_visits_are_refused_where_the_engine_cannot_be_told_in_time(
    command: Any, mode: Any, scripted: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop(scripted(once(0, command)), mode=mode)
    assert run(loop, iter(times(6))).taken == 6
    assert (
        f"{type(command).__name__} needs mode='lockstep' and events submitted through the guard"
        in caplog.text
    )
    assert loop.stats.failed == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (SetInterval(-1.0), "must be finite and 0 or more"),
        (SetInterval(float("nan")), "must be finite and 0 or more"),
        (Revisit(float("inf"), 0.0), "must be finite"),
        (Revisit(0.0, 0.0, exposure_ms=-1.0), "positive finite number"),
        (Revisit(0.0, 0.0, channel="nonsense"), "no preset 'nonsense'"),
    ],
)
def test_numbers_and_names_that_make_no_sense_do_not_touch_the_acquisition(
    command: Any, message: str, scripted: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop(scripted(once(0, command)), mode="lockstep")
    assert run(loop, times(3)).taken == 3
    assert message in caplog.text
    assert loop.stats.failed == 1


def test_an_interval_needs_an_axis_of_time(scripted: Any, run: Any, caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop(scripted(once(0, SetInterval(1.0))), mode="lockstep")
    run(loop, [{"axes": {"view": index}} for index in range(3)])
    assert "needs events with an axis 'time'" in caplog.text


def test_a_visit_is_an_extra_image_at_its_place_and_the_stage_comes_back(
    scripted: Any, core: Any, run: Any
) -> None:
    link = scripted(once(1, Revisit(40.0, 20.0, z_um=5.0, exposure_ms=3.0, channel="DAPI")))
    notes: list[Any] = []
    loop = Loop(link, mode="lockstep")
    acq = run(loop, times(4, exposure=1.0), notes)
    assert acq.taken == 5
    assert [place for place, *_ in notes] == [(0, 0, 0), (0, 0, 0), (40, 20, 5), (0, 0, 0), (0, 0, 0)]
    assert [frame.axes for frame in link.frames] == [
        {"time": 0},
        {"time": 1},
        {"time": 1, "extra": 1},
        {"time": 2},
        {"time": 3},
    ]
    visit = link.frames[2]
    assert (visit.stage_um, visit.z_um, visit.exposure_ms) == ((40.0, 20.0), 5.0, 3.0)
    assert [round(frame.stage_um[0]) for frame in link.frames] == [0, 0, 40, 0, 0]
    stored = acq.get_dataset().read_metadata(time=1, extra=1)
    assert (stored["XPosition_um_Intended"], stored["ZPosition_um_Intended"]) == (40.0, 5.0)
    assert (loop.stats.applied, loop.stats.failed, loop.stats.errors) == (1, 0, 0)


def test_a_visit_waits_for_its_time_and_is_made_before_an_event_that_is_planned_later(
    scripted: Any, run: Any
) -> None:
    link = scripted(once(0, Revisit(40.0, 0.0, at_s=0.3)))
    run(Loop(link, mode="lockstep"), [*times(3, 0.15), {"axes": {"time": 3}, "min_start_time": 1}])
    assert [frame.axes["time"] for frame in link.frames if "extra" not in frame.axes] == [0, 1, 2, 3]
    (visit,) = [frame for frame in link.frames if "extra" in frame.axes]
    assert visit.axes == {"time": 0, "extra": 1}  # it repeats the image that it rests on
    assert visit.time_s >= 0.29
    assert visit.sequence < 4  # not at the end, after an event that was planned for later


def test_a_visit_whose_time_does_not_come_is_told(
    scripted: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop(scripted(once(0, Revisit(40.0, 0.0, at_s=1e6))), mode="lockstep")
    assert run(loop, times(3)).taken == 3
    assert run(loop, times(3)).taken == 3
    assert "its time had not come when the acquisition ended" in caplog.text
    assert loop.stats.failed == 1


def test_visits_that_ask_for_visits_come_to_an_end(scripted: Any, run: Any) -> None:
    loop = Loop(scripted(lambda frame: [Revisit(10.0, 0.0)]), mode="lockstep")
    acq = run(loop, times(3))
    planned = [axes for axes in acq.get_dataset().get_image_coordinates_list() if "extra" not in axes]
    assert len(planned) == 3
    assert acq.taken < 20


def test_a_place_that_the_stage_does_not_reach_costs_the_visit_and_nothing_else(
    scripted: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop(scripted(once(0, Revisit(5.0, 0.0, z_um=1e9))), mode="lockstep")
    notes: list[Any] = []
    assert run(loop, times(3), notes).taken == 3
    assert [place for place, *_ in notes] == [(0, 0, 0)] * 3
    assert "cannot go to" in caplog.text
    assert loop.stats.failed == 1


def test_a_move_that_rests_on_a_visit_leaves_the_planned_places_alone(scripted: Any, run: Any) -> None:
    def script(frame: Any) -> Any:
        if frame.sequence == 0:
            return [Revisit(40.0, 0.0)]
        return [MoveStage(99.0, 0.0)] if "extra" in frame.axes else []

    link = scripted(script)
    run(Loop(link, mode="lockstep"), times(3, x=10.0, y=0.0))
    assert [round(frame.stage_um[0]) for frame in link.frames] == [10, 40, 10, 10]


@pytest.mark.parametrize(
    "command", [SnapExtra(9.0, "Cy5"), Revisit(0.0, 0.0, exposure_ms=9.0, channel="Cy5")]
)
def test_events_that_leave_the_microscope_as_it_is_find_it_as_it_was_before_an_extra_image(
    command: Any, scripted: Any, core: Any, run: Any
) -> None:
    core.setConfig("Channel", "DAPI")
    link = scripted(once(0, command))
    notes: list[Any] = []
    run(Loop(link, mode="lockstep"), times(3), notes)
    assert [preset for _, preset, _ in notes] == ["DAPI", "Cy5", "DAPI", "DAPI"]
    assert [frame.exposure_ms for frame in link.frames] == [1.0, 9.0, 1.0, 1.0]


def test_a_stop_leaves_out_the_visits_that_wait(scripted: Any, run: Any) -> None:
    link = scripted(once(0, Revisit(40.0, 0.0, at_s=0.2), Stop("enough")))
    run(Loop(link, mode="lockstep"), times(5, interval_s=10.0))
    assert len(link.frames) == 1


def test_a_visit_fails_with_the_acquisition_and_the_stage_comes_back(
    scripted: Any, core: Any, run: Any
) -> None:
    taken = itertools.count()

    def snap() -> None:
        if next(taken) == 1:
            raise RuntimeError("the shutter is stuck")
        core.snapImage()

    core.snap_image = snap
    with pytest.raises(AcquisitionError, match="the shutter is stuck"):
        run(Loop(scripted(once(0, Revisit(40.0, 0.0))), mode="lockstep"), times(3))
    assert round(core.getXPosition()) == 0


def test_what_waits_can_be_dropped_before_it_reaches_the_hardware(
    scripted: Any, core: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from cytoloop.acquire.micromanager.step import Step
    from pycromanager import Acquisition

    script = [
        MoveStage(40.0, 0.0),
        SetExposure(9.0),
        SetChannel("Channel", "Cy5"),
        Revisit(50.0, 0.0, at_s=1e6),
        SnapExtra(),
        Trigger("gate", at_s=1e6),
    ]
    link = scripted(lambda frame: [])
    loop = Loop(link, mode="lockstep", actuators=[Gate()])
    with Acquisition(
        None, "test", image_process_fn=loop.on_image, pre_hardware_hook_fn=loop.before_event
    ) as acq:
        guard = loop.guard(acq)
        guard.acquire(times(1))
        for command in script:
            link.add(Decision("script", command, 0, 0.0, 1e9))
        loop.steering.take()
        loop.steering.drop_waiting("disarmed")
        assert loop.stats.failed == len(script)
        assert loop.steering.edit([Step()]) == [Step()]
        assert loop.steering.due_extras() == []
        guard.acquire([{"axes": {"time": 1}}])
    assert len(link.frames) == 2
    assert round(core.getXPosition()) == 0
    assert "Revisit after frame 0 refused: disarmed" in caplog.text


class Gate:
    commands = (Trigger,)

    def actuate(self, decision: Decision) -> None:
        raise AssertionError("the gate must stay shut")

    def close(self) -> None:
        pass
