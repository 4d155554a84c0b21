"""Rates: how often something may happen, and how fast the stage may be sent about."""

from __future__ import annotations

import math
from collections import deque


class Rate:
    """Counts events against a rate that may change; keeps at most ``per_s`` times.

    A rate below one per second spaces events out by its inverse.
    """

    def __init__(self) -> None:
        self._passed_s: deque[float] = deque()

    def full(self, per_s: float, now_s: float) -> bool:
        """Return whether one more event at a time in s would be too many."""
        most = max(1, int(per_s))
        while len(self._passed_s) > most:
            self._passed_s.popleft()
        # Written so that times that are no numbers open nothing.
        return len(self._passed_s) == most and not now_s - self._passed_s[0] >= most / per_s

    def add(self, per_s: float, now_s: float) -> None:
        """Count an event at a time in s."""
        self._passed_s.append(now_s)
        while len(self._passed_s) > max(1, int(per_s)):
            self._passed_s.popleft()


class StagePace:
    """Gives every move the time that its way takes at the highest mean speed."""

    def __init__(self) -> None:
        self._free_s = -math.inf
        self._at_um: tuple[float, float] | None = None

    def busy_s(self, now_s: float) -> float:
        """Return for how long in s the moves so far still take the stage's time."""
        return max(0.0, self._free_s - now_s)

    def send(
        self, to_um: tuple[float, float], from_um: tuple[float, float], um_per_s: float, now_s: float
    ) -> None:
        """Count a move to (x, y) in um; ``from_um`` is where the stage was last seen."""
        way_um = math.dist(self._at_um or from_um, to_um)
        self._at_um = to_um
        self._free_s = max(self._free_s, now_s) + way_um / um_per_s
