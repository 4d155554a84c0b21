"""The protocol of a tracker: detections -> tracks."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ..models.detections import Detections
from .tracks import Tracks


@runtime_checkable
class Tracker(Protocol):
    """Links the cells of one field of view over time.

    One tracker is built per field of view; ``update`` is called once for every segmented frame, in order, by
    one thread, and must return at once (it is on the way to a decision). The result depends on the detections
    given so far and on the options only, so that feeding a recorded stream again restores its state.
    """

    def update(self, detections: Detections) -> Tracks:
        """Take the next frame's detections and return their identities."""
        ...
