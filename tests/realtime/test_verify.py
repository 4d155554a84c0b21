"""``cytoloop verify`` names what is missing or damaged, and ``recover`` finishes what was cut off."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.client import Client
from cytoloop.acquire.reply import Cells, Reply
from cytoloop.realtime.bench.blank import BLANK
from cytoloop.realtime.cli import main
from cytoloop.realtime.experiment.config import single_stream
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.recording.feed import left_out
from cytoloop.realtime.recording.settings import Record
from cytoloop.realtime.recording.verify import verify
from cytoloop.realtime.service.server import Service

SHAPE = (32, 48)
COUNT = 12
pytestmark = pytest.mark.timeout(120)


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 4000, SHAPE, np.uint16)


def recorded(log: Path, *, frames: bool = True) -> Path:
    stream = StreamConfig(
        address="tcp://127.0.0.1:0",
        segmenter=PluginChoice(BLANK),
        record=Record(frames=frames, buffer_mb=16),
    )
    with Service(single_stream(stream, log=log)) as service, Client(service.addresses["default"]) as client:
        for number in range(COUNT):
            client.send(Frame(image(number), axes={"time": number}, time_s=float(number)))
        assert client.drain(30)
        return Path(client.stats().folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("log"))


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """Return a run that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def shard_of(run: Path) -> Path:
    (shard,) = (path for path in (run / "frames.ome.zarr" / "0" / "0" / "c").rglob("*") if path.is_file())
    return shard


def told(capsys: Any, *arguments: str) -> tuple[int, dict[str, Any]]:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


def test_a_whole_run_is_found_whole(run: Path, capsys: Any) -> None:
    code, values = told(capsys, "verify", str(run))
    assert (code, values["ok"], values["acknowledged"], values["recorded"]) == (0, True, COUNT, COUNT)
    assert values["missing"] == values["damaged"] == values["other"] == values["notes"] == []


def test_one_changed_pixel_is_named_with_its_frame(run: Path, capsys: Any) -> None:
    data = bytearray(shard_of(run).read_bytes())
    data[data.rfind(image(7).tobytes()[:64]) + 5] ^= 1
    shard_of(run).write_bytes(data)
    code, values = told(capsys, "verify", str(run))
    assert (code, values["ok"]) == (1, False)
    assert [each["frame"] for each in values["damaged"]] == [7]
    assert "checksum" in values["damaged"][0]["reason"]


def test_frames_that_are_gone_are_missing(run: Path) -> None:
    lines = (run / "frames.ome.zarr" / "frames.jsonl").read_text().splitlines(keepends=True)
    (run / "frames.ome.zarr" / "frames.jsonl").write_text("".join(lines[:4] + lines[6:]))
    found = verify(run)
    assert [frame for frame, _ in found.missing] == [4, 5]
    shard_of(run).unlink()
    assert len(verify(run).damaged) == COUNT - 2


def test_a_torn_end_of_the_journal_is_a_note_and_damage_in_it_is_not(run: Path) -> None:
    journal = run / "journal"
    data = journal.read_bytes()
    journal.write_bytes(data + data[-20:])
    found = verify(run)
    assert found.ok
    assert any("torn" in note for note in found.notes)
    journal.write_bytes(data[:60] + bytes([data[60] ^ 1]) + data[61:])
    found = verify(run)
    assert not found.ok
    assert "damaged at byte 19" in found.other[0]


def test_frames_that_were_never_recorded_are_said_and_no_fault(tmp_path: Path) -> None:
    found = verify(recorded(tmp_path, frames=False))
    assert found.ok
    assert (found.acknowledged, found.recorded) == (COUNT, 0)
    assert found.notes == ["the frames of this run were not recorded"]


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: Any) -> None:
    code, values = told(capsys, "verify", str(tmp_path))
    assert code == 2
    assert "not the folder of a run" in values["error"]


def test_a_run_whose_service_was_killed_is_finished_and_loses_nothing(tmp_path: Path, capsys: Any) -> None:
    stream = StreamConfig(
        address="tcp://127.0.0.1:0",
        segmenter=PluginChoice(BLANK),
        record=Record(frames=True, buffer_mb=16),
    )
    with (
        Service(single_stream(stream, log=tmp_path)) as service,
        Client(service.addresses["default"]) as client,
    ):
        for number in range(COUNT):
            client.send(Frame(image(number), axes={"time": number}, time_s=float(number)))
        assert client.drain(30)
        run = Path(client.stats().folder)
        side = run / "frames.ome.zarr" / "frames.jsonl"
        while not side.is_file() or len(side.read_text().splitlines()) < COUNT:
            time.sleep(0.01)
        copy = Path(shutil.copytree(run, tmp_path / "copy"))  # as a death at this moment leaves it
        os.kill(service.recorder_pids["default"], getattr(signal, "SIGKILL", signal.SIGTERM))
    assert verify(copy).ok
    assert any("unfinished" in note for note in verify(copy).notes)
    with (copy / "journal").open("ab") as journal:
        journal.write(b"\x40\0\0\0torn")
    refused, values = told(capsys, "recover", str(copy))
    assert (refused, "may still go on" in values["error"]) == (2, True)
    code, values = told(capsys, "recover", str(copy), "--anyway")
    assert (code, values["entries"], values["cut_bytes"], values["recordings"]) == (0, COUNT, 8, 1)
    found = verify(copy)
    assert (found.ok, found.recorded, found.notes) == (True, COUNT, [])
    assert zarr.open_group(copy / "frames.ome.zarr", mode="r")["0/0"].shape == (COUNT, 1, 1, *SHAPE)
    code, values = told(capsys, "recover", str(copy), "--anyway")
    assert (code, values["cut_bytes"]) == (0, 0)


def test_a_mask_that_was_left_out_does_not_excuse_its_frame() -> None:
    def says(message: str) -> bool:
        return left_out(Reply(7, Cells.none(), messages=(message,)))

    assert says("frame 7 is not recorded: the disk is slower than the frames")
    assert not says("the mask of frame 7 is not recorded: the disk is slower than the frames")
    assert not says("frame 8 is not recorded: the disk is slower than the frames")
