"""A run in a notebook: arrays, tables after corrections, and exports with the recorded masks."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.commands import Stimulate
from cytoloop.acquire.errors import SourceError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.client import Client
from cytoloop.acquire.link.messages import Outcomes
from cytoloop.acquire.link.pixels import checksum, header_of
from cytoloop.acquire.outcome import Outcome
from cytoloop.acquire.reply import Cells, Correction, Decision, Division, Reply
from cytoloop.models.detections import Detections
from cytoloop.realtime import open_recording
from cytoloop.realtime.experiment.config import single_stream
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.export import export_run
from cytoloop.realtime.recording import table as tables
from cytoloop.realtime.recording.run_writer import RunWriter
from cytoloop.realtime.recording.settings import Record
from cytoloop.realtime.service.event_log import EventLog
from cytoloop.realtime.service.journal import Entry, Journal
from cytoloop.realtime.service.outcome_log import OutcomeLog
from cytoloop.realtime.service.run_folder import write_stream
from cytoloop.realtime.service.server import Service

pytestmark = pytest.mark.timeout(120)

SHAPE = (24, 32)
SAID = [[1], [1], [2, 3], [4, 3], [2, 3]]  # 1 divides into 2 and 3; in frame 3, 2 is taken for a new cell
CORRECTION = Correction(3, 4, 2, 1, "the same cell")


@pytest.fixture(autouse=True)
def without_threads() -> Iterator[None]:
    """Let dask compute in this thread: it keeps its pool of threads for ever."""
    if importlib.util.find_spec("dask") is None:
        yield
        return
    with importlib.import_module("dask").config.set(scheduler="synchronous"):
        yield


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 4000, SHAPE, np.uint16)


def mask_of(said: list[int]) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint16)
    for row in range(len(said)):
        mask[8 * row : 8 * row + 6, 4:12] = row + 1
    return mask


def detections_of(header: Any, count: int) -> Detections:
    wide = np.zeros((count, 2))
    return Detections(
        sequence=header.sequence,
        time_s=header.time_s,
        shape=SHAPE,
        yx=wide,
        area=np.zeros(count),
        bbox=np.zeros((count, 4), np.int32),
        mean=wide[:, :1],
        maximum=wide[:, :1],
        moments=np.zeros((count, 3)),
        channels=("GFP",),
    )


def cells_of(said: list[int]) -> Cells:
    rows = np.arange(len(said), dtype=np.float32)
    wrong = np.full(len(said), 99, np.float32)
    columns = {"area_px": rows + 50, "parent": wrong, "age": wrong, "confidence": rows / 4}
    return Cells(np.array(said, np.int64), rows + 8, rows * 8 + 3, columns)


def a_decision(sequence: int, track: int, refused: str = "") -> Decision:
    return Decision(
        "light",
        Stimulate(points_px=((8.0, 3.0),), power=0.5),
        sequence,
        sequence / 2,
        sequence / 2 + 1,
        track,
        (8.5, 3.25),
        (1.0, 0.5, 2.0),
        reasons=("area_px 50 is above 40", "age 3"),
        refused=refused,
    )


def a_run(folder: Path, *, frames: bool = True, masks: bool = True, codec: Any = "raw") -> Path:
    """Write what the service leaves of five frames in which one cell divides."""
    folder.mkdir(parents=True)
    journal, events, outcomes = Journal(folder / "journal"), EventLog(folder), OutcomeLog(folder, "abc")
    writer = RunWriter(folder, codec=codec, labels=masks)
    write_stream(folder, StreamConfig(record=Record(frames=frames, masks=masks)))
    events.add("opened", engine=1)
    for number, said in enumerate(SAID):
        frame = Frame(
            image(number), number, number / 2, {"time": number, "position": "A1"}, ("GFP",), (1.0, 2.0)
        )
        header = header_of(frame, skipped=0, slot=-1, check=checksum(frame.pixels))
        reply = Reply(
            number,
            cells_of(said),
            divisions=(Division(1, (2, 3)),) if number == 2 else (),
            corrections=(CORRECTION,) if number == 4 else (),
            decisions=(a_decision(3, 4), a_decision(3, 3, "too many")) if number == 3 else (),
        )
        journal.append(Entry.of(header, detections_of(header, len(said)), reply))
        events.add_reply(reply)
        if frames:
            writer.add_frame(frame)
            if masks:
                writer.add_mask(frame, mask_of(said))
    outcomes.add(Outcomes(0, (Outcome(3, "light", 4, "stimulate", "applied", 0.05),)))
    events.add("closed")
    for each in (journal, events, outcomes, writer):
        each.close()
    return folder


# --- what is in it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["raw", "blosc-lz4"])
def test_frames_and_masks_are_lazy_arrays_with_the_pixels_that_were_sent(tmp_path: Path, codec: str) -> None:
    recording = open_recording(a_run(tmp_path / "run", codec=codec))
    assert recording.frames.shape == (5, 1, 1, *SHAPE)
    assert recording.masks.shape == (5, 1, *SHAPE)
    assert (recording.frames.dtype, recording.masks.dtype) == (np.uint16, np.uint32)
    for number, said in enumerate(SAID):
        assert np.array_equal(np.asarray(recording.frames[number, 0, 0]), image(number))
        assert np.array_equal(np.asarray(recording.masks[number, 0]), mask_of(said))
        assert np.array_equal(recording.mask(number), mask_of(said))
    crop = np.asarray(recording.frames[1:4, 0, 0, 2:9, ::3])
    assert np.array_equal(crop, np.stack([image(number)[2:9, ::3] for number in (1, 2, 3)]))
    assert (recording.positions, recording.finished) == (("A1",), True)


def test_without_dask_the_same_is_read_by_our_own_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dask", None)
    monkeypatch.setitem(sys.modules, "dask.array", None)
    frames = open_recording(a_run(tmp_path / "run")).frames
    assert repr(frames) == "<LazyImages t 5, c 1, z 1, y 24, x 32; uint16>"
    assert np.array_equal(frames[..., -1, :], np.stack([image(n)[-1] for n in range(5)])[:, None, None])
    assert np.array_equal(np.asarray(frames)[:, 0, 0], np.stack([image(number) for number in range(5)]))
    assert frames[-1, 0, 0, 3, 4] == image(4)[3, 4]
    with pytest.raises(IndexError):
        frames[5]
    with pytest.raises(IndexError, match="integers and slices"):
        frames[[1, 2]]


def test_tracks_are_those_after_corrections_with_their_place_in_the_frames(tmp_path: Path) -> None:
    tracks = open_recording(a_run(tmp_path / "run")).tracks
    assert list(zip(tracks["frame"], tracks["track"], tracks["parent"], strict=True)) == [
        (0, 1, 0),
        (1, 1, 0),
        (2, 2, 1),
        (2, 3, 1),
        (3, 2, 1),
        (3, 3, 1),
        (4, 2, 1),
        (4, 3, 1),
    ]
    assert list(tracks["t"]) == [0, 1, 2, 2, 3, 3, 4, 4]
    assert list(tracks["age"]) == [0, 1, 0, 0, 1, 1, 2, 2]
    assert set(tracks["position"]) == {"A1"}
    assert list(tracks["area_px"])[:4] == [50, 50, 50, 51]
    assert tracks["time_s"].iloc[-1] == 2.0


def test_decisions_outcomes_events_lineage_and_configuration_are_there(tmp_path: Path) -> None:
    recording = open_recording(a_run(tmp_path / "run"))
    decisions = recording.decisions
    assert list(decisions["track"]) == [2, 3]  # said was 4
    assert list(decisions["refused"]) == ["", "too many"]
    assert json.loads(decisions["fields"][0])["power"] == 0.5
    assert (decisions["command"][0], decisions["at_x_px"][0]) == ("stimulate", 8.5)
    assert decisions["covariance_yy_px2"][0] == 2.0
    assert list(recording.outcomes["fate"]) == ["applied"]
    assert list(recording.outcomes["configuration"]) == ["abc"]
    assert dict(recording.lineage) == {1: (2, 3)}
    assert recording.config.record.frames
    events = recording.events
    assert list(events["number"]) == list(range(8))
    assert list(events["kind"]) == ["opened", *["frame"] * 4, "correction", "frame", "closed"]
    assert all(events["whole"])
    assert len(recording.planes) == 5


def test_a_line_of_the_events_that_was_altered_or_torn_is_seen(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    path = run / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"cells":1', b'"cells":7')
    path.write_bytes(b"".join(lines)[:-9])
    events = open_recording(run).events
    assert list(events["whole"]) == [True, True, False, True, True, True, True, False]
    log = EventLog(run)  # the engine that takes over cuts the torn end and goes on with the numbers
    log.add("taken over")
    log.close()
    events = open_recording(run).events
    assert (list(events["number"])[-1], list(events["kind"])[-1]) == (7, "taken over")


def test_without_pandas_tables_are_of_pyarrow_and_without_both_they_are_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "pandas", None)
    pyarrow = pytest.importorskip("pyarrow")
    recording = open_recording(run)
    for found in (recording.tracks, recording.decisions, recording.outcomes, recording.events):
        assert isinstance(found, pyarrow.Table)
    assert recording.tracks["track"].to_pylist()[-1] == 3
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    rows = open_recording(run).tracks
    assert (len(rows), rows[0]["track"], rows[0]["x_px"]) == (8, 1, 8.0)
    assert tables.as_table({"a": []}) == []


def test_a_run_whose_frames_were_not_recorded_has_its_tables(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", frames=False)
    (run / "masks").mkdir()
    tifffile.imwrite(run / "masks" / "000002.tif", mask_of([2, 3]), compression="zlib")
    recording = open_recording(run)
    assert (recording.frames, recording.masks, recording.finished) == (None, None, None)
    assert len(recording.tracks) == 8
    assert set(recording.tracks["t"]) == {-1}
    assert recording.positions == ("A1",)
    assert np.array_equal(recording.mask(2), mask_of([2, 3]))
    with pytest.raises(SourceError, match="no mask of this frame"):
        recording.mask(1)
    assert "not recorded" in repr(recording)


def test_it_says_what_it_is_in_text_and_in_a_notebook(tmp_path: Path) -> None:
    recording = open_recording(a_run(tmp_path / "a<b"))
    assert "5 of 24 x 32 px uint16, raw" in repr(recording)
    assert "finished" in repr(recording)
    html = recording._repr_html_()
    assert "a&lt;b" in html
    assert "<th style='text-align:left'>positions</th><td>A1</td>" in html


def test_a_run_that_goes_on_can_be_opened(tmp_path: Path) -> None:
    spots = np.zeros((40, 60), np.uint16)
    spots[10:20, 10:20] = spots[25:33, 40:50] = 3000
    stream = StreamConfig(
        address="tcp://127.0.0.1:0",
        segmenter=PluginChoice("classical"),
        record=Record(frames=True, masks=True, buffer_mb=16),
    )
    with Service(single_stream(stream, log=tmp_path)) as service:
        with Client(service.addresses["default"]) as client:
            for number in range(6):
                client.send(Frame(spots, number, number / 2, {"time": number}))
                if number == 3:
                    assert client.drain(60)
                    going = open_recording(client.stats().folder)
                    assert len(going.tracks) == 8
                    assert list(going.events["kind"]).count("frame") == 4
            assert client.drain(60)
            folder = client.stats().folder
    recording = open_recording(folder)
    assert recording.finished
    assert recording.frames.shape == (6, 1, 1, 40, 60)
    assert len(np.unique(np.asarray(recording.masks[5, 0]))) == 3
    assert len(recording.tracks) == 12
    assert [list(recording.events["kind"])[index] for index in (0, 1, -1)] == ["opened", "client", "closed"]


def test_importing_the_package_stays_light() -> None:
    script = (
        "import sys, cytoloop.realtime; print([m for m in ('numpy', 'numba', 'pandas') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not the folder of a run"):
        open_recording(tmp_path)
    with pytest.raises(SourceError, match="there is no position 'B7'"):
        open_recording(a_run(tmp_path / "run")).frames_of("B7")


def test_a_recorded_run_is_exported_with_the_masks_of_its_label_image(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    export_run(run, "ctc", tmp_path / "01_RES")
    table = np.loadtxt(tmp_path / "01_RES" / "res_track.txt", dtype=int).tolist()
    assert table == [[1, 0, 1, 0], [2, 2, 4, 1], [3, 2, 4, 1]]
    for number, said in enumerate(SAID):
        mask = tifffile.imread(tmp_path / "01_RES" / f"mask{number:03d}.tif")
        assert np.array_equal(mask > 0, mask_of(said) > 0)
    without = a_run(tmp_path / "without", masks=False)
    with pytest.raises(SourceError, match="this format needs the mask of every frame"):
        export_run(without, "ctc", tmp_path / "02_RES")


def test_its_lineage_as_geff_is_one_that_the_geff_package_takes(tmp_path: Path) -> None:
    geff = pytest.importorskip("geff", reason="needs cytoloop[formats]")
    data = importlib.import_module("geff.validate.data")
    export_run(a_run(tmp_path / "run"), "geff", tmp_path / "tracks.geff")
    geff.validate_structure(tmp_path / "tracks.geff")
    memory = geff.core_io.read_to_memory(tmp_path / "tracks.geff")
    data.validate_data(memory, data.ValidationConfig(graph=True, lineage=True, tracklet=True))
    assert len(memory["node_ids"]) == 8
