"""Checking a run's folder: what its journal says was acknowledged against what is really on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from ...acquire.errors import CytoloopError, SourceError
from ...acquire.link.messages import FrameHeader
from ...acquire.link.pixels import checksum
from ..experiment.stream import StreamConfig
from ..progress import Progress, silent
from ..service.journal import follow_journal, left_behind
from ..service.outcome_log import OUTCOMES
from ..service.run_folder import check_run, has_stream, read_stream
from .feed import left_out
from .ome_zarr import LABELS
from .reader import RecordedFrames
from .run_writer import part_folders
from .side_index import read_planes
from .tree import read_recorded

MOST_LISTED = 1000


@dataclass(slots=True, eq=False)
class Verified:
    """What was found; ``ok`` if nothing is missing or damaged.

    Attributes
    ----------
    acknowledged, left_out
        Frames in the journal; frames of these whose reply says that they were not recorded.
    recorded, masks
        Frames and masks that are on disk.
    unacknowledged
        Frames on disk that the journal does not know: handed over, and not answered before the end.
    missing, damaged
        (frame, why) of each that should be there, and of each that is not what was sent; at most 1000.
    other
        What is wrong with other files.
    notes
        What a person should know, and is no damage.
    """

    acknowledged: int = 0
    left_out: int = 0
    recorded: int = 0
    masks: int = 0
    unacknowledged: int = 0
    missing: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    damaged: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    other: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        """Whether all that was acknowledged is there and whole."""
        return not (self.missing or self.damaged or self.other)


def verify(run: Path, progress: Progress = silent) -> Verified:
    """Check everything in a run's folder, every pixel of every frame.

    Parameters
    ----------
    run
        The folder.
    progress
        Told about each frame.

    Raises
    ------
    SourceError
        If it is not the folder of a run.
    """
    check_run(run)
    found = Verified()
    stream = _stream(run, found)
    _check_lines(run / OUTCOMES, found)
    frames = _frames(run, found)
    expected = stream is None or stream.record.frames or bool(len(frames) if frames else 0)
    known: set[int] = set()
    journal, end = run / "journal", 0
    for count, (entry, place) in enumerate(follow_journal(journal), start=1):
        end = place
        if frames is None:
            continue
        header = entry.header
        found.acknowledged += 1
        known.add(header.sequence)
        if left_out(entry.reply):
            found.left_out += 1
        elif expected:
            _check_frame(frames, header, found)
        progress("checking frames", count, len(frames) or None)
    _check_end(journal, end, found)
    if frames is None:
        return found
    found.recorded = len(frames)
    found.unacknowledged = sum(number not in known for number in frames.sequences())
    if not expected:
        found.notes.append("the frames of this run were not recorded")
    return found


def _check_frame(frames: RecordedFrames, header: FrameHeader, found: Verified) -> None:
    number = header.sequence
    if number not in frames:
        _list(found.missing, number, "it was acknowledged and is not in the recording")
        return
    try:
        pixels = frames.pixels(number, header.shape)
    except SourceError as error:
        _list(found.damaged, number, f"{error.path}: {error.reason}")
        return
    if checksum(np.ascontiguousarray(pixels)) != header.checksum:
        _list(found.damaged, number, "its pixels are not those that were sent (checksum in the journal)")


def _list(listed: list[tuple[int, str]], number: int, why: str) -> None:
    if len(listed) < MOST_LISTED:
        listed.append((number, why))


def _stream(run: Path, found: Verified) -> StreamConfig | None:
    if not has_stream(run):
        found.notes.append("stream.json is missing: how the run was made is not known")
        return None
    try:
        return read_stream(run)
    except SourceError as error:
        found.other.append(str(error))
        return None


def _frames(run: Path, found: Verified) -> RecordedFrames | None:
    try:
        frames = RecordedFrames(run)
        for folder in part_folders(run):
            recorded = read_recorded(folder)
            if recorded is None:
                found.other.append(f"{folder}: its zarr.json is missing")
            elif not recorded.finished:
                found.notes.append(f"{folder.name} is unfinished: 'cytoloop recover' finishes it")
            labels = folder / LABELS
            found.masks += sum(1 for _ in read_planes(labels)) if labels.is_file() else 0
    except (CytoloopError, OSError) as error:
        found.other.append(str(error))
        return None
    return frames


def _check_end(path: Path, end: int, found: Verified) -> None:
    """Say what stands behind the last whole entry of the journal."""
    left, torn = left_behind(path, end)
    if left and torn:
        found.notes.append(f"the journal ends in {left} bytes of a record that is torn or damaged")
    elif left:
        at = path.stat().st_size - left
        found.other.append(f"{path}: damaged at byte {at}; the {left} bytes from there on cannot be read")


def _check_lines(path: Path, found: Verified) -> None:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                found.notes.append(f"{path.name} ends in a torn line")
            elif line.strip():
                try:
                    msgspec.json.decode(line)
                except ValueError:
                    found.other.append(f"{path}:{number}: a damaged line")
