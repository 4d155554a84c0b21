"""What commands do to the events of a real pycro-manager acquisition."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from cytoloop.acquire.commands import (
    MoveFocus,
    MoveStage,
    Pause,
    SetExposure,
    SetProperty,
    Skip,
    SnapExtra,
    Stimulate,
    Stop,
    Trigger,
)
from cytoloop.acquire.errors import AcquisitionError, ActuatorError
from cytoloop.acquire.micromanager.loop import Loop
from cytoloop.acquire.reply import Decision

pytestmark = [pytest.mark.engine, pytest.mark.timeout(60)]


@pytest.fixture
def run(core: Any) -> Callable[..., Any]:
    """Return what acquires events with a loop; gives the acquisition, and what the hardware was at each snap."""
    from pycromanager import Acquisition

    def acquire(loop: Loop, events: Any, hardware: list[Any] | None = None) -> Any:
        def note(event: Any) -> Any:
            if hardware is not None:
                x, y, z = core.getXPosition(), core.getYPosition(), core.getPosition()
                hardware.append((round(x), round(y), round(z), core.getExposure()))
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


def times(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"axes": {"time": index}, **more} for index in range(count)]


def once(sequence: int, *commands: Any) -> Any:
    return lambda frame: commands if frame.sequence == sequence else ()


@pytest.mark.parametrize("mode", ["barrier", "lockstep"])
def test_a_decision_changes_the_very_next_event(mode: Any, scripted: Any, run: Any) -> None:
    link = scripted(once(1, MoveStage(40.0, 20.0, z_um=7.0), SetExposure(3.0)))
    hardware: list[Any] = []
    loop = Loop(link, mode=mode)
    run(loop, times(4), hardware)
    assert hardware == [(0, 0, 0, 1.0), (0, 0, 0, 1.0), (40, 20, 7, 3.0), (40, 20, 7, 3.0)]
    assert [frame.exposure_ms for frame in link.frames] == [1.0, 1.0, 3.0, 3.0]
    assert [tuple(map(round, frame.stage_um)) for frame in link.frames] == [
        (0, 0),
        (0, 0),
        (40, 20),
        (40, 20),
    ]
    assert [frame.z_um for frame in link.frames] == [0.0, 0.0, 7.0, 7.0]
    assert loop.stats.late == loop.stats.errors == loop.stats.failed == 0


def test_in_free_mode_a_decision_that_has_come_changes_a_later_event(scripted: Any, run: Any) -> None:
    link = scripted(once(0, MoveFocus(9.0)))
    loop = Loop(link)
    run(loop, iter(times(10)))
    planes = [frame.z_um for frame in link.frames]
    assert planes[0] == 0.0
    assert planes[-1] == 9.0
    assert planes == sorted(planes)


@pytest.mark.parametrize("planned", [{}, {"x": 0.0, "y": 0.0, "z": 0.0}])
@pytest.mark.parametrize("mode", ["barrier", "lockstep"])
def test_the_stage_is_moved_once_and_every_stored_image_says_where_it_was_taken(
    mode: Any, planned: Any, scripted: Any, core: Any, run: Any
) -> None:
    moves: list[Any] = []

    def count(stage: str, x: float, y: float) -> None:
        moves.append((x, y))
        core.setXYPosition(stage, x, y)

    core.set_xy_position = count  # what pycro-manager itself calls
    acq = run(Loop(scripted(once(1, MoveStage(40.0, 20.0, z_um=7.0))), mode=mode), times(4, **planned))
    stored = [acq.get_dataset().read_metadata(time=index) for index in range(4)]
    at = [[round(md[f"{axis}Position_um_Intended"]) for axis in "XYZ"] for md in stored]
    assert at == [[0, 0, 0], [0, 0, 0], [40, 20, 7], [40, 20, 7]]
    # The loop has moved the stage before the third event; an event with a position always moves it again.
    assert moves == ([(0, 0), (0, 0), (40, 20)] if planned else [])


def test_a_move_stays_in_force_at_the_position_it_was_decided_for(scripted: Any, run: Any) -> None:
    def follow(frame: Any) -> Any:
        if frame.axes == {"time": 0, "position": 0}:
            return [MoveStage(12.0, 3.0)]
        return [MoveStage(22.0, 4.0)] if frame.axes == {"time": 1, "position": 0} else []

    events = [
        {"axes": {"time": time, "position": position}, "x": 10.0 * (1 + 4 * position), "y": 0.0}
        for time in range(4)
        for position in range(2)
    ]
    link = scripted(follow)
    run(Loop(link, mode="barrier"), events)
    stages = [frame.stage_um for frame in link.frames]
    assert stages[0::2] == [(10.0, 0.0), (12.0, 3.0), (22.0, 4.0), (22.0, 4.0)]
    assert stages[1::2] == [(50.0, 0.0)] * 4


def test_a_focus_command_moves_a_planned_stack_as_a_whole(scripted: Any, run: Any) -> None:
    link = scripted(lambda frame: [MoveFocus(6.0)] if frame.axes == {"time": 0, "z": 1} else [])
    events = [
        {"axes": {"time": time, "z": plane}, "z": 2.0 * plane} for time in range(2) for plane in range(3)
    ]
    run(Loop(link, mode="lockstep"), events)
    assert [frame.z_um for frame in link.frames] == [0.0, 2.0, 8.0, 4.0, 6.0, 8.0]


def test_an_exposure_holds_for_the_channel_of_its_frame(scripted: Any, run: Any) -> None:
    events = [
        {"axes": {"time": time, "channel": name}, "config_group": ["Channel", name], "exposure": 2.0}
        for time in range(3)
        for name in ("DAPI", "FITC")
    ]
    link = scripted(lambda frame: [SetExposure(4.0)] if frame.sequence == 0 else [])
    run(Loop(link, mode="barrier"), events)
    assert [frame.channels for frame in link.frames[:2]] == [("DAPI",), ("FITC",)]
    assert [frame.exposure_ms for frame in link.frames] == [2.0, 2.0, 4.0, 2.0, 4.0, 2.0]


def test_a_property_is_set_before_the_next_image(scripted: Any, core: Any, run: Any) -> None:
    loop = Loop(scripted(once(0, SetProperty("Camera", "Gain", "3"))), mode="lockstep")
    run(loop, times(2))
    assert core.getProperty("Camera", "Gain") == "3"
    assert loop.stats.applied == 1


def test_without_a_core_properties_and_positions_travel_in_the_event(
    scripted: Any, core: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on the Java backend, where no core lives in this process.
    monkeypatch.setattr("cytoloop.acquire.micromanager.loop.running_core", lambda: None)
    link = scripted(once(0, SetProperty("Camera", "Gain", "2"), MoveStage(11.0, 12.0), SetExposure(2.0)))
    hardware: list[Any] = []
    run(Loop(link, mode="barrier"), times(3), hardware)
    assert core.getProperty("Camera", "Gain") == "2"
    assert hardware[1:] == [(11, 12, 0, 2.0)] * 2
    assert [frame.stage_um for frame in link.frames] == [None, (11.0, 12.0), (11.0, 12.0)]


@pytest.mark.parametrize("mode", ["barrier", "lockstep"])
def test_skip_leaves_out_the_next_planned_events(mode: Any, scripted: Any, run: Any) -> None:
    loop = Loop(scripted(once(1, Skip(2))), mode=mode)
    acq = run(loop, times(6))
    kept = sorted(axes["time"] for axes in acq.get_dataset().get_image_coordinates_list())
    assert kept == [0, 1, 4, 5]
    assert acq.taken == 4
    assert loop.stats.skipped == 2


def test_a_pause_holds_the_acquisition_and_close_ends_it(scripted: Any, run: Any) -> None:
    loop = Loop(scripted(once(0, Pause(50.0))), mode="lockstep")
    threading.Timer(0.5, loop.close).start()
    assert run(loop, times(3)).taken == 3


def test_an_extra_image_comes_in_lockstep_with_axes_of_its_own(scripted: Any, run: Any) -> None:
    link = scripted(
        lambda frame: [SnapExtra(exposure_ms=5.0, channel="DAPI")] if frame.axes == {"time": 1} else []
    )
    acq = run(Loop(link, mode="lockstep"), times(3, exposure=1.0))
    assert acq.taken == 4
    assert [frame.axes for frame in link.frames] == [
        {"time": 0},
        {"time": 1},
        {"time": 1, "extra": 1},
        {"time": 2},
    ]
    assert [frame.exposure_ms for frame in link.frames] == [1.0, 1.0, 5.0, 1.0]


def test_an_extra_image_cannot_ask_for_another_one(scripted: Any, run: Any) -> None:
    loop = Loop(scripted(lambda frame: [SnapExtra()]), mode="lockstep")
    assert run(loop, times(3)).taken == 6
    assert loop.stats.failed == 3


@pytest.mark.parametrize("mode", ["free", "barrier"])
def test_an_extra_image_outside_lockstep_is_refused_with_a_message(
    mode: Any, scripted: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop(scripted(once(0, SnapExtra())), mode=mode)
    assert run(loop, iter(times(6))).taken == 6
    assert "SnapExtra needs mode='lockstep'" in caplog.text
    assert loop.stats.failed == 1


def test_a_burst_is_moved_as_a_whole_before_it_begins(scripted: Any, run: Any) -> None:
    bursts = [times(4), [{"axes": {"time": 4 + index}} for index in range(4)]]
    link = scripted(once(0, MoveStage(30.0, 0.0), SetExposure(2.0), Skip(1)))
    hardware: list[Any] = []
    loop = Loop(link)
    acq = run(loop, _slowly(bursts, link, 4), hardware)
    assert hardware == [(0, 0, 0, 1.0), (30, 0, 0, 2.0)]  # one hook call per burst
    assert acq.taken == 7
    assert [frame.exposure_ms for frame in link.frames] == [1.0] * 4 + [2.0] * 3
    moments = [frame.time_s for frame in link.frames]
    assert moments == sorted(set(moments))  # the engine gives all images of a burst the same time


def test_a_change_within_a_burst_is_refused_and_the_plan_kept(
    scripted: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    link = scripted(lambda frame: [SetExposure(4.0)] if frame.channels == ("DAPI",) else [])
    loop = Loop(link, mode="barrier")
    dapi = {"config_group": ["Channel", "DAPI"], "exposure": 2.0}
    run(loop, [{"axes": {"time": 0, "channel": "DAPI"}, **dapi}])
    fitc = {"config_group": ["Channel", "FITC"], "exposure": 2.0}
    burst = [{"axes": {"time": 1}, **dapi}, {"axes": {"time": 2}, **fitc}]
    edited = loop.before_event(burst)
    assert [event["exposure"] for event in edited] == [2.0, 2.0]
    assert "within a burst" in caplog.text


def _slowly(bursts: list[Any], link: Any, images: int) -> Iterator[Any]:
    """Give the second burst when the images of the first have come."""
    yield bursts[0]
    waited = threading.Event()
    for _ in range(500):
        if len(link.frames) >= images:
            break
        waited.wait(0.01)
    yield bursts[1]


class Lamp:
    commands = (Stimulate, Trigger)

    def __init__(self, broken: bool = False) -> None:
        self.broken, self.closed = broken, False
        self.decisions: list[Decision] = []
        self.threads: set[str] = set()

    def actuate(self, decision: Decision) -> None:
        self.threads.add(threading.current_thread().name)
        self.decisions.append(decision)
        if self.broken:
            raise ActuatorError("the lamp is cold")

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("mode", ["free", "barrier", "lockstep"])
def test_light_goes_to_the_actuator_between_two_events(mode: Any, scripted: Any, run: Any) -> None:
    lamp = Lamp()
    link = scripted(once(1, Stimulate(points_px=((3.0, 4.0),)), Trigger("gate", at_s=0.0)))
    with Loop(link, mode=mode, actuators=[lamp]) as loop:
        run(loop, iter(times(8)))
        assert [type(decision.command) for decision in lamp.decisions] == [Stimulate, Trigger]
        assert loop.stats.applied == 2
    assert lamp.closed
    assert mode == "lockstep" or all("Acquisition Engine" in name for name in lamp.threads)


def test_the_last_image_of_a_lockstep_run_can_still_trigger_light(scripted: Any, run: Any) -> None:
    lamp = Lamp()
    run(Loop(scripted(once(2, Stimulate())), mode="lockstep", actuators=[lamp]), times(3))
    assert len(lamp.decisions) == 1


def test_an_actuator_that_fails_is_counted_and_the_acquisition_goes_on(
    scripted: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop(scripted(lambda frame: [Stimulate()]), mode="lockstep", actuators=[Lamp(broken=True)])
    assert run(loop, times(4)).taken == 4
    assert loop.stats.failed == 4
    assert "the lamp is cold" in caplog.text


def test_a_command_that_nothing_accepts_is_refused_by_name(
    scripted: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run(Loop(scripted(once(0, Stimulate())), mode="lockstep"), times(2))
    assert "no actuator accepts Stimulate" in caplog.text


def test_a_trigger_waits_for_its_time(scripted: Any, run: Any) -> None:
    lamp = Lamp()
    link = scripted(once(0, Trigger("gate", at_s=0.4), Trigger("gate", at_s=1e6)))
    loop = Loop(link, mode="lockstep", actuators=[lamp])
    run(loop, times(2))
    assert [decision.command.at_s for decision in lamp.decisions] == [0.4]  # the other one is not due yet
    assert link.frames[1].time_s >= 0.4


def test_a_stale_decision_is_refused_and_counted(
    scripted: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    link = scripted(once(0, MoveStage(50.0, 0.0)), lifetime_s=-0.001)
    loop = Loop(link, mode="lockstep")
    run(loop, times(3))
    assert loop.stats.expired == 1
    assert "stale by" in caplog.text
    assert all(abs(frame.stage_um[0]) < 1 for frame in link.frames)


def test_a_decision_about_an_unknown_frame_is_refused(scripted: Any, run: Any) -> None:
    link = scripted(lambda frame: [])
    link.add(Decision("script", MoveStage(1.0, 1.0), sequence=999, time_s=0.0, expires_s=1e9))
    loop = Loop(link, mode="lockstep")
    assert run(loop, times(2)).taken == 2
    assert loop.stats.refused == 1


def test_commands_of_an_unknown_kind_and_a_broken_link_leave_the_acquisition_alone(
    scripted: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Dance(msgspec.Struct, frozen=True):
        steps: int = 1

    link = scripted(lambda frame: [Dance()])
    loop = Loop(link, mode="barrier")
    assert run(loop, times(3)).taken == 3
    assert "no actuator accepts Dance" in caplog.text

    def broken() -> list[Decision]:
        raise OSError("the link is gone")

    link.decisions = broken
    assert run(loop, iter(times(3))).taken == 3
    assert loop.stats.errors == 3
    assert caplog.text.count("an event goes as planned") == 1


@pytest.mark.parametrize("mode", ["barrier", "lockstep"])
def test_a_silent_service_costs_the_deadline_and_nothing_else(mode: Any, scripted: Any, run: Any) -> None:
    link = scripted(lambda frame: [])
    link.silent = True
    loop = Loop(link, mode=mode, deadline_s=0.02)
    assert run(loop, times(5)).taken == 5
    assert loop.stats.late in (4, 5)
    assert len(link.frames) == 5


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (np.zeros((32, 32, 3), np.uint8), "RGB"),
        (np.zeros((8, 8), np.uint32), "RGB"),
        (np.zeros((8, 8), np.float32), "float32"),
        ("no image", "str"),
        (None, "NoneType"),
    ],
)
def test_an_image_that_no_room_accepts_is_counted_and_told_once(
    image: Any, name: str, scripted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    link = scripted(lambda frame: [])
    loop = Loop(link)
    metadata = {"Axes": {"time": 0}}
    for _ in range(3):
        returned = loop.on_image(image, metadata)
        assert returned[0] is image
        assert returned[1] is metadata
    assert (loop.stats.images, loop.stats.refused_images, loop.stats.errors) == (3, 3, 0)
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [name in record.getMessage() for record in errors] == [True]
    assert link.frames == []


@pytest.mark.parametrize("metadata", [None, {}, {"Axes": None}, {"Axes": {"time": "x"}, "Exposure": "?"}, 3])
def test_on_image_never_raises_whatever_the_metadata(metadata: Any, scripted: Any) -> None:
    loop = Loop(scripted(lambda frame: []))
    image = np.zeros((4, 4), np.uint16)
    returned = loop.on_image(image, metadata)
    assert returned[0] is image
    assert returned[1] is metadata
    assert loop.stats.images == 1


def test_metadata_of_both_backends_become_a_frame(scripted: Any) -> None:
    link = scripted(lambda frame: [])
    loop = Loop(link)
    common = {"Axes": {"time": np.int64(2), "position": "A1", "channel": "GFP"}, "Exposure": 12.5}
    stage = {"XPosition_um_Intended": 1.5, "YPosition_um_Intended": -2, "ZPosition_um_Intended": 3}
    loop.on_image(
        np.zeros((4, 4), np.uint16)[:, ::2], {**common, **stage, "ElapsedTime-ms": 500, "PixelSizeUm": 0.65}
    )
    loop.on_image(np.zeros((4, 4), np.uint8), {"ElapsedTime-ms": 750.0, "PixelSize_um": 0.0})
    first, second = link.frames
    assert first.axes == {"time": 2, "position": "A1", "channel": "GFP"}
    assert (first.stage_um, first.z_um, first.exposure_ms) == ((1.5, -2.0), 3.0, 12.5)
    assert (first.pixel_size_um, first.channels, first.time_s) == (0.65, ("GFP",), 0.0)
    assert (second.pixel_size_um, second.stage_um, second.time_s) == (None, None, 0.25)


def test_time_goes_on_over_several_acquisitions(scripted: Any, run: Any) -> None:
    link = scripted(lambda frame: [])
    loop = Loop(link)
    for _ in range(2):
        run(loop, iter(times(4)))
    moments = [frame.time_s for frame in link.frames]
    assert all(later > earlier for earlier, later in itertools.pairwise(moments))


def test_before_event_returns_a_bad_event_as_it_came(scripted: Any) -> None:
    loop = Loop(scripted(lambda frame: []))
    assert loop.before_event(3) == 3
    assert loop.stats.errors == 1


def test_without_the_guard_a_stop_empties_all_later_events(scripted: Any, core: Any) -> None:
    from pycromanager import Acquisition

    loop = Loop(scripted(once(1, Stop("enough"))), mode="barrier")
    with Acquisition(
        None, "test", image_process_fn=loop.on_image, pre_hardware_hook_fn=loop.before_event
    ) as acq:
        for event in times(6):
            acq.acquire(event)
    assert len(acq.get_dataset().get_image_coordinates_list()) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mode": "fast"}, "allowed are free, barrier, lockstep"), ({"deadline_s": -1}, "0 or more")],
)
def test_options_that_make_no_sense_are_refused(options: Any, message: str, scripted: Any) -> None:
    with pytest.raises(AcquisitionError, match=message):
        Loop(scripted(lambda frame: []), **options)
