"""The protocols of trackers: detections -> tracks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class Restorable(Protocol):
    """A tracker whose state can be put into another one, which then goes on as it would have.

    Both are called between two frames, by the thread that calls ``update``.
    """

    def state(self) -> dict[str, Any]:
        """Return all that it knows, as names with numbers, text, lists of them, and arrays."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` returned, of a tracker with the same options.

        Raises
        ------
        ValueError
            If it is not the state of such a tracker.
        """
        ...


@runtime_checkable
class BatchTracker(Protocol):
    """Links the cells of a movie that is over, all at once: for comparison, not for a running experiment.

    ``track`` is called once, and may take long.
    """

    def track(self, movie: Sequence[Detections]) -> list[Tracks]:
        """Return the identities in every frame; row i of each is detection i of it."""
        ...
