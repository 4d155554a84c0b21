from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cytoloop.realtime.bench import record, record_replies
from cytoloop.realtime.bench.record_writers import WRITERS
from cytoloop.realtime.progress import silent

pytestmark = pytest.mark.timeout(120)


def test_every_writer_has_a_row_or_a_reason_and_no_frame_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_replies, "_SLOW_S", 0.3)
    result = record.run(
        silent,
        sizes=(64,),
        megabytes=0.1,
        rounds=2,
        folder=str(tmp_path),
        size_px=64,
        frames_per_s=100.0,
        frames=15,
    )
    assert result["ok"] is True
    assert (result["lost"], result["unanswered"]) == (0, 0)
    assert result["recorded"] == result["sent"] > 2 * 15
    assert {"off", "on"} <= set(result["reply_p99_ms"])
    named = [row["writer"] for row in (*result["rows"], *result["skipped"])]
    assert sorted(named) == sorted(writer.name for writer in WRITERS)
    assert {"raw disk", "ours raw", "tifffile"} <= {row["writer"] for row in result["rows"]}
    assert all(row["size"] == 64 and row["MBps"] > 0 and row["synced_MBps"] > 0 for row in result["rows"])
    assert list(tmp_path.iterdir()) == []


def test_the_images_are_noisy_and_all_different() -> None:
    images = record.images(0, 64)
    assert len({image.tobytes() for image in images}) == len(images) > 1
    assert all(len(np.unique(image)) > 20 for image in images)


def test_a_disk_with_little_room_takes_less_and_says_so(tmp_path: Path) -> None:
    most, note = record._allowed(tmp_path, 1e18)  # pyright: ignore[reportPrivateUsage]
    assert most < 1e18
    assert "MB are free" in note
    assert record._allowed(tmp_path, 1.0) == (1.0, "")  # pyright: ignore[reportPrivateUsage]
