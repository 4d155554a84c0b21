"""A run as it is known after its end: every entry of its journal with the corrections that came later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from msgspec.structs import replace

from ..trackers.lineage import Lineage, LineageBuilder
from .progress import Progress, silent
from .service.journal import Entry, read_journal

Field: TypeAlias = tuple[int | str, int | str]
"""A field of view: position and z."""


def field_of(entry: Entry) -> Field:
    """Return the field of view of an entry."""
    axes = entry.segmented.axes
    return axes.get("position", 0), axes.get("z", 0)


def segmented_entries(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries in which cells were looked for; none that is there again, or stands behind a later one."""
    last = -1
    for entry in entries:
        if entry.header.sequence > last:
            last = entry.header.sequence
            if entry.detections is not None:
                yield entry


class Lineages(NamedTuple):
    """The lineage of each field of view, in the order of their first frames, after so many entries."""

    of: dict[Field, Lineage]
    entries: int


def read_lineages(run: Path, progress: Progress = silent) -> Lineages:
    """Collect what holds after all corrections of a run.

    Parameters
    ----------
    run
        The run's folder of the service.
    progress
        Told about each frame.

    Raises
    ------
    SourceError
        If the journal cannot be read.
    """
    builders: dict[Field, LineageBuilder] = {}
    count = 0

    def counted() -> Iterator[Entry]:
        nonlocal count
        for entry in read_journal(run / "journal"):
            count += 1
            progress("reading corrections", count)
            yield entry

    for entry in segmented_entries(counted()):
        reply = entry.reply
        builder = builders.setdefault(field_of(entry), LineageBuilder())
        builder.add(reply.sequence, reply.cells.track, reply.divisions, reply.corrections)
    return Lineages({field: builder.build() for field, builder in builders.items()}, count)


def amended(entry: Entry, lineage: Lineage) -> Entry:
    """Return an entry whose identities, mothers, ages and divisions are those after all corrections.

    Parameters
    ----------
    entry
        One of :func:`segmented_entries`.
    lineage
        That of its field of view.
    """
    cells = entry.reply.cells
    frame = lineage.frame_of(entry.reply.sequence)
    track = lineage.corrected(frame, cells.track)
    known = {"parent": lineage.parents_of(track), "age": lineage.ages(frame, track)}
    columns = {
        name: np.asarray(known[name], np.float32) if name in known else column
        for name, column in cells.columns.items()
    }
    cells = replace(cells, track=track, columns=columns)
    divisions = lineage.divisions.get(frame, ())
    return replace(entry, reply=replace(entry.reply, cells=cells, divisions=divisions))
