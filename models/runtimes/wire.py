"""Reading Protocol Buffers without their library: the wire format is all that a check of a file needs."""

from __future__ import annotations

from collections.abc import Iterator

Field = tuple[int, int | memoryview]
"""Number of the field, and its value: an int for numbers, the bytes for anything with a length."""

MOST_FIELDS = 1 << 18
"""In one message; the largest nets have some ten thousand nodes."""
LONGEST_TEXT = 1 << 14
"""Bytes of a name that are looked at."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class WireFormatError(ValueError):
    """Bytes that are not a message."""


def fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of a message in the order in which they stand.

    Raises
    ------
    WireFormatError
        If the message ends within a field, or holds what no writer would write.
    """
    at, end, seen = 0, len(message), 0
    while at < end:
        seen += 1
        if seen > MOST_FIELDS:
            raise WireFormatError(f"a message of more than {MOST_FIELDS} parts")
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise WireFormatError("a field with number 0")
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise WireFormatError(f"a field of unknown kind {kind}")
        if at + size > end:
            raise WireFormatError(f"it ends {at + size - end} bytes too early")
        yield number, message[at : at + size]
        at += size


def integers(value: int | memoryview) -> list[int]:
    """Return the signed integers of a repeated field, packed or not."""
    if isinstance(value, int):
        return [_signed(value)]
    found: list[int] = []
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(_signed(number))
    return found


def message_of(value: int | memoryview) -> memoryview:
    """Return the bytes of a field that must hold some."""
    if isinstance(value, int):
        raise WireFormatError("a number where a message is expected")
    return value


def text(value: int | memoryview) -> str:
    """Return a text field; bytes that are no UTF-8 are shown, not refused."""
    return "" if isinstance(value, int) else bytes(value[:LONGEST_TEXT]).decode("utf-8", "backslashreplace")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        if at >= len(message):
            raise WireFormatError("it ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise WireFormatError("a number of more than 64 bits")


def _signed(value: int) -> int:
    value &= 0xFFFF_FFFF_FFFF_FFFF
    return value - 2**64 if value >= 2**63 else value
