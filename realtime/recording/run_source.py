"""A run as a recording: its frames again, as they came from the microscope, from its journal and its images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ...acquire.errors import SourceError
from ...acquire.frame import Frame
from ...acquire.link.pixels import frame_with
from ..service.journal import read_journal
from .reader import RecordedFrames


class RunSource:
    """Yields the frames of a run whose frames were recorded, with the times, axes and stage that they came with.

    Their sequence numbers are counted anew, without those that the microscope's side had left out.

    Parameters
    ----------
    path
        The run's folder.
    interval_s
        Not needed; the journal knows the times.

    Raises
    ------
    SourceError
        If it is no run, or its frames were not recorded.
    """

    name = "run"

    def __init__(self, path: Path, *, interval_s: float = 1.0) -> None:
        self._run = Path(path)
        self._frames = RecordedFrames(self._run)
        if not len(self._frames):
            raise SourceError(
                path,
                "the frames of this run were not recorded ([streams.NAME.record] frames = true records them)",
            )

    @property
    def count(self) -> int | None:
        """How many frames there are."""
        return len(self._frames)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order.

        Raises
        ------
        SourceError
            With the number of the first one that is missing or damaged.
        """
        for number, entry in enumerate(read_journal(self._run / "journal")):
            header = entry.header
            frame = frame_with(header, self._frames.pixels(header.sequence, header.shape))
            yield replace(frame, sequence=number, sent_s=0.0)

    def close(self) -> None:
        """Do nothing: files are open only while a frame is read."""
