from __future__ import annotations

import pytest
from cytoloop.realtime.bench import soak
from cytoloop.realtime.progress import silent

pytest.importorskip("psutil")


@pytest.mark.timeout(120)
def test_a_short_soak_loses_nothing_and_says_what_each_process_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "_LOOK_S", 0.5)
    result = soak.run(silent, minutes=0.1, size_px=128, frames_per_s=40.0)
    assert result["ok"] is True
    assert result["frames"] == result["acknowledged"] == result["on_disk_and_right"] > 70
    assert (result["lost"], result["wrong"], result["restarts"]) == (0, 0, 0)
    assert {row["process"] for row in result["rows"]} == {"microscope and supervisor", "engine", "recorder"}
    assert all(row["memory_mb"] > 1 and row["handles"] > 3 for row in result["rows"])
