"""Tables that other programs read: up to date while a run goes on, corrected at its end, made anew after a death."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.commands import Pause
from cytoloop.acquire.errors import SourceError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.client import Client
from cytoloop.acquire.link.pixels import header_of
from cytoloop.acquire.reply import Cells, Correction, Decision, Division, Reply
from cytoloop.models.detections import Detections
from cytoloop.realtime import open_recording
from cytoloop.realtime.experiment.config import single_stream
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.recording.settings import Record
from cytoloop.realtime.recording.table_keeper import TableKeeper
from cytoloop.realtime.recording.tables import RunTables, write_tables
from cytoloop.realtime.service.journal import Entry, Journal
from cytoloop.realtime.service.server import Service

pyarrow: Any = pytest.importorskip("pyarrow", reason="needs cytoloop[formats]")
parquet: Any = pytest.importorskip("pyarrow.parquet", reason="needs cytoloop[formats]")

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
pytestmark = pytest.mark.timeout(120)


def an_entry(number: int, said: list[int], columns: tuple[str, ...] = ("area_px",)) -> Entry:
    frame = Frame(np.zeros((8, 8), np.uint16), number, number / 2, {"time": number, "position": "A1"})
    header = header_of(frame, skipped=0, slot=-1, check=0)
    count = len(said)
    wide = np.zeros((count, 1))
    detections = Detections(
        sequence=number,
        time_s=number / 2,
        shape=(8, 8),
        yx=np.zeros((count, 2)),
        area=np.zeros(count),
        bbox=np.zeros((count, 4), np.int32),
        mean=wide,
        maximum=wide,
        moments=np.zeros((count, 3)),
        channels=("",),
    )
    rows = np.arange(count, dtype=np.float32)
    cells = Cells(
        np.array(said, np.int64),
        rows,
        rows,
        {"parent": rows * 0, "age": rows * 0 + 9, **dict.fromkeys(columns, rows + number)},
    )
    reply = Reply(
        number,
        cells,
        divisions=(Division(1, (2, 3)),) if number == 2 else (),
        corrections=(Correction(3, 4, 2, 1, "the same"),) if number == 4 else (),
        decisions=(Decision("hold", Pause(2.0), 3, 1.5, 2.5, 4, reasons=("a", "b")),) if number == 3 else (),
    )
    return Entry.of(header, detections, reply)


SAID = [[1], [1], [2, 3], [4, 3], [2, 3]]


def a_run(folder: Path) -> Path:
    journal = Journal(folder / "journal")
    for number, said in enumerate(SAID):
        journal.append(an_entry(number, said))
    journal.close()
    return folder


def stream_of(path: Path) -> Any:
    """Read a stream up to where it is torn."""
    batches: list[Any] = []
    with path.open("rb") as file:
        reader = pyarrow.ipc.open_stream(file)
        while True:
            try:
                batches.append(reader.read_next_batch())
            except (StopIteration, pyarrow.ArrowInvalid, OSError):
                return pyarrow.Table.from_batches(batches, reader.schema)


def test_the_streams_hold_what_was_said_and_parquet_what_was_corrected(tmp_path: Path) -> None:
    write_tables(a_run(tmp_path))
    said = stream_of(tmp_path / "tracks.arrows").to_pydict()
    assert said["track"] == [1, 1, 2, 3, 4, 3, 2, 3]
    tracks = parquet.read_table(tmp_path / "tracks.parquet").to_pydict()
    assert tracks["track"] == [1, 1, 2, 3, 2, 3, 2, 3]
    assert tracks["parent"] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert tracks["age"] == [0, 1, 0, 0, 1, 1, 2, 2]
    assert (tracks["frame"], tracks["position"][0]) == ([0, 1, 2, 2, 3, 3, 4, 4], "A1")
    decisions = parquet.read_table(tmp_path / "decisions.parquet").to_pydict()
    assert (decisions["track"], decisions["command"], decisions["reasons"]) == ([2], ["pause"], ["a\nb"])
    assert stream_of(tmp_path / "decisions.arrows").to_pydict()["fields"] == ['{"seconds":2.0}']


def test_parquet_and_the_notebook_say_the_same(tmp_path: Path) -> None:
    write_tables(a_run(tmp_path))
    opened = open_recording(tmp_path).tracks
    table = parquet.read_table(tmp_path / "tracks.parquet").to_pandas()
    for name in table.columns:
        assert list(table[name]) == list(opened[name]) or np.allclose(
            table[name], opened[name], equal_nan=True
        )


def test_a_stream_follows_the_journal_while_it_grows_and_is_whole_up_to_a_torn_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    tables = RunTables(tmp_path)
    for number, said in enumerate(SAID):
        journal.append(an_entry(number, said))
        assert tables.turn()
        assert stream_of(tmp_path / "tracks.arrows").num_rows == sum(map(len, SAID[: number + 1]))
    path = tmp_path / "tracks.arrows"
    torn = path.read_bytes()[:-300]
    tables.close()
    path.write_bytes(torn)
    left = stream_of(path).to_pydict()["frame"]
    assert 0 < len(left) < 8
    assert left == [0, 1, 2, 2, 3, 3, 4, 4][: len(left)]
    tables = RunTables(tmp_path)  # as a recorder after the one that was killed
    assert tables.turn()
    assert stream_of(path).num_rows == 8
    tables.close()
    journal.close()


def test_columns_that_come_later_begin_a_further_stream(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    tables = RunTables(tmp_path)
    for number in range(4):
        journal.append(an_entry(number, [1], ("area_px", "mean")[: 1 + (number == 2)]))
        assert tables.turn()
    for _ in tables.finish():
        pass
    journal.close()
    assert "mean" not in stream_of(tmp_path / "tracks.arrows").schema.names
    assert stream_of(tmp_path / "tracks-2.arrows").to_pydict()["frame"] == [2, 3]
    table = parquet.read_table(tmp_path / "tracks.parquet").to_pydict()
    assert table["frame"] == [0, 1, 2, 3]
    assert [value if np.isfinite(value) else None for value in table["mean"]] == [None, None, 2.0, None]


def test_a_run_without_cells_has_empty_tables(tmp_path: Path) -> None:
    Journal(tmp_path / "journal").close()
    write_tables(tmp_path)
    assert parquet.read_table(tmp_path / "tracks.parquet").num_rows == 0
    (tmp_path / "journal").write_bytes(b"notes of last week, nothing else")
    with pytest.raises(SourceError, match="not a cytoloop journal"):
        write_tables(tmp_path)


def test_without_pyarrow_that_is_said_once_and_nothing_else_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    keeper = TableKeeper()
    for name in ("a", "b"):
        keeper.begin(str(tmp_path / name))
        keeper.turn(idle=True)
    keeper.close()
    assert len(keeper.messages) == 1
    assert "cytoloop[formats]" in keeper.messages[0]


def test_a_table_that_cannot_be_written_is_told_and_left(tmp_path: Path) -> None:
    a_run(tmp_path)
    (tmp_path / "tracks.arrows").mkdir()
    keeper = TableKeeper()
    keeper.begin(str(tmp_path))
    keeper.turn(idle=True)
    keeper.close()
    assert len(keeper.messages) == 1


def test_a_recorder_that_is_killed_leaves_tables_that_are_whole_in_the_end(tmp_path: Path) -> None:
    spots = np.zeros((40, 60), np.uint16)
    spots[10:20, 10:20] = spots[25:33, 40:50] = 3000
    stream = StreamConfig(
        address="tcp://127.0.0.1:0",
        segmenter=PluginChoice("classical"),
        record=Record(frames=True, buffer_mb=16),
    )
    with Service(single_stream(stream, log=tmp_path)) as service:
        with Client(service.addresses["default"]) as client:
            for number in range(80):
                client.send(Frame(spots, number, number / 2, {"time": number}))
                time.sleep(0.005)
                if number == 40:
                    os.kill(service.recorder_pids["default"], KILL)
            assert client.drain(60)
            folder = Path(client.stats().folder)
    for table in (
        stream_of(folder / "tracks.arrows").to_pydict(),
        parquet.read_table(folder / "tracks.parquet").to_pydict(),
    ):
        assert table["frame"] == [number for number in range(80) for _ in range(2)]
    events = open_recording(folder).events
    assert list(events["number"]) == list(range(len(events)))
    assert list(events["frame"][events["kind"] == "frame"]) == list(range(80))


def test_an_engine_that_is_killed_leaves_events_without_a_gap(tmp_path: Path) -> None:
    stream = StreamConfig(address="tcp://127.0.0.1:0", segmenter=PluginChoice("classical"))
    with Service(single_stream(stream, log=tmp_path)) as service:
        with Client(service.addresses["default"]) as client:
            for number in range(60):
                client.send(Frame(np.zeros((32, 32), np.uint16), number, number / 2, {"time": number}))
                time.sleep(0.005)
                if number == 30:
                    os.kill(service.pids["default"], KILL)
            assert client.drain(60)
            folder = client.stats().folder
    events = open_recording(folder).events
    assert list(events["number"]) == list(range(len(events)))
    assert all(events["whole"])
    assert list(events["kind"]).count("taken over") == 1
    assert list(events["frame"][events["kind"] == "frame"]) == list(range(60))
