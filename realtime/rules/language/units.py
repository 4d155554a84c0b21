"""Units: what may be written behind a number, and which quantities may be compared with which.

Inside, lengths are px, times s, and numbers of frames are a dimension of their own; um become px with the pixel size
of the frame, so that columns need not be converted.
"""

from __future__ import annotations

from typing import NamedTuple


class Dimension(NamedTuple):
    """The exponents of length, time and number of frames; all 0 for a plain number."""

    length: int = 0
    time: int = 0
    frames: int = 0

    def times(self, other: Dimension, sign: int = 1) -> Dimension:
        """Return the dimension of a product, or with ``sign`` -1 of a quotient."""
        return Dimension(
            self.length + sign * other.length,
            self.time + sign * other.time,
            self.frames + sign * other.frames,
        )

    def power(self, exponent: int) -> Dimension:
        """Return the dimension of an integer power."""
        return Dimension(self.length * exponent, self.time * exponent, self.frames * exponent)


PLAIN = Dimension()
LENGTH = Dimension(length=1)
AREA = Dimension(length=2)
TIME = Dimension(time=1)
FRAMES = Dimension(frames=1)


class Unit(NamedTuple):
    """What a number in this unit is in px, s and frames: ``factor``, times the px in a um to the power ``um``."""

    dimension: Dimension
    factor: float = 1.0
    um: int = 0

    def times(self, other: Unit, sign: int = 1) -> Unit:
        """Return the product of two units, or with ``sign`` -1 their quotient."""
        return Unit(
            self.dimension.times(other.dimension, sign),
            self.factor * other.factor**sign,
            self.um + sign * other.um,
        )

    def power(self, exponent: int) -> Unit:
        """Return an integer power of a unit."""
        return Unit(self.dimension.power(exponent), self.factor**exponent, self.um * exponent)


NO_UNIT = Unit(PLAIN)
UNITS = {
    "px": Unit(LENGTH),
    "nm": Unit(LENGTH, 1e-3, 1),
    "um": Unit(LENGTH, 1.0, 1),
    "mm": Unit(LENGTH, 1e3, 1),
    "ms": Unit(TIME, 1e-3),
    "s": Unit(TIME),
    "min": Unit(TIME, 60.0),
    "h": Unit(TIME, 3600.0),
    "d": Unit(TIME, 86_400.0),
    "frame": Unit(FRAMES),
    "frames": Unit(FRAMES),
    "%": Unit(PLAIN, 0.01),
}

_WORDS = {
    PLAIN: "a plain number",
    LENGTH: "a length",
    AREA: "an area",
    TIME: "a time",
    FRAMES: "a number of frames",
    Dimension(length=1, time=-1): "a speed",
    Dimension(length=2, time=-1): "an area per time",
    Dimension(time=-1): "a rate",
}


def unit_text(dimension: Dimension) -> str:
    """Return a dimension in px, s and frames as a person writes it: ``px^2/s``; ``""`` for a plain number."""
    parts = [("px", dimension.length), ("s", dimension.time), ("frame", dimension.frames)]
    over = "*".join(_power(name, exponent) for name, exponent in parts if exponent > 0)
    under = "/".join(_power(name, -exponent) for name, exponent in parts if exponent < 0)
    return f"{over or '1' * bool(under)}/{under}" if under else over


def in_words(dimension: Dimension) -> str:
    """Return what a dimension is: ``an area (px^2 or um^2)``."""
    text = unit_text(dimension)
    word = _WORDS.get(dimension, "a quantity")
    if not text:
        return word
    return f"{word} ({text} or {text.replace('px', 'um')})" if dimension.length else f"{word} ({text})"


def _power(name: str, exponent: int) -> str:
    return name if exponent == 1 else f"{name}^{exponent}"
