"""Decisions as useq events, and what a real pymmcore-plus run makes of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
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
    encode_mask,
)
from cytoloop.acquire.errors import ActuatorError
from cytoloop.acquire.micromanager.pymmcoreplus import MdaLoop
from cytoloop.acquire.micromanager.useq_events import event_of
from cytoloop.acquire.reply import Decision

useq = pytest.importorskip("useq", reason="the plus extra is not installed")


def decision(command: Any, **more: Any) -> Decision:
    return Decision(
        "rule",
        command,
        sequence=7,
        time_s=1.0,
        expires_s=9.0,
        track=3,
        at_px=(4.0, 5.0),
        reasons=("why",),
        **more,
    )


LIKE = useq.MDAEvent(
    index={"t": 2, "c": 1},
    channel={"config": "DAPI", "group": "Light"},
    exposure=5,
    x_pos=1,
    y_pos=2,
    z_pos=3,
    min_start_time=60,
    properties=[("Camera", "Gain", "1")],
    metadata={"well": "A1"},
)


@pytest.mark.parametrize(
    ("command", "changed"),
    [
        (MoveStage(10.0, 20.0), {"x_pos": 10.0, "y_pos": 20.0}),
        (MoveStage(10.0, 20.0, 30.0), {"x_pos": 10.0, "y_pos": 20.0, "z_pos": 30.0}),
        (MoveFocus(30.0), {"z_pos": 30.0}),
        (SetExposure(8.0), {"exposure": 8.0}),
        (SetChannel("Other", "FITC"), {"channel": {"config": "FITC", "group": "Other"}}),
        (SetChannel("", "FITC"), {"channel": {"config": "FITC", "group": "Light"}}),
        (
            SetProperty("Camera", "Binning", "2"),
            {"properties": [("Camera", "Gain", "1"), ("Camera", "Binning", "2")]},
        ),
        (SnapExtra(), {"min_start_time": None}),
        (
            SnapExtra(9.0, "FITC"),
            {"min_start_time": None, "exposure": 9.0, "channel": {"config": "FITC", "group": "Light"}},
        ),
        (Revisit(10.0, 20.0, at_s=5.0), {"min_start_time": None, "x_pos": 10.0, "y_pos": 20.0}),
    ],
)
def test_what_an_event_can_carry_changes_that_and_nothing_else(command: Any, changed: dict[str, Any]) -> None:
    event = event_of(decision(command), LIKE)
    assert event.metadata["well"] == "A1"
    assert event.replace(metadata=LIKE.metadata) == LIKE.replace(**changed)
    assert isinstance(event.action, useq.AcquireImage)


@pytest.mark.parametrize(
    "command",
    [
        Stimulate(points_px=((1.0, 2.0),)),
        Trigger("gate", 2.5),
        Skip(2),
        Pause(1.0),
        SetInterval(30.0),
        Webhook("https://lab.example/hook", "found"),
        Call("dose", {"ul": 2.0}),
        Disarm("no focus"),
        Stop("enough"),
    ],
)
def test_all_other_commands_are_custom_actions_with_the_decision_as_data(command: Any) -> None:
    event = event_of(decision(command), LIKE)
    assert isinstance(event.action, useq.CustomAction)
    assert dict(event.index) == {"t": 2, "c": 1}
    read = useq.MDAEvent.model_validate_json(event.model_dump_json())
    assert msgspec.convert(read.action.data["cytoloop"], Decision) == decision(command)


def test_every_command_becomes_an_event_that_json_can_hold() -> None:
    fields = {"url": "http://a", "function": "f", "reason": "r", "output": "gate"}
    for kind in Command.__args__:
        needed = {
            each.name: fields.get(each.name, 1.0 if each.type is float else "x")
            for each in msgspec.structs.fields(kind)
            if each.required
        }
        command = msgspec.convert(needed, kind)
        event = event_of(decision(command))
        read = useq.MDAEvent.model_validate_json(event.model_dump_json())
        assert msgspec.convert(read.metadata["cytoloop"], Decision).command == command


def test_light_becomes_a_pattern_where_the_pixels_of_the_slm_are_those_of_the_image() -> None:
    mask = np.zeros((6, 8), np.bool_)
    mask[1:3, 2:5] = True
    event = event_of(decision(Stimulate(mask=encode_mask(mask), power=0.5, duration_ms=40.0)), shape=(6, 8))
    assert np.array_equal(np.asarray(event.slm_image), np.where(mask, 128, 0))
    assert event.slm_image.exposure == 40.0
    spot = event_of(decision(Stimulate(points_px=((3.0, 2.0),), radius_px=1.0)), shape=(6, 8))
    assert np.argwhere(np.asarray(spot.slm_image)).tolist() == [[1, 3], [2, 2], [2, 3], [2, 4], [3, 3]]


@pytest.mark.parametrize(
    ("command", "message"),
    [(Stimulate(mask=(3, 4)), "mask runs add up to 7 px"), (SetExposure(-1.0), "SetExposure: no useq event")],
)
def test_values_that_useq_refuses_are_named(command: Any, message: str) -> None:
    with pytest.raises(ActuatorError, match=message):
        event_of(decision(command), shape=(6, 8))


@pytest.fixture(scope="module")
def plus() -> Iterator[Any]:
    pymmcore_plus = pytest.importorskip("pymmcore_plus", reason="the plus extra is not installed")
    core = pymmcore_plus.CMMCorePlus()
    core.loadSystemConfiguration()
    yield core
    core.unloadAllDevices()
    time.sleep(0.3)  # a core destroyed right after its callbacks may crash


@pytest.fixture
def core(plus: Any) -> Any:
    plus.setProperty("Camera", "PixelType", "16bit")
    plus.setProperty("Camera", "OnCameraCCDXSize", "64")
    plus.setProperty("Camera", "OnCameraCCDYSize", "64")
    plus.setProperty("Camera", "Gain", "0")
    plus.setExposure(1)
    plus.setXYPosition(0, 0)
    plus.setPosition(0)
    plus.waitForSystem()
    return plus


@pytest.mark.engine
def test_a_real_run_takes_an_image_for_each_that_can_be_carried_and_none_for_the_others(core: Any) -> None:
    seen: list[Any] = []

    def note(image: Any, event: Any, metadata: Any) -> None:
        x, y, z = (round(metadata["position"][axis]) for axis in "xyz")
        gain = core.getProperty("Camera", "Gain")
        seen.append(((x, y, z), metadata["exposure_ms"], core.getCurrentConfig("Channel"), gain))

    core.mda.events.frameReady.connect(note)
    wanted = [
        MoveStage(30.0, 10.0, 4.0),
        Stop("enough"),
        SetExposure(6.0),
        Call("nothing"),
        SetChannel("Channel", "FITC"),
        SetProperty("Camera", "Gain", "2"),
    ]
    core.run_mda(iter([event_of(decision(command)) for command in wanted])).join()
    core.mda.events.frameReady.disconnect(note)
    assert core.mda.status.finish_reason.value == "completed"
    assert [place for place, *_ in seen] == [(30, 10, 4)] * 4
    assert [exposure for _, exposure, *_ in seen][1:] == [6.0] * 3
    assert [preset for *_, preset, _ in seen][2:] == ["FITC"] * 2
    assert seen[3][-1] == "2"


@pytest.fixture
def run(core: Any) -> Any:
    def acquire(link: Any, events: Any, **options: Any) -> tuple[MdaLoop, list[Any]]:
        notes: list[Any] = []

        def note(event: Any) -> None:
            notes.append((event.min_start_time, event.channel.config if event.channel else None))

        core.mda.events.eventStarted.connect(note)
        with MdaLoop(core, link, **options) as loop:
            core.run_mda(loop.events(events)).join()
        core.mda.events.eventStarted.disconnect(note)
        return loop, notes

    return acquire


def once(sequence: int, *commands: Any) -> Any:
    return lambda frame: commands if frame.sequence == sequence else ()


@pytest.mark.engine
@pytest.mark.parametrize("mode", ["barrier", "lockstep"])
def test_a_preset_takes_the_place_of_the_frames_channel(mode: Any, scripted: Any, run: Any) -> None:
    plan = useq.MDASequence(axis_order="tc", time_plan={"interval": 0, "loops": 3}, channels=["DAPI", "FITC"])
    link = scripted(once(0, SetChannel("Channel", "Cy5")))
    loop, notes = run(link, plan, mode=mode)
    assert [preset for _, preset in notes] == ["DAPI", "FITC", "Cy5", "FITC", "Cy5", "FITC"]
    assert [frame.channels for frame in link.frames] == [("DAPI",), ("FITC",)] * 3
    assert (loop.stats.applied, loop.stats.failed) == (1, 0)


@pytest.mark.engine
def test_a_preset_that_does_not_exist_leaves_the_run_as_planned(
    scripted: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    events = [useq.MDAEvent(index={"t": index}, channel="DAPI") for index in range(3)]
    loop, notes = run(scripted(once(0, SetChannel("Channel", "Cy55"))), events, mode="lockstep")
    assert [preset for _, preset in notes] == ["DAPI"] * 3
    assert "did you mean 'Cy5'" in caplog.text
    assert loop.stats.failed == 1


@pytest.mark.engine
@pytest.mark.parametrize("mode", ["barrier", "lockstep"])
def test_an_interval_begins_with_the_next_time_point(mode: Any, scripted: Any, run: Any) -> None:
    # As planned, the third image would come after an hour, and the test would not end.
    events = [
        useq.MDAEvent(index={"t": t}, min_start_time=start) for t, start in enumerate([0, 0.01, 3600, 7200])
    ]
    loop, notes = run(scripted(once(1, SetInterval(0.05))), events, mode=mode)
    starts = [start for start, _ in notes]
    assert len(starts) == 4
    assert 0.06 <= starts[2] <= starts[3] - 0.05 + 1e-3
    assert loop.stats.applied == 1


@pytest.mark.engine
def test_an_interval_counts_from_the_event_that_starts_the_clock_anew(scripted: Any, run: Any) -> None:
    reset = {"reset_event_timer": True}
    events = [
        useq.MDAEvent(index={"t": 0}),
        useq.MDAEvent(index={"t": 1}, min_start_time=0.3),
        useq.MDAEvent(index={"t": 2}, **reset),
        useq.MDAEvent(index={"t": 3}, min_start_time=3600),
    ]
    _, notes = run(scripted(once(2, SetInterval(0.05))), events, mode="lockstep")
    assert notes[3][0] == 0.05


@pytest.mark.engine
@pytest.mark.parametrize(
    "command", [SnapExtra(9.0, "Cy5"), Revisit(0.0, 0.0, exposure_ms=9.0, channel="Cy5")]
)
def test_events_that_leave_the_microscope_as_it_is_find_it_as_it_was(
    command: Any, scripted: Any, core: Any, run: Any
) -> None:
    core.setConfig("Channel", "DAPI")
    link = scripted(once(0, command))
    run(link, [useq.MDAEvent(index={"t": t}) for t in range(3)], mode="lockstep")
    assert [frame.exposure_ms for frame in link.frames] == [1.0, 9.0, 1.0, 1.0]
    assert link.frames[1].channels == ("Cy5",)
    assert core.getCurrentConfig("Channel") == "DAPI"


@pytest.mark.engine
def test_a_visit_comes_at_its_time_and_the_stage_comes_back(scripted: Any, core: Any, run: Any) -> None:
    link = scripted(once(0, Revisit(40.0, 20.0, at_s=0.2, exposure_ms=3.0)))
    events = [useq.MDAEvent(index={"t": t}, min_start_time=t / 10, exposure=1) for t in range(2)]
    events.append(useq.MDAEvent(index={"t": 2}, min_start_time=1, exposure=1))
    loop, _ = run(link, events, mode="lockstep")
    assert [frame.axes for frame in link.frames] == [
        {"time": 0},
        {"time": 1},
        {"time": 0, "extra": 1},
        {"time": 2},
    ]
    assert [tuple(map(round, frame.stage_um)) for frame in link.frames] == [(0, 0), (0, 0), (40, 20), (0, 0)]
    assert [frame.exposure_ms for frame in link.frames] == [1.0, 1.0, 3.0, 1.0]
    assert link.frames[2].time_s >= 0.19
    assert (loop.stats.applied, loop.stats.failed, loop.stats.errors) == (1, 0, 0)


@pytest.mark.engine
@pytest.mark.parametrize("mode", ["free", "barrier"])
def test_visits_need_lockstep(mode: Any, scripted: Any, run: Any, caplog: pytest.LogCaptureFixture) -> None:
    events = [useq.MDAEvent(index={"t": t}) for t in range(4)]
    loop, _ = run(scripted(once(0, Revisit(40.0, 20.0))), events, mode=mode)
    assert "Revisit needs mode='lockstep'" in caplog.text
    assert (loop.stats.images, loop.stats.failed) == (4, 1)
