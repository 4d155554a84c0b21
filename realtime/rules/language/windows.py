"""What was, over a window of the past of each cell: slopes, means, extremes, and what it was before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ....models.kernels import frozen
from ....trackers.recent import FRAMES

if TYPE_CHECKING:
    from .sight import PastSight, Sight
    from .terms import Term

Kind = Literal["slope", "before", "mean", "min", "max", "std"]
_KINDS: tuple[Kind, ...] = ("slope", "before", "mean", "min", "max", "std")
_SLOPE, _BEFORE, _MEAN, _MIN, _MAX, _STD = range(6)
_TO_BEGINNING = ("slope", "before")  # these look at the beginning of the window too: one observation more
_LEAST_SPAN = 0.5


def over(sight: Sight, term: Term, window: float, in_frames: bool, kind: Kind) -> NDArray[np.float64]:
    """Return (n,) of a term over the last observations of each cell.

    Parameters
    ----------
    sight
        What is looked at.
    term
        Of measured quantities only.
    window
        Length, in frames in which the cell was seen, or in s.
    in_frames
        Which of them. Of frames all must be there; of a time, observations over half of it.
    kind
        ``slope`` (per s, least squares), ``before`` (at the beginning of the window), ``mean``, ``min``, ``max``,
        ``std``.

    Returns
    -------
    NDArray
        NaN where a cell has not been seen for so long, or more would have to be kept than is.
    """
    history = sight.moment.history
    n = len(sight.tracks)
    if history is None:
        return np.full(n, np.nan)
    more = kind in _TO_BEGINNING
    since, span = -math.inf, 0.0
    if in_frames:
        frames = round(window) + more
        needed = frames
    else:
        interval = history.interval_s()
        if not interval > 0:
            return np.full(n, np.nan)
        frames, needed = min(history.depth, math.ceil(window / interval) + 1), 1 + more
        since, span = sight.time_s - window - interval / 2, _LEAST_SPAN * window * more
        if window > interval * history.depth:
            return np.full(n, np.nan)
    if not 1 <= frames <= history.depth:
        return np.full(n, np.nan)
    terms = (since, needed, span, _KINDS.index(kind))
    if frames > FRAMES:
        return _of_past(sight.past(frames), term, frames, terms)
    recent = history.recent
    found, elsewhere = _of_recent(
        frozen(sight.recent().value(term)),
        recent.times_s,
        recent.order[-frames:],
        recent.in_a_row,
        history.places,
        *terms,
    )
    if elsewhere.any():
        past = sight.past_with_gaps()
        among = elsewhere[past.rows]
        found[past.rows[among]] = _of_past(past, term, frames, terms)[among]
        elsewhere[past.rows] = False
        rows = np.flatnonzero(elsewhere)  # all frames are there, but not all values are known
        if len(rows):
            found[rows] = _of_past(sight.past(frames, rows), term, frames, terms)
    return found


def _of_past(
    past: PastSight, term: Term, frames: int, terms: tuple[float, int, float, int]
) -> NDArray[np.float64]:
    times = past.times_s()
    values = np.broadcast_to(past.value(term), times.shape)[:, -frames:]
    return _of_each(frozen(values, np.float64), frozen(times[:, -frames:]), *terms)


def warm_up() -> None:
    """Compile the kernels, so that no frame waits for them."""
    one, places = frozen(np.ones((1, 1))), frozen(np.zeros(1, np.int64))
    _of_each(one, one, -math.inf, 1, 0.0, 0)
    for dtype in (np.float32, np.float64):
        _of_recent(frozen(one, dtype), one[0], places, places, places, -math.inf, 1, 0.0, 0)


@njit(cache=True, nogil=True)
def _of_recent(
    table: NDArray[Any],
    times: NDArray[Any],
    order: NDArray[Any],
    in_a_row: NDArray[Any],
    places: NDArray[Any],
    since: float,
    needed: int,
    span: float,
    kind: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return what is found, and for which cells it is not: a frame or a value of theirs is missing."""
    n, capacity = len(places), table.shape[1]
    frames = order[times[order] >= since]
    found, elsewhere = np.full(n, np.nan), np.zeros(n, np.bool_)
    total, result = np.zeros(capacity), np.full(capacity, np.nan)
    for frame in frames:
        values = table[frame]
        for place in range(capacity):
            total[place] += values[place]
    count = len(frames)
    if count > 0 and count >= needed and times[frames[-1]] - times[frames[0]] >= span:
        _work_out(table, times, frames, total, kind, result)
    for row in range(n):
        place = np.uintp(places[row])
        # A sum is finite only if everything in it is.
        if in_a_row[place] >= len(order) and np.isfinite(total[place]):
            found[row] = result[place]
        else:
            elsewhere[row] = True
    return found, elsewhere


@njit(cache=True, nogil=True)
def _work_out(
    table: NDArray[Any],
    times: NDArray[Any],
    frames: NDArray[Any],
    total: NDArray[Any],
    kind: int,
    result: NDArray[Any],
) -> None:
    """Write what is asked for over these frames, for all places at once, as if all were known."""
    count, capacity = len(frames), table.shape[1]
    if kind == _BEFORE:
        result[:] = table[frames[0]]
        return
    if kind in (_MIN, _MAX):
        result[:] = table[frames[0]]
        for frame in frames[1:]:
            values = table[frame]
            for place in range(capacity):
                less = values[place] < result[place]
                if less == (kind == _MIN):
                    result[place] = values[place]
        return
    mean = total / count
    if kind == _MEAN:
        result[:] = mean
        return
    first = times[frames[0]]
    middle = first + (times[frames] - first).sum() / count
    square_times = 0.0
    result[:] = 0.0
    for frame in frames:
        values, off_time = table[frame], times[frame] - middle
        square_times += off_time * off_time
        for place in range(capacity):
            off = values[place] - mean[place]
            result[place] += off * (off_time if kind == _SLOPE else off)
    if kind == _SLOPE:
        result[:] = result / square_times if square_times > 0 else np.full(capacity, np.nan)
    else:
        result[:] = np.sqrt(result / count)


@njit(cache=True, nogil=True)
def _of_each(
    values: NDArray[Any], times: NDArray[Any], since: float, needed: int, span: float, kind: int
) -> NDArray[np.float64]:
    n, frames = values.shape
    found = np.full(n, np.nan)
    for row in range(n):
        count, first, last = 0, 0, 0
        total = total_time = 0.0
        low, high = np.inf, -np.inf
        for number in range(frames):
            value = values[row, number]
            if np.isfinite(value) and times[row, number] >= since:
                if count == 0:
                    first = number
                count += 1
                last = number
                total += value
                total_time += times[row, number] - times[row, first]
                low, high = min(low, value), max(high, value)
        if count < needed or count == 0 or not times[row, last] - times[row, first] >= span:
            continue
        mean = total / count
        if kind == _BEFORE:
            found[row] = values[row, first]
        elif kind == _MEAN:
            found[row] = mean
        elif kind == _MIN:
            found[row] = low
        elif kind == _MAX:
            found[row] = high
        else:
            middle = times[row, first] + total_time / count
            squares = products = square_times = 0.0
            for number in range(first, last + 1):
                value = values[row, number]
                if np.isfinite(value) and times[row, number] >= since:
                    off, off_time = value - mean, times[row, number] - middle
                    squares += off * off
                    products += off * off_time
                    square_times += off_time * off_time
            if kind == _STD:
                found[row] = np.sqrt(squares / count)
            elif square_times > 0:
                found[row] = products / square_times
    return found
