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
        Least number of digits in file names.
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
        self._written: list[int] = []

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
        followed = sum(t in self._last and self._last[t].end == before for t in tracks.tolist())
        if len(self._pieces) + len(tracks) - followed > MOST_LABELS:
            self.complete = False
            return
        new = np.zeros(len(tracks) + 1, np.uint16)
        for row, track in enumerate(map(int, tracks), start=1):
            piece = self._last.get(track)
            if piece is None or piece.end != before:
                earlier = piece or self._last.get(mothers.get(track, 0))
                piece = _Piece(
                    len(self._pieces) + 1, self._number, self._number, earlier.label if earlier else 0
                )
                self._pieces.append(piece)
                self._last[track] = piece
            piece.end = self._number
            new[row] = piece.label
        tifffile.imwrite(self._file(self._number, self._digits), new[labels], compression="zlib")
        self._written.append(self._number)

    def _file(self, number: int, digits: int) -> Path:
        return self._folder / f"mask{number:0{digits}d}.tif"

    def close(self) -> None:
        """Write the table of tracks; give all masks as many digits as the last one needs."""
        digits = max(self._digits, len(str(max(self._number, 0))))
        if digits > self._digits:
            for number in self._written:
                self._file(number, self._digits).rename(self._file(number, digits))
        rows = (f"{p.label} {p.begin} {p.end} {p.parent}\n" for p in self._pieces)
        (self._folder / "res_track.txt").write_text("".join(rows), encoding="ascii")
