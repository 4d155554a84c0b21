"""When a cell passes a place downstream, and how sure that is: a least-squares line through all its places."""

from __future__ import annotations

import math
from typing import NamedTuple

_PLACE_PX = 0.5
"""Standard deviation of one place in px, where too few places tell; what more of them tell is weighed against it."""
_PRIOR = 4.0
"""How many places that deviation counts for."""
_LEAST_PX = 1.0


class Passage(NamedTuple):
    """When a cell passes, in s of frame time, the standard deviation of that, and the cell's speed in px per s."""

    at_s: float
    sigma_s: float
    speed_px_s: float


class Passing:
    """All that is kept of one cell, in sums: its memory does not grow with its frames.

    Attributes
    ----------
    frames
        How often it was seen.
    seen_s
        When it was seen last, in s of frame time.
    across
        Where it was then across the axis, in px.
    judged
        What came of it: ``"yes"``, why not, or ``""`` while it is not judged.
    """

    __slots__ = ("_n", "_sums", "_t0", "_value", "_x", "across", "frames", "judged", "seen_s")

    def __init__(self) -> None:
        self.frames, self.seen_s, self.across, self.judged = 0, -math.inf, 0.0, ""
        self._t0 = self._x = self._value = 0.0
        self._n = 0
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)  # t, x, tt, tx, xx; t from the first frame

    @property
    def mean(self) -> float:
        """The mean of what is measured of it."""
        return self._value / self.frames if self.frames else math.nan

    def see(self, time_s: float, x: float, across: float, value: float, *, whole: bool) -> None:
        """Take its place along and across the axis in px, and its measure, in a frame.

        A cell that is cut by the edge of the image is not ``whole``: its place does not count unless it is all
        that is known.
        """
        if not self.frames:
            self._t0 = time_s
        if whole or not self.frames:
            if self._n == 0 and self.frames:  # the first was cut
                self._t0, self._value, self.frames = time_s, 0.0, 0
            t = time_s - self._t0
            a, b, c, d, e = self._sums
            if whole:
                self._n += 1
                self._sums = (a + t, b + x, c + t * t, d + t * x, e + x * x)
            self.frames += 1
            self._value += value
        self.seen_s, self.across, self._x = time_s, across, x

    def at(self, time_s: float) -> float:
        """Return where it is along the axis at a time in px; its last place where no line is known."""
        line = self._line()
        return self._x if line is None else line[0] + line[1] * (time_s - self._t0 - line[2])

    def passage(self, gate: float) -> Passage | None:
        """Return when it passes a place along the axis, or None if its places tell no speed forward."""
        line = self._line()
        if line is None or line[1] <= 0:
            return None
        middle, speed, mean_t, spread, residual = line
        ahead = (gate - middle) / speed
        variance = (_PRIOR * _PLACE_PX**2 + residual) / (_PRIOR + self._n - 2)
        sigma = math.sqrt(variance * (1 / self._n + ahead * ahead / spread)) / speed
        return Passage(self._t0 + mean_t + ahead, sigma, speed)

    def assumed(self, gate: float, speed_px_s: float) -> Passage:
        """Return when it passes a place if it has this speed: known to a cell's width only."""
        return Passage(self.seen_s + (gate - self._x) / speed_px_s, 8 * _PLACE_PX / speed_px_s, speed_px_s)

    def _line(self) -> tuple[float, float, float, float, float] | None:
        """Return mean place, speed, mean time, spread of times and the residual; None if times do not differ."""
        n = self._n
        if n < 2:
            return None
        t, x, tt, tx, xx = self._sums
        spread = tt - t * t / n
        if spread <= 0:
            return None
        covariance, own = tx - t * x / n, xx - x * x / n
        if covariance * covariance < _LEAST_PX * _LEAST_PX * spread / n:  # it has hardly moved
            return None
        speed = covariance / spread
        return x / n, speed, t / n, spread, max(0.0, own - speed * covariance)


def chance_within(passage: Passage, start_s: float, end_s: float) -> float:
    """Return how likely a cell passes between two times, 0 to 1."""
    sigma = math.sqrt(2) * max(passage.sigma_s, 1e-9)
    return 0.5 * (math.erf((end_s - passage.at_s) / sigma) - math.erf((start_s - passage.at_s) / sigma))
