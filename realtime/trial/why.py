"""Why a cell of a finished or running run was or was not chosen, worked out again from its journal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from ...acquire.errors import SourceError
from ...acquire.explanation import Explanation
from ...acquire.frame import Frame
from ..amended import field_of, read_lineages, segmented_entries
from ..asking import Judged
from ..experiment.stream import StreamConfig
from ..progress import Progress, silent
from ..service.journal import read_journal
from ..service.run_folder import read_stream
from .firings import Crop, cut_crop
from .images import Wanted, images_in
from .played import Played, playing

ARMED = "armed"


@dataclass(frozen=True, slots=True, eq=False)
class Why:
    """What the rules of a run said of one cell in one frame.

    Attributes
    ----------
    cell
        The identity that was asked for.
    track
        The identity that the cell had in that frame, before corrections; the same unless it was corrected.
    sequence, time_s
        The frame.
    seen
        Whether the cell was seen in it.
    frames
        First and last frame in which the cell was seen.
    explanations
        Of each rule, by file; those that were armed under ``armed``.
    judged
        The frame, for pictures.
    """

    cell: int
    track: int
    sequence: int
    time_s: float
    seen: bool
    frames: tuple[int, int]
    explanations: dict[str, tuple[Explanation, ...]]
    judged: Judged


def why(run: Path, cell: int, frame: int, progress: Progress = silent) -> Why:
    """Explain a cell in a frame; the run is worked out again up to it.

    Parameters
    ----------
    run
        The run's folder of the service.
    cell
        The identity, as in the replies or in the results (after corrections).
    frame
        Number of the frame, as in the replies and results.
    progress
        Told about each frame.

    Raises
    ------
    SourceError
        If the folder is that of no run or lacks its configuration, or has no such cell or frame.
    PluginError
        If what the run was made with is not there.
    """
    stream = read_stream(run)
    track, frames = _track_of(run, cell, frame, progress)
    with playing(run, stream, Played(), progress) as seen:
        for each in seen:
            if each.reply.sequence == frame:
                return _explained(each.judged, cell, track, frames, stream)
    raise SourceError(run, f"no cells were tracked in frame {frame}, so no rule looked at it")


def _track_of(run: Path, cell: int, frame: int, progress: Progress) -> tuple[int, tuple[int, int]]:
    """Return the identity that a cell had in a frame, and its first and last frame."""
    lineages = read_lineages(run, progress)
    track, first, last, latest = cell, -1, -1, -1
    there = False
    for entry in segmented_entries(read_journal(run / "journal")):
        given = entry.reply.cells.track
        lineage = lineages.of[field_of(entry)]
        sequence = latest = entry.reply.sequence
        corrected = lineage.corrected(lineage.frame_of(sequence), given)
        known = np.flatnonzero(corrected == cell)
        if not len(known):
            known = np.flatnonzero(given == cell)
        there = there or sequence == frame
        if len(known):
            first, last = (sequence if first < 0 else first), sequence
            track = int(given[known[0]]) if sequence == frame else track
    if not there:
        raise SourceError(run, f"cells were looked for in no frame {frame}; the last one is frame {latest}")
    if first < 0:
        raise SourceError(run, f"no cell {cell} was ever seen in this run")
    return track, (first, last)


def _explained(judged: Judged, cell: int, track: int, frames: tuple[int, int], stream: StreamConfig) -> Why:
    files = {ARMED: "", **{each.name: each.name for each in stream.shadow}}
    explanations = {shown: judged.explain(track, file) for shown, file in files.items()}
    frame = judged.moment.frame
    seen = judged.moment.tracks.row(track) is not None
    return Why(cell, track, frame.sequence, frame.time_s, seen, frames, explanations, judged)


def crop_of_run(run: Path, found: Why, recording: Path, interval_s: float = 1.0) -> Crop:
    """Return the image around the cell, from the recording that the run was made of.

    Parameters
    ----------
    run
        The run's folder; its masks are used if they were saved.
    found
        The cell and the frame.
    recording
        Anything that :func:`~cytoloop.acquire.sources.open_source` reads.
    interval_s
        Time between time points in s, for recordings that do not say.

    Raises
    ------
    SourceError
        If the recording has no such frame, or another size; or the cell was not seen in the frame.
    """
    moment = found.judged.moment
    row = moment.tracks.row(found.track)
    if row is None:
        raise SourceError(
            run, f"cell {found.cell} was not seen in frame {found.sequence}: there is no picture"
        )
    image = _image(recording, moment.frame, moment.channel, interval_s)
    detections = moment.tracks.detections
    if image.shape != detections.shape:
        raise SourceError(
            recording, f"images of {image.shape} px, the run has {detections.shape}: another recording"
        )
    mask = run / "masks" / f"{found.sequence:06d}.tif"
    labels = tifffile.imread(mask) if mask.is_file() else None
    title = f"cell {found.cell}, frame {found.sequence}"
    return cut_crop(image, labels, detections.bbox[row].tolist(), row + 1, title)


def _image(recording: Path, wanted: Frame, channel: int, interval_s: float) -> NDArray[Any]:
    """Return the segmented channel of a frame."""
    for _, image in images_in(recording, [Wanted(wanted, channel)], interval_s):
        return image
    raise SourceError(recording, f"it holds no frame {wanted.sequence}")
