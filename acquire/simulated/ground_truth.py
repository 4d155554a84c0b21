"""Writing the truth about a simulated run in the layout of the Cell Tracking Challenge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..frame import Pixels
from .microscope import SimulatedMicroscope, Truth


@dataclass(slots=True)
class _Piece:
    label: int
    first: int
    last: int
    parent: int


class CtcWriter:
    """Writes frames and their truth as ``01/tNNN.tif``, ``01_GT/TRA`` and ``01_GT/SEG``.

    A cell that leaves the field of view and comes back is a new track without a parent, as is a daughter whose
    mother was not seen in the frame before: in this layout a track has no gaps.

    Parameters
    ----------
    folder
        Where ``01`` and ``01_GT`` are made.
    microscope
        Which has taken, or will have taken, the frames that are given to :meth:`write`.
    """

    def __init__(self, folder: str | Path, microscope: SimulatedMicroscope) -> None:
        self._images = Path(folder) / "01"
        self._tracking = Path(folder) / "01_GT" / "TRA"
        self._segmentation = Path(folder) / "01_GT" / "SEG"
        for path in (self._images, self._tracking, self._segmentation):
            path.mkdir(parents=True, exist_ok=True)
        self._microscope = microscope
        self._pieces: list[_Piece] = []
        self._present: dict[int, _Piece] = {}  # by identity, in the frame before
        self._count = 0

    def write(self, pixels: Pixels) -> Truth:
        """Write the next frame, which must be the next that the microscope took, and its truth, which is returned."""
        from tifffile import imwrite

        truth = self._microscope.truth(self._count)
        labels = self._labels(truth.mask, truth.identity, truth.parent)
        imwrite(self._images / f"t{self._count:03d}.tif", pixels, compression="zlib")
        imwrite(self._tracking / f"man_track{self._count:03d}.tif", labels, compression="zlib")
        imwrite(self._segmentation / f"man_seg{self._count:03d}.tif", labels, compression="zlib")
        self._count += 1
        return truth

    def close(self) -> None:
        """Write ``man_track.txt``: label, first frame, last frame, parent of each track."""
        lines = [f"{p.label} {p.first} {p.last} {p.parent}\n" for p in self._pieces]
        (self._tracking / "man_track.txt").write_text("".join(lines), encoding="ascii")

    def _labels(
        self, mask: NDArray[np.int32], identity: NDArray[np.int64], parent: NDArray[np.int64]
    ) -> NDArray[np.uint16]:
        present: dict[int, _Piece] = {}
        lookup = np.zeros(int(identity.max(initial=0)) + 1, np.uint16)
        for cell, mother in zip(identity.tolist(), parent.tolist(), strict=True):
            piece = self._present.get(cell)
            if piece is None:
                known = self._present.get(mother)
                piece = _Piece(len(self._pieces) + 1, self._count, self._count, known.label if known else 0)
                self._pieces.append(piece)
            piece.last = self._count
            present[cell] = piece
            lookup[cell] = piece.label
        self._present = present
        return lookup[mask]


def to_ctc(folder: str | Path, microscope: SimulatedMicroscope, frames: int) -> None:
    """Take ``frames`` frames with a fresh microscope and write them and their truth to a folder.

    Raises
    ------
    ValueError
        If the microscope has already taken frames.
    """
    if microscope.frames:
        raise ValueError(f"the microscope has already taken {microscope.frames} frames; give a fresh one")
    writer = CtcWriter(folder, microscope)
    for _ in range(frames):
        writer.write(microscope.snap())
    writer.close()
