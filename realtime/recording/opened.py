"""A run in a notebook: its images as arrays, all else as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tifffile
from numpy.typing import NDArray

from ...acquire.errors import SourceError
from ...acquire.reply import Decision
from ...trackers.lineage import Lineage
from ..amended import Lineages, amended, field_of, read_lineages, segmented_entries
from ..experiment.stream import StreamConfig
from ..service.event_log import EVENTS, read_events
from ..service.journal import Entry, read_journal
from ..service.outcome_log import OUTCOMES, AuditLine
from ..service.run_folder import check_run, read_stream
from .lazy import LazyImages, as_lazy_array, first_position
from .reader import Part, RecordedFrames, RecordedMasks
from .rows import CELL_COLUMNS, DECISION_COLUMNS, FRAME_COLUMNS, cell_columns, decision_row, decisions_in
from .side_index import Plane
from .table import as_table, columns_of
from .untrusted import inside, read_from

_MOST_COLUMNS = 1000
_LONGEST_LINE = 1 << 20
_OUTCOME_COLUMNS = tuple(field.name for field in msgspec.structs.fields(AuditLine))
_EVENT_COLUMNS = ("number", "wall", "monotonic_s", "kind", "frame", "about", "whole")
_PLANE_COLUMNS = tuple(field.name for field in msgspec.structs.fields(Plane))


def open_recording(path: str | Path) -> OpenedRecording:
    """Open the folder of a run, one that goes on too; nothing large is read before it is asked for.

    Recordings from elsewhere are data: no code in them is run, nothing outside the folder is read, and what is
    damaged is an error that names the file.

    Parameters
    ----------
    path
        The folder that the service made, ``log/STREAM/DATE_RUN``.

    Returns
    -------
    OpenedRecording
        What is in it.

    Raises
    ------
    SourceError
        If it is not the folder of a run, or its recorded images are damaged as a whole.
    MissingExtraError
        If its images are compressed and the package for that is not installed.
    """
    return OpenedRecording(Path(path))


class OpenedRecording:
    """A run, as far as it had come when each thing was first asked for; open it again to see more.

    Tables are data frames of pandas if it is installed, else tables of pyarrow, else lists of dictionaries. What the
    tracker corrected during the run is in them as it was corrected.

    Attributes
    ----------
    path
        The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_run(path)
        self._journal = inside(path, path / "journal")
        with read_from(path):
            self._frames, self._masks = RecordedFrames(path), RecordedMasks(path)

    # --- images ---------------------------------------------------------------------------------------------

    @property
    def frames(self) -> Any:
        """The frames (t, c, z, y, x) of the first position, see :meth:`frames_of`; None if none were recorded."""
        return self.frames_of()

    @property
    def masks(self) -> Any:
        """The masks (t, z, y, x) of the first position, see :meth:`masks_of`; None if none were recorded."""
        return self.masks_of()

    def frames_of(self, position: int | str | None = None, part: int = 0) -> Any:
        """Return the frames (t, c, z, y, x) of a position; None if none were recorded.

        An array of dask if it is installed, else a :class:`~.lazy.LazyImages`; a plane is read, and its checksum
        compared, when it is computed. Planes that were not taken are zero; ``planes`` tells which are there.

        Parameters
        ----------
        position
            Its name; None: the first one.
        part
            0, or the number of a further recording, of frames of another size or pixel type.

        Raises
        ------
        SourceError
            If there is no such position, or the recording claims to be larger than it can be.
        """
        return _array_of(self.path, self._frames.parts, position, part)

    def masks_of(self, position: int | str | None = None, part: int = 0) -> Any:
        """Return the masks (t, z, y, x) of a position as :meth:`frames_of` does the frames.

        Label i + 1 is the i-th cell of the frame in ``tracks``.
        """
        return _array_of(self.path, self._masks.parts, position, part)

    def mask(self, frame: int) -> NDArray[Any]:
        """Return the mask (y, x) of a frame, from the label image or what ``save_masks`` has kept.

        Parameters
        ----------
        frame
            Its number in the stream, the column ``frame`` of all tables.

        Raises
        ------
        SourceError
            If there is none, or it is damaged.
        """
        with read_from(self.path):
            return self._masks.mask(frame) if frame in self._masks else read_saved_mask(self.path, frame)

    @property
    def positions(self) -> tuple[str, ...]:
        """Names of the positions, in the order in which they were first seen."""
        if self._frames.parts:
            return self._frames.parts[0].recorded.positions
        return tuple(dict.fromkeys(str(position) for position, _ in self._lineages.of))

    @property
    def finished(self) -> bool | None:
        """Whether the recorder has closed the images; None if none were recorded."""
        parts = self._frames.parts
        return all(part.recorded.finished for part in parts) if parts else None

    # --- tables ---------------------------------------------------------------------------------------------

    @cached_property
    def tracks(self) -> Any:
        """One row for each cell and frame: place, identity, mother, all that was measured.

        ``frame`` is the number in the stream, ``t`` the time point in ``frames`` (-1: not recorded).
        """
        names: dict[str, None] = dict.fromkeys((*FRAME_COLUMNS, "t", *CELL_COLUMNS))
        rows: list[dict[str, Any]] = []
        with read_from(self._journal):
            for entry in segmented_entries(self._entries()):
                columns = cell_columns(amended(entry, self._lineages.of[field_of(entry)]))
                places = self._frames.places(entry.reply.sequence)
                columns["t"] = np.full(len(entry.reply.cells), places[0].t if places else -1, np.int64)
                names |= dict.fromkeys(columns)
                if len(names) > _MOST_COLUMNS:
                    raise SourceError(self._journal, f"names more than {_MOST_COLUMNS} columns")
                rows.append(columns)
            return as_table({name: _whole(name, rows) for name in names})

    @cached_property
    def decisions(self) -> Any:
        """One row for each decision: frame, rule, cell, command with its fields as JSON, why, and why not.

        ``track`` is the cell's identity after corrections; ``file`` names shadow rules, whose decisions had no effect.
        """
        with read_from(self._journal):
            rows: list[dict[str, Any]] = []
            last = -1
            for entry in self._entries():
                if entry.header.sequence <= last:  # it is there again
                    continue
                last = entry.header.sequence
                lineage = self._lineages.of.get(field_of(entry))
                for file, decision in decisions_in(entry):
                    track = decision.track if lineage is None else _identity(lineage, decision)
                    rows.append(decision_row(file, decision) | {"track": track})
            return as_table(columns_of(rows, DECISION_COLUMNS))

    @cached_property
    def outcomes(self) -> Any:
        """One row for each decision of which the microscope said what came of it."""
        path = inside(self.path, self.path / OUTCOMES)
        with read_from(path):
            rows: list[dict[str, Any]] = []
            if path.is_file():
                with path.open("rb") as file:
                    while line := file.readline(_LONGEST_LINE):
                        if line.strip() and (outcome := _outcome(line)) is not None:
                            rows.append(msgspec.structs.asdict(outcome))
            return as_table(columns_of(rows, _OUTCOME_COLUMNS))

    @cached_property
    def events(self) -> Any:
        """One row for all that happened, in its order; ``whole`` is false for a line that is torn or was altered."""
        path = inside(self.path, self.path / EVENTS)
        with read_from(path):
            rows: list[dict[str, Any]] = []
            for event in read_events(self.path):
                if event is None:
                    rows.append(dict.fromkeys(_EVENT_COLUMNS, "") | _DAMAGED)
                    continue
                row = msgspec.structs.asdict(event)
                rows.append(row | {"about": msgspec.json.encode(event.about).decode(), "whole": True})
            return as_table(columns_of(rows, _EVENT_COLUMNS))

    @cached_property
    def planes(self) -> Any:
        """One row for each image plane that was recorded: its place in ``frames``, time, stage, checksum."""
        rows = [msgspec.structs.asdict(plane) for part in self._frames.parts for plane in part.planes]
        with read_from(self.path):
            return as_table(columns_of(rows, _PLANE_COLUMNS))

    @property
    def config(self) -> StreamConfig:
        """The configuration of the stream.

        Raises
        ------
        SourceError
            If the folder does not say it, or it cannot be read.
        """
        path = inside(self.path, self.path / "stream.json")
        with read_from(path):
            return read_stream(self.path)

    @cached_property
    def lineage(self) -> Mapping[int, tuple[int, ...]]:
        """The daughters of each mother, by identity, after corrections."""
        daughters: dict[int, tuple[int, ...]] = {}
        for lineage in self._lineages.of.values():
            for daughter, mother in lineage.parents.items():
                daughters[mother] = (*daughters.get(mother, ()), daughter)
        return daughters

    def _entries(self) -> Iterator[Entry]:
        """Yield as many entries as the corrections are known of; what came meanwhile is left for the next time."""
        return islice(read_journal(self._journal), self._lineages.entries)

    @cached_property
    def _lineages(self) -> Lineages:
        with read_from(self._journal):
            return read_lineages(self.path)

    # --- shown ----------------------------------------------------------------------------------------------

    def _shown(self) -> dict[str, str]:
        """Return what is known without reading the journal."""
        shown = {"folder": str(self.path), "frames": "not recorded", "masks": "not recorded"}
        for name, parts in (("frames", self._frames.parts), ("masks", self._masks.parts)):
            described = [_described(part) for part in parts if part.planes]
            if described:
                shown[name] = "; ".join(described)
        if parts := self._frames.parts:
            names = [name or "(no name)" for name in parts[0].recorded.positions]
            shown["positions"] = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if names[8:] else "")
            shown["images"] = "finished" if self.finished else "not closed: the run goes on, or was killed"
        shown["tables"] = "tracks, decisions, outcomes, events, planes"
        return shown

    def __repr__(self) -> str:
        lines = (f"  {name + ':':<11}{text}" for name, text in self._shown().items())
        return "\n".join(("<cytoloop recording", *lines, ">"))

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(text)}</td></tr>"
            for name, text in self._shown().items()
        )
        return f"<table>{''.join(rows)}</table>"


_DAMAGED = {"number": -1, "monotonic_s": float("nan"), "frame": -1, "whole": False}


def read_saved_mask(run: Path, sequence: int) -> NDArray[Any]:
    """Return the mask (y, x) of a frame that ``save_masks`` has kept.

    Raises
    ------
    SourceError
        If there is none, or it is damaged.
    """
    path = inside(run, run / "masks" / f"{sequence:06d}.tif")
    if not path.is_file():
        raise SourceError(path, "there is no mask of this frame", sequence)
    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            if page.ndim != 2 or page.dtype not in (np.uint16, np.uint32) or page.size > _MOST_PIXELS:
                raise SourceError(path, f"{page.dtype} of {page.shape} px is no mask", sequence)
            return page.asarray()
    except SourceError:
        raise
    except Exception as error:  # tifffile raises what zlib, struct and numpy raise, and its own
        raise SourceError(path, f"cannot be read: {type(error).__name__}: {error}", sequence) from error


_MOST_PIXELS = 1 << 28


def _array_of(path: Path, parts: list[Part], position: int | str | None, number: int) -> Any:
    if not parts:
        return None
    if not 0 <= number < len(parts):
        raise SourceError(path, f"there is no part {number}; there are {len(parts)}, counted from 0")
    part = parts[number]
    with read_from(part.folder):
        return as_lazy_array(LazyImages(part, first_position(path, part.recorded.positions, position)))


def _whole(name: str, rows: list[dict[str, Any]]) -> Any:
    """Return one column of all frames; NaN where a frame lacks it."""
    if name in ("position", "z"):
        return [text for columns in rows for text in columns[name]]
    if not rows:
        return np.empty(0)
    parts = [columns[name] if name in columns else np.full(len(columns["track"]), np.nan) for columns in rows]
    return np.concatenate(parts)


def _identity(lineage: Lineage, decision: Decision) -> int:
    """Return which cell a decision was about, after corrections."""
    try:
        frame = lineage.frame_of(decision.sequence)
    except KeyError:  # it rests on a frame of another field of view, or none
        return decision.track
    return int(lineage.corrected(frame, np.array([decision.track], np.int64))[0])


def _outcome(line: bytes) -> AuditLine | None:
    try:
        return msgspec.json.decode(line, type=AuditLine)
    except ValueError:
        return None


def _described(part: Part) -> str:
    height, width = part.recorded.layout.shape
    images = len({plane.sequence for plane in part.planes})
    return f"{images} of {height} x {width} px {part.dtype}, {part.recorded.layout.codec}"
