"""An ONNX net as a module of torch: the graph is read once, its operators are called one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...acquire.errors import ModelError
from .libraries import load_onnx
from .onnx_file import LARGEST_CONSTANT, OnnxFile
from .outputs import reason_of
from .torch_layers import Compute, Node
from .torch_operators import NUMBERS, OPERATORS

_BROKEN = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)
"""What functions raise of attributes that are not what ONNX says."""
_INSTEAD = "use the runtime onnxruntime, or tensorrt on an NVIDIA card"


class OnnxModule(nn.Module):
    """Computes the net of an ONNX file.

    Weights are buffers and follow ``to`` and ``half``. Shapes, and numbers that operators read, stay with the
    processor: nothing waits for a card, so that all of it can be recorded in a CUDA graph.

    Parameters
    ----------
    file
        An fp32 net that passed the checks.

    Raises
    ------
    ModelError
        If it is not fp32, or has what torch cannot compute; names the operators.
    MissingExtraError
        If the package onnx is not installed.
    """

    def __init__(self, file: OnnxFile) -> None:
        super().__init__()
        if file.precision != "fp32" or file.input_type.itemsize != 4:
            found = file.precision if file.precision != "fp32" else str(file.input_type)
            raise ModelError(f"{file.path}: is {found}; torch runs fp32 nets only: {_INSTEAD}")
        graph = _Graph(file)
        self._given, self._outputs = file.input_name, file.output_names
        self._steps = graph.steps
        self._names = tuple(graph.weights)
        for number, weight in enumerate(graph.weights.values()):
            self.register_buffer(f"weight_{number}", weight)

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of a tensor with the axes of the file, in the order of the file."""
        weights = self.named_buffers(remove_duplicate=False)
        values = {name: weight for name, (_, weight) in zip(self._names, weights, strict=True)}
        values[self._given] = planes
        for step in self._steps:
            given = [values[each] if isinstance(each, str) else each for each in step.inputs]
            values[step.output] = step.compute(*given)
            for name in step.done_with:
                del values[name]
        return tuple(values[name] for name in self._outputs)


@dataclass(slots=True)
class _Step:
    """One call: of names of values, constants of the processor, or None for what is left out."""

    compute: Compute
    inputs: list[str | Tensor | None]
    output: str
    done_with: tuple[str, ...] = ()


class _Graph:
    """The steps and the weights of a file."""

    def __init__(self, file: OnnxFile) -> None:
        self.steps: list[_Step] = []
        self.weights: dict[str, Tensor] = {}
        self._file, self._onnx = file, load_onnx("train")
        self._known = {file.input_name}
        self._of_processor: set[str] = set()
        """Values that the processor computes, of shapes."""
        graph = self._open()
        self._constants = {tensor.name: self._tensor(tensor) for tensor in graph.initializer}
        self._constants.pop(file.input_name, None)
        self._refuse_unknown(graph)
        for number, node in enumerate(graph.node):
            try:
                self._add(node)
            except _BROKEN as error:
                name = f"node {node.name or number!r} ({node.op_type})"
                raise ModelError(
                    f"{file.path}: torch cannot compute {name}: {reason_of(error)}; {_INSTEAD}"
                ) from error
        self._forget_early()

    def _open(self) -> Any:
        try:
            return self._onnx.load(str(self._file.path)).graph
        except Exception as error:  # Protocol Buffers and onnx have a dozen kinds of errors
            raise ModelError(f"{self._file.path}: onnx cannot open it: {reason_of(error)}") from error

    def _tensor(self, tensor: Any) -> Tensor:
        try:
            return _as_tensor(self._onnx.numpy_helper.to_array(tensor))
        except _BROKEN as error:
            raise ModelError(
                f"{self._file.path}: constant {tensor.name!r} cannot be read: {reason_of(error)}"
            ) from error

    def _refuse_unknown(self, graph: Any) -> None:
        found = {
            node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
            for node in graph.node
        }
        unknown = sorted(found - set(OPERATORS) - {"Constant"})
        if unknown:
            raise ModelError(f"{self._file.path}: torch cannot compute {', '.join(unknown)}; {_INSTEAD}")

    def _add(self, node: Any) -> None:
        """Append a node; one of constants alone is computed at once."""
        outputs = [name for name in node.output if name]
        if len(outputs) != 1:
            raise ValueError(f"has {len(outputs)} outputs in use; 1 can be computed")
        if outputs[0] in self._known or outputs[0] in self._constants:
            raise ValueError(f"output {outputs[0]!r} is there already")
        attributes = {
            each.name: _plain(self._onnx.helper.get_attribute_value(each)) for each in node.attribute
        }
        if node.op_type == "Constant":
            self._constants[outputs[0]] = self._constant(attributes)
            return
        compute = OPERATORS[node.op_type](Node(node.op_type, attributes, self._file.opset))
        given = [name for name in node.input if name]
        missing = [name for name in given if name not in self._known and name not in self._constants]
        if missing:
            raise ValueError(f"input {missing[0]!r} comes from nowhere")
        if all(name in self._constants for name in given):
            constant = compute(*(self._constants.get(name) for name in node.input))
            if constant.numel() > LARGEST_CONSTANT:
                raise ValueError(f"makes {constant.numel()} numbers; {LARGEST_CONSTANT} are allowed")
            self._constants[outputs[0]] = constant
            return
        rest = {name for name in given if name not in self._constants}
        here = node.op_type == "Shape" or rest <= self._of_processor
        numbers = range(len(node.input)) if here else NUMBERS.get(node.op_type, ())
        inputs = [self._input(name, slot in numbers) for slot, name in enumerate(node.input)]
        self.steps.append(_Step(compute, inputs, outputs[0]))
        self._known.add(outputs[0])
        if here:
            self._of_processor.add(outputs[0])

    def _constant(self, attributes: dict[str, Any]) -> Tensor:
        ((name, value),) = attributes.items()
        if name == "value":
            return self._tensor(value)
        if name in ("value_float", "value_floats"):
            return torch.tensor(value, dtype=torch.float32)
        if name in ("value_int", "value_ints"):
            return torch.tensor(value, dtype=torch.int64)
        raise ValueError(f"constants in {name} cannot be read")

    def _input(self, name: str, as_numbers: bool) -> str | Tensor | None:
        """Return what a step is given: the name of a value or a weight, or a constant of the processor."""
        constant = self._constants.get(name)
        if constant is None:
            return name or None
        if as_numbers or not constant.is_floating_point():
            return constant
        self.weights[name] = constant
        return name

    def _forget_early(self) -> None:
        """Let every value go after the step that needs it last: a large image makes hundreds of MB of them."""
        outputs = self._file.output_names
        absent = [name for name in outputs if name not in self._known]
        if absent:
            raise ModelError(f"{self._file.path}: output {absent[0]!r} is not computed from the image")
        needed = {*outputs, *self.weights}
        for step in reversed(self.steps):
            names = {each for each in (*step.inputs, step.output) if isinstance(each, str)}
            step.done_with = tuple(names - needed)
            needed |= names


def _as_tensor(array: Any) -> Tensor:
    """Return a constant of the processor, with floats as the net computes in."""
    tensor = torch.from_numpy(array.copy())
    return tensor.float() if tensor.is_floating_point() else tensor


def _plain(value: Any) -> Any:
    """Return an attribute with text in place of bytes, and lists in place of other sequences."""
    if isinstance(value, bytes):
        return value.decode()
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
