"""What rules share: where a cell will be in the next frame, and until when a decision is good."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from ...acquire.coordinates import Affine
from ...trackers.tracks import Tracks
from .rule import Moment

_POSITIONS = 5
_INTERVALS = 9
_FRAMES_GOOD = 3.0
_SECONDS_GOOD = 1.0


def stage_map(moment: Moment) -> tuple[Affine, tuple[float, float]] | None:
    """Return the pixel to stage map and the stage's (x, y) in um, or None if either is unknown."""
    stage = moment.frame.stage_um
    if moment.affine is None or stage is None or not all(map(math.isfinite, stage)):
        return None
    return moment.affine, stage


def position_px(tracks: Tracks, row: int) -> tuple[float, float]:
    """Return the (x, y) of a row's centroid in px."""
    y, x = tracks.detections.yx[row]
    return float(x), float(y)


def covariance_px2(tracks: Tracks, row: int) -> tuple[float, float, float] | None:
    """Return (xx, xy, yy) of a row in px^2 one frame ahead, or None where the tracker cannot tell."""
    yy, xx, yx = map(float, tracks.covariance[row])
    return (xx, yx, yy) if all(map(math.isfinite, (yy, xx, yx))) else None


class Motion:
    """The last few positions of one cell, extrapolated by one frame.

    Positions are kept in um of the stage where the frames say where that is, so that a stage that follows the
    cell does not look like motion of the cell; else in px. The velocity is the least-squares slope over the
    last five positions seen.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float, float]] = deque(maxlen=_POSITIONS)
        self._in_um = False

    def see(self, moment: Moment, row: int, index: int) -> None:
        """Take the cell's position in the frame of this index."""
        known = stage_map(moment)
        if (known is not None) != self._in_um:
            self._seen.clear()  # positions in px and in um do not mix
            self._in_um = known is not None
        x, y = position_px(moment.tracks, row)
        if known is not None:
            affine, stage = known
            x, y = affine.stage_target((x, y), moment.tracks.detections.shape, stage)
        self._seen.append((index, x, y))

    def knows(self, moment: Moment) -> bool:
        """Return whether the cell was seen and can be placed in the image of ``moment``."""
        return bool(self._seen) and self._in_um == (stage_map(moment) is not None)

    def velocity(self) -> tuple[float, float]:
        """Return (x, y) per frame, in um or px; zero until the cell was seen twice."""
        n = len(self._seen)
        middle = sum(t for t, _, _ in self._seen) / n if n else 0.0
        spread = sum((t - middle) ** 2 for t, _, _ in self._seen)
        if spread == 0:
            return 0.0, 0.0
        vx = sum((t - middle) * x for t, x, _ in self._seen) / spread
        vy = sum((t - middle) * y for t, _, y in self._seen) / spread
        return vx, vy

    def ahead(self, index: int) -> tuple[float, float]:
        """Return (x, y) in the frame of this index, in um or px."""
        last, x, y = self._seen[-1]
        vx, vy = self.velocity()
        return x + vx * (index - last), y + vy * (index - last)

    def ahead_px(self, moment: Moment, index: int) -> tuple[float, float]:
        """Return (x, y) in the frame of this index, in px of the image of a moment that it knows."""
        known = stage_map(moment)
        if not self._in_um or known is None:
            return self.ahead(index)
        affine, stage = known
        return affine.image_position(self.ahead(index), moment.tracks.detections.shape, stage)


class Expiry:
    """Until when the decisions of a rule are good, in frame time.

    Parameters
    ----------
    expires_after_s
        Seconds after the frame; None for three frame intervals (the median of those seen lately), at least 1 s.

    Raises
    ------
    ValueError
        If it is not positive.
    """

    def __init__(self, expires_after_s: float | None) -> None:
        if expires_after_s is not None and not 0 < expires_after_s < math.inf:
            raise ValueError(f"expires_after_s must be > 0, got {expires_after_s}")
        self._after_s = expires_after_s
        self._latest_s: float | None = None
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)

    def see(self, time_s: float) -> None:
        """Take the time of every frame in s; times that do not increase say nothing of the interval."""
        if not math.isfinite(time_s):
            return
        if self._latest_s is not None and time_s > self._latest_s:
            self._intervals.append(time_s - self._latest_s)
        self._latest_s = time_s

    def interval_s(self) -> float:
        """Return the median interval of the frames seen lately, in s; 0 before the second one."""
        return median(self._intervals) if self._intervals else 0.0

    def after(self, time_s: float) -> float:
        """Return when a decision on a frame of this time expires."""
        if self._after_s is not None:
            return time_s + self._after_s
        return time_s + max(_SECONDS_GOOD, _FRAMES_GOOD * self.interval_s())
