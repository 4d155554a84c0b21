"""Conditions: comparisons joined by and, or, not; each comparison is a clause that can be asked about alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..known import Known
from .syntax import Comparison, ExpressionError, Minus, Node, Not, Number, Several, parse
from .terms import Term, same_dimension, term_of
from .units import NO_UNIT, Unit, unit_text

if TYPE_CHECKING:
    from .sight import Sight

Join: TypeAlias = "Callable[[NDArray[np.bool_]], NDArray[np.bool_]]"

_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


def _differs(left: Any, right: Any, out: NDArray[np.bool_]) -> None:
    np.less(left, right, out)
    out |= np.greater(left, right)


# An unknown value (NaN) holds in none of them, and so not in their opposites either.
_WORK: dict[str, Callable[[Any, Any, NDArray[np.bool_]], Any]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": _differs,
}


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison, or one thing that holds or does not.

    Attributes
    ----------
    text
        As it was written.
    left, right
        What is compared; ``right`` None where something holds or does not.
    sign
        How it is compared; ``""`` or ``not`` where something holds or does not.
    unit, unit_name
        In which a person reads the values.
    """

    text: str
    left: Term
    right: Term | None
    sign: str
    unit: Unit
    unit_name: str

    def holds(self, sight: Sight, into: NDArray[np.bool_]) -> None:
        """Write for which cells it holds, (n,), or whether it does for the frame, everywhere."""
        left = sight.value(self.left)
        if self.right is None:
            into[:] = ~left if self.sign == "not" else left
        else:
            _WORK[self.sign](left, sight.value(self.right), into)

    def sides(self, sight: Sight, row: int) -> tuple[float, float | None]:
        """Return value and threshold of one cell, in the unit of the clause; without threshold where there is none."""
        scale = self.unit.factor * sight.px_per_um**self.unit.um if self.unit.um else self.unit.factor
        left = _at(sight.value(self.left), row) / scale
        return left, None if self.right is None else _at(sight.value(self.right), row) / scale


@dataclass(frozen=True, slots=True)
class Condition:
    """A checked condition.

    Attributes
    ----------
    text
        As it was written.
    clauses
        Its comparisons.
    whole
        Returns from where each clause holds, (k, n) bool, where the whole condition does.
    per_cell
        Whether it says something of each cell, else of the frame.
    """

    text: str
    clauses: tuple[Clause, ...]
    whole: Join
    per_cell: bool

    def each(self, sight: Sight) -> NDArray[np.bool_]:
        """Return (k, n) bool, where each clause holds; (k, 1) if the condition is of the frame."""
        found = np.empty((len(self.clauses), len(sight.tracks) if self.per_cell else 1), np.bool_)
        for clause, into in zip(self.clauses, found, strict=True):
            clause.holds(sight, into)
        return found


def read_condition(text: str, known: Known | None = None) -> Condition:
    """Return a checked condition.

    Raises
    ------
    ExpressionError
        Names what is wrong with it, and where.
    """
    condition = condition_of(parse(text), known)
    return Condition(text.strip(), condition.clauses, condition.whole, condition.per_cell)


def condition_of(node: Node, known: Known | None) -> Condition:
    """Return the condition of a tree.

    Raises
    ------
    ExpressionError
        If it is none.
    """
    clauses: list[Clause] = []
    whole = _join(node, known, clauses, negated=False)
    per_cell = any(each.left.per_cell or (each.right is not None and each.right.per_cell) for each in clauses)
    return Condition("", tuple(clauses), whole, per_cell)


def _join(node: Node, known: Known | None, clauses: list[Clause], *, negated: bool) -> Join:
    """Collect the clauses of a tree; a negation goes down to them, so that what is unknown never holds."""
    match node:
        case Not(of=of):
            return _join(of, known, clauses, negated=not negated)
        case Several(word=word, of=several):
            parts = [_join(each, known, clauses, negated=negated) for each in several]
            join = np.logical_and if (word == "and") != negated else np.logical_or
            return lambda found: reduce(join, [part(found) for part in parts])
        case Comparison():
            clauses.append(_comparison(node, known, negated))
        case _:
            if isinstance(node, Number | Minus):
                raise ExpressionError(
                    node.at, "a condition is needed, such as area > 300 px^2; this is a number"
                )
            term = term_of(node, known)
            if not term.truth:
                raise ExpressionError(
                    node.at, f"{term.text} is a number; compare it, such as {term.text} > ..."
                )
            clauses.append(Clause(f"{'not ' * negated}{term.text}", term, None, "not" * negated, NO_UNIT, ""))
    place = len(clauses) - 1
    return lambda found: found[place]


def _comparison(node: Comparison, known: Known | None, negated: bool) -> Clause:
    left, right = term_of(node.left, known), term_of(node.right, known)
    for term in (left, right):
        if term.truth:
            raise ExpressionError(term.at, f"{node.sign!r} compares numbers, this holds or does not")
    same_dimension(left, right, node.at, "compare")
    if left.constant and right.constant:
        raise ExpressionError(node.at, "both sides are fixed numbers: this is always so, or never")
    written = next(
        (each for each in (node.right, node.left) if isinstance(each, Number) and each.written), None
    )
    dimension = right.dimension if left.is_zero else left.dimension
    unit, name = (
        (Unit(dimension), unit_text(dimension)) if written is None else (written.unit, written.written)
    )
    if negated:
        return Clause(f"not {node.written}", left, right, _OPPOSITE[node.sign], unit, name)
    return Clause(node.written, left, right, node.sign, unit, name)


def _at(values: Any, row: int) -> float:
    return float(values[row]) if isinstance(values, np.ndarray) and values.ndim else float(values)
