"""The frames that wait for the service: order, policy, credit and resending, without any socket.

Every frame gets its sequence number here. A frame stays until it is answered, so that nothing is lost when
the service dies; what is left out by policy is counted, and declared to the service as a gap.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import NamedTuple

from ..frame import Frame
from .messages import Policy


class Posted(NamedTuple):
    """A frame with its number, and the monotonic time in s at which it was handed over."""

    sequence: int
    sent_s: float
    frame: Frame


class Outbox:
    """Frames waiting and in flight; all methods are thread-safe and return at once.

    Parameters
    ----------
    buffer_bytes
        Memory for frames that are not answered yet. In a lossless stream a frame that no longer fits is left
        out and counted: the acquisition must not stall and the computer must not run out of memory.
    """

    def __init__(self, buffer_bytes: int) -> None:
        self._lock = threading.Lock()
        self._buffer_bytes = buffer_bytes
        self._bytes = 0
        self._waiting: deque[Posted] = deque()
        self._flight: deque[Posted] = deque()
        self._policy: Policy = "lossless"
        self._credit = 0
        self._sequence = 0
        self._expected = 0  # the next frame that the service expects
        self._dropped = 0

    @property
    def sent(self) -> int:
        """Frames put in so far, the dropped ones too."""
        return self._sequence

    @property
    def dropped(self) -> int:
        """Frames left out by policy or for want of memory."""
        return self._dropped

    @property
    def awaiting(self) -> int:
        """The first frame that is not answered."""
        with self._lock:
            return self._first_unanswered()

    @property
    def pending(self) -> int:
        """Frames that are not answered yet."""
        with self._lock:
            return len(self._waiting) + len(self._flight)

    def put(self, frame: Frame) -> tuple[int, bool]:
        """Take a frame; return its sequence number and whether it was kept."""
        with self._lock:
            sequence = self._sequence
            self._sequence += 1
            if self._policy == "latest":
                self._drop_waiting()
            if self._bytes + frame.pixels.nbytes > self._buffer_bytes:
                self._dropped += 1
                return sequence, False
            self._bytes += frame.pixels.nbytes
            self._waiting.append(Posted(sequence, time.monotonic(), frame))
            return sequence, True

    def next(self) -> tuple[Posted, int] | None:
        """Return the next frame to send and the number left out just before it, if the credit allows one."""
        with self._lock:
            if not self._waiting or len(self._flight) >= self._credit:
                return None
            posted = self._waiting.popleft()
            self._flight.append(posted)
            skipped = posted.sequence - self._expected
            self._expected = posted.sequence + 1
            return posted, skipped

    def answered(self, sequence: int) -> Posted | None:
        """Let go of a frame and return it; None if it was not the next to be answered (a repeated answer)."""
        with self._lock:
            if not self._flight or self._flight[0].sequence != sequence:
                return None
            posted = self._flight.popleft()
            self._bytes -= posted.frame.pixels.nbytes
            return posted

    def leave_out(self, sequence: int) -> None:
        """Give the first unanswered frame up, if it is this one; the gap is declared like any other."""
        with self._lock:
            frames = self._flight or self._waiting
            if frames and frames[0].sequence == sequence:
                self._bytes -= frames.popleft().frame.pixels.nbytes
                self._dropped += 1

    def rewind(self, next_sequence: int, credit: int, policy: Policy) -> None:
        """Begin again with a service that expects ``next_sequence``.

        What it has taken already stays in flight (its answers will come); the rest is sent again.
        """
        with self._lock:
            self._policy, self._credit, self._expected = policy, credit, next_sequence
            while self._flight and self._flight[-1].sequence >= next_sequence:
                self._waiting.appendleft(self._flight.pop())
            if policy == "latest":
                self._drop_waiting(keep=1)

    def _first_unanswered(self) -> int:
        for posted in (self._flight, self._waiting):
            if posted:
                return posted[0].sequence
        return self._sequence

    def _drop_waiting(self, keep: int = 0) -> None:
        while len(self._waiting) > keep:
            self._bytes -= self._waiting.popleft().frame.pixels.nbytes
            self._dropped += 1
