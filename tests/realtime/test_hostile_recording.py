"""Recordings from elsewhere are data: read or refused, and never a crash, a hang, or a file outside their folder."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.commands import Stimulate
from cytoloop.acquire.errors import CytoloopError, SourceError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.messages import Outcomes
from cytoloop.acquire.link.pixels import checksum, header_of
from cytoloop.acquire.outcome import Outcome
from cytoloop.acquire.reply import Cells, Correction, Decision, Division, Reply
from cytoloop.realtime import open_recording
from cytoloop.realtime.experiment.stream import StreamConfig
from cytoloop.realtime.recording.run_writer import RunWriter
from cytoloop.realtime.service.event_log import EventLog
from cytoloop.realtime.service.journal import Entry, Journal
from cytoloop.realtime.service.outcome_log import OutcomeLog
from cytoloop.realtime.service.run_folder import write_stream

pytestmark = pytest.mark.timeout(120)

SHAPE = (24, 32)


@pytest.fixture(autouse=True)
def without_threads() -> Iterator[None]:
    """Let dask compute in this thread: it keeps its pool of threads for ever."""
    if importlib.util.find_spec("dask") is None:
        yield
        return
    with importlib.import_module("dask").config.set(scheduler="synchronous"):
        yield


def a_run(folder: Path) -> Path:
    """Write what the service leaves of four frames, with a division, a correction and a decision."""
    folder.mkdir(parents=True)
    journal, events, outcomes = Journal(folder / "journal"), EventLog(folder), OutcomeLog(folder, "abc")
    writer = RunWriter(folder, codec="blosc-lz4", labels=True)
    write_stream(folder, StreamConfig())
    for number, said in enumerate([[1], [2, 3], [4, 3], [2, 3]]):
        pixels = np.random.default_rng(number).integers(0, 4000, SHAPE, np.uint16)
        frame = Frame(pixels, number, number / 2, {"time": number, "position": "A1"}, ("GFP",), (1.0, 2.0))
        rows = np.arange(len(said), dtype=np.float32)
        decision = Decision(
            "light", Stimulate(points_px=((8.0, 3.0),)), number, 0.0, 1.0, said[0], (8.5, 3.0)
        )
        reply = Reply(
            number,
            Cells(np.array(said, np.int64), rows, rows, {"parent": rows, "age": rows, "mean": rows}),
            divisions=(Division(1, (2, 3)),) if number == 1 else (),
            corrections=(Correction(2, 4, 2, 1, "the same cell"),) if number == 3 else (),
            decisions=(decision,),
        )
        header = header_of(frame, skipped=0, slot=-1, check=checksum(pixels))
        journal.append(Entry(header, {"area": b""}, reply))
        events.add_reply(reply)
        writer.add_frame(frame)
        writer.add_mask(frame, np.full(SHAPE, number, np.uint16))
    outcomes.add(Outcomes(0, (Outcome(3, "light", 4, "stimulate", "applied", 0.05),)))
    for each in (journal, events, outcomes, writer):
        each.close()
    return folder


def read_all(run: Path) -> None:
    """Read everything there is of a run."""
    recording = open_recording(run)
    repr(recording)
    readers: list[Callable[[], Any]] = [
        lambda: recording.tracks,
        lambda: recording.decisions,
        lambda: recording.outcomes,
        lambda: recording.events,
        lambda: recording.planes,
        lambda: recording.config,
        lambda: recording.lineage,
        lambda: recording.positions,
        lambda: recording.mask(2),
        lambda: None if recording.frames is None else np.asarray(recording.frames[:2]),
        lambda: None if recording.masks is None else np.asarray(recording.masks[-1:]),
    ]
    refused = None
    for read in readers:
        try:
            read()
        except CytoloopError as error:
            refused = error
    if refused is not None:
        raise refused


def sealed(journal: bytes) -> bytes:
    """Give the records of a journal the checksums of what is in them now, as somebody with a purpose would."""
    start = journal.index(b"\n") + 1
    out, at = bytearray(journal[:start]), start
    while at + 8 <= len(journal):
        length = int.from_bytes(journal[at : at + 4], "little")
        payload = journal[at + 8 : at + 8 + length]
        out += journal[at : at + 4] + zlib.crc32(payload).to_bytes(4, "little") + payload
        at += 8 + length
    return bytes(out)


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(random.integers(1, 6)):
        at = int(random.integers(0, len(changed)))
        match random.integers(0, 5):
            case 0:
                changed[at] ^= 1 << int(random.integers(0, 8))
            case 1:
                changed[at] = int(random.integers(0, 256))
            case 2:
                del changed[at : at + int(random.integers(1, 20))]
            case 3:
                changed[at:at] = random.choice(
                    [b"9" * 30, b"[" * 2000, b"-1", b'"', b"\xff\xff\xff\x7f", b"null"]
                )
            case _:
                del changed[at:]
        changed = changed or bytearray(b"\n")
    return bytes(changed)


@pytest.mark.timeout(300)
def test_a_recording_whose_bytes_were_changed_is_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    whole = a_run(tmp_path / "whole")
    images = Path("frames.ome.zarr")
    chunks = [path.relative_to(whole) for path in (whole / images).rglob("0") if path.is_file()]
    small = [Path(name) for name in ("journal", "stream.json", "outcomes.jsonl", "events.jsonl")]
    small += [images / name for name in ("zarr.json", "frames.jsonl", "labels.jsonl")]
    small += chunks
    assert len(chunks) == 2
    refused = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        run = tmp_path / "run"
        shutil.copytree(whole, run)
        name = small[seed % len(small)]
        data = (run / name).read_bytes()
        if data:
            changed = mutated(data, random)
            keep = (
                name.name == "journal"
                and random.random() < 0.8
                and changed.startswith(b"cytoloop journal 1\n")
            )
            (run / name).write_bytes(sealed(changed) if keep else changed)
        try:
            read_all(run)
        except CytoloopError:
            refused += 1
        except BaseException as error:
            error.add_note(f"seed {seed}, {name}")
            raise
        shutil.rmtree(run)
    assert 50 < refused < 300


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
@pytest.mark.parametrize(
    "name", ["journal", "frames.ome.zarr", "frames.ome.zarr/frames.jsonl", "events.jsonl"]
)
def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    run = a_run(tmp_path / "run")
    outside = tmp_path / "outside"
    (run / name).rename(outside)
    (run / name).symlink_to(outside)
    with pytest.raises(SourceError, match="leads out of the recording"):
        read_all(run)


def test_a_recording_that_claims_to_be_huge_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    path = run / "frames.ome.zarr" / "frames.jsonl"
    line = json.loads(path.read_bytes().splitlines()[0])
    line |= {"t": 2**31 - 2, "sequence": 4}
    path.write_bytes(path.read_bytes() + json.dumps(line).encode() + b"\n")
    with pytest.raises(SourceError, match="claims 2147483647 x 1 x 1 planes, and 5 are there"):
        _ = open_recording(run).frames
    run = a_run(tmp_path / "other")
    (shard,) = (path for path in (run / "frames.ome.zarr" / "0" / "0" / "c").rglob("*") if path.is_file())
    first = json.loads((run / "frames.ome.zarr" / "frames.jsonl").read_bytes().splitlines()[0])["offset"]
    data = bytearray(shard.read_bytes())
    data[first + 4 : first + 8] = (2**31 - 1).to_bytes(4, "little")
    shard.write_bytes(data)
    with pytest.raises(SourceError, match="its chunk holds 2147483647 bytes of pixels, 1536 are needed"):
        np.asarray(open_recording(run).frames[0])
