"""Tracks: the identities of the cells of one frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..acquire.reply import Correction, Division, Merge
from ..models.detections import Detections


class Ended(NamedTuple):
    """A track that is over for good, and why: it left the field, died, was lost, or divided (said once sure)."""

    track: int
    why: Literal["exit", "death", "division", "lost"] = "lost"


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
        Tracks that are over.
    margin
        (n,) float64, at least 0: by how much the link to the frame before explains more than the best other way to
        explain the frame, as the log of an odds ratio; infinite where there is no other. None if the tracker does
        not say.
    provisional
        (n,) bool: the identity may yet be corrected, because the track or the division that it came from has been
        seen in this frame only. None if the tracker commits to everything at once.
    merges
        Cells that are seen as one in this frame.
    corrections
        What was said of earlier frames and does not hold.
    drift_px
        (y, x) in px that the whole field has moved since the frame before, beyond what the stage is known to have
        moved. None if the tracker does not say.
    """

    detections: Detections
    track: NDArray[np.int64]
    parent: NDArray[np.int64]
    age: NDArray[np.int32]
    velocity: NDArray[np.float64]
    covariance: NDArray[np.float64]
    confidence: NDArray[np.float64]
    divisions: tuple[Division, ...] = ()
    ended: tuple[Ended, ...] = ()
    margin: NDArray[np.float64] | None = None
    provisional: NDArray[np.bool_] | None = None
    merges: tuple[Merge, ...] = ()
    corrections: tuple[Correction, ...] = ()
    drift_px: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.track)

    def row(self, track: int) -> int | None:
        """Return the row of a track in this frame, or None if it is not there."""
        rows = np.flatnonzero(self.track == track)
        return int(rows[0]) if len(rows) else None
