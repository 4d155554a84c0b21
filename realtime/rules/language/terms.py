"""Terms: a tree whose names are known and whose units fit, ready to be worked out over all cells at once."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ....acquire.errors import nearest_name
from ..known import Known
from .functions import FUNCTIONS
from .quantities import find
from .syntax import Arithmetic, Calling, ExpressionError, Minus, Name, Node, Number, parse, unparse
from .units import PLAIN, Dimension, in_words

if TYPE_CHECKING:
    from .sight import Sight

_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "^": operator.pow,
}


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One checked expression.

    Attributes
    ----------
    at
        Column of its text, from 0.
    text
        Equal for equal expressions.
    dimension
        What it is, in px, s and frames.
    compute
        Works it out; use :meth:`~.sight.Sight.value`, which does so once.
    per_cell
        (n,) of the cells, else one number of the frame.
    truth
        Something that holds or does not.
    constant
        Holds no quantity.
    kept
        Holds only quantities whose past is kept.
    is_zero
        A written 0, which is the same in all units.
    """

    at: int
    text: str
    dimension: Dimension
    compute: Callable[[Sight], Any]
    per_cell: bool = False
    truth: bool = False
    constant: bool = True
    kept: bool = True
    is_zero: bool = False


def number_term(text: str, known: Known | None = None) -> Term:
    """Return the term of a number, such as what cells are ranked by.

    Raises
    ------
    ExpressionError
        If it is no such expression.
    """
    found = term_of(parse(text), known)
    if found.truth:
        raise ExpressionError(found.at, "a number is needed, this holds or does not")
    return found


def term_of(node: Node, known: Known | None) -> Term:
    """Check a tree and return its term.

    Raises
    ------
    ExpressionError
        Names what is unknown or does not fit, and where.
    """
    match node:
        case Number(value=value, unit=unit):
            factor, um = value * unit.factor, unit.um
            if um and known is not None and not known.pixel_size:
                raise ExpressionError(
                    node.at, "a length in um needs a pixel size, and none is given; write it in px"
                )
            return Term(
                node.at,
                unparse(node),
                unit.dimension,
                (lambda sight: factor * sight.px_per_um**um) if um else (lambda sight: factor),
                is_zero=value == 0,
            )
        case Name():
            found = find(node, known)
            read = found.read
            text = unparse(node)
            return Term(
                node.at,
                text,
                found.dimension,
                read,
                found.per_cell,
                found.truth,
                constant=False,
                kept=found.kept,
            )
        case Minus(of=of):
            inner = _number(term_of(of, known), "-")
            return _derived(
                node, inner.dimension, lambda sight: -sight.value(inner), inner, is_zero=inner.is_zero
            )
        case Arithmetic():
            return _arithmetic(node, known)
        case Calling():
            return _call(node, known)
        case _:
            return _truth(node, known)


def same_dimension(left: Term, right: Term, at: int, doing: str) -> None:
    """Refuse two terms that cannot be compared or added.

    Raises
    ------
    ExpressionError
        Says what both are.
    """
    if left.dimension == right.dimension or left.is_zero or right.is_zero:
        return
    plain = next((each for each in (left, right) if each.dimension == PLAIN and each.constant), None)
    other = left if plain is right else right
    hint = f"; write its unit behind the number: {in_words(other.dimension)}" if plain is not None else ""
    raise ExpressionError(
        at, f"cannot {doing} {in_words(left.dimension)} and {in_words(right.dimension)}{hint}"
    )


def _arithmetic(node: Arithmetic, known: Known | None) -> Term:
    left, right = (_number(term_of(each, known), node.sign) for each in (node.left, node.right))
    work = _SIGNS[node.sign]
    if node.sign == "^":
        assert isinstance(node.right, Number)
        power = int(node.right.value)
        return _derived(
            node, left.dimension.power(power), lambda sight: sight.value(left) ** float(power), left
        )
    if node.sign in ("+", "-"):
        same_dimension(left, right, node.at, "add")
        dimension = right.dimension if left.is_zero else left.dimension
    else:
        dimension = left.dimension.times(right.dimension, 1 if node.sign == "*" else -1)
    return _derived(node, dimension, lambda sight: work(sight.value(left), sight.value(right)), left, right)


def _call(node: Calling, known: Known | None) -> Term:
    if node.name not in FUNCTIONS:
        near = nearest_name(node.name, FUNCTIONS)
        raise ExpressionError(
            node.at, f"no function is called {node.name!r}; known: {', '.join(FUNCTIONS)}", near
        )
    function = FUNCTIONS[node.name]
    if not function.least <= len(node.arguments) <= function.most:
        raise ExpressionError(
            node.at, f"{node.name} takes {function.takes}, not {len(node.arguments)} argument(s)"
        )
    arguments = tuple(term_of(each, known) for each in node.arguments)
    made = function.make(node.at, arguments)
    constant = not made.per_cell and all(each.constant for each in arguments)
    return Term(
        node.at, unparse(node), made.dimension, made.compute, made.per_cell, constant=constant, kept=made.kept
    )


def _truth(node: Node, known: Known | None) -> Term:
    from .conditions import condition_of

    condition = condition_of(node, known)
    return Term(
        node.at,
        unparse(node),
        PLAIN,
        lambda sight: condition.whole(condition.each(sight)),
        condition.per_cell,
        truth=True,
        constant=False,
        kept=False,
    )


def _number(term: Term, sign: str) -> Term:
    if term.truth:
        raise ExpressionError(term.at, f"{sign!r} needs numbers, this holds or does not")
    return term


def _derived(
    node: Node, dimension: Dimension, compute: Callable[[Sight], Any], *of: Term, is_zero: bool = False
) -> Term:
    return Term(
        node.at,
        unparse(node),
        dimension,
        compute,
        per_cell=any(each.per_cell for each in of),
        constant=all(each.constant for each in of),
        kept=all(each.kept for each in of),
        is_zero=is_zero,
    )
