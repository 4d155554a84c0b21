"""The gate at the microscope: what it lets pass, by what the microscope itself knows of its frames."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.commands import MoveStage, SetExposure, Skip, Stimulate, Stop, Trigger
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.governor.limits import Limits
from cytoloop.acquire.link.messages import Terms, Welcome
from cytoloop.acquire.micromanager.outgoing import Outgoing
from cytoloop.acquire.micromanager.steering import Steering
from cytoloop.acquire.outcome import Fate, Outcome
from cytoloop.acquire.reply import Decision

LAMP = (Stimulate(points_px=((5.0, 5.0),), duration_ms=100.0, power=0.5),)  # 50 ms of full power


def welcome(**terms: Any) -> Welcome:
    return Welcome(0, 3, "lossless", 10.0, "engine", "folder", Terms(**{"armed": True} | terms))


class Lamp:
    """Notes what is carried out."""

    commands = (Stimulate, Trigger)

    def __init__(self) -> None:
        self.done: list[Decision] = []

    def actuate(self, decision: Decision) -> None:
        self.done.append(decision)

    def close(self) -> None:
        pass


class Scope:
    """A microscope that has sent three frames, one second apart, and what it makes of decisions about them."""

    def __init__(self, link: Any, own: Limits | None = None, *, frames: int = 3, **terms: Any) -> None:
        self.link, self.lamp = link, Lamp()
        if terms:
            link.safeguard.take(welcome(**terms))
        self.outgoing = Outgoing(link)
        self.steering = Steering(link, self.outgoing, actuators=[self.lamp], limits=own)
        for number in range(frames):
            frame = Frame(np.zeros((20, 30), np.uint16), stage_um=(0.0, 0.0), pixel_size_um=1.0)
            self.outgoing.send(frame, (("time", number),), float(number))

    def decision(self, command: Any, sequence: int = 1, **changes: Any) -> Decision:
        frames = self.link.frames
        time_s = frames[sequence].time_s if sequence < len(frames) else 0.0
        return Decision(**{"rule": "r", "time_s": time_s, "expires_s": 1e6, "track": 1} | changes,
                        command=command, sequence=sequence)  # fmt: skip

    def fates(self, *decisions: Decision) -> list[tuple[Fate, str]]:
        """Have decisions carried out; return what came of each."""
        for each in decisions:
            self.link.add(each)
        self.steering.take()
        return [(each.fate, each.reason) for each in self.outcomes()]

    def outcomes(self) -> list[Outcome]:
        """Return what the service is told, and have it forgotten."""
        guard = self.link.safeguard
        found = list(guard._waiting)
        guard._waiting.clear()
        return found


@pytest.fixture
def scope(scripted: Any) -> Iterator[Callable[..., Scope]]:
    """Return what makes a microscope; its watchdog ends with the test."""
    made: list[Scope] = []

    def make(own: Limits | None = None, **more: Any) -> Scope:
        made.append(Scope(scripted(lambda frame: ()), own, **more))
        return made[-1]

    yield make
    for each in made:
        each.steering.watchdog.close()


def test_a_decision_about_a_frame_as_it_was_sent_is_carried_out(scope: Any) -> None:
    it = scope(limits=Limits())
    assert it.fates(it.decision(*LAMP)) == [("applied", "")]
    assert len(it.lamp.done) == 1


@pytest.mark.parametrize("terms", [{"limits": Limits()}, {}])
def test_a_decision_whose_time_is_not_that_of_its_frame_is_refused(scope: Any, terms: Any) -> None:
    it = scope(**terms)
    ((fate, reason),) = it.fates(it.decision(*LAMP, time_s=0.25))
    assert (fate, reason) == ("refused", "it is of 0.25 s, frame 1 of 1 s")
    assert not it.lamp.done


def test_a_decision_about_a_frame_that_was_never_sent_is_refused(scope: Any) -> None:
    it = scope(limits=Limits())
    assert it.fates(it.decision(*LAMP, sequence=3)) == [
        ("refused", "frame 3 is not known here, or too long ago")
    ]
    assert not it.lamp.done


@pytest.mark.parametrize(
    ("command", "limits", "reason"),
    [
        (LAMP[0], {"stimulation_ms_max": 99.0}, "limits: duration_ms 100 ms: allowed 0 to 99 ms"),
        (Stimulate(points_px=((30.0, 5.0),)), {}, "limits: point (30.0, 5.0) px is outside the image"),
        (SetExposure(5000.0), {}, "limits: exposure_ms 5000 ms: allowed 0.1 to 1000 ms"),
        (MoveStage(30.0, 30.0), {}, "limits: step of 42.4 um, the longest allowed is 36.1 um"),
        (Trigger("gate", 0.5), {}, "limits: at_s 0.5 is before the frame's time"),
    ],
    ids=str,
)
@pytest.mark.parametrize("whose", ["the service's", "the script's"])
def test_what_is_outside_the_limits_is_refused_although_the_service_let_it_pass(
    whose: str, command: Any, limits: dict[str, Any], reason: str, scope: Any
) -> None:
    strict = Limits(**limits)
    it = scope(limits=strict) if whose == "the service's" else scope(strict)
    ((fate, said),) = it.fates(it.decision(command))
    assert fate == "refused"
    assert said.startswith(reason)
    assert not it.lamp.done


def test_both_limits_hold_whichever_is_narrower(scope: Any) -> None:
    it = scope(Limits(exposure_ms=(1.0, 50.0)), limits=Limits(exposure_ms=(10.0, 1000.0)))
    reasons = [
        reason for _, reason in it.fates(it.decision(SetExposure(5.0)), it.decision(SetExposure(60.0)))
    ]
    assert reasons == [
        "limits: exposure_ms 5 ms: allowed 10 to 1000 ms",
        "limits: exposure_ms 60 ms: allowed 1 to 50 ms",
    ]


def test_what_only_one_of_both_limits_refuses_counts_for_neither(scope: Any) -> None:
    it = scope(Limits(dose_ms_per_run=120.0), limits=Limits(dose_ms_per_cell=50.0))
    fates = it.fates(*[it.decision(*LAMP, track=track) for track in (1, 1, 1, 2, 3)])
    assert [fate for fate, _ in fates] == ["applied", "refused", "refused", "applied", "refused"]
    assert fates[1][1].startswith("limits: dose_ms_per_cell: 100 ms")
    assert fates[4][1].startswith("limits: dose_ms_per_run: 150 ms")


def test_a_dose_is_counted_at_the_microscope_over_frames_and_welcomes(scope: Any) -> None:
    it = scope(limits=Limits(dose_ms_per_cell=100.0))
    assert [fate for fate, _ in it.fates(it.decision(*LAMP), it.decision(*LAMP))] == ["applied"] * 2
    it.link.safeguard.take(welcome(limits=Limits(dose_ms_per_cell=149.0)))  # of a service that began again
    ((fate, reason),) = it.fates(it.decision(*LAMP, sequence=2))
    assert fate == "refused"
    assert reason == "limits: dose_ms_per_cell: 150 ms of full power would be given, allowed 149 ms"
    it.link.safeguard.take(welcome(limits=Limits(dose_ms_per_cell=150.0)))
    assert it.fates(it.decision(*LAMP, sequence=2)) == [("applied", "")]
    assert len(it.lamp.done) == 3


def test_the_map_and_the_stale_calibration_of_the_service_hold_here_too(scope: Any) -> None:
    it = scope(limits=Limits(), affine=(0.1, 0.0, 0.0, 0.1))
    ((_, reason),) = it.fates(it.decision(MoveStage(5.0, 0.0)))
    assert reason == "limits: step of 5.0 um, the longest allowed is 3.6 um"
    it = scope(limits=Limits(), uncalibrated="the calibration is 91 days old")
    ((_, reason),) = it.fates(it.decision(MoveStage(5.0, 0.0)))
    assert reason == "limits: the calibration is 91 days old"


def test_a_dry_run_counts_no_dose_and_says_what_the_limits_would_refuse(scope: Any) -> None:
    it = scope(limits=Limits(dose_ms_per_cell=50.0, triggers_max=1))
    it.steering.safety.set("dry", "a rehearsal")
    strong = Stimulate(points_px=((5.0, 5.0),), duration_ms=200.0)
    fates = it.fates(*[it.decision(*LAMP)] * 3, it.decision(Trigger("gate", 1e5)), it.decision(strong))
    assert [fate for fate, _ in fates] == ["dry"] * 4 + ["refused"]
    assert not it.lamp.done
    it.steering.safety.set("armed", "now")
    assert [fate for fate, _ in it.fates(*[it.decision(*LAMP)] * 2)] == ["applied", "refused"]


def test_a_decision_that_has_expired_or_meets_a_disarmed_microscope_counts_no_dose(scope: Any) -> None:
    it = scope(limits=Limits(dose_ms_per_cell=50.0))
    assert it.fates(it.decision(*LAMP, expires_s=1.5))[0][0] == "expired"
    it.steering.safety.set("disarmed", "the lid is open")
    assert it.fates(it.decision(*LAMP)) == [("disarmed", "disarmed: the lid is open")]
    it.steering.safety.set("armed", "closed")
    assert it.fates(it.decision(*LAMP)) == [("applied", "")]


@pytest.mark.parametrize(
    "changes", [{"sequence": 77}, {"sequence": 1, "time_s": 0.25}, {"sequence": 1}], ids=str
)
def test_a_stop_passes_whatever_the_limits_say_and_whatever_frame_it_names(scope: Any, changes: Any) -> None:
    it = scope(Limits(commands_per_s=1), limits=Limits(commands_per_s=1))
    assert [fate for fate, _ in it.fates(*[it.decision(Skip())] * 2)] == ["applied", "refused"]
    assert it.fates(it.decision(Stop("enough"), **changes)) == [("applied", "")]
    assert it.steering.stopped == "r: enough"


def test_a_trigger_that_waits_for_its_time_is_counted_once(scope: Any) -> None:
    it = scope(limits=Limits(triggers_max=2))
    early = it.decision(Trigger("gate", it.outgoing.now_s() + 1.3))
    assert it.fates(early) == []  # it waits
    threading.Event().wait(0.4)
    assert it.fates() == [("applied", "")]
    pulses = [it.decision(Trigger("gate", it.outgoing.now_s())) for _ in range(2)]
    assert it.fates(*pulses) == [("applied", ""), ("refused", "limits: triggers_max 2 is reached")]


@pytest.mark.parametrize("what", ["disarmed", "closed"])
def test_a_trigger_whose_time_comes_after_the_order_to_disarm_is_not_fired(scope: Any, what: str) -> None:
    it = scope(limits=Limits())
    it.link.add(it.decision(Trigger("gate", it.outgoing.now_s() + 0.8)))
    taking = threading.Thread(target=it.steering.take)
    taking.start()
    while not it.steering.acting:
        threading.Event().wait(0.005)
    if what == "closed":
        it.steering.interrupt()
    else:
        it.steering.safety.set("disarmed", "the lid is open")
    taking.join(30)
    assert not it.lamp.done
    assert [each.fate for each in it.outcomes()] == ["failed"]


def test_what_came_of_a_decision_is_told_with_its_frame_rule_cell_and_age(scope: Any) -> None:
    it = scope(limits=Limits())
    it.link.add(it.decision(*LAMP))
    it.link.add(it.decision(*LAMP, rule="s" * 300, sequence=3, track=9))
    it.steering.take()
    done, refused = it.outcomes()
    assert (done.sequence, done.rule, done.track, done.command) == (1, "r", 1, "Stimulate")
    assert done.age_s >= 1.0  # frame 2 came one second after it
    assert (refused.sequence, refused.rule, refused.track, refused.fate) == (3, "s" * 256, 9, "refused")
