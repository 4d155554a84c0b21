"""Tracks in the layout of the Cell Tracking Challenge, written frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from ...acquire.errors import ExportError
from ..graph import TrackGraph, next_number
from .target import new_output

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
        parents: Mapping[int, int] = MappingProxyType({}),
        number: int | str | None = None,
    ) -> None:
        """Write one frame.

        Parameters
        ----------
        labels
            (y, x) mask; label i + 1 is ``tracks[i]``. Labels beyond have no identity, as when tracking failed, and
            are left out.
        tracks
            (n,) identities.
        parents
            The mothers of tracks that were born by division; only those of tracks that begin here count. A mother
            must be over when her daughter begins.
        number
            The frame's number; the next one if it is no number above that of the frame before.
        """
        before = self._number
        self._number = next_number(before, number)
        if not self.complete:
            return
        followed = sum(t in self._last and self._last[t].end == before for t in tracks.tolist())
        if len(self._pieces) + len(tracks) - followed > MOST_LABELS:
            self.complete = False
            return
        new = np.zeros(max(len(tracks), int(labels.max(initial=0))) + 1, np.uint16)
        for row, track in enumerate(map(int, tracks), start=1):
            piece = self._last.get(track)
            if piece is None or piece.end != before:
                earlier = piece or self._last.get(parents.get(track, 0))
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


def write_ctc(
    graph: TrackGraph, path: Path, masks: Callable[[int], NDArray[np.integer[Any]]], *, force: bool = False
) -> None:
    """Write masks and table of a run into a new folder.

    Parameters
    ----------
    graph
        The run.
    path
        The folder; a later version of it replaces an earlier one whole.
    masks
        Called with each row of ``graph.frames``; returns the (y, x) mask of the frame, in which label i + 1 is the
        i-th cell of the frame in the graph.
    force
        Replace what is there.

    Raises
    ------
    ExportError
        If the folder exists, cannot be written, or the layout holds no run of so many tracks.
    """
    first = np.searchsorted(graph.frame, np.arange(len(graph.frames) + 1))
    with new_output(path, force=force, marker="res_track.txt") as folder:
        writer = CtcWriter(folder)
        for row, number in enumerate(graph.frames.number.tolist()):
            tracks = graph.track[first[row] : first[row + 1]]
            writer.add(masks(row), tracks, graph.parents, number)
        if not writer.complete:
            raise ExportError(path, f"the layout holds {MOST_LABELS} tracks at most, and this run has more")
        writer.close()
