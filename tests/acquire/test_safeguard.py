"""The microscope's own side of safety: whose word counts, what is told to the service, and what is kept."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from cytoloop.acquire.governor.safe import SafeState
from cytoloop.acquire.link.messages import Beat, Noted, Order, Outcomes, Stands, Terms, Welcome
from cytoloop.acquire.link.safeguard import Safeguard
from cytoloop.acquire.outcome import Outcome


def welcome(armed: bool = False, after_s: float = 3.0) -> Welcome:
    terms = Terms(armed=armed, safe=SafeState(after_s=after_s))
    return Welcome(0, 3, "lossless", 10.0, "engine", "folder", terms)


def an_outcome(number: int) -> Outcome:
    return Outcome(number, "r", 0, "Skip", "applied", 0.1)


def told(guard: Safeguard, kind: type[Any]) -> list[Any]:
    return [message for message in guard.due() if isinstance(message, kind)]


@pytest.mark.parametrize(("armed", "standing"), [(True, "armed"), (False, "disarmed")])
def test_it_is_disarmed_until_the_experiment_file_says_otherwise(armed: bool, standing: str) -> None:
    guard = Safeguard()
    assert guard.safety.standing == "disarmed"
    guard.take(Beat(0))
    assert guard.safety.standing == "disarmed"
    guard.take(welcome(armed))
    assert guard.safety.standing == standing


def test_a_disarmed_microscope_says_how_it_is_armed() -> None:
    guard = Safeguard()
    guard.take(welcome())
    assert "loop.arm() or 'cytoloop arm'" in guard.safety.why


@pytest.mark.parametrize("said", ["disarmed", "dry", "armed"])
def test_the_word_of_a_person_before_the_service_answers_is_kept(said: Any) -> None:
    guard = Safeguard()
    guard.safety.set(said, "a person")
    guard.take(welcome(armed=said != "armed"))
    assert guard.safety.standing == said


def test_a_service_that_comes_again_does_not_change_the_standing() -> None:
    guard = Safeguard()
    guard.take(welcome(armed=True))
    guard.take(Order("disarmed", "a person"))
    guard.begin_again()
    guard.take(welcome(armed=True))
    assert (guard.safety.standing, guard.safety.why) == ("disarmed", "a person")


def test_the_standing_is_told_once_and_again_over_a_new_connection_and_to_who_asked() -> None:
    guard = Safeguard()
    guard.take(welcome(armed=True))
    assert [each.standing for each in told(guard, Stands)] == ["armed"]
    assert told(guard, Stands) == []
    guard.begin_again()
    assert [each.standing for each in told(guard, Stands)] == ["armed"]
    guard.take(Order("armed", "someone who did not know"))
    assert [each.standing for each in told(guard, Stands)] == ["armed"]
    guard.take(Order("dry", "a rehearsal"))
    assert told(guard, Stands) == [Stands("dry", "a rehearsal")]


def test_a_reason_of_any_length_can_be_told() -> None:
    guard = Safeguard()
    guard.safety.set("dry", "y" * 10_000)
    assert [len(each.why) for each in told(guard, Stands)] == [4096]


def test_outcomes_are_told_again_until_they_are_noted_and_then_forgotten() -> None:
    guard = Safeguard()
    for number in range(3):
        guard.report(an_outcome(number))
    (first,) = told(guard, Outcomes)
    assert (first.first, [each.sequence for each in first.outcomes]) == (0, [0, 1, 2])
    guard.report(an_outcome(3))
    assert told(guard, Outcomes) == []  # one message at a time
    guard.begin_again()
    (again,) = told(guard, Outcomes)
    assert (again.first, len(again.outcomes)) == (0, 4)
    guard.take(Noted(3))
    (rest,) = told(guard, Outcomes)
    assert (rest.first, [each.sequence for each in rest.outcomes]) == (3, [3])
    guard.take(Noted(2))  # an old one
    assert guard.pending == 1
    guard.take(Noted(1 << 60))
    assert guard.pending == 0
    guard.report(an_outcome(4))
    assert [each.first for each in told(guard, Outcomes)] == [4]


def test_of_more_outcomes_than_can_be_kept_the_oldest_go_and_the_numbers_tell() -> None:
    guard = Safeguard()
    for number in range(100_003):
        guard.report(an_outcome(number))
    assert guard.pending == 100_000
    (message,) = told(guard, Outcomes)
    assert (message.first, message.outcomes[0].sequence, len(message.outcomes)) == (3, 3, 1000)


def test_it_falls_once_when_nothing_is_heard_and_any_message_is_a_sign_of_life() -> None:
    guard = Safeguard()
    assert not guard.fall()  # nobody has said when
    assert guard.left_s() == math.inf
    guard.take(welcome(after_s=0.5))
    assert not guard.fall()
    while guard.left_s() > 0:
        time.sleep(0.01)
    assert guard.fall()
    assert not guard.fall()
    assert guard.safe
    assert [each.safe for each in told(guard, Stands)] == [True]
    guard.take(Beat(0))
    assert not guard.safe
    assert [each.safe for each in told(guard, Stands)] == [False]
