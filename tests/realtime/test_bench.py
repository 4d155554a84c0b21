"""The measurements count what they say they count; what they must show to be safe holds in small, too."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from cytoloop.realtime.bench import faults, link, wire
from cytoloop.realtime.progress import silent


def test_no_mutated_message_is_taken_for_another_and_the_engine_survives():
    result = wire.run(silent, messages=4000, seed=1)
    kinds = (
        "refused",
        "accepted_unchanged_meaning",
        "accepted_wrong",
        "accepted_forged_but_consistent",
        "crashed",
    )
    assert sum(result[kind] for kind in kinds) == result["mutated"] == 4000
    assert result["refused"] > 3500
    assert result["accepted_wrong"] == result["crashed"] == 0
    assert result["live"]["refused_by_engine"] > 1000
    assert result["live"]["honest_answered"] == result["live"]["honest_frames"] > 0
    assert result["ok"] is True


def test_a_decoder_that_takes_damaged_messages_would_be_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wire.wire.zlib, "crc32", lambda data: 0)
    monkeypatch.setattr(wire.travelling, "checksum", lambda pixels: 0)
    assert wire.run(silent, messages=2000, live=False)["ok"] is False


@pytest.mark.engine
def test_kills_and_hangs_during_a_real_acquisition_lose_nothing(engine: Any):
    result = faults.run(silent, runs=1, frames=40, faults=2, size_px=128)
    assert result["kills"] + result["hangs"] == 2
    assert result["hangs"] == (1 if hasattr(signal, "SIGSTOP") else 0)
    for count in ("acquired", "acknowledged", "on_disk", "decided"):
        assert result[count] == 40, count
    for count in ("lost", "duplicated", "out_of_order", "unsafe_commands"):
        assert result[count] == 0, count
    assert result["recovery_ms"]["p50"] > 0
    assert result["ok"] is True


@pytest.mark.engine
def test_every_transport_is_measured_and_no_frame_is_lost(engine: Any):
    result = link.run(silent, frames=5, images=8, rounds=1, exposure_ms=(1.0,))
    rows = {(row["transport"], row["bytes"]): row for row in result["rows"]}
    assert {size for _, size in rows} == {524_288, 2_000_000, 8_000_000}
    assert {transport.split()[0] for transport, _ in rows} >= {"inproc", "tcp"}
    assert all(0 < row["rtt_ms"]["p50"] <= row["rtt_ms"]["p99"] and row["GBps"] > 0 for row in rows.values())
    assert [row["size"] for row in result["hook"]] == [512, 1024, 2048]
    assert all(row["lost"] == 0 and row["period_ms_with"] > 0 for row in result["hook"])
