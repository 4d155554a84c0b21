"""A run in the formats of other programs: its journal as graphs, one for each field of view, and these as files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from ..acquire.errors import PluginError, SourceError, nearest_name
from ..trackers.export import write_csv, write_ctc, write_geff, write_napari, write_parquet, write_trackmate
from ..trackers.graph import GraphBuilder, TrackGraph
from .amended import Field, field_of, segmented_entries
from .progress import Progress, silent
from .recording.opened import read_saved_mask
from .recording.reader import RecordedMasks
from .service.journal import Entry, read_journal

Write: TypeAlias = Callable[[TrackGraph, Path, bool, Path], None]


def _plain(write: Callable[..., None]) -> Write:
    return lambda graph, path, force, run: write(graph, path, force=force)


def _ctc(graph: TrackGraph, path: Path, force: bool, run: Path) -> None:
    recorded = RecordedMasks(run)
    write_ctc(graph, path, lambda row: _mask(run, recorded, graph, row), force=force)


FORMATS: dict[str, Write] = {
    "geff": _plain(write_geff),
    "ctc": _ctc,
    "trackmate": _plain(write_trackmate),
    "napari": _plain(write_napari),
    "csv": _plain(write_csv),
    "parquet": _plain(write_parquet),
}


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """One field of view that was written.

    Attributes
    ----------
    path
        The file or folder.
    position, z
        The field of view.
    frames, cells, tracks, divisions
        What the run has of it, after corrections; cells are counted in every frame anew.
    ignored
        Corrections that would have given two cells one identity.
    """

    path: Path
    position: int | str
    z: int | str
    frames: int
    cells: int
    tracks: int
    divisions: int
    ignored: int


def export_run(
    run: Path, name: str, out: Path, *, force: bool = False, progress: Progress = silent
) -> list[Exported]:
    """Write a run in a format.

    Parameters
    ----------
    run
        The run's folder of the service, with its journal; for CTC with its masks too.
    name
        Of the format, one of ``FORMATS``.
    out
        The file or folder. Of several fields of view each has its number before the suffix: ``tracks_01.geff``.
    force
        Replace what is there.
    progress
        Told about each frame.

    Raises
    ------
    PluginError
        If there is no such format.
    SourceError
        If the run has no journal, no cells were looked for, or a mask is missing.
    ExportError
        If something is there already or cannot be written.
    MissingExtraError
        If the format needs a package that is not here.
    """
    if name not in FORMATS:
        hint = nearest_name(name, FORMATS)
        raise PluginError(
            f"no format {name!r}; known: {', '.join(FORMATS)}." + (f" Did you mean {hint!r}?" if hint else "")
        )
    graphs = read_graphs(run, progress)
    exported: list[Exported] = []
    for count, ((position, z), graph) in enumerate(graphs.items(), start=1):
        path = out if len(graphs) == 1 else out.with_name(f"{out.stem}_{count:02d}{out.suffix}")
        progress(f"writing {path.name}", count, len(graphs))
        FORMATS[name](graph, path, force, run)
        tracks = len(set(graph.track.tolist()))
        sizes = (len(graph.frames), len(graph), tracks, graph.divisions, len(graph.refused))
        exported.append(Exported(path, position, z, *sizes))
    return exported


def read_graphs(run: Path, progress: Progress = silent) -> dict[Field, TrackGraph]:
    """Return the graph of each field of view of a run, in the order of their first frames.

    Memory grows with the cells of the run, counted in every frame anew.

    Raises
    ------
    SourceError
        If the run has no journal, or cells were looked for in none of its frames.
    """
    journal = run / "journal"
    if not journal.is_file():
        raise SourceError(run, f"there is no journal in this folder, so it is no run{_nearby(run)}")
    builders: dict[Field, GraphBuilder] = {}
    for count, entry in enumerate(segmented_entries(read_journal(journal)), start=1):
        _add(builders.setdefault(field_of(entry), GraphBuilder()), entry)
        progress("reading the run", count)
    if not builders:
        raise SourceError(run, "cells were looked for in none of its frames: there is nothing to export")
    try:
        return {field: builder.build() for field, builder in builders.items()}
    except ValueError as error:
        raise SourceError(run, str(error)) from error


def _nearby(folder: Path) -> str:
    """Return a hint at a run further down, such as that of a replay, if there is one."""
    deeper = ("*/journal", "*/*/journal", "*/*/*/journal")
    found = next((path.parent for pattern in deeper for path in sorted(folder.glob(pattern))), None)
    return f". Did you mean {str(found)!r}?" if found else ""


def _add(builder: GraphBuilder, entry: Entry) -> None:
    reply, header = entry.reply, entry.segmented
    found = entry.restore_detections()
    is_tracked = found is not None and len(found) == len(reply.cells)  # tracking may have failed
    builder.add(
        reply.sequence,
        reply.cells,
        time_s=header.time_s,
        number=header.axes.get("time"),
        divisions=reply.divisions,
        merges=reply.merges,
        corrections=reply.corrections,
        z_px=found.z if found is not None and is_tracked else None,
        stage_um=header.stage_um,
        pixel_size_um=header.pixel_size_um,
        shape=(header.shape[-2], header.shape[-1]),
    )


def _mask(run: Path, recorded: RecordedMasks, graph: TrackGraph, row: int) -> NDArray[Any]:
    """Return the mask of a frame of a run.

    Raises
    ------
    SourceError
        If it is missing, or does not hold the cells of the journal.
    """
    sequence = int(graph.frames.sequence[row])
    folder = run / "masks"
    path = folder / f"{sequence:06d}.tif"
    if path.is_file():
        mask = read_saved_mask(run, sequence)
    elif sequence in recorded:
        path = run
        mask = recorded.mask(sequence)
    else:
        kept = "a stream keeps them with save_masks = true, or with masks = true in [streams.NAME.record]"
        done = "a replay has left its result in ctc/ already"
        reason = f"this format needs the mask of every frame ({kept}; {done}); missing: {path.name}"
        raise SourceError(folder, reason)
    count = int((graph.frame == row).sum())
    if count and int(mask.max(initial=0)) != count:  # with none, tracking failed in this frame
        raise SourceError(path, f"holds {mask.max(initial=0)} cells, the journal {count}", sequence)
    return mask
