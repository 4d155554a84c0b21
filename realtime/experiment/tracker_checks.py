"""Which trackers a stream that runs can have."""

from __future__ import annotations

from inspect import isclass

from ...acquire.plugins import find_class
from ...trackers.tracker import BatchTracker, Tracker


def is_batch(use: str) -> bool:
    """Return whether a tracker, by name or ``module:Class``, links movies that are over and nothing else.

    Raises
    ------
    PluginError
        If there is none.
    """
    tracker = find_class("trackers", use)
    if not isclass(tracker):  # module:Class may name anything
        return False
    return issubclass(tracker, BatchTracker) and not issubclass(tracker, Tracker)


def batch_refusal(use: str) -> str:
    """Return why a stream that runs cannot have this tracker; ``""`` if it can.

    Raises
    ------
    PluginError
        If there is none.
    """
    if not is_batch(use):
        return ""
    return (
        f"{use!r} needs the whole movie, so it cannot follow cells while they are filmed; it is for comparison on"
        f" recordings: cytoloop evaluate --sequence FOLDER --tracker {use}."
    )
