"""One stored tensor of an ONNX file: whether it holds what its shape claims."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .wire import WireFormatError, fields, integers, message_of, text

FLOAT, INT64, FLOAT16, BFLOAT16 = 1, 7, 10, 16
TYPE_NAMES = {1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string",
              9: "bool", 10: "float16", 11: "float64", 16: "bfloat16"}  # fmt: skip
_ITEM_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128,
              16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}  # fmt: skip
_TYPED = (4, 5, 6, 7, 10, 11)
"""Fields that hold numbers one by one instead of as raw bytes."""
_LONGEST_SHAPE = 16
_MOST_AXES = 32
_LONGEST_NUMBER = 10
"""Bytes; packed lists that are longer than they may be are not taken apart."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """What is said about a stored tensor.

    Attributes
    ----------
    name
        As the nodes call it; ``""`` in an attribute.
    kind
        Number of its type.
    claimed_bytes
        What its shape and type ask for.
    problem
        Why it cannot be used, or ``""``.
    location
        File that holds its bytes, offset and length there (-1: to its end); None if they are in this file.
    shape_values
        Its numbers if it is a short list of int64, as shapes are.
    """

    name: str
    kind: int
    claimed_bytes: int
    problem: str
    location: tuple[str, int, int] | None
    shape_values: tuple[int, ...] | None


def read_tensor(message: memoryview) -> StoredTensor:
    """Read a ``TensorProto``.

    Raises
    ------
    WireFormatError
        If it is none.
    """
    name, kind, dims = "", 0, list[int]()
    raw: memoryview | None = None
    numbers: list[int] = []
    typed_bytes, outside = 0, dict[str, str]()
    for number, value in fields(message):
        if number == 1:
            if not isinstance(value, int) and len(value) > _MOST_AXES * _LONGEST_NUMBER:
                raise WireFormatError("a tensor with more axes than any net has")
            dims += integers(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8:
            name = text(value)
        elif number == 9:
            raw = message_of(value)
        elif number in _TYPED:
            length = 1 if isinstance(value, int) else len(value)
            typed_bytes += length
            if number == 7 and len(numbers) <= _LONGEST_SHAPE and length <= _LONGEST_SHAPE * _LONGEST_NUMBER:
                numbers += integers(value)
        elif number == 13:
            key, held = _entry(message_of(value))
            outside[key] = held
    elements = math.prod(dims[:_MOST_AXES])
    claimed = -(-elements * _ITEM_BITS.get(kind, 8) // 8)
    problem = (
        _problem(dims, claimed, elements, raw, typed_bytes) if not outside and kind in _ITEM_BITS else ""
    )
    location = _location(outside) if outside else None
    short = kind == INT64 and elements <= _LONGEST_SHAPE and not problem and not outside
    values = tuple(numbers) if raw is None else tuple(np.frombuffer(raw, "<i8").tolist()) if short else ()
    return StoredTensor(name, kind, claimed, problem, location, values if short else None)


def _problem(dims: list[int], claimed: int, elements: int, raw: memoryview | None, typed_bytes: int) -> str:
    if len(dims) > _MOST_AXES:
        return f"has {len(dims)} axes"
    if any(length < 0 for length in dims):
        return f"has shape {tuple(dims)}"
    if raw is not None and len(raw) != claimed:
        return f"claims {claimed} bytes and holds {len(raw)}"
    if raw is None and elements > 2 * typed_bytes:  # 4-bit numbers are stored two in a byte
        return f"claims {elements} numbers and holds at most {2 * typed_bytes}"
    return ""


def _location(outside: dict[str, str]) -> tuple[str, int, int]:
    offset, length = (outside.get(key, "") for key in ("offset", "length"))
    return (
        outside.get("location", ""),
        int(offset[:19]) if offset.isdecimal() else 0,
        int(length[:19]) if length.isdecimal() else -1,
    )


def _entry(message: memoryview) -> tuple[str, str]:
    key, held = "", ""
    for number, value in fields(message):
        if number == 1:
            key = text(value)
        elif number == 2:
            held = text(value)
    return key, held
