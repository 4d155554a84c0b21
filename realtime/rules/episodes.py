"""Episodes: since when a condition holds for each cell, and what was done about it; for all cells at once.

An episode begins when the condition begins to hold for a cell and ends when it ceases. State is kept in arrays with
one place for each track (:attr:`~cytoloop.trackers.history.History.places`), so that it is bounded by the cells in
view.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ...models.kernels import frozen
from ...trackers.history import History

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class State(IntEnum):
    """How a cell stands in this frame."""

    OFF = 0
    """The condition does not hold."""
    WAITING = 1
    """It has not held for long enough."""
    DONE = 2
    """It was acted on in this episode."""
    COOLING = 3
    """It was acted on too lately."""
    SPENT = 4
    """It was acted on as often as is allowed."""
    READY = 5


class Terms(NamedTuple):
    """When a cell is ready, see :class:`~.when.When`; the numbers that the kernel needs.

    ``cooldown_frames`` is -1 without a cooldown, then a cell is acted on once in an episode.
    """

    held_frames: int
    held_s: float
    cooldown_frames: int
    cooldown_s: float
    per_cell: int
    has_until: bool


class Episodes:
    """The episodes of one condition in one field of view.

    Parameters
    ----------
    clauses
        How many clauses the condition has.
    terms
        When a cell is ready.
    """

    def __init__(self, clauses: int, terms: Terms) -> None:
        self._terms, self._frame = terms, -1
        self._state = np.empty((0, clauses), np.int8)
        self._since = np.empty((0, clauses))
        # Of each place: whether the episode goes on, since when, for how many frames; whether it was acted on in it,
        # how often in all, when and in which frame the last time.
        self._on = np.empty(0, np.bool_)
        self._done = np.empty(0, np.bool_)
        self._began = np.empty(0)
        self._frames = np.empty(0, np.int64)
        self._fired = np.empty(0, np.int64)
        self._last = np.empty(0)
        self._last_frame = np.empty(0, np.int64)
        self._places = np.empty(0, np.int64)

    def see(
        self,
        history: History | None,
        clauses: NDArray[np.bool_],
        whole: NDArray[np.bool_],
        until: NDArray[np.bool_],
        time_s: float,
    ) -> NDArray[np.int8]:
        """Take in a frame and return (n,) :class:`State` of its cells.

        Parameters
        ----------
        history
            Whose places are used; None for a condition of the frame, which has one.
        clauses
            (k, n) bool, where each clause holds.
        whole, until
            (n,) bool, where the condition holds, and where what ends an episode does.
        time_s
            Of the frame.
        """
        self._frame += 1
        if history is None:
            self._places = np.zeros(1, np.int64)
            self._grow(1)
        else:
            self._places = history.places
            self._grow(history.capacity)
            if len(history.begun):
                self._forget(history.places[history.begun])
            for source, target in history.handed:
                self._hand(source, target)
        terms = self._terms
        return _advance(
            frozen(self._places), frozen(clauses, np.bool_), frozen(whole, np.bool_), frozen(until, np.bool_),
            time_s, self._frame, terms.held_frames, terms.held_s, terms.cooldown_frames, terms.cooldown_s,
            terms.per_cell, terms.has_until, self._state, self._since, self._on, self._done, self._began,
            self._frames, self._fired, self._last, self._last_frame,
        )  # fmt: skip

    def acted(self, row: int, time_s: float) -> None:
        """Note that a cell of the last frame was acted on."""
        place = self._places[row]
        self._done[place] = True
        self._fired[place] += 1
        self._last[place], self._last_frame[place] = time_s, self._frame

    def clause_since(self, row: int, clause: int) -> float:
        """Return since when a clause holds, or does not, for a cell of the last frame; frame time in s."""
        return float(self._since[self._places[row], clause])

    def held(self, row: int) -> tuple[int, float]:
        """Return for how many frames the condition has held, and since when in s (NaN if it does not)."""
        place = self._places[row]
        return int(self._frames[place]), float(self._began[place]) if self._on[place] else math.nan

    def fired(self, row: int) -> tuple[int, float]:
        """Return how often a cell was acted on, and when last, in s of frame time."""
        place = self._places[row]
        return int(self._fired[place]), float(self._last[place])

    def _grow(self, capacity: int) -> None:
        lacking = capacity - len(self._on)
        if lacking <= 0:
            return
        before = len(self._on)
        for name in (
            "_state",
            "_since",
            "_on",
            "_done",
            "_began",
            "_frames",
            "_fired",
            "_last",
            "_last_frame",
        ):
            array: NDArray[Any] = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros((lacking, *array.shape[1:]), array.dtype)]))
        self._forget(np.arange(before, capacity))

    def _forget(self, places: Ints) -> None:
        """Begin anew at these places."""
        self._state[places] = -1
        self._since[places] = math.nan
        self._on[places] = self._done[places] = False
        self._began[places] = math.nan
        self._frames[places] = self._fired[places] = 0
        self._last[places] = -math.inf
        self._last_frame[places] = -(1 << 60)

    def _hand(self, source: int, target: int) -> None:
        """Let a track count as acted on where another was that may have been the same cell."""
        self._fired[target] = max(self._fired[target], self._fired[source])
        self._done[target] |= self._done[source]
        self._last[target] = max(self._last[target], self._last[source])
        self._last_frame[target] = max(self._last_frame[target], self._last_frame[source])


def warm_up() -> None:
    """Compile the kernel, so that no frame waits for it."""
    one = np.ones((1, 1), np.bool_)
    Episodes(1, Terms(0, 0.0, -1, 0.0, 1 << 60, False)).see(None, one, one[0], one[0], 0.0)


@njit(cache=True, nogil=True)
def _advance(  # pyright: ignore[reportUnknownParameterType]
    places: Ints, clauses: NDArray[np.bool_], whole: NDArray[np.bool_], until: NDArray[np.bool_],
    time_s: float, frame: int, held_frames: int, held_s: float, cooldown_frames: int, cooldown_s: float,
    per_cell: int, has_until: bool, state: NDArray[np.int8], since: Floats, on: NDArray[np.bool_],
    done: NDArray[np.bool_], began: Floats, frames: Ints, fired: Ints, last: Floats, last_frame: Ints,
) -> NDArray[np.int8]:  # fmt: skip
    found = np.zeros(len(places), np.int8)
    for row in range(len(places)):
        place = places[row]
        for clause in range(clauses.shape[0]):
            holds = np.int8(clauses[clause, row])
            if state[place, clause] != holds:
                state[place, clause] = holds
                since[place, clause] = time_s
        now = whole[row]
        if has_until:
            now = (now or on[place]) and not until[row]
        if not now:
            on[place] = done[place] = False
            frames[place] = 0
            continue
        if not on[place]:
            on[place], began[place], done[place] = True, time_s, False
        frames[place] += 1
        if frames[place] < held_frames or time_s - began[place] < held_s:
            found[row] = 1
        elif fired[place] >= per_cell:
            found[row] = 4
        elif cooldown_frames < 0 and done[place]:
            found[row] = 2
        elif cooldown_frames >= 0 and (
            frame - last_frame[place] < cooldown_frames or time_s - last[place] < cooldown_s
        ):
            found[row] = 3
        else:
            found[row] = 5
    return found
