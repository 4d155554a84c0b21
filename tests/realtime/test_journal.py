"""A journal keeps what was written before the process died, and says nothing that was not written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cytoloop.acquire.errors import SourceError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.pixels import checksum, header_of
from cytoloop.acquire.reply import Cells, Reply
from cytoloop.models.detections import Detections
from cytoloop.realtime.service.journal import Entry, Journal, read_journal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

COLUMNS = ("yx", "area", "bbox", "mean", "maximum", "moments")


def an_entry(number: int) -> Entry:
    frame = Frame(
        np.zeros((2, 8, 9), np.uint16), number, number / 2, {"time": number}, ("a", "b"), (1.0, 2.0)
    )
    header = header_of(frame, skipped=0, slot=-1, check=checksum(frame.pixels))
    numbers = np.arange(number * 8, dtype=float)
    detections = Detections(
        sequence=number,
        time_s=number / 2,
        shape=(8, 9),
        yx=numbers[: number * 2].reshape(-1, 2),
        area=numbers[:number],
        bbox=np.arange(number * 4, dtype=np.int32).reshape(-1, 4),
        mean=numbers[: number * 2].reshape(-1, 2),
        maximum=numbers[: number * 2].reshape(-1, 2),
        moments=numbers[: number * 3].reshape(-1, 3),
        stage_um=(1.0, 2.0),
    )
    return Entry.of(header, detections, Reply(number, Cells.none(), messages=(f"frame {number}",)))


def written(path: Path, count: int) -> bytes:
    path.unlink(missing_ok=True)
    journal = Journal(path)
    for number in range(count):
        journal.append(an_entry(number))
    journal.close()
    return path.read_bytes()


def test_entries_come_back_as_they_were_written(tmp_path: Path):
    written(tmp_path / "journal", 4)
    entries = list(read_journal(tmp_path / "journal"))
    assert [entry.header for entry in entries] == [an_entry(number).header for number in range(4)]
    assert [entry.reply.messages for entry in entries] == [(f"frame {number}",) for number in range(4)]
    back, found = entries[3].restore_detections(), an_entry(3).restore_detections()
    assert back is not None and found is not None
    for name in COLUMNS:
        assert np.array_equal(getattr(back, name), getattr(found, name)), name
        assert getattr(back, name).dtype == getattr(found, name).dtype
    assert (back.shape, back.stage_um, back.time_s) == ((8, 9), (1.0, 2.0), 1.5)


def test_confidences_and_novelty_come_back_with_their_detections(tmp_path: Path):
    plain = an_entry(3)
    before = plain.restore_detections()
    assert before is not None and before.confidence is None and before.novelty is None
    sure = np.array([0.25, 0.5, 1.0], np.float32)
    said = Entry.of(plain.header, replace(before, confidence=sure, novelty=0.3), plain.reply)
    journal = Journal(tmp_path / "journal")
    journal.append(said)
    journal.close()
    (entry,) = read_journal(tmp_path / "journal")
    back = entry.restore_detections()
    assert back is not None and back.confidence is not None
    assert (back.confidence.tolist(), back.confidence.dtype, back.novelty) == (sure.tolist(), np.float32, 0.3)


def kept(path: Path, detections: Detections, *, with_mask: bool = False) -> Detections:
    """Return detections after they were written and read."""
    plain = an_entry(3)
    path.unlink(missing_ok=True)
    journal = Journal(path)
    journal.append(Entry.of(plain.header, detections, plain.reply, with_mask=with_mask))
    journal.close()
    (entry,) = read_journal(path)
    back = entry.restore_detections()
    assert back is not None
    return back


def test_columns_that_only_some_segmenters_give_come_back_exactly(tmp_path: Path):
    before = an_entry(3).restore_detections()
    assert before is not None
    plain = kept(tmp_path / "journal", before)
    assert (dict(plain.classes), plain.embedding, plain.z) == ({}, None, None)
    said = replace(
        before,
        classes={"mitotic": np.array([0.1, 0.9, 0.5], np.float32), "dead cells": np.zeros(3, np.float32)},
        embedding=np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
        z=np.array([0.1, 2.5, 1e6]),
    )
    back = kept(tmp_path / "journal", said)
    assert list(back.classes) == ["mitotic", "dead cells"]
    for one, other in (
        *((back.classes[name], said.classes[name]) for name in said.classes),
        (back.embedding, said.embedding),
        (back.z, said.z),
    ):
        assert one is not None and other is not None
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def test_an_embedding_of_no_cells_keeps_its_width(tmp_path: Path):
    before = an_entry(0).restore_detections()
    assert before is not None
    said = replace(before, embedding=np.zeros((0, 16), np.float32), classes={"dead": np.zeros(0, np.float32)})
    back = kept(tmp_path / "journal", said)
    assert back.embedding is not None
    assert (back.embedding.shape, back.classes["dead"].shape) == ((0, 16), (0,))


@pytest.mark.parametrize("cells", [3, 70_000])
def test_a_mask_is_kept_only_if_it_is_asked_for(tmp_path: Path, cells: int):
    before = an_entry(3).restore_detections()
    assert before is not None
    mask = np.zeros((8, 9), np.int32)
    mask[2:5, 3:6], mask[7, 8] = 1, cells
    many = {
        name: np.resize(getattr(before, name), (cells, *getattr(before, name).shape[1:])) for name in COLUMNS
    }
    said = replace(before, mask=mask, **many)
    assert kept(tmp_path / "journal", said).mask is None
    assert kept(tmp_path / "journal", before, with_mask=True).mask is None
    back = kept(tmp_path / "journal", said, with_mask=True).mask
    assert back is not None
    assert (back.dtype, back.tolist()) == (np.int32, mask.tolist())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(cut=st.integers(0, 100_000), flip=st.integers(0, 255))
def test_a_torn_or_damaged_end_is_cut_off_and_writing_goes_on(tmp_path: Path, cut: int, flip: int):
    path = tmp_path / "journal"
    whole = written(path, 5)
    magic = whole.index(b"\n") + 1
    cut = magic + cut % (len(whole) - magic)
    damaged = bytearray(whole[: cut + 1])
    damaged[-1] ^= flip
    path.write_bytes(damaged)
    journal = Journal(path)
    kept = [entry.header.sequence for entry in journal.entries()]
    assert kept == list(range(len(kept)))
    journal.append(an_entry(7))
    journal.close()
    assert [entry.header.sequence for entry in read_journal(path)] == [*kept, 7]


def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path):
    path = tmp_path / "journal"
    path.write_bytes(b"something else entirely")
    with pytest.raises(SourceError, match="not a cytoloop journal"):
        Journal(path)
    assert path.read_bytes() == b"something else entirely"


def test_a_full_disk_is_said_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    resource = pytest.importorskip("resource", reason="only POSIX limits the size of a file")
    journal = Journal(tmp_path / "journal")
    journal.append(an_entry(1))
    size = (tmp_path / "journal").stat().st_size
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        with pytest.raises(OSError, match="full|large"):
            journal.append(an_entry(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    journal.append(an_entry(3))
    journal.close()
    assert [entry.header.sequence for entry in read_journal(tmp_path / "journal")] == [1, 3]
