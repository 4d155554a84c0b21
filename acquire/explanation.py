"""Why a rule did or did not decide something about a cell in one frame: values that people and programs read."""

from __future__ import annotations

import msgspec


class Clause(msgspec.Struct, frozen=True):
    """One clause of a rule for one cell in one frame.

    Attributes
    ----------
    text
        The clause as it is written in the rule, or in words.
    value, threshold
        What was found and what is asked for, in ``unit``; None where there is no such number.
    unit
        Such as ``um^2`` or ``frames``; ``""`` for a pure number or where there is none.
    holds
        Whether the clause holds in this frame.
    since_s
        Frame time in s since which it holds (or does not hold) without a break; None where that is not known.
    """

    text: str
    value: float | None = None
    threshold: float | None = None
    unit: str = ""
    holds: bool = False
    since_s: float | None = None


class Explanation(msgspec.Struct, frozen=True):
    """What one rule says of one cell in one frame.

    Attributes
    ----------
    rule
        Name of the rule.
    track
        The cell; 0 if the rule looks at the whole frame.
    sequence
        The frame.
    fired
        Whether the rule decided something about the cell in this frame (the limits may yet have refused it).
    verdict
        One sentence: why, or why not.
    clauses
        What the rule looked at, in the order of the rule.
    """

    rule: str
    track: int
    sequence: int
    fired: bool
    verdict: str
    clauses: tuple[Clause, ...] = ()
