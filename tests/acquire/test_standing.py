"""Armed, dry and disarmed, in a real pycro-manager acquisition: what reaches the hardware and what does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from cytoloop.acquire.commands import Disarm, MoveStage, Revisit, SetExposure, Stop, Trigger
from cytoloop.acquire.errors import ActuatorError
from cytoloop.acquire.governor.standing import Safety
from cytoloop.acquire.micromanager.loop import Loop
from cytoloop.acquire.scheduled import ScheduledTrigger

pytestmark = [pytest.mark.engine, pytest.mark.timeout(60)]


@pytest.fixture
def places(core: Any) -> Callable[..., list[tuple[int, int]]]:
    """Return what acquires five frames with a loop, and tells where the stage stood at each."""
    from pycromanager import Acquisition

    def acquire(loop: Loop) -> list[tuple[int, int]]:
        stood: list[tuple[int, int]] = []

        def note(event: Any) -> Any:
            stood.append((round(core.getXPosition()), round(core.getYPosition())))
            return event

        with Acquisition(
            None,
            "test",
            image_process_fn=loop.on_image,
            pre_hardware_hook_fn=loop.before_event,
            post_hardware_hook_fn=note,
        ) as acq:
            loop.guard(acq).acquire([{"axes": {"time": index}} for index in range(5)])
        return stood

    return acquire


def steps(frame: Any) -> tuple[Any, ...]:
    """Ask for another place after each frame."""
    return (MoveStage(10.0 * (frame.sequence + 1), 0.0),)


def test_a_disarmed_microscope_stays_where_it_is_and_goes_on_as_planned(scripted: Any, places: Any) -> None:
    loop = Loop(scripted(steps), mode="lockstep")
    loop.disarm("the sample is being changed")
    assert len(set(places(loop))) == 1
    assert (loop.stats.applied, loop.stats.standing) == (0, "disarmed")
    assert loop.stats.disarmed >= 4
    assert loop.stats.images == 5


def test_an_armed_one_moves_and_a_stop_does_not_pass_a_disarmed_one(scripted: Any, places: Any) -> None:
    loop = Loop(scripted(steps), mode="lockstep")
    loop.disarm()
    loop.arm()
    assert len(set(places(loop))) == 5
    held = Loop(scripted(lambda _: (Stop("enough"),)), mode="lockstep")
    held.disarm()
    assert len(places(held)) == 5


def test_a_dry_run_counts_and_says_what_it_would_have_done(scripted: Any, places: Any, caplog: Any) -> None:
    caplog.set_level("INFO", "cytoloop.loop")
    loop = Loop(scripted(steps), mode="lockstep")
    loop.dry_run()
    assert len(set(places(loop))) == 1
    assert (loop.stats.applied, loop.stats.standing) == (0, "dry")
    assert loop.stats.dry >= 4
    assert "asks for MoveStage(x_um=10.0" in caplog.text


def test_a_decision_to_disarm_holds_back_all_later_ones_until_a_person_arms_it(
    scripted: Any, places: Any, caplog: Any
) -> None:
    def lost(frame: Any) -> tuple[Any, ...]:
        return (Disarm("focus lost"),) if frame.sequence == 1 else steps(frame)

    loop = Loop(scripted(lost), mode="lockstep")
    stood = places(loop)
    assert len(set(stood)) == 2  # the move after frame 0, and none after the order
    assert stood[-1] == (10, 0)
    assert "the microscope is disarmed (was armed)" in caplog.text
    assert "focus lost" in caplog.text
    assert loop.stats.disarmed >= 2
    loop.arm()
    assert loop.stats.standing == "armed"


def test_an_order_to_disarm_is_never_stale(scripted: Any, places: Any) -> None:
    loop = Loop(scripted(lambda _: (SetExposure(5.0), Disarm("late")), lifetime_s=-1.0), mode="lockstep")
    places(loop)
    assert (loop.stats.standing, loop.stats.applied) == ("disarmed", 0)


def test_an_unknown_standing_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ActuatorError, match="'arm': allowed are disarmed, dry, armed. Did you mean 'armed'"):
        Safety().set("arm", "")  # pyright: ignore[reportArgumentType]


def test_a_visit_and_a_pulse_that_wait_when_it_is_disarmed_do_not_happen(
    scripted: Any, core: Any, caplog: Any
) -> None:
    from pycromanager import Acquisition

    fired: list[float] = []
    gate = ScheduledTrigger(lambda decision: fired.append(time.monotonic()))
    link = scripted(
        lambda frame: (
            (Revisit(50.0, 0.0, at_s=frame.time_s + 1.2), Trigger("gate", frame.time_s + 1.2))
            if frame.sequence == 0
            else ()
        )
    )
    with (
        Loop(link, mode="lockstep", actuators=[gate]) as loop,
        Acquisition(
            None, "test", image_process_fn=loop.on_image, pre_hardware_hook_fn=loop.before_event
        ) as acq,
    ):
        timer = threading.Timer(0.5, loop.disarm, ["the sample is changed"])
        timer.start()
        taken = loop.guard(acq).acquire(
            [{"axes": {"time": index}, "min_start_time": 2.0 * index} for index in range(2)]
        )
        timer.join()
        assert taken == 2
        assert loop.stats.applied == 0
    assert fired == []
    assert core.getXPosition() == pytest.approx(0.0, abs=0.01)
    assert gate.counts["disarmed"] + gate.counts["failed"] + gate.counts["dropped"] == 1
