"""The loop on the real pymmcore-plus engine with Micro-Manager's demo devices."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

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
)
from cytoloop.acquire.micromanager.pymmcoreplus import MdaLoop
from cytoloop.acquire.reply import Decision

pytestmark = [pytest.mark.engine, pytest.mark.timeout(60)]


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


@pytest.fixture
def run(core: Any) -> Callable[..., Any]:
    def acquire(link: Any, events: Any, **options: Any) -> MdaLoop:
        with MdaLoop(core, link, **options) as loop:
            core.run_mda(loop.events(events)).join()
        return loop

    return acquire


def times(count: int, **more: Any) -> list[Any]:
    from useq import MDAEvent

    return [MDAEvent(index={"t": index}, **more) for index in range(count)]


def once(sequence: int, *commands: Any) -> Any:
    return lambda frame: commands if frame.sequence == sequence else ()


MODES = ["free", "barrier", "lockstep"]


@pytest.mark.parametrize("mode", MODES)
def test_every_frame_goes_out_and_a_decision_changes_the_next_event(
    mode: Any, scripted: Any, run: Any
) -> None:
    link = scripted(once(1, MoveStage(40.0, 20.0), MoveFocus(7.0), SetExposure(3.0)))
    loop = run(link, times(4, exposure=1), mode=mode)
    assert [frame.axes for frame in link.frames] == [{"time": index} for index in range(4)]
    assert [tuple(map(round, frame.stage_um)) for frame in link.frames] == [(0, 0)] * 2 + [(40, 20)] * 2
    assert [round(frame.z_um) for frame in link.frames] == [0, 0, 7, 7]
    assert [frame.exposure_ms for frame in link.frames] == [1.0, 1.0, 3.0, 3.0]
    moments = [frame.time_s for frame in link.frames]
    assert moments[0] == 0
    assert moments == sorted(moments)
    assert (loop.stats.images, loop.stats.applied, loop.stats.failed, loop.stats.errors) == (4, 3, 0, 0)


def test_a_sequence_with_positions_channels_and_planes_is_followed_place_by_place(
    scripted: Any, run: Any
) -> None:
    from useq import MDASequence

    sequence = MDASequence(
        axis_order="tpcz",
        time_plan={"interval": 0, "loops": 2},
        stage_positions=[(10, 0, 0), (50, 0, 0)],
        channels=["DAPI", "FITC"],
        z_plan={"range": 2, "step": 2},
    )
    link = scripted(
        lambda frame: (
            [MoveStage(12.0, 3.0)]
            if (frame.axes["time"], frame.axes["position"], frame.axes["z"]) == (0, 0, 1)
            and frame.channels == ("FITC",)
            else []
        )
    )
    run(link, sequence, mode="lockstep")
    assert len(link.frames) == 16
    by_place = [
        [tuple(map(round, f.stage_um)) for f in link.frames if f.axes["position"] == p] for p in (0, 1)
    ]
    assert by_place == [[(10, 0)] * 4 + [(12, 3)] * 4, [(50, 0)] * 8]


@pytest.mark.parametrize("mode", MODES)
def test_stop_ends_the_run_as_planned_ends_do(mode: Any, scripted: Any, core: Any, run: Any) -> None:
    link = scripted(once(2, Stop("enough")))
    loop = run(link, times(100), mode=mode)
    assert len(link.frames) == 3
    assert loop.steering.stopped == "script: enough"
    assert core.mda.status.finish_reason.value == "completed"


@pytest.mark.parametrize("mode", MODES)
def test_skip_leaves_out_planned_events(mode: Any, scripted: Any, run: Any) -> None:
    link = scripted(once(1, Skip(2)))
    run(link, times(6), mode=mode)
    assert [frame.axes["time"] for frame in link.frames] == [0, 1, 4, 5]


def test_properties_are_set_before_the_next_event(scripted: Any, core: Any, run: Any) -> None:
    run(scripted(once(0, SetProperty("Camera", "Gain", "3"))), times(2))
    assert core.getProperty("Camera", "Gain") == "3"


def test_extra_images_come_in_lockstep_only(
    scripted: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    script = once(1, SnapExtra(exposure_ms=5.0, channel="DAPI"), SnapExtra(channel="nonsense"))
    link = scripted(script)
    loop = run(link, times(3, exposure=1), mode="lockstep")
    assert [frame.axes for frame in link.frames] == [
        {"time": 0},
        {"time": 1},
        {"time": 1, "extra": 1},
        {"time": 2},
    ]
    assert link.frames[2].exposure_ms == 5.0
    assert link.frames[2].channels == ("DAPI",)
    assert loop.stats.failed == 1
    free = scripted(script)
    assert run(free, times(3)).stats.failed == 2
    assert len(free.frames) == 3
    assert "SnapExtra needs mode='lockstep'" in caplog.text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "command",
    [
        SetProperty("Camera", "Gian", "1"),
        MoveFocus(1e9),
        MoveStage(float("nan"), 0.0),
        SetExposure(-1.0),
        SnapExtra(exposure_ms=-1.0),
        Stimulate(),
    ],
)
def test_a_service_that_commands_nonsense_does_not_touch_the_run(
    command: Any, mode: Any, scripted: Any, core: Any, run: Any
) -> None:
    link = scripted(lambda frame: [command])
    loop = run(link, times(4), mode=mode)
    assert len(link.frames) == 4
    assert loop.stats.failed >= 3
    assert core.mda.status.finish_reason.value == "completed"


def test_a_silent_service_costs_the_deadline_and_nothing_else(scripted: Any, run: Any) -> None:
    link = scripted(lambda frame: [])
    link.silent = True
    loop = run(link, times(4), mode="lockstep", deadline_s=0.02)
    assert (len(link.frames), loop.stats.late) == (4, 4)


def test_light_goes_to_the_actuator_and_stale_light_does_not(scripted: Any, run: Any) -> None:
    class Lamp:
        commands = (Stimulate,)
        shone: list[Decision]

        def actuate(self, decision: Decision) -> None:
            self.shone.append(decision)

        def close(self) -> None:
            pass

    for lifetime_s, shone, expired in ((60.0, 3, 0), (-0.001, 0, 3)):
        lamp = Lamp()
        lamp.shone = []
        link = scripted(lambda frame: [Stimulate()], lifetime_s=lifetime_s)
        loop = run(link, times(3), mode="lockstep", actuators=[lamp])
        assert (len(lamp.shone), loop.stats.expired) == (shone, expired)


def test_rgb_images_are_refused_by_name_and_the_run_goes_on(
    scripted: Any, core: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    core.setProperty("Camera", "PixelType", "32bitRGB")
    link = scripted(lambda frame: [])
    loop = run(link, times(3), mode="lockstep", deadline_s=5.0)
    assert (loop.stats.images, loop.stats.refused_images, link.frames) == (3, 3, [])
    assert caplog.text.count("RGB") == 1


def test_a_pause_ends_when_the_loop_is_closed(scripted: Any, core: Any) -> None:
    loop = MdaLoop(core, scripted(once(0, Pause(50.0))))
    thread = core.run_mda(loop.events(times(2)))
    threading.Timer(0.3, loop.steering.interrupt).start()
    thread.join(20)
    assert not thread.is_alive()
    loop.close()


def test_a_closed_loop_no_longer_listens(scripted: Any, core: Any, run: Any) -> None:
    link = scripted(lambda frame: [])
    run(link, times(2))
    core.run_mda(iter(times(2))).join()
    assert len(link.frames) == 2


def test_events_without_an_index_and_images_that_are_strided_are_taken(scripted: Any, core: Any) -> None:
    from useq import MDAEvent

    link = scripted(lambda frame: [])
    with MdaLoop(core, link) as loop:
        core.run_mda(loop.events([MDAEvent(), MDAEvent(exposure=2)])).join()
        loop.on_frame(np.zeros((4, 8), np.uint8)[:, ::2], MDAEvent(), {})
        assert loop.stats.errors == loop.stats.refused_images == 0
    assert [frame.axes for frame in link.frames] == [{}, {}, {}]
