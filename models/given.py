"""Masks that exist already, given instead of a segmenter: to judge a tracker alone, or to use expert labels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import tifffile

from ..acquire.errors import SourceError
from ..acquire.frame import Frame
from .damage import damaged
from .labels import Labels, numbered

_NUMBER = re.compile(r"(\d+)\.tiff?$", re.IGNORECASE)


class GivenSegmenter:
    """Reads the instance mask of each frame from a folder; the number that ends a file's name is the frame's.

    The frame's number is its ``time`` axis, or its sequence if it has none. Labels are renumbered 1..count in
    increasing order of the numbers in the file, so a label that falls into pieces stays one cell.

    Parameters
    ----------
    path
        Folder of TIFF masks, such as ``man_seg000.tif`` or ``man_track000.tif``.
    channel
        The channel that the masks belong to, by index or by name.
    missed, broken
        Share of the cells that are left out, and that are cut in two, at random: how a tracker bears a segmenter's
        faults. Each 0 to 1, together at most 1.
    seed
        Of what is left out and cut; each frame by itself.

    Raises
    ------
    ValueError
        If a share is out of its range.
    SourceError
        If no mask is there; while segmenting, if one is missing or not of the frame's size.
    """

    def __init__(
        self, *, path: str, channel: int | str = 0, missed: float = 0.0, broken: float = 0.0, seed: int = 0
    ) -> None:
        if not (missed >= 0 and broken >= 0 and missed + broken <= 1):
            raise ValueError(
                f"missed and broken must be 0 to 1, together at most 1; got {missed} and {broken}"
            )
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}")
        self.channel: int | str = channel
        self._missed, self._broken, self._seed = missed, broken, seed
        self._folder = Path(path)
        entries = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        self._files = {int(match[1]): file for file in entries if (match := _NUMBER.search(file.name))}
        if not self._files:
            raise SourceError(self._folder, "no masks here; files such as man_seg000.tif are needed")

    def segment(self, frame: Frame) -> Labels:
        """Return the mask that was given for this frame."""
        number = int(frame.axes.get("time", frame.sequence))
        if number not in self._files:
            raise SourceError(self._folder, "there is no mask for this frame", number)
        image = tifffile.imread(self._files[number])
        if image.shape != frame.shape:
            raise SourceError(
                self._files[number], f"a mask of {image.shape} px for an image of {frame.shape}", number
            )
        if self._missed or self._broken:
            random = np.random.default_rng((self._seed, number))
            image, _ = damaged(image.astype(np.int32), self._missed, self._broken, random)
        renumbered, numbers = numbered(image)
        return Labels(renumbered, len(numbers))
