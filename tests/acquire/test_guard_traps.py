"""Every trap of pycro-manager 1.0.2, against its real engine: it works, or is refused before it is submitted."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.commands import MoveStage, SetExposure, SetProperty, Stop
from cytoloop.acquire.errors import AcquisitionError, EventError
from cytoloop.acquire.micromanager.loop import Loop, connect

pytestmark = [pytest.mark.engine, pytest.mark.timeout(60)]


@pytest.fixture
def acquisition(core: Any) -> Callable[..., Any]:
    from pycromanager import Acquisition

    def make(loop: Loop, **functions: Any) -> Any:
        hooks = {"image_process_fn": loop.on_image, "pre_hardware_hook_fn": loop.before_event} | functions
        return Acquisition(None, "test", **hooks)

    return make


@pytest.fixture
def quiet(scripted: Any) -> Any:
    """Return a link that never commands anything."""
    return scripted(lambda frame: ())


def times(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"axes": {"time": index}, **more} for index in range(count)]


def times_of(acq: Any) -> list[int]:
    return sorted(axes["time"] for axes in acq.get_dataset().get_image_coordinates_list())


def test_three_lines_acquire_every_image_and_send_every_frame(quiet: Any, acquisition: Any) -> None:
    loop = Loop(quiet)
    with acquisition(loop) as acq:
        assert loop.guard(acq).acquire(times(5, exposure=2)) == 5
    assert times_of(acq) == [frame.axes["time"] for frame in quiet.frames] == [0, 1, 2, 3, 4]
    assert {frame.exposure_ms for frame in quiet.frames} == {2.0}
    moments = [frame.time_s for frame in quiet.frames]
    assert moments == sorted(moments)
    assert moments[0] == 0
    assert moments[-1] > 0
    assert loop.stats.errors == 0


@pytest.mark.parametrize("name", ["pre_hardware_hook_fn", "post_hardware_hook_fn", "post_camera_hook_fn"])
def test_trap_1_a_hook_with_two_arguments_is_refused(name: str, quiet: Any, acquisition: Any) -> None:
    loop = Loop(quiet)
    with acquisition(loop, **{name: lambda event, queue: event}) as acq:
        with pytest.raises(AcquisitionError, match=f"{name} must take one argument"):
            loop.guard(acq)


def test_trap_1_a_hook_that_raises_is_named_and_nothing_hangs(quiet: Any, acquisition: Any) -> None:
    def autofocus(event: Any) -> Any:
        if event["axes"]["time"] == 2:
            raise OSError("the autofocus is unplugged")
        return event

    loop = Loop(quiet)
    with (
        pytest.raises(AcquisitionError, match="post_hardware_hook_fn failed.*autofocus is unplugged"),
        acquisition(loop, post_hardware_hook_fn=autofocus) as acq,
    ):
        loop.guard(acq).acquire(iter(times(5)))
    assert times_of(acq) == [0, 1]


def test_the_guard_asks_for_the_hooks_of_the_loop(quiet: Any, core: Any) -> None:
    from pycromanager import Acquisition

    loop = Loop(quiet)
    with Acquisition(None, "test", image_process_fn=loop.on_image) as acq:
        with pytest.raises(AcquisitionError, match="pre_hardware_hook_fn=loop.before_event"):
            loop.guard(acq)


def fail_on_move(core: Any) -> None:
    def refuse(*arguments: Any) -> None:
        raise RuntimeError("the stage is at its limit")

    core.set_xy_position = refuse


@pytest.mark.parametrize("events", [times(1, x=5, y=5), [*times(3), {"axes": {"time": 3}, "x": 5, "y": 5}]])
@pytest.mark.parametrize("one_by_one", [True, False])
def test_trap_2_a_hardware_error_in_the_last_event_reaches_the_user(
    events: list[Any], one_by_one: bool, quiet: Any, core: Any, acquisition: Any
) -> None:
    fail_on_move(core)
    loop = Loop(quiet)
    with pytest.raises(AcquisitionError, match="hardware failed.*Moving XY stage"), acquisition(loop) as acq:
        loop.guard(acq).acquire(iter(events) if one_by_one else events)
    assert times_of(acq) == list(range(len(events) - 1))


def test_after_a_hardware_error_the_next_acquisition_works(quiet: Any, core: Any, acquisition: Any) -> None:
    fail_on_move(core)
    loop = Loop(quiet)
    with pytest.raises(AcquisitionError), acquisition(loop) as acq:
        loop.guard(acq).acquire(times(2, x=1, y=1))
    del core.set_xy_position
    with acquisition(loop) as acq:
        assert loop.guard(acq).acquire(times(2, x=1, y=1)) == 2


def test_trap_3_properties_in_a_list_are_applied(quiet: Any, core: Any, acquisition: Any) -> None:
    seen: list[str] = []

    def note(event: Any) -> Any:
        seen.append(core.getProperty("Camera", "Gain"))
        return event

    loop = Loop(quiet)
    gains = ["1", "2", "3"]
    events = [
        {"axes": {"time": index}, "properties": [["Camera", "Gain", gain]]}
        for index, gain in enumerate(gains)
    ]
    with acquisition(loop, post_hardware_hook_fn=note) as acq:
        assert loop.guard(acq).acquire(events) == 3
    assert seen == gains


def test_a_list_is_not_merged_into_a_burst_that_drops_positions(
    quiet: Any, core: Any, acquisition: Any
) -> None:
    stages: list[float] = []
    exposures: list[float] = []

    def note(event: Any) -> Any:
        stages.append(core.getXPosition())
        exposures.append(core.getExposure())
        return event

    loop = Loop(quiet)
    events = [*times(2), {"axes": {"time": 2}, "x": 40, "y": 0}, {"axes": {"time": 3}, "exposure": 3}]
    with acquisition(loop, post_hardware_hook_fn=note) as acq:
        assert loop.guard(acq).acquire(events) == 4
    assert [round(x) for x in stages] == [0, 40, 40]  # the first two are one burst
    assert exposures[-1] == 3


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"axes": {"time": 1}, "tags": {"a": "b"}}, r"event 1: key 'tags': .*hangs"),  # trap 4
        ({"axes": {"time": 1}, "slm_pattern": b"x"}, "key 'slm_pattern': .*actuator"),  # trap 8
        ({"exposure": 1}, "key 'axes' is missing"),  # trap 6
        ("snap", "must be a dict, got str"),
        ({"axes": 3}, "key 'axes': must be a dict"),
        ({"axes": {"time": 1.5}}, "'time' must be an int or a str, got 1.5"),
        ({"axes": {"time": "one"}}, "either int or str, not both"),
        ({"axes": {"time": 0}}, r"key 'axes': \{'time': 0\} has been used before"),
        ({"axes": {"time": 1}, "exposre": 1}, "unknown key 'exposre'.*Did you mean 'exposure'"),
        ({"axes": {"time": 1}, "exposure": 0}, "'exposure': must be above 0 ms"),
        ({"axes": {"time": 1}, "exposure": "10"}, "'exposure': must be a finite number"),
        ({"axes": {"time": 1}, "x": 1.0}, "'x' and 'y' are needed together"),
        ({"axes": {"time": 1}, "x": float("nan"), "y": 0}, "'x': must be a finite number"),
        ({"axes": {"time": 1}, "min_start_time": -1}, "'min_start_time': must be 0 s or more"),
        ({"axes": {"time": 1}, "config_group": "DAPI"}, r"must be \[group, preset\]"),
        ({"axes": {"time": 1}, "config_group": ["Channel", "DAPY"]}, "no preset 'DAPY'.*mean 'DAPI'"),
        ({"axes": {"time": 1}, "config_group": ["Chanel", "DAPI"]}, "no group 'Chanel'.*mean 'Channel'"),
        ({"axes": {"time": 1}, "properties": [["Camera", "Gian", "1"]]}, "no property 'Gian'.*mean 'Gain'"),
        ({"axes": {"time": 1}, "properties": [["Camera", "Gain", "99"]]}, "allowed: -5 to 8"),
        (
            {"axes": {"time": 1}, "properties": ["Camera", "Gain", "1"]},
            r"must be \[\[device, property, value\]",
        ),
        ({"axes": {"time": 1}, "stage_positions": [["ZZ", 1.0]]}, "no device 'ZZ'"),
        ({"axes": {"time": 1}, "stage": {"device_name": "Z", "position": 1}}, "use 'stage_positions'"),
        ({"axes": {"time": 1}, "camera": "Cam"}, "no device 'Cam'"),
    ],
)
def test_traps_4_6_8_a_bad_event_is_refused_before_anything_is_submitted(
    event: Any, message: str, quiet: Any, acquisition: Any
) -> None:
    loop = Loop(quiet)
    with acquisition(loop) as acq:
        guard = loop.guard(acq)
        with pytest.raises(EventError, match=message):
            guard.acquire([{"axes": {"time": 0}}, event])
        assert quiet.frames == []
        assert guard.acquire({"axes": {"time": 0}}) == 1  # the acquisition lives, and nothing was remembered


def test_trap_5_an_abort_while_a_generator_is_read_does_not_hang(quiet: Any, acquisition: Any) -> None:
    loop = Loop(quiet)
    with acquisition(loop) as acq:

        def endless() -> Iterator[dict[str, Any]]:
            for index in range(10_000):
                if index == 5:
                    threading.Thread(target=acq.abort).start()
                yield {"axes": {"time": index}}

        assert loop.guard(acq).acquire(endless()) < 10_000
    assert len(quiet.frames) >= 1


def test_trap_5_a_long_wait_between_time_points_can_be_interrupted(quiet: Any, acquisition: Any) -> None:
    loop = Loop(quiet)
    with acquisition(loop) as acq:
        guard = loop.guard(acq)
        threading.Timer(0.3, guard.end).start()
        events = [{"axes": {"time": index}, "min_start_time": 3600.0 * index} for index in range(3)]
        assert guard.acquire(events) == 1
    assert times_of(acq) == [0]


def test_trap_7_a_generator_is_read_one_event_ahead_of_the_microscope(quiet: Any, acquisition: Any) -> None:
    loop = Loop(quiet)
    ahead: list[int] = []

    def events() -> Iterator[dict[str, Any]]:
        for index in range(20):
            ahead.append(index - len(quiet.frames))
            yield {"axes": {"time": index}}

    with acquisition(loop) as acq:
        assert loop.guard(acq).acquire(events()) == 20
    assert max(ahead) <= 4  # pycro-manager itself would have read all 20 at once


def test_trap_7_a_bad_event_late_in_a_generator_keeps_what_was_taken(quiet: Any, acquisition: Any) -> None:
    loop = Loop(quiet)
    with acquisition(loop) as acq:
        with pytest.raises(EventError, match="event 3: unknown key"):
            loop.guard(acq).acquire(iter([*times(3), {"axes": {"time": 3}, "zz": 1}]))
    assert times_of(acq) == [0, 1, 2]


@pytest.mark.parametrize("pixel_type", ["32bitRGB", "64bitRGB", "32bit"])
def test_trap_8_a_camera_that_the_engine_cannot_handle_is_refused_by_name(
    pixel_type: str, quiet: Any, core: Any, acquisition: Any
) -> None:
    loop = Loop(quiet)
    with acquisition(loop) as acq:
        core.setProperty("Camera", "PixelType", pixel_type)
        with pytest.raises(AcquisitionError, match="camera 'Camera' gives .*PixelType to 8bit or 16bit"):
            loop.guard(acq).acquire(times(1))
        with pytest.raises(AcquisitionError, match="PixelType"):
            connect("tcp://127.0.0.1:1")
        core.setProperty("Camera", "PixelType", "16bit")
    assert quiet.frames == []


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda image, metadata: [(image, metadata)], "fails on a list"),
        (lambda image, metadata: (image.astype(np.float32), metadata), "same type, uint16"),
    ],
)
def test_trap_8_a_wrong_result_of_image_process_fn_is_named(
    result: Any, message: str, quiet: Any, acquisition: Any
) -> None:
    loop = Loop(quiet)

    def process(image: Any, metadata: Any) -> Any:
        loop.on_image(image, metadata)
        return result(image, metadata)

    with pytest.raises(AcquisitionError, match=message), acquisition(loop, image_process_fn=process) as acq:
        loop.guard(acq).acquire(iter(times(3)))


def test_trap_9_an_exposure_that_was_changed_elsewhere_is_set_again(
    quiet: Any, core: Any, acquisition: Any
) -> None:
    loop = Loop(quiet)
    exposures: list[float] = []

    def meddle(event: Any) -> Any:
        exposures.append(core.getExposure())
        core.setExposure(7)
        return event

    with acquisition(loop, post_hardware_hook_fn=meddle) as acq:
        assert loop.guard(acq).acquire(iter(times(3, exposure=3))) == 3
    assert exposures == [3.0, 3.0, 3.0]


def test_trap_10_the_engine_stops_and_starts_again_in_one_process() -> None:
    pytest.importorskip("pycromanager")
    script = """
import mm_test_adapters
from pycromanager import Acquisition, start_headless
from cytoloop.acquire.micromanager.engine import stop_headless
folder = str(mm_test_adapters.device_adapter_path())
for turn in range(2):
    start_headless(folder, folder + "/MMConfig_demo.cfg", python_backend=True, buffer_size_mb=16)
    with Acquisition(None, "a") as acq:
        acq.acquire({"axes": {"time": 0}})
    assert len(acq.get_dataset().get_image_coordinates_list()) == 1
    stop_headless()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mode", ["free", "barrier", "lockstep"])
def test_trap_11_a_stop_is_not_queued_behind_the_plan(mode: Any, scripted: Any, acquisition: Any) -> None:
    link = scripted(lambda frame: [Stop("enough")] if frame.sequence == 2 else [])
    loop = Loop(link, mode=mode)
    with acquisition(loop) as acq:
        guard = loop.guard(acq)
        taken = guard.acquire(iter(times(500)))
        assert 3 <= taken <= 6
        assert guard.stopped == "script: enough"
        assert guard.acquire({"axes": {"time": 1000}}) == 0
    assert times_of(acq) == list(range(taken))


def test_trap_11_a_stop_does_not_wait_for_the_planned_times(scripted: Any, acquisition: Any) -> None:
    link = scripted(lambda frame: [Stop("enough")] if frame.sequence == 0 else [])
    loop = Loop(link, mode="barrier")
    events = [{"axes": {"time": index}, "min_start_time": (0, 0.2, 3600)[index]} for index in range(3)]
    with acquisition(loop) as acq:
        assert loop.guard(acq).acquire(events) == 1
    assert times_of(acq) == [0]


def test_trap_12_events_after_the_block_are_refused(quiet: Any, acquisition: Any) -> None:
    loop = Loop(quiet)
    with acquisition(loop) as acq:
        guard = loop.guard(acq)
        assert guard.acquire(times(1)) == 1
    with pytest.raises(AcquisitionError, match="inside its 'with' block"):
        guard.acquire({"axes": {"time": 1}})


def test_trap_13_the_processor_reads_no_state_of_the_core(
    quiet: Any, core: Any, acquisition: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cytoloop.acquire.micromanager import hardware

    threads: set[str] = set()

    class Spy(hardware.Hardware):
        def __init__(self, core: Any) -> None:
            threads.add(threading.current_thread().name)
            super().__init__(core)

    monkeypatch.setattr("cytoloop.acquire.micromanager.loop.Hardware", Spy)
    loop = Loop(quiet)
    with acquisition(loop) as acq:
        loop.guard(acq).acquire(times(2, x=3, y=4, z=5))
    assert all("Acquisition Engine Thread" in name for name in threads)
    assert (quiet.frames[0].stage_um, quiet.frames[0].z_um) == ((3.0, 4.0), 5.0)


def test_a_camera_that_hangs_is_an_error_and_not_a_hang(quiet: Any, core: Any, acquisition: Any) -> None:
    released = threading.Event()
    core.snap_image = lambda: released.wait(30)
    loop = Loop(quiet, image_timeout_s=0.5)
    try:
        with (
            pytest.raises(AcquisitionError, match="no image within .* at {'time': 0}.*hangs"),
            acquisition(loop) as acq,
        ):
            loop.guard(acq).acquire(iter(times(3)))
    finally:
        released.set()
        del core.snap_image
    with acquisition(loop) as acq:
        assert loop.guard(acq).acquire(times(2)) == 2


def test_the_watchdog_lets_long_exposures_and_planned_waits_pass(quiet: Any, acquisition: Any) -> None:
    loop = Loop(quiet, image_timeout_s=0.3)
    events = [{"axes": {"time": index}, "min_start_time": 0.8 * index, "exposure": 400} for index in range(2)]
    with acquisition(loop) as acq:
        assert loop.guard(acq).acquire(events) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", ["notification_callback_fn", "image_saved_fn"])
def test_a_listener_that_raises_is_named_and_nothing_hangs(name: str, quiet: Any, acquisition: Any) -> None:
    def listen(*arguments: Any) -> None:
        raise OSError("disk full")

    functions = {
        "notification_callback_fn": lambda notification: listen(),
        "image_saved_fn": lambda axes, dataset: listen(),
    }
    loop = Loop(quiet)
    with (
        pytest.raises(AcquisitionError, match=f"{name} raised"),
        acquisition(loop, **{name: functions[name]}) as acq,
    ):
        loop.guard(acq).acquire(iter(times(200)))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_listener_that_has_died_does_not_fill_the_queues_and_hang_the_end(
    quiet: Any, acquisition: Any
) -> None:
    def listen(notification: Any) -> None:
        raise OSError("disk full")

    loop = Loop(quiet)
    with acquisition(loop, notification_callback_fn=listen) as acq:
        loop.guard(acq)
        for event in times(60):
            acq.acquire(event)  # past the guard, as a user might
    assert len(quiet.frames) == 60


def test_ctrl_c_ends_the_acquisition_at_once(quiet: Any, acquisition: Any) -> None:
    loop = Loop(quiet)

    def events() -> Iterator[dict[str, Any]]:
        yield from times(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), acquisition(loop) as acq:
        loop.guard(acq).acquire(events())
    assert set(times_of(acq)) <= {0, 1, 2}


def test_a_dataset_on_disk_is_complete_after_a_stop(
    scripted: Any, core: Any, tmp_path: Path, acquisition: Any
) -> None:
    from ndstorage import Dataset
    from pycromanager import Acquisition

    link = scripted(lambda frame: [Stop("enough")] if frame.sequence == 3 else [])
    loop = Loop(link, mode="lockstep")
    with Acquisition(
        str(tmp_path), "run", image_process_fn=loop.on_image, pre_hardware_hook_fn=loop.before_event
    ) as acq:
        taken = loop.guard(acq).acquire(times(10))
    acq.get_dataset().close()
    stored = Dataset(acq.get_dataset().path)
    assert taken == 4
    np.testing.assert_array_equal(stored.read_image(time=3), link.frames[3].pixels)
    stored.close()


@pytest.mark.parametrize("mode", ["free", "barrier", "lockstep"])
@pytest.mark.parametrize(
    "command",
    [
        SetProperty("Camera", "Gian", "1"),
        SetProperty("Kamera", "Gain", "1"),
        SetProperty("Camera", "Gain", "1000"),
        MoveStage(0.0, 0.0, z_um=1e9),
        MoveStage(float("nan"), 0.0),
        SetExposure(-5.0),
        SetExposure(float("inf")),
    ],
)
def test_a_service_that_commands_nonsense_does_not_touch_the_acquisition(
    command: Any, mode: Any, scripted: Any, acquisition: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    loop = Loop(scripted(lambda frame: [command]), mode=mode)
    with acquisition(loop) as acq:
        assert loop.guard(acq).acquire(iter(times(6))) == 6
    assert loop.stats.failed >= 3
    assert loop.stats.errors == 0


def test_a_stage_that_does_not_arrive_is_brought_back(scripted: Any, core: Any, acquisition: Any) -> None:
    timeout = core.getTimeoutMs()
    core.setTimeoutMs(300)
    link = scripted(lambda frame: [MoveStage(1e9, 0.0)] if frame.sequence == 0 else [])
    loop = Loop(link, mode="lockstep")
    try:
        started = time.monotonic()
        with acquisition(loop) as acq:
            assert loop.guard(acq).acquire(iter(times(4))) == 4
    finally:
        core.setTimeoutMs(timeout)
    assert loop.stats.failed == 1
    assert time.monotonic() - started < 20
    core.waitForDevice(
        core.getXYStageDevice()
    )  # on a busy machine it had come farther, and is still on its way
    assert abs(core.getXPosition()) < 1
