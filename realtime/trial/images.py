"""The images of a run, taken from the recording that it was made of: the journal holds none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ...acquire.frame import Frame
from ...acquire.sources import open_source


class Wanted(NamedTuple):
    """An image to look for: the frame that was judged, and the column of its segmented channel."""

    frame: Frame
    channel: int


def images_in(
    recording: Path, wanted: Sequence[Wanted], interval_s: float = 1.0
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the segmented channels of frames, each with the number of its frame, in one pass over a recording.

    Of channels that came one by one, the last image up to the frame is taken. Frames that the recording does not hold
    are left out; what lies behind the last one is not read.

    Parameters
    ----------
    recording
        Anything that :func:`~cytoloop.acquire.sources.open_source` reads.
    wanted
        Frames of the run.
    interval_s
        Time between time points in s, for recordings that do not say.

    Raises
    ------
    SourceError
        If the recording cannot be read.
    """
    waiting = sorted(wanted, key=lambda each: each.frame.sequence)
    found: dict[int, NDArray[Any]] = {}
    source = open_source(recording, interval_s=interval_s)
    try:
        frames = source.frames()
        while waiting:
            frame = next(frames, None)
            while waiting and (frame is None or frame.sequence > waiting[0].frame.sequence):
                number = waiting.pop(0).frame.sequence
                if number in found:
                    yield number, found.pop(number)
            if frame is not None:
                parts = ((each.frame.sequence, _part(frame, each)) for each in waiting)
                found |= {number: image for number, image in parts if image is not None}
    finally:
        source.close()


def _part(frame: Frame, wanted: Wanted) -> NDArray[Any] | None:
    """Return what a frame of the recording holds of an image that is wanted."""
    judged, name = wanted.frame, wanted.frame.channels[wanted.channel]
    same = all(frame.axes.get(axis) == judged.axes.get(axis) for axis in ("time", "position", "z"))
    if (same or frame.sequence == judged.sequence) and len(frame.channels) == len(judged.channels):
        return frame.channel(wanted.channel)
    return frame.channel(name) if same and name in frame.channels else None
