"""Replaying frames at the pace at which they were recorded. The only clock of the recorded sources is here."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from threading import Event

from ..frame import Frame

_SLICE_S = 0.1


def paced(
    frames: Iterable[Frame], speed: float | None = 1.0, *, stop: Event | None = None
) -> Iterator[Frame]:
    """Yield frames when their time has come, measured from the first one.

    A frame that is late is yielded at once and the later ones keep their times, so delays do not add up.

    Parameters
    ----------
    speed
        1 for the recorded pace, 10 for ten times as fast; None or infinity for as fast as they are read.
    stop
        Set by another thread to end the replay; a wait ends within 0.1 s.

    Raises
    ------
    ValueError
        If ``speed`` is not above 0.
    """
    if speed is not None and not speed > 0:
        raise ValueError(f"speed {speed} must be above 0, or None for as fast as the frames are read")
    return _paced(frames, math.inf if speed is None else speed, stop or Event())


def _paced(frames: Iterable[Frame], speed: float, stop: Event) -> Iterator[Frame]:
    start: tuple[float, float] | None = None
    for frame in frames:
        start = start or (time.monotonic(), frame.time_s)
        due_s = start[0] + (frame.time_s - start[1]) / speed
        # Short slices, because on Windows a long wait for an Event cannot be interrupted with Ctrl-C.
        while (left_s := due_s - time.monotonic()) > 0 and not stop.is_set():
            stop.wait(min(left_s, _SLICE_S))
        if stop.is_set():
            return
        yield frame
