"""Tracks in the layout of the Cell Tracking Challenge, written frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from ..acquire.reply import Division

MOST_LABELS = 65_535


@dataclass(slots=True)
class _Piece:
    """One row of ``res_track.txt``: a track, or a part of it between two gaps."""

    label: int
    begin: int
    end: int
    parent: int


class CtcWriter:
    """Writes ``maskNNN.tif`` as frames come and ``res_track.txt`` at the end.

    The layout knows no gaps: a track that comes back after one gets a new label whose parent is the earlier
    piece. It has 16-bit labels: after 65 535 of them nothing more is written, and ``complete`` is False.

    Parameters
    ----------
    folder
        Made if it does not exist; masks and ``res_track.txt`` of an earlier result are removed.
    digits
        Digits of the numbers in file names.
    """

    def __init__(self, folder: Path, digits: int = 3) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in (*folder.glob("mask*.tif"), folder / "res_track.txt"):
            old.unlink(missing_ok=True)
        self.complete = True
        self._folder, self._digits = folder, digits
        self._pieces: list[_Piece] = []
        self._last: dict[int, _Piece] = {}
        self._number = -1

    def add(
        self,
        labels: NDArray[np.integer[Any]],
        tracks: NDArray[np.int64],
        divisions: tuple[Division, ...] = (),
        number: int | str | None = None,
    ) -> None:
        """Write one frame.

        Parameters
        ----------
        labels
            (y, x) mask; label i + 1 is ``tracks[i]``.
        tracks
            (n,) identities.
        divisions
            Those of this frame.
        number
            The frame's number; the next one if it is no number above that of the frame before.
        """
        before = self._number
        self._number = number if isinstance(number, int) and number > before else before + 1
        if not self.complete:
            return
        mothers = {int(d): division.mother for division in divisions for d in division.daughters}
        new = np.zeros(len(tracks) + 1, np.uint16)
        for row, track in enumerate(map(int, tracks), start=1):
            piece = self._last.get(track)
            if piece is None or piece.end != before:
                earlier = piece or self._last.get(mothers.get(track, 0))
                if len(self._pieces) == MOST_LABELS:
                    self.complete = False
                    return
                piece = _Piece(
                    len(self._pieces) + 1, self._number, self._number, earlier.label if earlier else 0
                )
                self._pieces.append(piece)
                self._last[track] = piece
            piece.end = self._number
            new[row] = piece.label
        target = self._folder / f"mask{self._number:0{self._digits}d}.tif"
        tifffile.imwrite(target, new[labels], compression="zlib")

    def close(self) -> None:
        """Write the table of tracks."""
        rows = (f"{p.label} {p.begin} {p.end} {p.parent}\n" for p in self._pieces)
        (self._folder / "res_track.txt").write_text("".join(rows), encoding="ascii")
