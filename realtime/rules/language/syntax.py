"""Syntax: the text of an expression -> a tree whose nodes know where they stand in it.

::

    condition  = all ("or" all)*
    all        = one ("and" one)*
    one        = "not" one | sum (("<" | "<=" | ">" | ">=" | "==" | "!=") sum)*
    sum        = product (("+" | "-") product)*
    product    = sign (("*" | "/") sign)*
    sign       = "-" sign | power
    power      = item ("^" whole number)?
    item       = number unit? | name ("." name)* | name "(" condition ("," condition)* ")" | "(" condition ")"
    unit       = name ("^" whole number)? (("*" | "/") name ("^" whole number)?)*
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from .units import NO_UNIT, UNITS, Unit

LONGEST = 2000
DEEPEST = 40

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[^\W\d]\w*)|(?P<quoted>\"[^\"]*\"|'[^']*')"
    r"|(?P<sign>\*\*|<=|>=|==|!=|[-+*/^%(),.<>])|(?P<wrong>\S))"
)
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
_WORDS = ("and", "or", "not")


class ExpressionError(ValueError):
    """What is wrong with an expression, where, and the nearest known name."""

    def __init__(self, at: int, reason: str, did_you_mean: str = "") -> None:
        self.at, self.reason, self.did_you_mean = at, reason, did_you_mean
        super().__init__(f"column {at + 1}: {reason}")


@dataclass(frozen=True, slots=True)
class Number:
    """A number with its unit, and that unit as it was written."""

    at: int
    value: float
    unit: Unit
    written: str = ""


@dataclass(frozen=True, slots=True)
class Name:
    """A quantity: ``area``, or with what it is of, ``GFP.mean``."""

    at: int
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Calling:
    """A function of other expressions."""

    at: int
    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Minus:
    """A changed sign."""

    at: int
    of: Node


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """``+ - * /`` of two expressions, or a whole power (``^``, its right side a number)."""

    at: int
    sign: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison of two expressions, and its text."""

    at: int
    sign: str
    left: Node
    right: Node
    written: str


@dataclass(frozen=True, slots=True)
class Not:
    """What must not hold."""

    at: int
    of: Node


@dataclass(frozen=True, slots=True)
class Several:
    """Conditions of which all (``and``) or one (``or``) must hold."""

    at: int
    word: str
    of: tuple[Node, ...]


Node: TypeAlias = "Number | Name | Calling | Minus | Arithmetic | Comparison | Not | Several"


class _Token(NamedTuple):
    kind: str
    text: str
    at: int

    @property
    def end(self) -> int:
        return self.at + len(self.text)


def parse(text: str) -> Node:
    """Return the tree of an expression.

    Raises
    ------
    ExpressionError
        Says where it is no expression, and why.
    """
    if len(text) > LONGEST:
        raise ExpressionError(LONGEST, f"longer than {LONGEST} characters")
    reader = _Reader(text, _tokens(text))
    if reader.next.kind == "end":
        raise ExpressionError(0, "nothing is written here")
    tree = reader.condition()
    if reader.next.kind != "end":
        raise ExpressionError(reader.next.at, f"{reader.next.text!r} was not expected here")
    return tree


def unparse(node: Node) -> str:
    """Return a tree as text, with brackets wherever they could matter: equal trees give equal text."""
    match node:
        case Number(value=value, unit=unit):
            return (
                f"{value!r}" if unit == NO_UNIT else f"{value!r} [{unit.factor!r} {unit.dimension} {unit.um}]"
            )
        case Name(parts=parts):
            return ".".join(parts)
        case Calling(name=name, arguments=arguments):
            return f"{name}({', '.join(map(unparse, arguments))})"
        case Minus(of=of):
            return f"-({unparse(of)})"
        case Not(of=of):
            return f"not ({unparse(of)})"
        case Several(word=word, of=several):
            return f" {word} ".join(f"({unparse(each)})" for each in several)
        case Arithmetic(sign=sign, left=left, right=right) | Comparison(sign=sign, left=left, right=right):
            return f"({unparse(left)}) {sign} ({unparse(right)})"


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while match := _TOKEN.match(text, at):
        kind = str(match.lastgroup)
        token = _Token(kind, match[kind], match.start(kind))
        if kind == "wrong":
            hint = {"=": "==", "!": "not", "&": "and", "|": "or"}.get(token.text, "")
            raise ExpressionError(token.at, f"{token.text!r} means nothing in an expression", hint)
        tokens.append(token)
        at = match.end()
    return tokens


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self._text, self._tokens, self._place, self._depth = text, tokens, 0, 0
        self._end = _Token("end", "the end", len(text.rstrip()))

    @property
    def next(self) -> _Token:
        return self._look(0)

    @property
    def _last_end(self) -> int:
        """Where the token that was taken last ends."""
        return self._tokens[self._place - 1].end

    def _look(self, ahead: int) -> _Token:
        place = self._place + ahead
        return self._tokens[place] if place < len(self._tokens) else self._end

    def _take(self) -> _Token:
        token = self.next
        self._place += 1
        return token

    def _accept(self, *texts: str) -> _Token | None:
        return self._take() if self.next.text in texts and self.next.kind != "quoted" else None

    def _expect(self, text: str, opened: _Token) -> None:
        if not self._accept(text):
            where = f"the {opened.text!r} at column {opened.at + 1}"
            raise ExpressionError(
                self.next.at, f"{text!r} is missing before {self.next.text!r}, to close {where}"
            )

    def condition(self) -> Node:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ExpressionError(self.next.at, f"nested deeper than {DEEPEST} levels")
        node = self._several("or", lambda: self._several("and", self._one))
        self._depth -= 1
        return node

    def _several(self, word: str, part: Callable[[], Node]) -> Node:
        first = self.next.at
        found = [part()]
        while self._accept(word):
            found.append(part())
        return found[0] if len(found) == 1 else Several(first, word, tuple(found))

    def _one(self) -> Node:
        if word := self._accept("not"):
            self._deeper()
            node = Not(word.at, self._one())
            self._depth -= 1
            return node
        return self._comparison()

    def _comparison(self) -> Node:
        first = start = self.next.at
        left = self._sum()
        found: list[Node] = []
        while sign := self._accept(*_COMPARISONS):
            middle, right = self.next.at, self._sum()
            written = self._text[start : self._last_end]
            found.append(Comparison(sign.at, sign.text, left, right, written))
            left, start = right, middle
        if not found:
            return left
        return found[0] if len(found) == 1 else Several(first, "and", tuple(found))

    def _sum(self) -> Node:
        node = self._product()
        while sign := self._accept("+", "-"):
            node = Arithmetic(sign.at, sign.text, node, self._product())
        return node

    def _product(self) -> Node:
        node = self._signed()
        while sign := self._accept("*", "/"):
            node = Arithmetic(sign.at, sign.text, node, self._signed())
        return node

    def _signed(self) -> Node:
        if sign := self._accept("-"):
            self._deeper()
            node = Minus(sign.at, self._signed())
            self._depth -= 1
            return node
        node = self._item()
        if sign := self._accept("^", "**"):
            node = Arithmetic(sign.at, "^", node, Number(self.next.at, self._whole(), NO_UNIT))
        return node

    def _item(self) -> Node:
        token = self._take()
        if token.kind == "number":
            unit = self._unit()
            return Number(token.at, float(token.text), unit, self._text[token.end : self._last_end].strip())
        if token.text == "(" and token.kind == "sign":
            node = self.condition()
            self._expect(")", token)
            return node
        if token.kind == "quoted" or (token.kind == "name" and token.text not in _WORDS):
            if token.kind == "name" and self.next.text == "(":
                return self._calling(token)
            parts = [token.text.strip("\"'")]
            while self._accept("."):
                part = self._take()
                if part.kind not in ("name", "quoted"):
                    raise ExpressionError(part.at, f"a name must follow the dot, not {part.text!r}")
                parts.append(part.text.strip("\"'"))
            return Name(token.at, tuple(parts))
        raise ExpressionError(token.at, f"a number, a quantity or '(' is expected, not {token.text!r}")

    def _calling(self, name: _Token) -> Node:
        opened = self._take()
        arguments: list[Node] = []
        if self.next.text != ")":
            arguments.append(self.condition())
            while self._accept(","):
                arguments.append(self.condition())
        self._expect(")", opened)
        return Calling(name.at, name.text, tuple(arguments))

    def _unit(self) -> Unit:
        """Take the unit behind a number, if there is one."""
        if self._accept("%"):
            return UNITS["%"]
        if not self._at_unit(0):
            return NO_UNIT
        unit = self._unit_part()
        while self.next.text in ("*", "/") and self._at_unit(1):
            sign = -1 if self._take().text == "/" else 1
            unit = unit.times(self._unit_part(), sign)
        return unit

    def _at_unit(self, ahead: int) -> bool:
        token, after = self._look(ahead), self._look(ahead + 1)
        return token.kind == "name" and token.text in UNITS and after.text not in ("(", ".")

    def _unit_part(self) -> Unit:
        unit = UNITS[self._take().text]
        return unit.power(int(self._whole())) if self._accept("^", "**") else unit

    def _whole(self) -> float:
        sign = -1 if self._accept("-") else 1
        token = self._take()
        if token.kind != "number" or not token.text.isdecimal() or int(token.text) > 9:
            raise ExpressionError(token.at, f"a power is a whole number from -9 to 9, not {token.text!r}")
        return sign * float(token.text)

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ExpressionError(self.next.at, f"nested deeper than {DEEPEST} levels")
