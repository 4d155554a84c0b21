from __future__ import annotations

from pathlib import Path

from cytoloop.realtime.recording.room import Room

GB = 10**9


def test_room_that_runs_out_is_told_once_for_each_level(tmp_path: Path) -> None:
    room = Room(tmp_path)
    said = [room.judge(int(left_s * 100e6), 100e6) for left_s in (9000, 3000, 2900, 500, 300, 59, 30, 5)]
    assert [bool(each) for each in said] == [False, True, False, True, False, True, False, True]
    assert said[1] == "the disk has room for 50 min more at 100 MB/s (300.0 GB are free)"
    assert said[5].startswith("the disk has room for 59 s more")
    assert said[7] == "the disk has 0.50 GB left"


def test_a_disk_with_plenty_of_room_is_not_mentioned_and_one_that_is_nearly_full_is(tmp_path: Path) -> None:
    assert Room(tmp_path).judge(500 * GB, 0.0) == ""
    room = Room(tmp_path)
    assert room.judge(GB // 2, 0.0) == "the disk has 0.50 GB left"
    assert room.judge(GB // 2, 0.0) == ""
