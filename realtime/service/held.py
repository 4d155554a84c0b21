"""The pixels of images that were answered but wait for the other channels of their time, on disk.

An answered image is not sent again, so a new engine needs them. They are written before the answer, like the
journal, and removed when the frame that they became part of is in the journal.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ...acquire.errors import WireError
from ...acquire.frame import Frame
from ...acquire.link.messages import FrameHeader
from ...acquire.link.pixels import frame_of

_SUFFIX = ".raw"


class HeldImages:
    """The files of one run's images that wait, one each; headers and checksums are in the journal.

    Parameters
    ----------
    folder
        Made if it does not exist.

    Raises
    ------
    OSError
        If it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._files = {int(path.stem): path for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdecimal()}

    def write(self, frame: Frame) -> None:
        """Keep the pixels of an image; they survive the death of this process as soon as this returns.

        Raises
        ------
        OSError
            If they could not be written whole.
        """
        path = self._folder / f"{frame.sequence:06d}{_SUFFIX}"
        self._files[frame.sequence] = path
        with path.open("wb", buffering=0) as file:
            if file.write(frame.pixels.data.cast("B")) != frame.pixels.nbytes:
                raise OSError(f"{path}: the disk is full")

    def read(self, header: FrameHeader) -> Frame | None:
        """Return an image with its pixels, or None if they are not there or damaged."""
        path = self._files.get(header.sequence)
        if path is None:
            return None
        with contextlib.suppress(OSError, WireError):
            return frame_of(header, memoryview(path.read_bytes()))
        return None

    def keep(self, sequences: frozenset[int]) -> None:
        """Remove the files of all images but these."""
        for sequence in self._files.keys() - sequences:
            with contextlib.suppress(OSError):  # one that is left costs room, and the next engine removes it
                self._files[sequence].unlink(missing_ok=True)
            del self._files[sequence]
