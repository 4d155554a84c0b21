"""Replaying a run: its recorded frames through the pipeline once more, compared with its journal as it goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..acquire.errors import CytoloopError, SourceError
from ..acquire.frame import Frame
from ..acquire.link.pixels import checksum, frame_with
from .experiment.stream import StreamConfig
from .pipeline import Pipeline, Step
from .pixel_maps import ageless
from .progress import Progress, silent
from .recording.reader import RecordedFrames
from .replay import Replayed
from .service.journal import Entry, Journal, read_journal
from .service.made_with import differences, made_with, read_made_with, write_made_with
from .service.run import LEFT_OUT, write_mask
from .service.run_folder import read_stream, write_stream
from .trial.divergence import (
    MOST_LISTED,
    Cause,
    Decided,
    Divergence,
    affects,
    configuration_changes,
    decided,
    first_difference,
    is_rounding,
)


@dataclass(slots=True)
class Compared:
    """How a replay compares with its run.

    Attributes
    ----------
    first
        The first difference; None if all is identical.
    changes
        What the configuration has otherwise than the run's, by key.
    frames
        Frames that were compared.
    differing, listed
        How many of them differ, and the first of them, each with what differs first in it.
    from_journal
        Frames whose images were not recorded: their detections are taken from the journal.
    damaged
        Frames that were replayed although they are not as they were sent.
    cells
        Cells of which run and replay decide otherwise.
    """

    first: Divergence | None = None
    changes: dict[str, str] = field(default_factory=dict[str, str])
    frames: int = 0
    differing: int = 0
    listed: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    from_journal: int = 0
    damaged: list[int] = field(default_factory=list[int])
    cells: dict[int, Decided] = field(default_factory=dict[int, Decided])

    @property
    def identical(self) -> bool:
        """Whether nothing differs."""
        return self.first is None

    def values(self) -> dict[str, Any]:
        """Return it under the names that scripts read."""
        return {
            "identical": self.identical,
            "first_divergence": self.first,
            "compared": self.frames,
            "differing_frames": self.differing,
            "from_journal": self.from_journal,
            "damaged": self.damaged,
            "diff": {
                "configuration": self.changes,
                "frames": [{"frame": frame, "what": what} for frame, what in self.listed],
                "cells": list(self.cells.values())[:MOST_LISTED],
            },
        }


def replay_run(
    run: Path,
    log: Path,
    progress: Progress = silent,
    *,
    stream: StreamConfig | None = None,
    damaged: bool = False,
) -> tuple[Replayed | None, Compared]:
    """Send the recorded frames of a run through a pipeline of its own, in order, and compare with the journal.

    Nothing runs beside it, so that it comes out the same each time. What depended on load stays as it was: frames
    that the client left out are not there, and of frames that were not recorded, or that killed the engine, the
    journal's detections are taken.

    Parameters
    ----------
    run
        The run's folder.
    log
        Folder for the log of the replay.
    progress
        Told about each frame.
    stream
        Another configuration; None: the run's own.
    damaged
        Replay frames too that are not as they were sent.

    Returns
    -------
    tuple
        How it went, None if the model is another one and cannot be loaded; and how it compares.

    Raises
    ------
    SourceError
        With the number of the first frame that is damaged; if the run was not recorded, or holds no configuration.
    PluginError, ModelError, ConfigurationError
        If segmenter, tracker or a rule cannot be built.
    """
    own = read_stream(run)
    used = own if stream is None else stream
    compared = Compared(changes=configuration_changes(own, used))
    then = read_made_with(run)
    differs = {} if then is None else differences(then, made_with(used))
    try:
        pipeline = Pipeline(ageless(used))
    except CytoloopError as error:
        if "model" not in differs:
            raise
        first = next((entry.header.sequence for entry in read_journal(run / "journal")), 0)
        found = Divergence(first, "detections", None, "there", "the model cannot be loaded")
        compared.first = replace(found, cause="model", why=f"{'; '.join(differs['model'])}; {error}")
        return None, compared
    replayed = _Replay(run, _folder(log, run, used), pipeline, used, compared, progress, damaged).through()
    if compared.first is not None:
        cause, why = cause_of(compared.first, compared, differs)
        compared.first = replace(compared.first, cause=cause, why=why)
    return replayed, compared


class _Replay:
    """The loop of one replay."""

    def __init__(
        self,
        run: Path,
        folder: Path,
        pipeline: Pipeline,
        stream: StreamConfig,
        compared: Compared,
        progress: Progress,
        damaged: bool,
    ) -> None:
        self._run, self._folder, self._pipeline = run, folder, pipeline
        self._compared, self._progress, self._damaged = compared, progress, damaged
        self._remembers = not compared.changes.keys() & {"segmenter", "channel", "channels"}
        self._missing: set[int] = set()
        self._frames = RecordedFrames(run)
        if not len(self._frames):
            reason = (
                "the frames of this run were not recorded ([streams.NAME.record] frames = true records them)"
            )
            raise SourceError(run, reason)
        write_stream(folder, stream)
        write_made_with(folder, stream)
        (folder / "masks").mkdir()

    def through(self) -> Replayed:
        journal = Journal(self._folder / "journal")
        latencies: list[float] = []
        messages: dict[str, None] = {}
        last: Frame | None = None
        started = time.perf_counter()
        total = sum(1 for _ in read_journal(self._run / "journal"))
        try:
            for entry in read_journal(self._run / "journal"):
                frame = self._frame(entry)
                began = time.perf_counter()
                step = self._step(entry, frame)
                latencies.append((time.perf_counter() - began) * 1e3)
                columns = self._keep(journal, entry, step)
                self._compare(entry, step, columns)
                messages |= dict.fromkeys(step.reply.messages)
                if step.labels is not None and frame is not None:
                    last = frame
                self._progress(f"replaying {self._run.name}", len(latencies), total)
        finally:
            journal.close()
        return Replayed(
            name=self._run.name,
            frames=len(latencies),
            answered=len(latencies),
            seconds=time.perf_counter() - started,
            latency_ms=np.asarray(latencies, np.float64),
            folder=self._folder,
            last_frame=last,
            messages=tuple(messages),
        )

    def _frame(self, entry: Entry) -> Frame | None:
        """Return a frame as it was sent; None if it was not recorded."""
        header = entry.header
        told = any("is not recorded: " in message for message in entry.reply.messages)
        if header.sequence not in self._frames and (told or self._damaged):
            self._missing.add(header.sequence)
            self._compared.from_journal += 1
            return None
        hint = "; --damaged replays it all the same"
        try:
            pixels = self._frames.pixels(header.sequence, header.shape, checked=not self._damaged)
        except SourceError as error:
            raise SourceError(error.path, f"{error.reason}{hint}", header.sequence) from None
        pixels = np.ascontiguousarray(pixels)
        if checksum(pixels) != header.checksum:
            if not self._damaged:
                reason = f"its pixels are not those that were sent (checksum){hint}"
                raise SourceError(self._run, reason, header.sequence)
            self._compared.damaged.append(header.sequence)
        return frame_with(header, pixels)

    def _step(self, entry: Entry, frame: Frame | None) -> Step:
        pipeline, joiner = self._pipeline, self._pipeline.joiner
        if any(LEFT_OUT in message for message in entry.reply.messages):
            pipeline.restore(frame or entry.frame, None)  # as the run did
            return Step(entry.reply)
        self._missing &= {entry.header.sequence, *(joiner.held if joiner else ())}
        if frame is not None and not (self._missing and entry.detections is not None):
            return pipeline.step(frame)
        detections = entry.restore_detections()
        memory = entry.memory if self._remembers else None
        return Step(pipeline.restore(frame or entry.frame, detections, memory), None, detections)

    def _keep(self, journal: Journal, entry: Entry, step: Step) -> dict[str, bytes] | None:
        """Write a frame into the log of the replay; return its detections as bytes."""
        header = entry.header
        with_mask = self._pipeline.needs_masks
        new = Entry.of(header, step.detections, step.reply, step.frame, step.memory, with_mask=with_mask)
        if step.frame is None:  # of the journal
            new = Entry(header, new.detections, step.reply, entry.joined, entry.memory)
        journal.append(new)
        if step.labels is not None:
            write_mask(self._folder / "masks" / f"{header.sequence:06d}.tif", step.labels)
        return new.detections

    def _compare(self, entry: Entry, step: Step, columns: dict[str, bytes] | None) -> None:
        compared, recorded = self._compared, entry.detections
        if recorded is not None and columns is not None and ("mask" in recorded) != ("mask" in columns):
            recorded, columns = ({k: v for k, v in c.items() if k != "mask"} for c in (recorded, columns))
        compared.frames += 1
        found = first_difference(recorded, entry.reply, columns, step.reply)
        if found is None:
            return
        compared.differing += 1
        compared.first = compared.first or found
        if len(compared.listed) < MOST_LISTED:
            compared.listed.append((found.frame, found.what))
        only, other = decided(entry.reply.decisions, step.reply.decisions)
        for track in sorted(only | other):
            cell = compared.cells.setdefault(track, Decided(track))
            if track in only:
                cell.recorded_only.append(found.frame)
            if track in other:
                cell.replayed_only.append(found.frame)


def cause_of(found: Divergence, compared: Compared, differs: dict[str, list[str]]) -> tuple[Cause, str]:
    """Return what a difference comes of, the surest one, and that in words with all else that is not as it was.

    Parameters
    ----------
    found
        The difference.
    compared
        What is known of configuration and frames.
    differs
        What the run was made with otherwise, of :func:`~.service.made_with.differences`.
    """
    known = list(_candidates(found, compared, differs))
    cause, why = known[0] if known else ("unknown", "everything that the run noted is as it was")
    others = "; ".join(said for _, said in known[1:])
    return cause, f"{why}; besides, {others}" if others else why


def _candidates(
    found: Divergence, compared: Compared, differs: dict[str, list[str]]
) -> Iterator[tuple[Cause, str]]:
    damaged = [frame for frame in compared.damaged if frame <= found.frame]
    if damaged:
        yield "data", f"frame {damaged[0]} is not as it was sent: its checksum is another one"
    if changes := affects(compared.changes, found.what):
        yield "configuration", f"configuration: {'; '.join(changes.values())}"
    kinds: tuple[Cause, ...] = ("model", "plugin")
    for kind in kinds:
        if kind in differs:
            yield kind, "; ".join(differs[kind])
    if is_rounding(found):
        yield "rounding", f"numbers differ in their last bits, by {found.largest:.2g} of their value at most"
    kinds = ("version", "machine")
    for kind in kinds:
        if kind in differs:
            yield kind, "; ".join(differs[kind])


def _folder(log: Path, run: Path, stream: StreamConfig) -> Path:
    """Make the folder of the replay's own log; one of an earlier replay stays."""
    parent = log / stream.name
    names = (f"{run.resolve().name}_replay{'' if n == 1 else f'-{n}'}" for n in range(1, 1_000_000))
    folder = next(parent / name for name in names if not (parent / name).exists())
    folder.mkdir(parents=True)
    return folder


def divergence_line(found: Divergence) -> str:
    """Return a divergence in one line, for people."""
    cell = "" if found.cell is None else f", cell {found.cell}"
    return (
        f"First difference: frame {found.frame}{cell}, {found.what}: {found.recorded} in the run,"
        f" {found.replayed} now. Cause: {found.cause} ({found.why})."
    )
