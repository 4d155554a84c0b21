"""What a run leaves for people and programs, written from its journal: tracks as CTC and CSV, and decisions.

The journal is what the service wrote before it answered, so the counts of frames are those of the service itself.
What it said of cells and corrected later is written as it was corrected. Two passes over the journal: the first
collects the corrections, the second writes. Memory grows with the number of tracks and frames, never with pixels.
"""

from __future__ import annotations

import csv
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import msgspec
import numpy as np
import tifffile

from ..acquire.reply import Decision
from ..trackers.export import CtcWriter
from ..trackers.lineage import Lineage
from .amended import Field, amended, field_of, read_lineages
from .outcomes import OutcomeCounter, OutcomeFigures, count_outcomes
from .progress import Progress, silent
from .service.journal import Entry, read_journal
from .service.outcome_log import read_outcomes

MOST_KEPT_DECISIONS = 2000
KEPT_RECENT = 40
_HEADS = ("frame", "time_s", "position", "z", "stage_x_um", "stage_y_um", "track", "x_px", "y_px")


@dataclass(slots=True, eq=False)
class Results:
    """Counts of a run and where its files are.

    Attributes
    ----------
    processed, duplicated, out_of_order
        Frames in the journal, each once; those that are there again; those that stand behind a later one.
    segmented
        Frames in which cells were looked for; others belong to another channel, or could not be segmented.
    tracks, divisions
        Identities and divisions over all fields of view, after corrections.
    corrections, ignored
        Corrections of earlier frames; of these, such as would give two cells one identity and were left out.
    decisions, refused
        Decisions that the limits let pass, and those they refused.
    shadow
        Decisions of each file of shadow rules, the refused ones too.
    outcomes
        What came of those that passed at the microscope; None if no microscope told of any, as in a replay.
    first_decisions
        The first of both, for a report.
    cells, divided, times_s
        Cells, divisions and frame time of each segmented frame, after corrections.
    stage_um
        (x, y) of the stage in um of each frame that has one.
    recent
        The last segmented frames, newest at the end, after corrections; for tails and marks of a picture.
    fields
        One folder in the layout of the Cell Tracking Challenge for each field of view: (position, z) by name.
    """

    processed: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    segmented: int = 0
    tracks: int = 0
    divisions: int = 0
    corrections: int = 0
    ignored: int = 0
    decisions: int = 0
    refused: int = 0
    outcomes: OutcomeFigures | None = None
    shadow: dict[str, int] = field(default_factory=dict[str, int])
    first_decisions: list[Decision] = field(default_factory=list[Decision])
    cells: list[int] = field(default_factory=list[int])
    divided: list[int] = field(default_factory=list[int])
    times_s: list[float] = field(default_factory=list[float])
    stage_um: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    recent: deque[Entry] = field(default_factory=lambda: deque[Entry](maxlen=KEPT_RECENT))
    fields: dict[str, Field] = field(default_factory=dict[str, Field])


def write_results(run: Path, out: Path, digits: int = 3, progress: Progress = silent) -> Results:
    """Write ``ctc/NN_RES``, ``tracks.csv`` and ``decisions.jsonl`` of a run into a folder.

    If a microscope told what came of its decisions, that is in ``outcomes.jsonl``, a line each. If shadow rules ran
    beside, what they would have decided is in ``shadow.jsonl``: each line a decision, with the name of its file as
    ``file``.

    Parameters
    ----------
    run
        The run's folder of the service, with its journal and its masks.
    out
        Made if it does not exist; results of an earlier run there are replaced.
    digits
        Digits of the numbers in CTC file names.
    progress
        Told about each frame.

    Raises
    ------
    SourceError
        If the journal cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    lineages = read_lineages(run, progress)
    with _Writer(run, out, digits, lineages.of) as writer:
        # Of a run that goes on, what came meanwhile is left for the next time.
        entries = islice(read_journal(run / "journal"), lineages.entries)
        for count, entry in enumerate(entries, start=1):
            writer.add(entry)
            progress("writing results", count)
    writer.results.outcomes = _write_outcomes(run, out / "outcomes.jsonl")
    return writer.results


def _write_outcomes(run: Path, target: Path) -> OutcomeFigures | None:
    """Write what came of the decisions of a run; None, and no file, if nobody told."""
    if target.parent.samefile(run):  # there they are already
        figures = count_outcomes(read_outcomes(run))
        return figures if figures.told else None
    target.unlink(missing_ok=True)
    counter = OutcomeCounter()
    with ExitStack() as stack:
        file: BinaryIO | None = None
        for outcome in read_outcomes(run):
            file = file or stack.enter_context(target.open("wb"))
            file.write(msgspec.json.encode(outcome) + b"\n")
            counter.add(outcome)
        return counter.figures if file else None


class _Writer:
    """The open files of one call of :func:`write_results`."""

    def __init__(self, run: Path, out: Path, digits: int, lineages: dict[Field, Lineage]) -> None:
        every = lineages.values()
        self.results = Results(
            tracks=sum(len(lineage.spans) for lineage in every),
            ignored=sum(len(lineage.refused) for lineage in every),
        )
        self._lineages = lineages
        self._masks, self._ctc, self._digits = run / "masks", out / "ctc", digits
        self._fields: dict[Field, CtcWriter] = {}
        self._last = -1
        with ExitStack() as stack:
            self._table: Any = csv.writer(stack.enter_context((out / "tracks.csv").open("w", newline="")))
            self._decisions = stack.enter_context((out / "decisions.jsonl").open("wb"))
            self._stack = stack.pop_all()
        self._columns: tuple[str, ...] = ()
        self._shadow_path = out / "shadow.jsonl"
        self._shadow_path.unlink(missing_ok=True)
        self._shadow: BinaryIO | None = None

    def __enter__(self) -> _Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._fields.values():
            writer.close()
        self._stack.close()

    def add(self, entry: Entry) -> None:
        """Count one frame and write what is known of it."""
        sequence, results = entry.header.sequence, self.results
        if sequence == self._last:
            results.duplicated += 1
            return
        if sequence < self._last:
            results.out_of_order += 1
            return
        self._last = sequence
        results.processed += 1
        self._add_decisions(entry.reply.decisions)
        self._add_shadow(entry.reply.shadow)
        if entry.segmented.stage_um is not None:
            results.stage_um.append(entry.segmented.stage_um)
        results.corrections += len(entry.reply.corrections)
        if entry.detections is not None:
            field = field_of(entry)
            self._add_cells(amended(entry, self._lineages[field]), field)

    def _add_decisions(self, decisions: tuple[Decision, ...]) -> None:
        results = self.results
        for decision in decisions:
            results.decisions += not decision.refused
            results.refused += bool(decision.refused)
            self._decisions.write(msgspec.json.encode(decision) + b"\n")
        results.first_decisions += decisions[: MOST_KEPT_DECISIONS - len(results.first_decisions)]

    def _add_shadow(self, shadow: dict[str, tuple[Decision, ...]]) -> None:
        if shadow and self._shadow is None:
            self._shadow = self._stack.enter_context(self._shadow_path.open("wb"))
        for file, decisions in shadow.items():
            self.results.shadow[file] = self.results.shadow.get(file, 0) + len(decisions)
            for decision in decisions:
                line = msgspec.json.encode({"file": file, **msgspec.to_builtins(decision)})
                if self._shadow is not None:
                    self._shadow.write(line + b"\n")

    def _add_cells(self, entry: Entry, field: Field) -> None:
        results, header, reply = self.results, entry.segmented, entry.reply
        results.segmented += 1
        results.cells.append(len(reply.cells))
        results.divided.append(len(reply.divisions))
        results.divisions += len(reply.divisions)
        results.times_s.append(header.time_s)
        results.recent.append(entry)
        if field not in self._fields:
            name = f"{len(self._fields) + 1:02d}_RES"
            results.fields[name] = field
            self._fields[field] = CtcWriter(self._ctc / name, self._digits)
        self._write_rows(field, entry)
        mask = self._masks / f"{reply.sequence:06d}.tif"
        if mask.is_file():
            parents = self._lineages[field].parents
            self._fields[field].add(
                tifffile.imread(mask), reply.cells.track, parents, header.axes.get("time")
            )

    def _write_rows(self, key: Field, entry: Entry) -> None:
        cells, header = entry.reply.cells, entry.segmented
        if not self._columns:
            self._columns = tuple(cells.columns)
            self._table.writerow((*_HEADS, *self._columns))
        frame = (entry.reply.sequence, header.time_s, *key, *(header.stage_um or ("", "")))
        unknown = np.full(len(cells), np.nan)
        measured = (cells.columns.get(name, unknown) for name in self._columns)
        columns = (cells.track, cells.x_px, cells.y_px, *measured)
        self._table.writerows((*frame, *row) for row in zip(*(c.tolist() for c in columns), strict=True))
