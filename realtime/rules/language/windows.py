"""What was, over a window of the past of each cell: slopes, means, extremes, and what it was before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ....models.kernels import frozen

if TYPE_CHECKING:
    from .sight import Sight
    from .terms import Term

Kind = Literal["slope", "before", "mean", "min", "max", "std"]
_KINDS: tuple[Kind, ...] = ("slope", "before", "mean", "min", "max", "std")
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
    past = sight.past(frames)
    values = np.broadcast_to(past.value(term), (n, frames))
    return _over(
        frozen(values, np.float64),
        frozen(past.times_s(), np.float64),
        since,
        needed,
        span,
        _KINDS.index(kind),
    )


def warm_up() -> None:
    """Compile the kernel, so that no frame waits for it."""
    one = frozen(np.ones((1, 1)))
    _over(one, one, -math.inf, 1, 0.0, 0)


@njit(cache=True, nogil=True)
def _over(
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
        if kind == 1:
            found[row] = values[row, first]
        elif kind == 2:
            found[row] = mean
        elif kind == 3:
            found[row] = low
        elif kind == 4:
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
            if kind == 5:
                found[row] = np.sqrt(squares / count)
            elif square_times > 0:
                found[row] = products / square_times
    return found
