"""Trackers that need the whole movie: a recording is replayed first, then its cells are tracked in one go.

The journal of the replay has the cells; what it says of their identities is written anew, so that all that is made
of a journal is made of these tracks. Memory grows with the movie's cells, and its masks if the tracker needs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace as with_values
from itertools import count
from pathlib import Path
from time import perf_counter

import numpy as np
import tifffile
from msgspec.structs import replace

from ..acquire.reply import Reply
from ..models.detections import Detections
from ..trackers.tracker import BatchTracker
from ..trackers.tracks import Tracks
from .amended import Field, field_of, segmented_entries
from .experiment.stream import PluginChoice, StreamConfig
from .experiment.tracker_checks import is_batch
from .identities import Identities
from .progress import Progress, silent
from .service.journal import Entry, Journal, read_journal

STAND_IN = PluginChoice("nearest")
"""Follows the cells while they are found; it costs next to nothing, and its tracks are thrown away."""


def to_replay(stream: StreamConfig) -> StreamConfig:
    """Return the stream with a tracker that can run in it, and without rules, if its own needs the whole movie.

    Raises
    ------
    PluginError
        If there is no such tracker.
    """
    return replace(stream, tracker=STAND_IN, rules=()) if is_batch(stream.tracker.use) else stream


def track_again(run: Path, stream: StreamConfig, progress: Progress = silent) -> tuple[str, ...]:
    """Track the cells of a finished run with the stream's tracker, if it is one that needs the whole movie.

    Parameters
    ----------
    run
        The run's folder of the service, of :func:`to_replay`; its journal is replaced.
    stream
        What was asked for.
    progress
        Told what is being done.

    Returns
    -------
    tuple of str
        What a person should know.

    Raises
    ------
    PluginError, MissingExtraError
        If the tracker cannot be constructed.
    SourceError
        If the journal cannot be read.
    """
    if not is_batch(stream.tracker.use):
        return ()
    use = stream.tracker.use
    progress(f"tracking with {use}", 0, None)
    started = perf_counter()
    tracks = _track_fields(run, stream)
    seconds = perf_counter() - started
    _write_again(run / "journal", tracks)
    return (
        f"{use} took {seconds:.1f} s for the whole movie; latencies and frames per second are of the replay before,"
        f" with {STAND_IN.use!r}",
    )


def _track_fields(run: Path, stream: StreamConfig) -> dict[Field, Iterator[Tracks]]:
    """Return the tracks of each field of view, frame by frame, with identities that are unique in the stream."""
    needs_masks = bool(getattr(_tracker(stream), "needs_masks", False))
    movies: dict[Field, list[Detections]] = {}
    for entry in segmented_entries(read_journal(run / "journal")):
        detections = entry.restore_detections()
        assert detections is not None
        if stream.channel in detections.channels:
            detections = with_values(detections, channel=detections.channels.index(stream.channel))
        if needs_masks:
            mask = tifffile.imread(run / "masks" / f"{entry.header.sequence:06d}.tif")
            detections = with_values(detections, mask=mask.astype(np.int32))
        movies.setdefault(field_of(entry), []).append(detections)
    numbers = count(1)
    return {
        field: map(Identities(numbers).renumber, _tracker(stream).track(movie))
        for field, movie in movies.items()
    }


def _tracker(stream: StreamConfig) -> BatchTracker:
    return stream.tracker.build("trackers")


def _write_again(journal: Path, tracks: dict[Field, Iterator[Tracks]]) -> None:
    """Write the journal anew with these tracks; the former is there until all is written."""
    new = journal.with_name("journal.new")
    new.unlink(missing_ok=True)
    written = Journal(new)
    try:
        last = -1
        for entry in read_journal(journal):
            if entry.detections is not None and entry.header.sequence > last:
                entry = replace(entry, reply=_with_tracks(entry, next(tracks[field_of(entry)])))
            last = max(last, entry.header.sequence)
            written.append(entry)
    finally:
        written.close()
    new.replace(journal)


def _with_tracks(entry: Entry, tracks: Tracks) -> Reply:
    """Return the reply with other identities and the same measurements."""
    cells = entry.reply.cells
    known = {"parent": tracks.parent, "age": tracks.age, "confidence": tracks.confidence}
    columns = {
        name: np.asarray(known.get(name, column), np.float32) for name, column in cells.columns.items()
    }
    return replace(
        entry.reply,
        cells=replace(cells, track=tracks.track, columns=columns),
        divisions=tracks.divisions,
        merges=(),
        corrections=(),
        drift_px=None,
    )
