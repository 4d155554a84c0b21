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

_GROUP = 7  # bits of clauses that are kept together
_UNKNOWN = 1 << _GROUP  # in place of them where nothing is known yet

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
        # Of each place: where clauses hold, each a bit, in groups of _GROUP; since when each holds or does not.
        self._bits = np.empty((0, -(-clauses // _GROUP)), np.uint8)
        self._since = np.empty((0, clauses))
        # For how many frames the episode has gone on, 0 without one, and since when; whether it was acted on in it, how
        # often in all, when and in which frame the last time.
        self._done = np.empty(0, np.bool_)
        self._began = np.empty(0)
        self._frames = np.empty(0, np.int32)
        self._fired = np.empty(0, np.int32)
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
            (k, n) bool, C-contiguous and writable, where each clause holds.
        whole, until
            (n,) bool, the same, where the condition holds, and where what ends an episode does.
        time_s
            Of the frame.
        """
        self._frame += 1
        if history is None:
            self._places = frozen(np.zeros(1, np.int64))
            self._grow(1)
        else:
            self._places = history.places
            self._grow(history.capacity)
            if len(history.begun):
                self._forget(history.places[history.begun])
            for source, target in history.handed:
                self._hand(source, target)
        _note_clauses(self._places, clauses, time_s, self._bits, self._since)
        held_frames, held_s, cooldown_frames, cooldown_s, per_cell, has_until = self._terms
        return _advance(
            self._places, whole, until, time_s, self._frame, held_frames, held_s, cooldown_frames, cooldown_s,
            per_cell, has_until, self._done, self._began, self._frames, self._fired, self._last, self._last_frame,
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
        return int(self._frames[place]), float(self._began[place]) if self._frames[place] else math.nan

    def fired(self, row: int) -> tuple[int, float]:
        """Return how often a cell was acted on, and when last, in s of frame time."""
        place = self._places[row]
        return int(self._fired[place]), float(self._last[place])

    def _grow(self, capacity: int) -> None:
        lacking = capacity - len(self._done)
        if lacking <= 0:
            return
        before = len(self._done)
        for name in (
            "_bits",
            "_since",
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
        self._bits[places] = _UNKNOWN
        self._since[places] = math.nan
        self._done[places] = False
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
def _note_clauses(
    places: Ints, clauses: NDArray[np.bool_], time_s: float, bits: NDArray[np.uint8], since: Floats
) -> None:
    """Note which clauses began or ceased to hold; most did not, so that a group of them is compared at once."""
    many, n = clauses.shape
    for group in range(bits.shape[1]):
        first, last = _GROUP * group, min(_GROUP * (group + 1), many)
        now = np.zeros(n, np.uint8)
        for clause in range(first, last):
            bit, holds = np.uint8(1 << (clause - first)), clauses[clause]
            for row in range(n):
                now[row] |= bit * holds[row]
        for row in range(n):
            place = np.uintp(places[row])
            holds_now, held = np.int64(now[row]), np.int64(bits[place, group])
            if holds_now == held:
                continue
            changed = _UNKNOWN - 1 if held == _UNKNOWN else holds_now ^ held
            for clause in range(first, last):
                if changed & (1 << (clause - first)):
                    since[place, clause] = time_s
            bits[place, group] = now[row]


@njit(cache=True, nogil=True)
def _advance(  # pyright: ignore[reportUnknownParameterType]
    places: Ints, whole: NDArray[np.bool_], until: NDArray[np.bool_], time_s: float, frame: int,
    held_frames: int, held_s: float, cooldown_frames: int, cooldown_s: float, per_cell: int, has_until: bool,
    done: NDArray[np.bool_], began: Floats, frames: NDArray[np.int32], fired: NDArray[np.int32],
    last: Floats, last_frame: Ints,
) -> NDArray[np.int8]:  # fmt: skip
    found = np.zeros(len(places), np.int8)
    for row in range(len(places)):
        place = np.uintp(places[row])
        now, seen = whole[row], frames[place]
        if has_until:
            now = (now or seen > 0) and not until[row]
        if not now:
            if seen or done[place]:
                frames[place], done[place] = 0, False
            continue
        if not seen:
            began[place], done[place] = time_s, False
        frames[place] = seen + 1
        if seen + 1 < held_frames or time_s - began[place] < held_s:
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
