"""From tracks to decisions: rules, limits, the pipeline, the service with its journal, replay, command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .recording.opened import open_recording

__all__ = ["open_recording"]


def __getattr__(name: str) -> Any:
    """Import what a notebook asks for when it asks, so that importing this package stays light."""
    if name == "open_recording":
        from .recording.opened import open_recording

        return open_recording
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
