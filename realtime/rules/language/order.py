"""Order among the cells of a frame: medians, percentiles and ranks, each from one sort that all rules share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .sight import Sight
    from .terms import Term


def median(sight: Sight, term: Term) -> float:
    """Return the median over the cells of which it is known; NaN if of none."""
    values = _ordered(sight, term)
    if not len(values):
        return math.nan
    middle = len(values) // 2
    return float(np.mean(values[middle - 1 : middle + 1] if len(values) % 2 == 0 else values[middle]))


def percentile(sight: Sight, term: Term, q: float) -> float:
    """Return a percentile, ``q`` 0 to 100, over the cells of which it is known; NaN if of none.

    Between two cells it is interpolated, as ``np.percentile`` does it.
    """
    values = _ordered(sight, term)
    if not len(values):
        return math.nan
    if values.dtype != np.float64:
        return float(np.percentile(values, q))
    place = q / 100 * (len(values) - 1)
    below = math.floor(place)
    share = place - below
    low, high = float(values[below]), float(values[min(below + 1, len(values) - 1)])
    step = high - low
    return high - step * (1 - share) if share >= 0.5 else low + step * share


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n,) 1 for the highest value, 2 for the next; of equal ones the first row comes first. NaN stays NaN."""
    keys = -values
    order = np.argsort(keys)
    placed = keys[order]
    if (placed[1:] == placed[:-1]).any():  # only a stable sort, which takes five times longer, orders these
        order = np.argsort(keys, kind="stable")
    known = len(keys) - int(np.count_nonzero(np.isnan(keys)))
    found = np.full(len(keys), np.nan)
    found[order[:known]] = np.arange(1, known + 1)
    return found


def _ordered(sight: Sight, term: Term) -> NDArray[Any]:
    """Return what is known of a term, in ascending order; sorted once per moment."""

    def work() -> NDArray[Any]:
        values = np.sort(sight.value(term))  # NaN come last
        return values[: np.searchsorted(values, np.nan)] if values.dtype.kind == "f" else values

    return sight.once(f"{term.text} in order", work)
