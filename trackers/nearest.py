"""The baseline tracker: each cell goes to its mutual nearest neighbour. No motion model, gaps or divisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..models.detections import Detections
from .neighbours import nearest
from .states import check_state
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
        self._yx = np.empty((0, 2))
        self._track, self._age = np.empty(0, np.int64), np.empty(0, np.int32)
        self._next = 1

    def update(self, detections: Detections) -> Tracks:
        """Take the next frame's detections and return their identities; confidence is 1 - distance / gate."""
        n = len(detections)
        track, age = np.zeros(n, np.int64), np.zeros(n, np.int32)
        velocity, confidence = np.zeros((n, 2)), np.ones(n)
        old = self._yx
        # A diameter also stands for the uncertainty of the next position.
        reach = self._reach or (float(2 * np.sqrt(detections.area / np.pi).mean()) if n else 1.0)
        if n and len(old):
            _, there = nearest(detections.yx, old)
            distance, back = nearest(old, detections.yx)
            linked = np.flatnonzero((there[back] == np.arange(n)) & (distance <= reach))
            source = back[linked]
            track[linked], age[linked] = self._track[source], self._age[source] + 1
            velocity[linked] = detections.yx[linked] - old[source]
            confidence[linked] = 1 - distance[linked] / reach
        new = np.flatnonzero(track == 0)
        track[new] = self._next + np.arange(len(new))
        self._next += len(new)
        ended = tuple(map(Ended, np.setdiff1d(self._track, track).tolist()))
        variance = np.full(n, (reach / 2) ** 2)
        self._yx, self._track, self._age = detections.yx, track, age
        return Tracks(
            detections=detections,
            track=track,
            parent=np.zeros(n, np.int64),
            age=age,
            velocity=velocity,
            covariance=np.stack([variance, variance, np.zeros(n)], axis=1),
            confidence=confidence,
            ended=ended,
        )

    def state(self) -> dict[str, Any]:
        """Return the cells of the frame before."""
        return {
            "tracker": "nearest",
            "next": self._next,
            "yx": self._yx,
            "track": self._track,
            "age": self._age,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        check_state(state, self.state())
        self._next, self._yx = int(state["next"]), np.array(state["yx"], np.float64)
        self._track, self._age = np.array(state["track"], np.int64), np.array(state["age"], np.int32)
