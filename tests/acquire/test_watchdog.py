"""The watchdog: a service that is silent for too long leaves the microscope in its safe state, and the run goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cytoloop.acquire.actuators import CoreActuator, Falling
from cytoloop.acquire.commands import MoveStage, Revisit, Stimulate, Trigger
from cytoloop.acquire.governor.limits import Limits
from cytoloop.acquire.governor.safe import SafeState
from cytoloop.acquire.link.messages import Beat, Terms, Welcome
from cytoloop.acquire.micromanager.loop import Loop, connect
from cytoloop.acquire.reply import Decision
from cytoloop.acquire.scheduled import ScheduledTrigger
from cytoloop.realtime.bench.blank import BLANK
from cytoloop.realtime.experiment.config import single_stream
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.service.outcome_log import read_outcomes
from cytoloop.realtime.service.server import Service

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

WIDE: dict[str, Any] = {"x_um": (-1e6, 1e6), "y_um": (-1e6, 1e6), "max_step_um": 1e6}
RULES = """
from cytoloop.acquire.commands import MoveStage
from cytoloop.acquire.reply import Decision
from cytoloop.realtime.rules.rule import Verdict

class Step:
    name = "step"
    def examples(self):
        return ()
    def decide(self, moment):
        frame = moment.frame
        command = MoveStage(float(frame.sequence + 1), 0.0)
        return Verdict((Decision(self.name, command, frame.sequence, frame.time_s, frame.time_s + 60.0),))
"""


def wait_until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def welcome(*settings: str, after_s: float = 0.5) -> Welcome:
    terms = Terms(armed=True, limits=Limits(**WIDE), safe=SafeState(after_s=after_s, set=settings))
    return Welcome(0, 3, "lossless", 10.0, "engine", "folder", terms)


class Lamp:
    """A light that takes its time to go on, and can fall."""

    commands = (Stimulate,)

    def __init__(self) -> None:
        self.on, self.falls = False, 0
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()

    def actuate(self, decision: Decision) -> None:
        self.begun.set()
        assert self.go.wait(30)
        self.on = True

    def fall(self) -> None:
        self.on, self.falls = False, self.falls + 1

    def close(self) -> None:
        self.on = False


class Broken(Lamp):
    """A light that cannot fall."""

    def fall(self) -> None:
        raise RuntimeError("no power")


@pytest.fixture
def run(core: Any) -> Callable[..., int]:
    """Return what acquires events one by one, and tells how many images were taken."""
    from pycromanager import Acquisition

    def acquire(loop: Loop, events: Any) -> int:
        with Acquisition(
            None, "test", image_process_fn=loop.on_image, pre_hardware_hook_fn=loop.before_event
        ) as acq:
            return loop.guard(acq).acquire(events)

    return acquire


@pytest.fixture
def looped() -> Iterator[Callable[..., Loop]]:
    """Return what makes a loop that is closed in the end."""
    loops: list[Loop] = []

    def make(link: Any, *actuators: Any, **options: Any) -> Loop:
        loops.append(Loop(link, mode="lockstep", actuators=actuators, **options))
        return loops[-1]

    yield make
    for loop in loops:
        loop.close()


def times(count: int, at: dict[int, Callable[[], object]] | None = None) -> Iterator[dict[str, Any]]:
    """Yield events one by one; before some of them something happens."""
    for index in range(count):
        if at and index in at:
            at[index]()
        yield {"axes": {"time": index}}


def told(link: Any) -> list[tuple[str, str, str]]:
    """Return command, fate and reason of all that the service shall be told."""
    return [(each.command, each.fate, each.reason) for each in link.safeguard._waiting]


def test_lights_and_outputs_go_off_and_the_properties_of_the_safe_state_are_set(
    scripted: Any, core: Any, run: Any, looped: Any, caplog: Any
) -> None:
    link = scripted(lambda frame: ())
    link.safeguard.take(welcome("Emission.State=3", "Camera.Gian=1", "Kamera.Gain=1", "Camera.Offset=7"))
    lamp, gate = Lamp(), CoreActuator(core, outputs={"gate": ("Camera", "Gain", "5", "0")})
    loop = looped(link, lamp, Broken(), gate)
    assert isinstance(lamp, Falling)
    assert isinstance(gate, Falling)
    emission, offset = core.getProperty("Emission", "State"), core.getProperty("Camera", "Offset")
    assert (emission, float(offset)) != ("3", 7.0)

    def leave_on() -> None:
        lamp.on = True
        core.setProperty("Camera", "Gain", "5")

    try:
        assert run(loop, times(6, {3: leave_on, 4: lambda: wait_until(lambda: link.safeguard.safe)})) == 6
        wait_until(lambda: float(core.getProperty("Camera", "Offset")) == 7)
        assert core.getProperty("Camera", "Gain") == "0"
        assert core.getProperty("Emission", "State") == "3"
        assert not lamp.on
    finally:
        core.setProperty("Emission", "State", emission)
        core.setProperty("Camera", "Offset", offset)
    for words in ("no sign of life of the service for 0.5 s", "did you mean 'Gain'", "no device 'Kamera'"):
        assert words in caplog.text
    assert "Broken could not fall to its safe state: no power" in caplog.text
    assert (loop.stats.images, loop.stats.errors, loop.stats.falls) == (6, 0, 1)


def test_decisions_are_refused_until_the_service_is_heard_again_and_the_standing_is_kept(
    scripted: Any, core: Any, run: Any, looped: Any, caplog: Any
) -> None:
    link = scripted(lambda frame: (MoveStage(10.0 * (frame.sequence + 1), 0.0),))
    link.safeguard.take(welcome())
    loop, stood = looped(link), dict[str, float]()

    def fall() -> None:
        wait_until(lambda: link.safeguard.safe)
        stood["fallen"] = core.getXPosition()
        assert loop.stats.standing == "armed"

    def come_back() -> None:
        stood["before"] = core.getXPosition()
        link.safeguard.take(Beat(0))

    assert run(loop, times(9, {3: fall, 6: come_back})) == 9
    assert stood["before"] == stood["fallen"]  # the stage stays, and the images go on
    assert core.getXPosition() > 60
    assert (loop.stats.falls, loop.stats.standing, loop.stats.errors) == (1, "armed", 0)
    assert loop.stats.disarmed >= 3
    reason = "the service is silent: the microscope is in its safe state"
    assert ("MoveStage", "disarmed", reason) in told(link)
    assert "the service is back" in caplog.text


def test_a_microscope_that_a_person_disarmed_falls_too_and_is_disarmed_when_the_service_is_back(
    scripted: Any, run: Any, looped: Any
) -> None:
    link = scripted(lambda frame: (MoveStage(1.0, 0.0),))
    link.safeguard.take(welcome())
    lamp = Lamp()
    loop = looped(link, lamp)
    loop.disarm("the lid is open")
    back: dict[int, Callable[[], object]] = {
        2: lambda: wait_until(lambda: lamp.falls),
        3: lambda: link.safeguard.take(Beat(0)),
    }
    assert run(loop, times(5, back)) == 5
    assert (loop.stats.standing, loop.stats.applied, loop.stats.falls) == ("disarmed", 0, 1)


def test_pulses_and_visits_that_wait_are_refused(scripted: Any, run: Any, looped: Any) -> None:
    link = scripted(
        lambda frame: (
            (Trigger("gate", frame.time_s + 50.0), Revisit(5.0, 5.0, at_s=frame.time_s + 50.0))
            if frame.sequence == 0
            else ()
        )
    )
    link.safeguard.take(welcome())
    fired: list[Decision] = []
    trigger = ScheduledTrigger(fired.append)
    loop = looped(link, trigger)
    assert run(loop, times(4, {2: lambda: wait_until(lambda: trigger.counts["dropped"])})) == 4
    assert not fired
    assert ("Trigger", "failed", "the service is silent") in told(link)
    reason = "the service is silent: the microscope is in its safe state"
    assert ("Revisit", "failed", reason) in told(link)
    assert loop.stats.images == 4


def test_it_falls_again_each_time_the_service_is_lost(scripted: Any, run: Any, looped: Any) -> None:
    link = scripted(lambda frame: ())
    link.safeguard.take(welcome())
    lamp = Lamp()
    loop = looped(link, lamp)

    def again() -> None:
        wait_until(lambda: lamp.falls == 1)
        link.safeguard.take(Beat(0))
        lamp.on = True
        wait_until(lambda: lamp.falls == 2)

    assert run(loop, times(3, {1: again})) == 3
    assert not lamp.on
    assert loop.stats.falls == 2


def test_what_an_action_switches_on_while_the_microscope_falls_is_switched_off_afterwards(
    scripted: Any, run: Any, looped: Any
) -> None:
    light = Stimulate(points_px=((5.0, 5.0),))
    link = scripted(lambda frame: (light,) if frame.sequence == 0 else ())
    link.safeguard.take(welcome())
    lamp = Lamp()
    lamp.go.clear()
    loop = looped(link, lamp)

    def interfere() -> None:
        assert lamp.begun.wait(30)
        wait_until(lambda: lamp.falls == 1)  # in the middle of it
        lamp.go.set()

    meanwhile = threading.Thread(target=interfere)
    meanwhile.start()
    assert run(loop, times(2, {1: lambda: wait_until(lambda: lamp.falls == 2)})) == 2
    meanwhile.join()
    assert not lamp.on
    assert loop.stats.falls == 1  # once, though it was made safe twice


def test_a_loop_that_is_never_used_leaves_no_thread_and_one_without_terms_never_falls(
    scripted: Any, run: Any
) -> None:
    before = set(threading.enumerate())
    link = scripted(lambda frame: ())
    link.safeguard.take(welcome())
    unused = Loop(link, actuators=[Lamp()])
    assert set(threading.enumerate()) == before
    unused.close()
    loop = Loop(scripted(lambda frame: ()), mode="lockstep")  # no service has said when to fall
    assert run(loop, times(2)) == 2
    assert not [each for each in threading.enumerate() if each.name == "cytoloop watchdog"]
    assert loop.stats.falls == 0


def test_a_loop_that_is_closed_ends_its_watchdog(scripted: Any, run: Any) -> None:
    link = scripted(lambda frame: ())
    link.safeguard.take(welcome())
    with Loop(link, mode="lockstep") as loop:
        assert run(loop, times(1)) == 1
        assert [each for each in threading.enumerate() if each.name == "cytoloop watchdog"]
    assert not [each for each in threading.enumerate() if each.name == "cytoloop watchdog"]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows cannot stop a process with a signal")
def test_a_service_that_stands_still_and_goes_on_costs_nothing_but_its_decisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, core: Any, run: Any
) -> None:
    (tmp_path / "still_rules.py").write_text(RULES)
    monkeypatch.syspath_prepend(str(tmp_path))
    stream = StreamConfig(
        address="tcp://127.0.0.1:0",
        segmenter=PluginChoice(BLANK),
        rules=(PluginChoice("still_rules:Step"),),
        limits=Limits(**WIDE),
        safe=SafeState(after_s=1.0, set=("Camera.Gain=3",)),
        armed=True,
        hang_s=300.0,
    )
    lamp = Lamp()
    with (
        Service(single_stream(stream, log=tmp_path / "log")) as service,
        connect(service.addresses["default"], mode="lockstep", deadline_s=10.0, actuators=[lamp]) as loop,
    ):
        safeguard = loop.client.safeguard

        def stand_still() -> None:
            assert core.getXPosition() > 0
            lamp.on = True
            os.kill(service.pids["default"], signal.SIGSTOP)
            loop._deadline_s = 0.05
            wait_until(lambda: core.getProperty("Camera", "Gain") == "3")

        def go_on() -> None:
            assert safeguard.safe
            os.kill(service.pids["default"], signal.SIGCONT)
            loop._deadline_s = 10.0
            wait_until(lambda: not safeguard.safe)
            core.setProperty("Camera", "Gain", "0")

        assert run(loop, times(12, {4: stand_still, 8: go_on})) == 12
        assert not lamp.on
        assert loop.client.drain(30)
        assert [reply.sequence for reply in loop.client.replies()] == list(range(12))
        assert round(core.getXPosition()) == 11  # the last event went where the frame before it said
        stats = loop.stats
        assert (stats.falls, stats.standing, stats.errors, stats.link.reconnects) == (1, "armed", 0, 0)
        assert service.restarts["default"] == 0
        loop.close()  # which tells what comes of the last one
        outcomes = list(read_outcomes(Path(stats.link.folder)))
    frames = [each.sequence for each in outcomes]
    assert sorted(frames) == sorted(set(frames))
    fates = [each.fate for each in outcomes]
    assert (fates.count("applied"), fates.count("failed")) == (loop.stats.applied, loop.stats.failed)
    assert len(fates) >= 8  # of the moves that came all at once only the last was ever tried
