"""The protocol of a segmenter: frame -> labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from ..acquire.frame import Frame
from .labels import Labels


@runtime_checkable
class Segmenter(Protocol):
    """Finds the cells of one frame.

    Built once per stream in the engine process, before that says it is ready (loading weights belongs there);
    ``segment`` is called for every frame in order, by one thread, and may take as long as it needs: the link
    sheds or queues meanwhile. The result depends on the frames given so far and on the options only, never on a
    clock or on chance, so that a replay is the live run again. For a later run in the same process one that is
    :class:`Remembering` is reset; any other is built anew, since nobody knows what it kept.

    A segmenter that looks at several channels also has ``channels``, a tuple of all of them; one that gives up
    by itself has ``start_s`` and ``timeout_s``, the time in s that it may take to load and for one frame. An
    experiment file is checked by them.
    """

    @property
    def channel(self) -> int | str:
        """The channel that is segmented, by index or by name; may be a plain attribute."""
        ...

    def segment(self, frame: Frame) -> Labels:
        """Return the instance mask of ``frame.channel(self.channel)``."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A segmenter whose result depends on earlier frames: on their contrast, on how large their cells were.

    What it learned goes into the log with every frame, so that an engine that takes over goes on with it. One
    that looks at each frame alone, but takes long to load, is it too, with an empty memory: so it is loaded once.
    """

    def reset(self) -> None:
        """Forget all frames: the next one is the first of another stream."""
        ...

    def memory(self, frame: Frame) -> dict[str, Any]:
        """Return what is known after ``segment(frame)``, as numbers, strings, lists and tables of them."""
        ...

    def recall(self, frame: Frame, memory: Mapping[str, Any]) -> None:
        """Take over what :meth:`memory` returned for this frame; its pixels are not looked at."""
        ...


def as_new(segmenter: Segmenter, build: Callable[[], Segmenter]) -> Segmenter:
    """Return a segmenter that has seen no frame: this one if it can forget, else what ``build`` returns."""
    if not isinstance(segmenter, Remembering):
        return build()
    segmenter.reset()
    return segmenter


def needed_channels(segmenter: Segmenter) -> tuple[int | str, ...]:
    """Return all channels that a segmenter looks at, each by index or by name."""
    channels = getattr(segmenter, "channels", ())
    return channels if channels and isinstance(channels, tuple) else (segmenter.channel,)
