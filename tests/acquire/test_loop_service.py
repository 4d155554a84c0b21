"""The whole loop: the real pycro-manager engine, the real link, the real service, and what goes wrong with it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cytoloop.acquire.errors import RefusedError
from cytoloop.acquire.governor.limits import Limits
from cytoloop.acquire.micromanager.loop import Loop, connect
from cytoloop.acquire.micromanager.pymmcoreplus import connect as connect_plus
from cytoloop.realtime.bench.blank import BLANK
from cytoloop.realtime.experiment.config import Experiment, single_stream
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.service.server import Service

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
STOP = getattr(signal, "SIGSTOP", None)  # Windows has none: there the second fault is a kill, too
RULES = '''
from cytoloop.acquire.commands import MoveFocus, MoveStage, SetExposure, SetProperty, SnapExtra, Stimulate
from cytoloop.acquire.reply import Decision
from cytoloop.realtime.rules.rule import Verdict

class Rule:
    name = "scripted"
    def examples(self):
        return ()
    def decide(self, moment):
        frame = moment.frame
        return Verdict(tuple(
            Decision(self.name, command, frame.sequence, frame.time_s, frame.time_s + 60.0)
            for command in self.commands(frame)
        ))

class Step(Rule):
    """Each frame asks for a place of its own for the next one."""
    def commands(self, frame):
        return (MoveStage(float(frame.sequence + 1), 0.0),)

class Nonsense(Rule):
    """No frame asks for anything that the microscope can do."""
    def commands(self, frame):
        return (
            MoveFocus(1e9), SetProperty("Camera", "Gian", "1"), SetProperty("Kamera", "Gain", "1"),
            SetExposure(1e300), SnapExtra(), Stimulate(points_px=((1.0, 1.0),)),
        )
'''
WIDE = Limits(
    x_um=(-1e12, 1e12),
    y_um=(-1e12, 1e12),
    z_um=(-1e12, 1e12),
    max_step_um=1e12,
    exposure_ms=(1e-9, 1e307),
    commands_per_s=10_000,
    properties=("Camera.Gian", "Kamera.Gain"),
)


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Experiment]:
    """Return an experiment of one stream whose rule lies in a file of the user's."""
    (tmp_path / "my_rules.py").write_text(RULES)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(rule: str, **fields: Any) -> Experiment:
        options = {"address": "tcp://127.0.0.1:0", "limits": WIDE, "armed": True} | fields
        stream = StreamConfig(
            segmenter=PluginChoice(BLANK), rules=(PluginChoice(f"my_rules:{rule}"),), **options
        )
        return single_stream(stream, log=tmp_path / "log")

    return make


@pytest.fixture
def run(core: Any) -> Callable[..., Any]:
    from pycromanager import Acquisition

    def acquire(loop: Loop, events: Any) -> Any:
        with Acquisition(
            None, "test", image_process_fn=loop.on_image, pre_hardware_hook_fn=loop.before_event
        ) as acq:
            acq.taken = loop.guard(acq).acquire(events)
        return acq

    return acquire


def times(count: int, **more: Any) -> Iterator[dict[str, Any]]:
    for index in range(count):
        yield {"axes": {"time": index}, **more}


def stage_of(acq: Any, count: int) -> list[float]:
    data = acq.get_dataset()
    return [data.read_metadata(time=index)["XPosition_um_Intended"] for index in range(count)]


@pytest.fixture
def gone() -> str:
    """Return an address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("mode", ["free", "barrier", "lockstep"])
def test_the_service_moves_the_stage_and_its_death_and_hanging_cost_nothing_but_waiting(
    mode: Any, experiment: Any, run: Any
) -> None:
    with (
        Service(experiment("Step", hang_s=0.8)) as service,
        connect(service.addresses["default"], mode=mode, deadline_s=10.0) as loop,
    ):
        acq = run(loop, times(10))
        assert loop.client.drain(20)
        stats = loop.stats
        assert acq.taken == stats.images == stats.link.acknowledged == 10
        assert (stats.errors, stats.failed, stats.late, stats.expired) == (0, 0, 0, 0)
        stages = stage_of(acq, 10)
        if mode == "free":
            assert stages == sorted(stages)
        else:  # each event went where the frame before it said
            assert [round(x) for x in stages] == list(range(10))

        def events() -> Iterator[dict[str, Any]]:
            for event in times(40, exposure=5.0):
                if event["axes"]["time"] in (10, 25):
                    assert loop.client.drain(30)  # the second fault meets an engine that has taken over
                    kill = event["axes"]["time"] == 10 or STOP is None
                    os.kill(service.pids["default"], KILL if kill else STOP)
                yield event

        loop._deadline_s = 0.1
        acq = run(loop, events())
        assert acq.taken == 40
        assert loop.client.drain(30)
        assert [reply.sequence for reply in loop.client.replies()] == list(range(50))
        assert service.restarts["default"] == 2
        assert loop.stats.errors == 0


def test_a_service_that_comes_late_gets_every_frame(
    experiment: Any, run: Any, gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(gone, mode="barrier", deadline_s=0.01) as loop:
        assert "no service at" in caplog.text
        assert run(loop, times(10)).taken == 10
        with Service(experiment("Step", address=gone)):
            assert loop.client.drain(30)
            assert [reply.sequence for reply in loop.client.replies()] == list(range(10))


def test_a_service_that_commands_nonsense_is_told_off_and_the_acquisition_goes_on(
    experiment: Any, run: Any, core: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        Service(experiment("Nonsense")) as service,
        connect(service.addresses["default"], mode="lockstep", deadline_s=10.0) as loop,
    ):
        with pytest.raises(RefusedError, match="nowhere"):
            connect(service.addresses["default"], stream="nowhere")
        assert run(loop, times(8)).taken == 16
        assert loop.stats.failed > 10
        assert loop.stats.errors == 0
    for reason in ("did you mean 'Gain'", "no device 'Kamera'", "no actuator accepts Stimulate", "1e+09 um"):
        assert reason in caplog.text


def test_pymmcore_plus_is_steered_by_the_service_and_survives_its_death(experiment: Any) -> None:
    pymmcore_plus = pytest.importorskip("pymmcore_plus", reason="the plus extra is not installed")
    from useq import MDAEvent

    core = pymmcore_plus.CMMCorePlus()
    core.loadSystemConfiguration()
    stages: list[int] = []
    core.mda.events.frameReady.connect(lambda image, event, meta: stages.append(round(meta["position"]["x"])))
    try:
        with (
            Service(experiment("Step")) as service,
            connect_plus(service.addresses["default"], core, mode="lockstep", deadline_s=10.0) as loop,
        ):

            def events() -> Iterator[Any]:
                for index in range(16):
                    if index == 8:
                        os.kill(service.pids["default"], KILL)
                    yield MDAEvent(index={"t": index}, exposure=1)

            core.run_mda(loop.events(events())).join()
            assert loop.client.drain(30)
            stats = loop.stats
            assert stats.images == stats.link.acknowledged == 16
            assert (stats.errors, stats.failed, stats.late) == (0, 0, 0)
    finally:
        core.unloadAllDevices()
        time.sleep(0.3)  # a core destroyed right after its callbacks may crash
    assert stages == list(range(16))
