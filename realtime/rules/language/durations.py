"""Durations: ``"5 frames"`` or ``"10 min"``."""

from __future__ import annotations

from typing import NamedTuple

from .syntax import ExpressionError, Number, parse
from .units import FRAMES, TIME, in_words


class Duration(NamedTuple):
    """A number of frames, or a time in s; the other is 0."""

    frames: int = 0
    seconds: float = 0.0
    text: str = ""


def read_duration(text: str) -> Duration:
    """Return a duration.

    Raises
    ------
    ExpressionError
        If it is neither a whole number of frames nor a time.
    """
    node = parse(text)
    if not isinstance(node, Number):
        raise ExpressionError(0, "a number of frames or a time is needed, such as '5 frames' or '10 min'")
    amount = node.value * node.unit.factor
    if node.unit.dimension == FRAMES and amount == int(amount):
        return Duration(frames=int(amount), text=text.strip())
    if node.unit.dimension == TIME:
        return Duration(seconds=amount, text=text.strip())
    what = "half a frame" if node.unit.dimension == FRAMES else in_words(node.unit.dimension)
    raise ExpressionError(0, f"a number of frames or a time is needed ('5 frames', '10 min'), not {what}")
