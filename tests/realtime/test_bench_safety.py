"""``bench safety``, and that it would see what it is there to see."""

from __future__ import annotations

import time
from typing import Any

import pytest
from cytoloop.acquire.commands import Stimulate, Trigger
from cytoloop.acquire.micromanager.watchdog import Watchdog
from cytoloop.acquire.reply import Decision
from cytoloop.realtime.bench import safety
from cytoloop.realtime.bench.witness import Forbidden, Witness
from cytoloop.realtime.faults import CAN_HANG
from cytoloop.realtime.progress import silent

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
KINDS = 7 if CAN_HANG else 6


def test_no_fault_brings_an_unsafe_command_to_the_actuator_and_the_light_goes_off(engine: Any) -> None:
    result = safety.run(silent, runs=KINDS, frames=80)
    assert result["unsafe"] == {}
    assert result["unsafe_commands"] == 0
    assert result["commands_sent"] > 100
    assert result["refused"] > 100
    assert result["reached"] > 20
    assert result["safe_state_ms"]["max"] > result["safe_after_ms"] - 100  # not before it was due
    assert [row["runs"] for row in result["kinds"]] == [1] * KINDS
    assert result["ok"] is True


def test_a_microscope_without_a_watchdog_would_be_noticed(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watchdog, "begin", lambda self: None)
    result = safety.run(silent, runs=1, frames=80, kind=("cut",))
    assert result["ok"] is False
    assert result["unsafe"]["light on, in the safe state"] > 0


def decided(command: Any, sequence: int = 0) -> Decision:
    return Decision("r", command, sequence, 0.0, 1.0)


def light(**changes: Any) -> Stimulate:
    return Stimulate(**{"points_px": ((5.0, 5.0),), "duration_ms": 10.0, "power": 0.1} | changes)


@pytest.mark.parametrize(
    ("commands", "what"),
    [
        ([light(power=0.6)], "beyond a limit"),
        ([light(duration_ms=21.0)], "beyond a limit"),
        ([light(points_px=((70.0, 5.0),))], "beyond a limit"),
        ([light(duration_ms=20.0, power=0.5)] * 41, "beyond the dose"),
        ([Trigger("gate", 0.0)] * 61, "too many pulses"),
        ([Trigger("gate", 0.0)] * 60, "too fast"),
    ],
    ids=str,
)
def test_the_witness_sees_what_should_not_have_reached_the_actuator(commands: list[Any], what: str) -> None:
    witness = Witness(64)
    witness.seen_s[0] = time.monotonic()
    for command in commands:
        witness.actuate(decided(command))
    assert what in witness.unsafe()


def test_the_witness_sees_what_is_late_about_no_frame_or_at_a_forbidden_time() -> None:
    witness = Witness(64)
    now = time.monotonic()
    witness.seen_s |= {0: now, 1: now - 10.0}
    witness.actuate(decided(light()))
    assert witness.unsafe() == {}
    witness.actuate(decided(light(), 1))
    witness.actuate(decided(light(), 2))
    witness.forbidden.append(Forbidden("disarmed", now - 10.0))
    assert witness.unsafe() == {"late": 1, "about no frame": 1, "disarmed": 3}
