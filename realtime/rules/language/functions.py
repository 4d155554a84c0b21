"""Functions of expressions: of the cell itself, of its past, of all cells of the frame, and of its neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import nearby, order
from .syntax import ExpressionError
from .units import FRAMES, LENGTH, PLAIN, TIME, Dimension, in_words
from .windows import Kind, over

if TYPE_CHECKING:
    from .sight import Sight
    from .terms import Term


class Made(NamedTuple):
    """What a function makes of its arguments."""

    dimension: Dimension
    compute: Callable[[Sight], Any]
    per_cell: bool
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """One function.

    Attributes
    ----------
    takes, least, most
        What it takes, in words, and how many arguments.
    says
        What it is, for the page of all functions.
    make
        Checks the arguments; raises :class:`~.syntax.ExpressionError`.
    """

    takes: str
    least: int
    most: int
    says: str
    make: Callable[[int, tuple[Term, ...]], Made]


def _elementwise(
    work: Callable[[Any], Any], power: float | None = None
) -> Callable[[int, tuple[Term, ...]], Made]:
    def make(at: int, arguments: tuple[Term, ...]) -> Made:
        (of,) = _numbers(arguments)
        if power is None and of.dimension != PLAIN:
            raise ExpressionError(
                at, f"a plain number is needed, not {in_words(of.dimension)}; divide by a unit"
            )
        exponents = [exponent * (power or 0) for exponent in of.dimension]
        if any(exponent != int(exponent) for exponent in exponents):
            raise ExpressionError(at, f"the square root of {in_words(of.dimension)} has no unit")
        dimension = Dimension(*map(int, exponents))

        def compute(sight: Sight) -> Any:
            return work(sight.value(of))

        return Made(dimension, compute, of.per_cell, of.kept)

    return make


def _extreme(pair: Callable[[Any, Any], Any], every: Callable[[Any], Any]) -> Callable[..., Made]:
    """Of several arguments the extreme one of each cell, of one that of all cells."""
    of_all = _population(every)

    def make(at: int, arguments: tuple[Term, ...]) -> Made:
        if len(arguments) == 1:
            return of_all(at, arguments)
        from .terms import same_dimension

        first, *others = _numbers(arguments)
        for other in others:
            same_dimension(first, other, at, "compare")

        def compute(sight: Sight) -> Any:
            found = sight.value(first)
            for other in others:
                found = pair(found, sight.value(other))
            return found

        per_cell, kept = any(each.per_cell for each in arguments), all(each.kept for each in arguments)
        return Made(next((a.dimension for a in arguments if not a.is_zero), PLAIN), compute, per_cell, kept)

    return make


def _population(work: Callable[[Any], Any]) -> Callable[[int, tuple[Term, ...]], Made]:
    def make(at: int, arguments: tuple[Term, ...]) -> Made:
        (of,) = _of_cells(at, arguments)

        def compute(sight: Sight) -> Any:
            return _known(work, sight.value(of))

        return Made(of.dimension, compute, per_cell=False)

    return make


def _median(at: int, arguments: tuple[Term, ...]) -> Made:
    (of,) = _of_cells(at, arguments)

    def compute(sight: Sight) -> Any:
        return order.median(sight, of)

    return Made(of.dimension, compute, per_cell=False)


def _percentile(at: int, arguments: tuple[Term, ...]) -> Made:
    (of,) = _of_cells(at, arguments[:1])
    share = arguments[1]
    if share.dimension != PLAIN or not share.constant:
        raise ExpressionError(share.at, "which percentile must be a number from 0 to 100")

    def compute(sight: Sight) -> Any:
        q = min(100.0, max(0.0, float(sight.value(share))))
        return order.percentile(sight, of, q)

    return Made(of.dimension, compute, per_cell=False)


def _rank(at: int, arguments: tuple[Term, ...]) -> Made:
    (of,) = _of_cells(at, arguments)

    def compute(sight: Sight) -> Any:
        return order.ranks(np.asarray(sight.value(of), np.float64))

    return Made(PLAIN, compute, per_cell=True)


def _zscore(at: int, arguments: tuple[Term, ...]) -> Made:
    (of,) = _of_cells(at, arguments)

    def compute(sight: Sight) -> Any:
        values = np.asarray(sight.value(of), np.float64)
        off = values - _known(np.mean, values)
        return off / math.sqrt(_known(np.mean, off * off))

    return Made(PLAIN, compute, per_cell=True)


def _count(at: int, arguments: tuple[Term, ...]) -> Made:
    (of,) = arguments
    if not of.truth or not of.per_cell:
        raise ExpressionError(of.at, "a condition on cells is needed, such as area > 300 px^2")

    def compute(sight: Sight) -> Any:
        return float(np.count_nonzero(sight.value(of)))

    return Made(PLAIN, compute, per_cell=False)


def _neighbours(at: int, arguments: tuple[Term, ...]) -> Made:
    (radius,) = arguments
    if radius.dimension != LENGTH or not radius.constant:
        raise ExpressionError(radius.at, "a radius is needed, such as 30 um")

    def compute(sight: Sight) -> Any:
        return nearby.neighbours(sight.tracks.detections.yx, float(sight.value(radius)))

    return Made(PLAIN, compute, per_cell=True)


def _window(kind: Kind, relative: bool = False) -> Callable[[int, tuple[Term, ...]], Made]:
    def make(at: int, arguments: tuple[Term, ...]) -> Made:
        (of,) = _of_cells(at, arguments[:1])
        if not of.kept:
            raise ExpressionError(
                of.at, "only of what is measured the past is kept, not of such as position or age"
            )
        length = arguments[1]
        in_frames = length.dimension == FRAMES
        if length.dimension not in (FRAMES, TIME) or not length.constant:
            raise ExpressionError(
                length.at, "how far back must be a time or a number of frames: 10 min, 5 frames"
            )

        def compute(sight: Sight) -> Any:
            found = over(sight, of, float(sight.value(length)), in_frames, kind)
            return np.asarray(sight.value(of), np.float64) / found if relative else found

        dimension = of.dimension.times(TIME, -1) if kind == "slope" else of.dimension
        return Made(PLAIN if relative else dimension, compute, per_cell=True)

    return make


def _numbers(arguments: tuple[Term, ...]) -> tuple[Term, ...]:
    for each in arguments:
        if each.truth:
            raise ExpressionError(each.at, "a number is needed, this holds or does not")
    return arguments


def _of_cells(at: int, arguments: tuple[Term, ...]) -> tuple[Term, ...]:
    for each in _numbers(arguments):
        if not each.per_cell:
            raise ExpressionError(
                each.at, "something of each cell is needed, such as area; this is one number"
            )
    return arguments


def _known(work: Callable[[Any], Any], values: Any) -> float:
    """Work out something of the values that are known; NaN if none is."""
    known = values[~np.isnan(values)]
    return float(work(known)) if len(known) else float("nan")


_OF_CELLS, _PAST = "what is of each cell", "what is measured, and how far back"
FUNCTIONS: dict[str, Function] = {
    "abs": Function("a number", 1, 1, "without its sign", _elementwise(np.abs, 1)),
    "sqrt": Function("a number", 1, 1, "square root", _elementwise(np.sqrt, 0.5)),
    "log": Function("a plain number", 1, 1, "natural logarithm", _elementwise(np.log)),
    "exp": Function("a plain number", 1, 1, "exponential", _elementwise(np.exp)),
    "min": Function(
        "numbers",
        1,
        8,
        "the smallest of several; of one, the smallest of all cells",
        _extreme(np.minimum, np.min),
    ),
    "max": Function(
        "numbers",
        1,
        8,
        "the largest of several; of one, the largest of all cells",
        _extreme(np.maximum, np.max),
    ),
    "median": Function(_OF_CELLS, 1, 1, "median over all cells", _median),
    "mean": Function(_OF_CELLS, 1, 1, "mean over all cells", _population(np.mean)),
    "std": Function(_OF_CELLS, 1, 1, "standard deviation over all cells", _population(np.std)),
    "sum": Function(_OF_CELLS, 1, 1, "sum over all cells", _population(np.sum)),
    "percentile": Function(
        f"{_OF_CELLS} and a number from 0 to 100", 2, 2, "percentile over all cells", _percentile
    ),
    "rank": Function(_OF_CELLS, 1, 1, "1 for the cell with the most, 2 for the next", _rank),
    "zscore": Function(_OF_CELLS, 1, 1, "standard deviations from the mean over all cells", _zscore),
    "count": Function("a condition", 1, 1, "cells for which it holds", _count),
    "neighbours": Function("a radius", 1, 1, "other cells within it", _neighbours),
    "rate": Function(
        _PAST, 2, 2, "change per time: least-squares slope over the last observations", _window("slope")
    ),
    "before": Function(_PAST, 2, 2, "what it was so long before", _window("before")),
    "change": Function(
        _PAST, 2, 2, "what it is, over what it was so long before", _window("before", relative=True)
    ),
    "past_mean": Function(_PAST, 2, 2, "mean of the last observations", _window("mean")),
    "past_min": Function(_PAST, 2, 2, "smallest of the last observations", _window("min")),
    "past_max": Function(_PAST, 2, 2, "largest of the last observations", _window("max")),
    "past_std": Function(_PAST, 2, 2, "standard deviation of the last observations", _window("std")),
}
