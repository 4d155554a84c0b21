"""Tracker for flow: cells go forward along one axis at nearly one known speed, and stay where they are across it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..models.detections import Detections
from ..models.kernels import frozen
from .states import check_state
from .tracks import Ended, Tracks

FlowAxis: TypeAlias = Literal["x", "-x", "y", "-y"]
FLOW_AXES = ("x", "-x", "y", "-y")
_PLACE_PX = 0.7
"""Standard deviation of a centroid in px, for how well a speed is known."""
_ROUNDS = 16

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class FlowTracker:
    """Links each cell to the one whose expected place it is nearest to, where each is the other's nearest.

    Times of the frames count, not their numbers, so that frames may be left out. A cell's own speed is taken from
    its first and last place, and weighed against the speed of the flow.

    Parameters
    ----------
    axis
        Where cells go: ``"x"``, ``"-x"``, ``"y"`` or ``"-y"``.
    speed_px_s
        Speed of the flow in px per s of frame time.
    spread
        Standard deviation of the cells' speeds as a share of it.
    reach_px
        How far from the expected place a cell may be, in px, beyond what the spread of speeds allows; None: half the
        mean diameter of the frame's cells.
    max_gap
        Frames that a cell may be missing.

    Raises
    ------
    ValueError
        Names the option and what it may be.
    """

    def __init__(
        self,
        *,
        axis: FlowAxis = "x",
        speed_px_s: float = 0.0,
        spread: float = 0.05,
        reach_px: float | None = None,
        max_gap: int = 2,
    ) -> None:
        if axis not in FLOW_AXES:
            raise ValueError(f"axis must be one of {', '.join(FLOW_AXES)}, got {axis!r}")
        if not 0 <= speed_px_s < math.inf:
            raise ValueError(f"speed_px_s must be 0 or more, got {speed_px_s}")
        if not 0 <= spread <= 1:
            raise ValueError(f"spread must be 0 to 1, got {spread}")
        if reach_px is not None and not 0 < reach_px < math.inf:
            raise ValueError(f"reach_px must be above 0, got {reach_px}")
        if max_gap < 0:
            raise ValueError(f"max_gap must be 0 or more, got {max_gap}")
        self._along = 1 if axis.endswith("x") else 0
        self._sign = -1.0 if axis.startswith("-") else 1.0
        self._speed, self._spread = speed_px_s, spread * speed_px_s
        self._reach, self._max_gap = reach_px, max_gap
        self._track, self._age, self._missed = (
            np.empty(0, np.int64),
            np.empty(0, np.int64),
            np.empty(0, np.int64),
        )
        # Of each track: place along and across, its time, first place along, its time, own speed and its deviation.
        self._known = np.empty((0, 7))
        self._latest_s = -math.inf
        self._next = 1
        nothing = frozen(np.empty(0))
        _link(nothing, nothing, nothing, 1.0, nothing, nothing)

    def update(self, detections: Detections) -> Tracks:
        """Take the next frame's detections and return their identities; confidence falls to 0 at the gate."""
        n, known = len(detections), self._known
        time_s = detections.time_s if math.isfinite(detections.time_s) else self._latest_s
        time_s = max(time_s, self._latest_s) if math.isfinite(self._latest_s) else time_s
        time_s = time_s if math.isfinite(time_s) else 0.0
        frame_s = time_s - self._latest_s if math.isfinite(self._latest_s) else 0.0
        self._latest_s = time_s
        u, w = self._sign * detections.yx[:, self._along], detections.yx[:, 1 - self._along]
        reach = self._reach or (math.sqrt(float(detections.area.mean()) / math.pi) if n else 1.0)
        waited = time_s - known[:, 2]
        expected = known[:, 0] + known[:, 5] * waited
        gate = reach + 3 * known[:, 6] * waited
        source, cost = _link(
            frozen(expected), frozen(known[:, 1]), frozen(gate), float(reach), frozen(u), frozen(w)
        )
        track, age = np.empty(n, np.int64), np.zeros(n, np.int64)
        now = np.empty((n, 7))
        now[:, 0], now[:, 1], now[:, 2] = u, w, time_s
        now[:, 3], now[:, 4], now[:, 5], now[:, 6] = u, time_s, self._speed, self._spread
        old = source >= 0
        if old.any():
            of = source[old]
            track[old], age[old] = self._track[of], self._age[of] + 1
            now[old, 3:5] = known[of, 3:5]
            now[old, 5], now[old, 6] = self._speeds(u[old], time_s, known[of])
        new = np.flatnonzero(~old)
        track[new] = self._next + np.arange(len(new))
        self._next += len(new)
        ended = self._keep(source, expected, detections.shape, (track, age, now))
        velocity, variance = np.zeros((n, 2)), np.full((n, 2), _PLACE_PX**2)
        velocity[:, self._along] = self._sign * now[:, 5] * frame_s
        variance[:, self._along] += np.square(now[:, 6] * frame_s)
        return Tracks(
            detections=detections,
            track=track,
            parent=np.zeros(n, np.int64),
            age=age.astype(np.int32),
            velocity=velocity,
            covariance=np.column_stack([variance, np.zeros(n)]),
            confidence=1 - cost,
            ended=ended,
        )

    def _speeds(self, u: Floats, time_s: float, before: Floats) -> tuple[Floats, Floats]:
        """Return the speeds of cells that were seen before, and their standard deviations."""
        lasted = np.maximum(time_s - before[:, 4], 1e-9)
        measured, doubt = (u - before[:, 3]) / lasted, math.sqrt(2) * _PLACE_PX / lasted
        share = self._spread**2 / (self._spread**2 + doubt**2)
        return self._speed + share * (measured - self._speed), np.sqrt(share) * doubt

    def _keep(
        self, source: Ints, expected: Floats, shape: tuple[int, int], now: tuple[Ints, Ints, Floats]
    ) -> tuple[Ended, ...]:
        """Remember this frame's cells and those that are missing; return the tracks that are over."""
        missing = np.ones(len(self._track), np.bool_)
        missing[source[source >= 0]] = False
        end = shape[self._along] - 0.5 if self._sign > 0 else 0.5
        gone = missing & (expected > end)
        lost = missing & ~gone & (self._missed >= self._max_gap)
        ended = [Ended(number, "exit") for number in self._track[gone].tolist()]
        ended += [Ended(number, "lost") for number in self._track[lost].tolist()]
        kept = missing & ~gone & ~lost
        track, age, known = now
        self._track = np.concatenate([track, self._track[kept]])
        self._age = np.concatenate([age, self._age[kept] + 1])
        self._missed = np.concatenate([np.zeros(len(track), np.int64), self._missed[kept] + 1])
        self._known = np.concatenate([known, self._known[kept]])
        return tuple(ended)

    def state(self) -> dict[str, Any]:
        """Return the cells that may go on."""
        return {
            "tracker": "flow",
            "next": self._next,
            "latest_s": self._latest_s,
            "track": self._track,
            "age": self._age,
            "missed": self._missed,
            "known": self._known,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        check_state(state, self.state())
        self._next, self._latest_s = int(state["next"]), float(state["latest_s"])
        self._track, self._age = np.array(state["track"], np.int64), np.array(state["age"], np.int64)
        self._missed, self._known = np.array(state["missed"], np.int64), np.array(state["known"], np.float64)


@njit(cache=True, nogil=True)
def _link(
    expected: Floats, across: Floats, gate: Floats, reach: float, u: Floats, w: Floats
) -> tuple[Ints, Floats]:
    """Return for each cell the track that it goes on, -1 if none, and the cost, 0 to 1."""
    n, m = len(u), len(expected)
    source, cost = np.full(n, -1, np.int64), np.zeros(n)
    taken = np.zeros(m, np.bool_)
    best_of = np.empty(m, np.int64)
    least_of = np.empty(m)
    for _ in range(_ROUNDS):
        best_of[:] = -1
        least_of[:] = np.inf
        wanted = np.full(n, -1, np.int64)
        least = np.full(n, np.inf)
        for i in range(n):
            if source[i] >= 0:
                continue
            for j in range(m):
                if taken[j]:
                    continue
                along = abs(u[i] - expected[j]) / gate[j]
                sideways = abs(w[i] - across[j]) / reach
                if along > 1 or sideways > 1:
                    continue
                value = (along * along + sideways * sideways) / 2
                if value < least[i]:
                    least[i], wanted[i] = value, j
                if value < least_of[j]:
                    least_of[j], best_of[j] = value, i
        linked = 0
        for i in range(n):
            j = wanted[i]
            if j >= 0 and best_of[j] == i:
                source[i], cost[i], taken[j] = j, least[i], True
                linked += 1
        if linked == 0:
            break
    return source, cost
