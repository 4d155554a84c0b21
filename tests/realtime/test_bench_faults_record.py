"""Faults while frames are recorded: nothing is lost, and what is lost on purpose is noticed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.client import Client
from cytoloop.realtime.bench import faults, faults_record
from cytoloop.realtime.bench import small_disk as small_disk_module
from cytoloop.realtime.bench.recording_check import Found, examine
from cytoloop.realtime.bench.small_disk import LIMIT, small_disk
from cytoloop.realtime.experiment.config import single_stream
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.faults import CAN_HANG
from cytoloop.realtime.progress import silent
from cytoloop.realtime.service.server import Service

pytestmark = pytest.mark.timeout(240)
NOTHING = ("lost", "duplicated", "out_of_order", "wrong", "identities_broken", "over_quota", "unopened")


def faulted(*kinds: str, **options: Any) -> dict[str, Any]:
    """Run one short acquisition of each kind of fault."""
    small = {"runs": len(kinds), "frames": 50, "faults": 1, "size_px": 128}
    return faults.run(silent, record=True, kind=kinds, **small | options)  # pyright: ignore[reportArgumentType]


@pytest.mark.engine
def test_processes_that_are_killed_and_a_cut_cable_cost_no_recorded_frame(engine: Any) -> None:
    result = faulted("engine", "recorder", "cut")
    assert result["kills"] == 2
    assert {row["kind"]: row["recovered"] for row in result["kinds"]} == {
        "engine": 1,
        "recorder": 1,
        "cut": 1,
    }
    for name in ("acquired", "acknowledged", "on_disk", "decided"):
        assert result[name] == 150, name
    assert {name: result[name] for name in NOTHING} == dict.fromkeys(NOTHING, 0)
    assert result["opened"] > 0
    assert result["ok"] is True


@pytest.mark.engine
@pytest.mark.skipif(not CAN_HANG, reason="this system cannot stop a process in its tracks")
def test_a_hung_process_and_a_slow_disk_cost_no_recorded_frame(engine: Any) -> None:
    result = faulted("hang", "stop", "slow")
    assert result["hangs"] == 3
    assert result["on_disk"] == result["acquired"] == 150
    assert {name: result[name] for name in NOTHING} == dict.fromkeys(NOTHING, 0)
    assert result["ok"] is True


@pytest.mark.engine
@pytest.mark.skipif(not CAN_HANG, reason="this system cannot stop a process in its tracks")
def test_what_is_left_out_is_what_the_replies_say(engine: Any) -> None:
    result = faulted("full", "leave_out")
    rows = {row["kind"]: row for row in result["kinds"]}
    if "full" not in result["skipped"]:
        assert rows["full"]["left_out"] > 0
    assert rows["leave_out"]["left_out"] > 0
    assert result["on_disk"] < result["acquired"] == result["acknowledged"]
    assert {name: result[name] for name in NOTHING} == dict.fromkeys(NOTHING, 0)
    assert result["ok"] is True


@pytest.mark.engine
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits another process")
def test_without_a_disk_of_its_own_the_recorder_is_kept_from_writing(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_disk_module, "_mounted", lambda *_: False)
    result = faulted("full")
    assert result["disk_full_by"] == LIMIT
    assert result["left_out"] > 0
    assert {name: result[name] for name in NOTHING} == dict.fromkeys(NOTHING, 0)
    assert result["ok"] is True


@pytest.mark.engine
def test_a_recorder_that_drops_one_frame_and_alters_another_would_be_noticed(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(stream: Any, run: Path, images: Any, *rest: Any) -> Found:
        lines = run / "frames.ome.zarr" / "frames.jsonl"
        kept = lines.read_bytes().splitlines(keepends=True)
        lines.write_bytes(b"".join([*kept[:7], *kept[8:]]))
        other = {**images, 9: images[9] + np.array(1, images[9].dtype)}
        return examine(stream, run, other, *rest)

    monkeypatch.setattr(faults_record, "examine", spoilt)
    result = faulted("recorder")
    assert (result["lost"], result["on_disk"]) == (1, 48)
    assert result["wrong"] >= 1
    assert result["ok"] is False


def test_a_disk_of_its_own_can_be_filled_and_given_room_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 4 << 20) as disk:
        if disk is None or disk.how == LIMIT:
            pytest.skip("no tmpfs can be mounted here")
        disk.fill(0)
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "small" / "one").write_bytes(bytes(10_000))
        disk.free()
        (tmp_path / "small" / "one").write_bytes(bytes(10_000))
    assert not (tmp_path / "small" / "one").exists()


def test_a_full_disk_and_a_kill_together_do_not_give_a_quota_twice(tmp_path: Path) -> None:
    image = np.full((64, 64), 100, np.uint16)
    image[20:35, 20:35] = 3000
    light = {"name": "light", "action": {"do": "stimulate", "duration_ms": 1.0}, "cooldown": "0 s"}
    rule = PluginChoice("when", {**light, "quota": {"per_run": 20, "per_frame": 1}})
    stream = StreamConfig(address="tcp://127.0.0.1:0", armed=True, rules=(rule,))
    with small_disk(tmp_path / "log", 20 << 20) as disk:
        if disk is None or disk.how == LIMIT:
            pytest.skip("no tmpfs can be mounted here")
        with (
            Service(single_stream(stream, log=tmp_path / "log")) as service,
            Client(service.addresses["default"]) as client,
        ):
            for number in range(80):
                client.send(Frame(image, time_s=1.0 * number, stage_um=(0.0, 0.0), pixel_size_um=0.5))
                if number in (5, 40):
                    client.drain(30)
                if number == 5:
                    disk.fill(0)
                if number == 40:
                    os.kill(service.pids["default"], getattr(signal, "SIGKILL", signal.SIGTERM))
                if number == 60:
                    disk.free()
            assert client.drain(60)
            replies = client.replies()
    assert len(replies) == 80
    assert any("could not be written to the log" in text for reply in replies for text in reply.messages)
    decisions = [decision for reply in replies for decision in reply.decisions]
    assert 6 <= sum(not decision.refused for decision in decisions) <= 20
    assert any(decision.refused == "it could not be written to the log" for decision in decisions)
