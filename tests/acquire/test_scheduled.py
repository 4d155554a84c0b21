"""Triggers that are scheduled: at their time and not before, once, in order, and never late."""

from __future__ import annotations

import threading
import time

import pytest
from cytoloop.acquire.commands import Stop, Trigger
from cytoloop.acquire.errors import ActuatorError
from cytoloop.acquire.micromanager.loop import Loop
from cytoloop.acquire.reply import Decision
from cytoloop.acquire.scheduled import ScheduledTrigger, Scheduling


class Output:
    """Notes what is fired, and when."""

    def __init__(self, wanted=1):
        self.fired, self.wanted, self.done = [], wanted, threading.Event()

    def fire(self, decision):
        self.fired.append((time.monotonic(), decision.command))
        if len(self.fired) >= self.wanted:
            self.done.set()


@pytest.fixture
def made():
    """Return a function that makes scheduled triggers, which are closed in the end."""
    triggers = []

    def make(fire, **options):
        triggers.append(ScheduledTrigger(fire, **{"late_ms": 10_000.0} | options))
        return triggers[-1]

    yield make
    for trigger in triggers:
        trigger.close()


def decision(at_s, width_ms=1.0, output="gate"):
    return Decision("sort", Trigger(output, at_s, width_ms), 0, 0.0, 1e9, track=1)


def test_they_fire_in_the_order_of_their_times_and_not_before(made):
    output = Output(3)
    trigger = made(output.fire)
    assert isinstance(trigger, Scheduling)
    start = time.monotonic()
    for at_s in (0.09, 0.03, 0.06):
        trigger.schedule(decision(at_s), 0.0)
    assert output.done.wait(10)
    assert [command.at_s for _, command in output.fired] == [0.03, 0.06, 0.09]
    assert all(when - start >= command.at_s - 1e-4 for when, command in output.fired)


def test_the_lead_is_taken_off(made):
    output = Output()
    trigger = made(output.fire, lead_ms=50_000.0)
    trigger.schedule(decision(50.01), 0.0)
    assert output.done.wait(10)


def test_one_that_comes_too_late_is_refused_and_counted(made):
    trigger = made(Output().fire, late_ms=0.5)
    with pytest.raises(ActuatorError, match=r"late by 100\.00 ms"):
        trigger.schedule(decision(0.9), 1.0)
    assert trigger.counts["late"] == 1


def test_pulses_of_one_output_that_overlap_become_one(made):
    output = Output(2)
    trigger = made(output.fire, spin_ms=0.0)
    for at_s, name in ((0.100, "gate"), (0.101, "gate"), (0.1005, "other")):
        trigger.schedule(decision(at_s, 2.0, name), 0.0)
    trigger.schedule(decision(0.102, 2.0), 0.0)
    assert output.done.wait(10)
    widths = {(command.output, round(command.width_ms, 1)) for _, command in output.fired}
    assert ("other", 2.0) in widths
    assert any(name == "gate" and width > 2 for name, width in widths)


def test_what_an_output_fails_at_does_not_keep_the_next_from_firing(made):
    output, tries = Output(), []

    def fire(each):
        tries.append(each)
        if len(tries) == 1:
            raise RuntimeError("no such port")
        output.fire(each)

    trigger = made(fire)
    trigger.schedule(decision(0.01), 0.0)
    trigger.schedule(decision(0.05), 0.0)
    assert output.done.wait(10)
    assert trigger.counts["failed"] == 1


def test_waiting_ones_are_bounded_and_can_be_dropped(made):
    output = Output()
    trigger = made(output.fire, most_waiting=2)
    trigger.schedule(decision(100.0), 0.0)
    trigger.schedule(decision(101.0), 0.0)
    with pytest.raises(ActuatorError, match="2 triggers wait already"):
        trigger.schedule(decision(102.0), 0.0)
    assert trigger.drop("disarmed") == 2
    trigger.close()
    assert output.fired == []
    with pytest.raises(ActuatorError, match="closed"):
        trigger.schedule(decision(103.0), 0.0)


def test_what_is_no_trigger_or_has_no_time_is_refused(made):
    trigger = made(Output().fire)
    with pytest.raises(ActuatorError, match="Stop is not for"):
        trigger.schedule(Decision("sort", Stop("x"), 0, 0.0, 1.0), 0.0)
    with pytest.raises(ActuatorError, match="finite"):
        trigger.schedule(decision(float("nan")), 0.0)
    with pytest.raises(ActuatorError, match="clock"):
        trigger.actuate(decision(1.0))


def test_a_clock_of_its_own_serves_where_nobody_gives_the_time(made):
    output = Output()
    made(output.fire, now_s=lambda: 41.99).actuate(decision(42.0))
    assert output.done.wait(10)


@pytest.mark.parametrize("option", ["lead_ms", "late_ms", "spin_ms", "most_waiting"])
def test_an_option_out_of_range_is_refused_by_name(option):
    with pytest.raises(ValueError, match=option):
        ScheduledTrigger(print, **{option: -1})


@pytest.mark.engine
@pytest.mark.timeout(60)
def test_steering_hands_triggers_over_at_once_and_waits_for_none(core, scripted, made):
    from pycromanager import Acquisition

    output = Output(2)
    trigger = made(output.fire)
    link = scripted(lambda frame: [])
    loop = Loop(link, mode="lockstep", actuators=[trigger])
    with Acquisition(
        None, "test", image_process_fn=loop.on_image, pre_hardware_hook_fn=loop.before_event
    ) as acq:
        guard = loop.guard(acq)
        guard.acquire([{"axes": {"time": 0}}])
        for ahead_s in (0.2, 0.1, 1000.0):
            link.add(decision(loop.steering._outgoing.now_s() + ahead_s))
        loop.steering.take()
        assert trigger.counts["taken"] == 3
        assert output.done.wait(10)
        wait = threading.Event()
        while loop.stats.applied < 2:  # told by the thread that fires, just after
            wait.wait(0.01)
        loop.steering.drop_waiting("disarmed")
        assert trigger.counts["dropped"] == loop.stats.failed == 1
    assert len(output.fired) == 2
