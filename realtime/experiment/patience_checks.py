"""What can be wrong with the times that a stream gives its engine, before anything starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .channel_checks import Wrong


def check_patience(hang_s: float, start_s: float, segmenter: Any) -> Iterable[Wrong]:
    """Yield where the service would give an engine up before its segmenter gives up by itself.

    The engine would be replaced, and a frame that is too slow be tried again, where it could have failed with a
    reason.

    Parameters
    ----------
    hang_s, start_s
        As in :class:`~.config.StreamConfig`.
    segmenter
        The segmenter itself, or None; only one that has ``timeout_s`` or ``start_s`` can be wrong.
    """
    for key, patience_s, name, what in (
        ("hang_s", hang_s, "timeout_s", "for one frame"),
        ("start_s", start_s, "start_s", "to load its model"),
    ):
        own_s = float(getattr(segmenter, name, None) or 0.0)
        if own_s >= patience_s:
            yield Wrong(
                (key,),
                f"{patience_s:g} s, but the segmenter takes up to {own_s:g} s {what} (its {name}); set {key} above"
                f" {own_s:g}, or give the segmenter a lower {name}.",
            )
