"""The protocol of a source of frames, and the choice of one for a path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from ..frame import Frame


@runtime_checkable
class Source(Protocol):
    """A stream of frames from a file, a folder or a simulation.

    ``__init__`` opens the recording and reads its metadata, not its pixels; it raises
    :class:`~cytoloop.acquire.errors.SourceError` when the recording as a whole cannot be used.
    ``frames`` is called once, by one thread, and may block while it reads; every frame it yields is
    complete and in order (``sequence`` 0, 1, 2, ...; ``time_s`` never decreasing). A frame that is broken
    raises SourceError with its number; nothing is skipped silently. ``close`` is called once at the end,
    also after an error, and does not raise.
    """

    name: str

    @property
    def count(self) -> int | None:
        """Number of frames that ``frames`` will yield, or None if nobody knows."""
        ...

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order."""
        ...

    def close(self) -> None:
        """Release files and memory."""
        ...
