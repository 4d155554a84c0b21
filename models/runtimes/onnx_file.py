"""What an ONNX file says about itself, read and checked before any runtime opens it.

A runtime maps, allocates and folds constants while it opens a file; a damaged or hostile one is refused here,
in time that grows with the number of its nodes and not with the bytes that it claims.
"""

from __future__ import annotations

import hashlib
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import ModelError
from .onnx_tensors import BFLOAT16, FLOAT16, TYPE_NAMES, read_tensor
from .runtime import Precision
from .wire import WireFormatError, fields, integers, message_of, text

Shape = tuple[int | None, ...]
"""Lengths of the axes; None where any length will do."""

LARGEST_BYTES = 2**31
"""A message of Protocol Buffers cannot be larger (2 GiB)."""
LARGEST_CONSTANT = 2**28
"""Elements of a tensor that a node makes of constants alone: 1 GiB of float32."""
OLDEST_OPSET, NEWEST_OPSET = 7, 28
"""What ONNX Runtime 1.32 reads; other runtimes read files of unknown opsets as if they knew them."""
_INPUT_TYPES = {1: np.dtype(np.float32), 10: np.dtype(np.float16), 11: np.dtype(np.float64)}
_QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"})
_SHAPE_INPUT = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
"""Operators that make a tensor as large as one of their inputs says, and which input that is."""


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A file that passed the checks.

    Attributes
    ----------
    path
        Where it lies.
    opset
        Version of the standard operators.
    input_name, input_shape, input_type
        Of its one input, of float numbers: (n, channels, y, x), or fewer axes.
    output_names, output_shapes
        In their order; a shape is None where the file does not tell it.
    precision
        ``"int8"`` if it quantises, ``"fp16"`` or ``"bf16"`` if weights are of that type, else ``"fp32"``.
    external
        Files beside it that hold weights.
    """

    path: Path
    opset: int
    input_name: str
    input_shape: Shape
    input_type: np.dtype[Any]
    output_names: tuple[str, ...]
    output_shapes: tuple[Shape | None, ...]
    precision: Precision
    external: tuple[Path, ...]

    def fit(self, tensor: NDArray[np.float32]) -> NDArray[Any]:
        """Return a tensor (n, channels, y, x) as the net takes it.

        Raises
        ------
        ModelError
            If the net cannot take it; names the file, what it takes and what it was given.
        """
        axes = len(self.input_shape)
        given = tensor.reshape(tensor.shape[-axes:]) if math.prod(tensor.shape[:-axes]) == 1 else tensor
        fits = given.ndim == len(self.input_shape) and all(
            fixed is None or fixed == length
            for fixed, length in zip(self.input_shape, given.shape, strict=True)
        )
        if not fits or tensor.size == 0 or tensor.dtype != np.float32:
            raise ModelError(
                f"{self.path}: takes float32 of shape {describe(self.input_shape)}, "
                f"got {tensor.dtype} of shape {tensor.shape}"
            )
        return given.astype(self.input_type, copy=False)


def describe(shape: Shape) -> str:
    """Write the shape of an image tensor for people, such as ``(n, 1, y, x)``."""
    names = ("n", "channels", "y", "x")[-len(shape) :]
    written = [name if length is None else str(length) for length, name in zip(shape, names, strict=True)]
    return f"({', '.join(written)})"


def content_hash(file: OnnxFile) -> str:
    """Return the SHA-256 of everything that decides what the net computes, as 64 hex digits."""
    digest = hashlib.sha256()
    for path in (file.path, *file.external):
        with path.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def read_onnx_file(path: str | Path) -> OnnxFile:
    """Read and check an ONNX file.

    Raises
    ------
    ModelError
        If it is missing, empty, truncated, no ONNX, of an opset that is too old, claims more than it holds,
        or is no net from one image tensor.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if not 0 < size <= LARGEST_BYTES:
            raise ModelError(f"{path}: {size} bytes; an ONNX file has 1 byte to 2 GiB")
        with path.open("rb") as file:  # mapped: weights are stepped over, not read
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return _Reader(path).read(content)
    except WireFormatError as error:
        raise ModelError(f"{path}: damaged, or no ONNX file: {error}") from error
    except RecursionError:
        raise ModelError(f"{path}: graphs within graphs, deeper than any net has") from None


@dataclass(frozen=True, slots=True)
class _Value:
    """A named input or output of the graph."""

    name: str
    kind: int
    shape: Shape | None


class _Reader:
    """Collects what one file says."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inputs: list[_Value] = []
        self._outputs: list[_Value] = []
        self._weights: set[str] = set()
        self._types: set[int] = set()
        self._operators: set[str] = set()
        self._external: dict[Path, None] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._made: list[tuple[str, str]] = []

    def read(self, content: memoryview) -> OnnxFile:
        opset, graphs = 0, 0
        for number, value in fields(content):
            if number == 7:
                graphs += 1
                self._graph(message_of(value), outermost=True)
            elif number == 8:
                domain, version = _operator_set(message_of(value))
                opset = version if domain in ("", "ai.onnx") else opset
        if graphs != 1:
            raise WireFormatError("there is no graph in it")
        if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
            raise self._refused(f"opset {opset}; {OLDEST_OPSET} to {NEWEST_OPSET} are known: export it again")
        self._check_made()
        given = self._only_input()
        outputs = tuple(output.name for output in self._outputs)
        if not outputs:
            raise self._refused("it has no output")
        return OnnxFile(
            path=self._path,
            opset=opset,
            input_name=given.name,
            input_shape=given.shape or (),
            input_type=_INPUT_TYPES[given.kind],
            output_names=outputs,
            output_shapes=tuple(output.shape for output in self._outputs),
            precision=self._precision(),
            external=tuple(self._external),
        )

    def _refused(self, reason: str) -> ModelError:
        return ModelError(f"{self._path}: {reason}")

    def _only_input(self) -> _Value:
        inputs = [value for value in self._inputs if value.name not in self._weights]
        if len(inputs) != 1:
            names = ", ".join(repr(value.name) for value in inputs) or "none"
            raise self._refused(f"one input tensor is needed; it has {len(inputs)}: {names}")
        given = inputs[0]
        if given.kind not in _INPUT_TYPES:
            found = TYPE_NAMES.get(given.kind, f"of type {given.kind}")
            raise self._refused(f"input {given.name!r} is {found}; float32 is needed")
        if given.shape is None or not 2 <= len(given.shape) <= 4:
            axes = "of no known shape" if given.shape is None else f"of {len(given.shape)} axes"
            raise self._refused(f"input {given.name!r} is {axes}; (n, channels, y, x) is needed")
        return given

    def _precision(self) -> Precision:
        if self._operators & _QUANTISED:
            return "int8"
        return "fp16" if FLOAT16 in self._types else "bf16" if BFLOAT16 in self._types else "fp32"

    def _check_made(self) -> None:
        """Refuse nodes that make a huge tensor out of nothing; a runtime would only find out when it runs."""
        for operator, name in self._made:
            elements = math.prod(self._shapes.get(name, ()))
            if elements > LARGEST_CONSTANT:
                raise self._refused(
                    f"a node {operator} makes {elements} numbers; {LARGEST_CONSTANT} are allowed"
                )

    def _graph(self, message: memoryview, *, outermost: bool) -> None:
        for number, value in fields(message):
            if number == 1:
                self._node(message_of(value))
            elif number == 5:
                self._weights.add(self._tensor(message_of(value)))
            elif outermost and number in (11, 12):
                (self._inputs if number == 11 else self._outputs).append(_value(message_of(value)))

    def _node(self, message: memoryview) -> None:
        operator, inputs, outputs, constant = "", list[str](), list[str](), ""
        for number, value in fields(message):
            if number == 1:
                inputs.append(text(value))
            elif number == 2:
                outputs.append(text(value))
            elif number == 4:
                operator = text(value)
            elif number == 5:
                constant = self._attribute(message_of(value))
        self._operators.add(operator)
        if operator == "Constant" and outputs and constant in self._shapes:
            self._shapes[outputs[0]] = self._shapes[constant]
        wanted = _SHAPE_INPUT.get(operator)
        if wanted is not None and len(inputs) > wanted:
            self._made.append((operator, inputs[wanted]))

    def _attribute(self, message: memoryview) -> str:
        """Look into an attribute; return the name of the tensor in it."""
        name = ""
        for number, value in fields(message):
            if number in (5, 10):
                name = self._tensor(message_of(value))
            elif number in (6, 11):
                self._graph(message_of(value), outermost=False)
        return name

    def _tensor(self, message: memoryview) -> str:
        tensor = read_tensor(message)
        self._types.add(tensor.kind)
        if tensor.problem:
            raise self._refused(f"tensor {tensor.name!r} {tensor.problem}")
        if tensor.location is not None:
            self._external[self._file_of(tensor.name, tensor.claimed_bytes, *tensor.location)] = None
        if tensor.shape_values is not None:
            self._shapes[tensor.name] = tensor.shape_values
        return tensor.name

    def _file_of(self, name: str, claimed: int, location: str, offset: int, length: int) -> Path:
        """Return the file that holds a tensor: beside the net or below it, and long enough."""
        folder = self._path.parent.resolve()
        location = location.replace("\0", "?")
        held_by = (folder / location).resolve()
        if not location or not held_by.is_relative_to(folder):
            raise self._refused(f"tensor {name!r} lies in {location!r}, which is outside of its folder")
        if not held_by.is_file():
            raise self._refused(f"tensor {name!r} lies in {location!r}, which is missing")
        needed = offset + max(claimed, length)
        if held_by.stat().st_size < needed:
            raise self._refused(f"tensor {name!r} needs {needed} bytes of {location!r}, which is shorter")
        return held_by


def _operator_set(message: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in fields(message):
        if number == 1:
            domain = text(value)
        elif number == 2 and isinstance(value, int):
            version = value
    return domain, version


def _value(message: memoryview) -> _Value:
    """Read a ``ValueInfoProto``."""
    name, kind, shape = "", 0, None
    for number, value in fields(message):
        if number == 1:
            name = text(value)
        elif number == 2:
            for which, inner in fields(message_of(value)):
                if which == 1:
                    kind, shape = _tensor_type(message_of(inner))
    return _Value(name, kind, shape)


def _tensor_type(message: memoryview) -> tuple[int, Shape | None]:
    kind, shape = 0, None
    for number, value in fields(message):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 2:
            shape = tuple(
                _length(message_of(axis)) for which, axis in fields(message_of(value)) if which == 1
            )
    return kind, shape


def _length(message: memoryview) -> int | None:
    """Return the fixed length of an axis; None if it has a name, or is 0 or less, as some exporters write."""
    lengths = [integers(value)[0] for number, value in fields(message) if number == 1]
    return lengths[0] if lengths and lengths[0] > 0 else None
