"""The frames on their way out: when they were taken, which plan they came from, and who waits for them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from ..coordinates import Affine
from ..errors import ConfigurationError
from ..frame import Frame
from ..governor.places import Seen
from ..link.client import Client
from ..reply import Reply
from .step import Key, Step

K = TypeVar("K")
V = TypeVar("V")
_REMEMBERED = 4096


class FrameClock:
    """The time of frames in s since the first one, going on over all acquisitions of one loop.

    Not locked: :class:`Outgoing` calls it under its own lock.
    """

    def __init__(self) -> None:
        self._start_s: float | None = None
        self._offset_s = self._raw_s = self._last_s = 0.0
        self._ahead_s = float("-inf")
        self._burst: tuple[float, datetime] | None = None

    def stamp(self, elapsed_s: float | None, received: datetime | None = None) -> float:
        """Return the time of a frame that has just arrived.

        Parameters
        ----------
        elapsed_s
            The engine's own time since the acquisition's first image, in s. It starts again with every
            acquisition and is the same for all images of a burst.
        received
            When the core received this image of a burst (wall clock).
        """
        now = time.monotonic()
        first = self._start_s is None
        start = now if self._start_s is None else self._start_s
        self._start_s = start
        raw = now - start if elapsed_s is None else elapsed_s
        if elapsed_s is not None and received is not None:
            if self._burst is None or self._burst[0] != elapsed_s or received < self._burst[1]:
                self._burst = (elapsed_s, received)
            raw += (received - self._burst[1]).total_seconds()
        if first:
            self._offset_s = -raw
        elif raw < self._raw_s:  # another acquisition has begun
            self._offset_s = now - start - raw
        self._raw_s = raw
        self._last_s = max(self._last_s, raw + self._offset_s)
        # The frame that came through fastest tells best how the two clocks stand.
        self._ahead_s = max(self._ahead_s, self._last_s - now)
        return self._last_s

    def now_s(self) -> float:
        """Return the present on the clock of the frames, in s; 0 before the first frame."""
        return 0.0 if self._start_s is None else max(self._last_s, time.monotonic() + self._ahead_s)


@dataclass(frozen=True, slots=True)
class Planned:
    """What the user planned for an exposure, and what the service's decisions made of it."""

    plan: Step
    actual: Step


class Outgoing:
    """Hands frames to the link and remembers the last few thousand of them; used by several threads."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._changed = threading.Condition()
        self._clock = FrameClock()
        self._planned: OrderedDict[Key, Planned] = OrderedDict()
        self._plans: OrderedDict[int, Step] = OrderedDict()
        self._seen: OrderedDict[int, Seen] = OrderedDict()
        self._origins: OrderedDict[tuple[int | str, int | str], tuple[float, float]] = OrderedDict()
        self._sequences: OrderedDict[Key, int | None] = OrderedDict()

    def plan(self, key: Key, planned: Planned) -> None:
        """Note what the image with these axes will come from; called before it is taken."""
        with self._changed:
            self._sequences.pop(key, None)
            _remember(self._planned, key, planned)

    def planned(self, key: Key) -> Planned | None:
        """Return what was noted for an image, or None."""
        with self._changed:
            return self._planned.get(key)

    def send(self, frame: Frame, key: Key, elapsed_s: float | None, received: datetime | None = None) -> int:
        """Give a frame its times, hand it to the link and return its sequence number; does not block.

        Raises
        ------
        FrameError
            If the link does not take the image.
        """
        with self._changed:
            timed = replace(frame, time_s=self._clock.stamp(elapsed_s, received))
            sequence = self._client.send(timed)
            planned = self._planned.get(key)
            _remember(self._plans, sequence, planned.plan if planned else Step())
            _remember(self._seen, sequence, self._seen_of(timed))
            _remember(self._sequences, key, sequence)
            self._changed.notify_all()
        return sequence

    def refused(self, key: Key) -> None:
        """Note that an image arrived but could not be sent, so that nobody waits for it."""
        with self._changed:
            _remember(self._sequences, key, None)
            self._changed.notify_all()

    def _seen_of(self, frame: Frame) -> Seen:
        """Return what the limits ask of a frame."""
        field = (frame.axes.get("position", 0), frame.axes.get("z", 0))
        if frame.stage_um is not None and field not in self._origins:
            _remember(self._origins, field, frame.stage_um)
        try:
            size = frame.pixel_size_um
            given = Affine(*frame.affine) if frame.affine else Affine.from_pixel_size(size) if size else None
        except ConfigurationError:  # one that cannot be inverted
            given = None
        return Seen(frame.time_s, frame.stage_um, frame.shape, given, self._origins.get(field))

    def seen(self, sequence: int) -> Seen | None:
        """Return what is known here of a sent frame, or None when it is too long ago."""
        with self._changed:
            return self._seen.get(sequence)

    def plan_of(self, sequence: int) -> Step | None:
        """Return the plan that a sent frame came from, or None when it is too long ago."""
        with self._changed:
            return self._plans.get(sequence)

    def origin_of(self, sequence: int) -> tuple[Key, Planned] | None:
        """Return the axes of a sent frame and what it came from, or None when it is too long ago."""
        with self._changed:
            for key, sent in reversed(self._sequences.items()):
                if sent == sequence:
                    planned = self._planned.get(key)
                    return None if planned is None else (key, planned)
        return None

    def now_s(self) -> float:
        """Return the present on the clock of the frames, in s."""
        with self._changed:
            return self._clock.now_s()

    def wait_arrived(self, key: Key, timeout_s: float) -> bool:
        """Wait until an image has arrived, sent or refused; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: key in self._sequences, timeout_s)

    def wait_reply(self, key: Key, timeout_s: float) -> Reply | None:
        """Wait until an image has arrived and been answered; None if that takes longer."""
        deadline = time.monotonic() + timeout_s
        if not self.wait_arrived(key, timeout_s):
            return None
        with self._changed:
            sequence = self._sequences[key]
        return (
            None if sequence is None else self._client.wait(sequence, max(0.0, deadline - time.monotonic()))
        )


def _remember(table: OrderedDict[K, V], key: K, value: V) -> None:
    table[key] = value
    if len(table) > _REMEMBERED:
        table.popitem(last=False)
