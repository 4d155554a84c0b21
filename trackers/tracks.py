"""Tracks: the identities of the cells of one frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..acquire.reply import Division
from ..models.detections import Detections


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """What the tracker says of one frame; row i is detection i.

    Attributes
    ----------
    detections
        The measurements that the rows belong to.
    track
        (n,) int64, identity > 0; it never changes its meaning within a run.
    parent
        (n,) int64, identity of the mother, 0 if the cell was not seen to be born by division.
    age
        (n,) int32, frames since the track began (0 in its first frame).
    velocity
        (n, 2) float64, (y, x) in px per frame.
    covariance
        (n, 3) float64, (yy, xx, yx) in px^2: uncertainty of the position one frame ahead.
    confidence
        (n,) float64, 0 to 1, of the link to the frame before (1 in a track's first frame).
    divisions
        Mothers that were seen to divide in this frame; their daughters are rows of it.
    ended
        Tracks that are given up in this frame.
    """

    detections: Detections
    track: NDArray[np.int64]
    parent: NDArray[np.int64]
    age: NDArray[np.int32]
    velocity: NDArray[np.float64]
    covariance: NDArray[np.float64]
    confidence: NDArray[np.float64]
    divisions: tuple[Division, ...] = ()
    ended: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.track)

    def row(self, track: int) -> int | None:
        """Return the row of a track in this frame, or None if it is not there."""
        rows = np.flatnonzero(self.track == track)
        return int(rows[0]) if len(rows) else None
