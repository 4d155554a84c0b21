"""Tables for other programs: Arrow IPC streams while a run goes on, Parquet when it has ended.

They are derived from the journal, which is written before a frame is answered and is the truth: the recorder's
process follows it, so that the engine is never delayed by them, and what a killed recorder left is made anew from it.
Nothing of ours ever reads them. The streams hold what was said at the time (a stream cannot be amended); the Parquet
files hold what the tracker corrected. A stream whose end is torn is whole up to there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...acquire.errors import MissingExtraError
from ...trackers.lineage import Lineage, LineageBuilder
from ..service.journal import Entry, follow_journal
from .files import PART, move
from .rows import (
    CELL_COLUMNS,
    DECISION_COLUMNS,
    FRAME_COLUMNS,
    cell_columns,
    decision_row,
    decisions_in,
)
from .table import columns_of

_MOST_FRAMES = 100  # in one batch
_MOST_FILES = 16
_TEXT = {"position", "z", "rule", "file", "command", "fields", "refused", "reasons"}
_WHOLE = {"frame", "track", "parent"}
_FINE = {*FRAME_COLUMNS, *DECISION_COLUMNS}


def write_tables(run: Path) -> None:
    """Write all tables of a run that is over.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    SourceError
        If the journal cannot be read.
    OSError
        If they cannot be written.
    """
    tables = RunTables(run)
    for _ in tables.finish():
        pass


class RunTables:
    """Writes ``tracks.arrows`` and ``decisions.arrows`` of one run, and both as Parquet at its end.

    Where later frames have further columns, they go on in ``tracks-2.arrows`` and so on. Tables of this run that are
    there already are made anew.

    Parameters
    ----------
    run
        The run's folder, with its journal.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    OSError
        If what is there cannot be removed.
    """

    def __init__(self, run: Path) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise MissingExtraError("pyarrow", "formats") from error
        self._arrow: Any = pyarrow
        self._parquet: Any = parquet
        self._run, self._place, self._last = run, 0, -1
        self._builders: dict[tuple[str, str], LineageBuilder] = {}
        self._tracks = _Stream(run, "tracks", (*FRAME_COLUMNS, *CELL_COLUMNS), pyarrow)
        self._decisions = _Stream(run, "decisions", DECISION_COLUMNS, pyarrow)

    def turn(self, limit_s: float = 0.05) -> bool:
        """Write what has come since the last turn, for so long at most; return whether that was all.

        Raises
        ------
        SourceError
            If the journal is none.
        OSError
            If it cannot be read, or a table not be written.
        """
        until = time.monotonic() + limit_s
        journal = self._run / "journal"
        if not journal.is_file():
            return True
        for count, (entry, place) in enumerate(follow_journal(journal, self._place), start=1):
            self._add(entry)
            self._place = place
            if count % _MOST_FRAMES == 0:
                self._flush()
                if time.monotonic() > until:
                    return False
        self._flush()
        return True

    def finish(self) -> Iterator[None]:
        """Write the rest, then the Parquet files, in small steps: yields after each, so that others get a turn.

        Raises
        ------
        SourceError, OSError
            As :meth:`turn`.
        """
        while not self.turn():
            yield
        lineages = {field: builder.build() for field, builder in self._builders.items()}
        for stream in (self._tracks, self._decisions):
            stream.close()
            yield from self._write_parquet(stream, lineages)

    def close(self) -> None:
        """Close the files."""
        self._tracks.close()
        self._decisions.close()

    def _add(self, entry: Entry) -> None:
        reply = entry.reply
        if reply.sequence <= self._last:  # it is there again
            return
        self._last = reply.sequence
        if entry.detections is not None:
            axes = entry.segmented.axes
            field = str(axes.get("position", "")), str(axes.get("z", ""))
            builder = self._builders.setdefault(field, LineageBuilder())
            builder.add(reply.sequence, reply.cells.track, reply.divisions, reply.corrections)
            self._tracks.add(cell_columns(entry))
        rows = [decision_row(file, decision) for file, decision in decisions_in(entry)]
        if rows:
            self._decisions.add(columns_of(rows, DECISION_COLUMNS))

    def _flush(self) -> None:
        self._tracks.flush()
        self._decisions.flush()

    def _write_parquet(self, stream: _Stream, lineages: Mapping[tuple[str, str], Lineage]) -> Iterator[None]:
        path = self._run / f"{stream.name}.parquet"
        part = path.with_name(path.name + PART)
        try:
            with self._parquet.ParquetWriter(part, stream.schema) as writer:
                for batch in stream.batches():
                    columns = _corrected({name: batch.column(name) for name in batch.schema.names}, lineages)
                    writer.write_batch(stream.batch_of([columns], batch.num_rows))
                    yield
            move(part, path)
        finally:
            part.unlink(missing_ok=True)


class _Stream:
    """One table as Arrow IPC streams: one file after the other, each with the columns that were known then."""

    def __init__(self, folder: Path, name: str, columns: Sequence[str], arrow: Any) -> None:
        self.name = name
        self._folder, self._arrow = folder, arrow
        self._columns = tuple(columns)
        self._pending: list[Mapping[str, Any]] = []
        self._files: list[Path] = []
        self._file: Any = None
        self._writer: Any = None
        for old in (folder / f"{name}.arrows", *folder.glob(f"{name}-*.arrows")):
            old.unlink(missing_ok=True)

    @property
    def schema(self) -> Any:
        """Names and types of all columns that are known."""
        return self._arrow.schema([(name, self._type_of(name)) for name in self._columns])

    def add(self, columns: Mapping[str, Any]) -> None:
        """Take rows, as columns of equal length; they are written by the next :meth:`flush`."""
        self._pending.append(columns)

    def flush(self) -> None:
        """Write what was added, as one batch."""
        pending, self._pending = self._pending, []
        names = dict.fromkeys((*self._columns, *(name for each in pending for name in each)))
        if len(names) > len(self._columns) and len(self._files) < _MOST_FILES:
            self.close()
            self._columns = tuple(names)
        count = sum(len(each["frame"]) for each in pending)
        if count == 0:
            return
        if self._writer is None:
            number = len(self._files) + 1
            path = self._folder / (f"{self.name}.arrows" if number == 1 else f"{self.name}-{number}.arrows")
            self._file = path.open("wb", buffering=0)
            self._files.append(path)
            self._writer = self._arrow.ipc.new_stream(self._file, self.schema)
        self._writer.write_batch(self.batch_of(pending, count))

    def batch_of(self, parts: Sequence[Mapping[str, Any]], count: int) -> Any:
        """Return rows as one batch of the schema; NaN where a part lacks a column."""
        arrays: list[Any] = []
        for name in self._columns:
            kind = self._type_of(name)
            pieces = [
                self._arrow.array(each[name] if name in each else np.full(len(each["frame"]), np.nan))
                for each in parts
            ]
            arrays.append(self._arrow.concat_arrays([piece.cast(kind) for piece in pieces]))
        return self._arrow.record_batch(arrays, schema=self.schema)

    def batches(self) -> Iterator[Any]:
        """Yield what was written."""
        for path in self._files:
            with path.open("rb") as file, self._arrow.ipc.open_stream(file) as reader:
                yield from reader

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.close()
            self._file.close()
        self._writer = self._file = None

    def _type_of(self, name: str) -> Any:
        if name in _TEXT:
            return self._arrow.string()
        if name in _WHOLE:
            return self._arrow.int64()
        return self._arrow.float64() if name in _FINE else self._arrow.float32()


def _corrected(columns: dict[str, Any], lineages: Mapping[tuple[str, str], Lineage]) -> dict[str, Any]:
    """Return rows of one batch with the identities, mothers and ages that hold after all corrections."""
    frames = columns["frame"].to_numpy()
    track = columns["track"].to_numpy().copy()
    known = {name: columns[name].to_numpy().copy() for name in ("parent", "age") if name in columns}
    starts = np.flatnonzero(np.r_[True, np.diff(frames) != 0]) if len(frames) else np.empty(0, np.int64)
    for first, end in zip(starts, [*starts[1:], len(frames)], strict=True):
        found = _frame_of(int(frames[first]), lineages)
        if found is not None:
            lineage, frame = found
            rows = slice(first, end)
            track[rows] = lineage.corrected(frame, track[rows])
            if "parent" in known:
                known["parent"][rows] = lineage.parents_of(track[rows])
            if "age" in known:
                known["age"][rows] = lineage.ages(frame, track[rows])
    return {**columns, "track": track, **known}


def _frame_of(sequence: int, lineages: Mapping[tuple[str, str], Lineage]) -> tuple[Lineage, int] | None:
    for lineage in lineages.values():
        try:
            return lineage, lineage.frame_of(sequence)
        except KeyError:
            continue
    return None
