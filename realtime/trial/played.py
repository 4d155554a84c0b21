"""Frames that have been, through the pipeline once more: of a recording, or of a run by its journal."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from ...acquire.errors import SourceError
from ...acquire.frame import Frame
from ...acquire.reply import Reply
from ...acquire.sources import open_source
from ...models.labels import Labels
from ..asking import Judged
from ..experiment.stream import StreamConfig
from ..pipeline import Pipeline
from ..pixel_maps import ageless
from ..progress import Progress, silent
from ..service.journal import read_journal
from ..service.run_folder import is_run

MOST_MESSAGES = 1000
_ONE_UM = "the recording does not say its pixel size; 1 px is taken for 1 um (--pixel-size says otherwise)"
_AT_ORIGIN = "the recording does not say where the stage is; it is taken to stand still at (0, 0) um"


_NO_MASKS = "the run holds no masks: where a rule looks at the outline of a cell, an ellipse stands for it"


class Seen(NamedTuple):
    """One frame that was judged.

    Attributes
    ----------
    reply
        What came of it.
    judged
        Its rules, for explanations before the next frame is taken.
    frame, labels
        The image that was segmented and what was found in it; None in a run, whose journal holds no images.
    recorded
        In a run, the reply that was given then; else None.
    """

    reply: Reply
    judged: Judged
    frame: Frame | None = None
    labels: Labels | None = None
    recorded: Reply | None = None


class Played:
    """What is said while frames are played.

    Attributes
    ----------
    frames
        Frames so far, those too in which no cells were looked for.
    messages
        What the pipeline said, each once, in the order of the first time; about 1 000 are kept.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.messages: dict[str, None] = {}

    def note(self, reply: Reply) -> None:
        """Count one frame and keep what it says."""
        self.frames += 1
        if len(self.messages) < MOST_MESSAGES:
            self.messages |= dict.fromkeys(reply.messages)


@contextmanager
def playing(
    path: Path, stream: StreamConfig, played: Played, progress: Progress = silent, interval_s: float = 1.0
) -> Generator[Iterator[Seen]]:
    """Play a recording or the folder of a run; the block takes the frames that were judged, one by one.

    Nothing is segmented again in a run, and tracks and decisions come out as they did. Where a recording does not say
    where the stage is, it is taken to stand still, and where nobody says the pixel size, a px is taken for 1 um, so
    that rules that move the stage can be tried.

    Parameters
    ----------
    path
        Anything that :func:`~cytoloop.acquire.sources.open_source` reads, or the folder of a run.
    stream
        What is done with the frames.
    played
        Told about each frame.
    progress
        Told how far it is.
    interval_s
        Time between time points in s, for recordings that do not say.

    Raises
    ------
    SourceError
        If nothing known is at the path, or the run lacks what the tracker needs.
    PluginError
        If the segmenter, the tracker or a rule cannot be constructed.
    """
    if is_run(path):
        looks = bool(getattr(stream.tracker.build("trackers"), "needs_masks", False))
        yield _of_run(path, Pipeline(ageless(stream)), looks, played, progress)
        return
    source = open_source(path, interval_s=interval_s)
    try:
        sized = bool(stream.pixel_size_um or stream.affine or stream.calibration)
        yield _of_frames(source.frames(), source.count, Pipeline(ageless(stream)), sized, played, progress)
    finally:
        source.close()


def _of_frames(
    frames: Iterator[Frame],
    total: int | None,
    pipeline: Pipeline,
    sized: bool,
    played: Played,
    progress: Progress,
) -> Iterator[Seen]:
    for frame in frames:
        progress("playing the recording", played.frames, total)
        if frame.stage_um is None:
            frame = replace(frame, stage_um=(0.0, 0.0))
            played.messages[_AT_ORIGIN] = None
        if not sized and frame.affine is None and not frame.pixel_size_um:
            frame = replace(frame, pixel_size_um=1.0)
            played.messages[_ONE_UM] = None
        before = pipeline.judged
        step = pipeline.step(frame)
        played.note(step.reply)
        if pipeline.judged is not None and pipeline.judged is not before:
            yield Seen(step.reply, pipeline.judged, step.frame, step.labels)


def _of_run(
    run: Path, pipeline: Pipeline, tracker_looks: bool, played: Played, progress: Progress
) -> Iterator[Seen]:
    for entry in read_journal(run / "journal"):
        progress("playing the run", played.frames)
        detections = entry.restore_detections()
        if pipeline.needs_masks and detections is not None and detections.mask is None:
            mask = _saved_mask(run, entry.header.sequence, tracker_looks)
            detections = replace(detections, mask=mask)
            if mask is None:
                played.messages[_NO_MASKS] = None
        before = pipeline.judged
        reply = pipeline.restore(entry.frame, detections, entry.memory)
        played.note(reply)
        if pipeline.judged is not None and pipeline.judged is not before:
            yield Seen(reply, pipeline.judged, recorded=entry.reply)


def _saved_mask(run: Path, sequence: int, needed: bool) -> NDArray[np.int32] | None:
    path = run / "masks" / f"{sequence:06d}.tif"
    if path.is_file():
        return tifffile.imread(path).astype(np.int32)
    if needed:
        reason = "it holds no masks, which this tracker looks at; give the tracker that it was made with"
        raise SourceError(run, reason, sequence)
    return None
