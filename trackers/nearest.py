"""The baseline tracker: each cell goes to its mutual nearest neighbour. No motion model, gaps or divisions."""

from __future__ import annotations

import numpy as np

from ..models.detections import Detections
from .neighbours import nearest
from .tracks import Ended, Tracks


class NearestTracker:
    """Links two cells of successive frames where each is the other's nearest.

    Parameters
    ----------
    max_distance_px
        The farthest step that may be linked, in px; None allows the mean diameter of the frame's cells.
    """

    def __init__(self, *, max_distance_px: float | None = None) -> None:
        if max_distance_px is not None and not max_distance_px > 0:
            raise ValueError(f"max_distance_px must be above 0, got {max_distance_px}")
        self._reach = max_distance_px
        self._before: Tracks | None = None
        self._next = 1

    def update(self, detections: Detections) -> Tracks:
        """Take the next frame's detections and return their identities; confidence is 1 - distance / gate."""
        n = len(detections)
        track, age = np.zeros(n, np.int64), np.zeros(n, np.int32)
        velocity, confidence = np.zeros((n, 2)), np.ones(n)
        old = self._before.detections.yx if self._before else np.empty((0, 2))
        # A diameter also stands for the uncertainty of the next position.
        reach = self._reach or (float(2 * np.sqrt(detections.area / np.pi).mean()) if n else 1.0)
        if self._before and n and len(old):
            _, there = nearest(detections.yx, old)
            distance, back = nearest(old, detections.yx)
            linked = np.flatnonzero((there[back] == np.arange(n)) & (distance <= reach))
            source = back[linked]
            track[linked], age[linked] = self._before.track[source], self._before.age[source] + 1
            velocity[linked] = detections.yx[linked] - old[source]
            confidence[linked] = 1 - distance[linked] / reach
        new = np.flatnonzero(track == 0)
        track[new] = self._next + np.arange(len(new))
        self._next += len(new)
        before = self._before.track if self._before else track[:0]
        variance = np.full(n, (reach / 2) ** 2)
        self._before = Tracks(
            detections=detections,
            track=track,
            parent=np.zeros(n, np.int64),
            age=age,
            velocity=velocity,
            covariance=np.stack([variance, variance, np.zeros(n)], axis=1),
            confidence=confidence,
            ended=tuple(map(Ended, np.setdiff1d(before, track).tolist())),
        )
        return self._before
