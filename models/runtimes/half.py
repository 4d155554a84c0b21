"""Converting a net to half precision: fp16 inside, fp32 at its input and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper

from ...acquire.errors import ModelError

KEPT = frozenset({
    "InstanceNormalization", "GroupNormalization", "LayerNormalization", "ReduceMean", "ReduceSum", "ReduceL2",
    "ReduceSumSquare", "ReduceLogSumExp", "Exp", "Pow", "Softmax", "LogSoftmax", "CumSum", "NonMaxSuppression",
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike",
})  # fmt: skip
"""Operators that stay in fp32: they sum, or leave the range of fp16 (6e-8 to 65 504), over a large image."""
LARGEST = float(np.finfo(np.float16).max)
_SINGLE, _HALF = False, True


class HalfConverter:
    """Converts one model; its ``versions`` tell under which name each float tensor exists in which type.

    Which inputs of a node may be fp16 is read from the definitions of the operators, so that any net can be
    converted: an operator that knows no fp16 stays in fp32, between two casts.
    """

    def __init__(self, model: Any, path: Path) -> None:
        self._model, self._path = model, path
        self._types = _types_of(model)
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._versions: dict[str, dict[bool, str]] = {}
        self._nodes: list[Any] = []
        self._new_weights: list[Any] = []
        self._opsets = {entry.domain: entry.version for entry in model.opset_import}

    def convert(self) -> Any:
        """Return the converted model.

        Raises
        ------
        ModelError
            If a weight is too large, or the net has control flow.
        """
        graph = self._model.graph
        for given in graph.input:
            self._versions[given.name] = {_SINGLE: given.name}
        outputs = {output.name for output in graph.output}
        for node in graph.node:
            self._node(node, outputs)
        for name in sorted(outputs):
            versions = self._versions.get(name, {_SINGLE: name})
            if _SINGLE not in versions:
                self._nodes.append(_cast(versions[_HALF], name, _SINGLE))
        used = {name for node in self._nodes for name in node.input} | outputs
        converted = onnx.ModelProto()
        converted.CopyFrom(self._model)
        for field in ("node", "initializer", "value_info"):
            converted.graph.ClearField(field)
        converted.graph.node.extend(self._nodes)
        converted.graph.initializer.extend(
            tensor for tensor in (*graph.initializer, *self._new_weights) if tensor.name in used
        )
        return converted

    def _node(self, node: Any, outputs: set[str]) -> None:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ModelError(
                f"{self._path}: {node.op_type} holds graphs; such a net cannot be converted to fp16"
            )
        inputs, outputs_half = self._half_slots(node)
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        for slot, name in enumerate(node.input):
            if self._types.get(name) == TensorProto.FLOAT:
                changed.input[slot] = self._version(name, slot in inputs)
        for slot, name in enumerate(node.output):
            if self._types.get(name) == TensorProto.FLOAT:
                half = slot in outputs_half
                changed.output[slot] = f"{name}_fp16" if half and name in outputs else name
                self._versions[name] = {half: changed.output[slot]}
        if inputs or outputs_half:
            self._convert_attributes(changed)
        self._nodes.append(changed)

    def _half_slots(self, node: Any) -> tuple[set[int], set[int]]:
        """Return which float inputs and outputs of a node become fp16: all that may, or none if one may not."""
        try:
            schema = defs.get_schema(node.op_type, self._opsets.get(node.domain, 1), node.domain)
        except defs.SchemaError:  # an operator of nobody's standard
            return set(), set()
        if node.op_type in KEPT:
            return set(), set()
        allowed = {entry.type_param_str: entry.allowed_type_strs for entry in schema.type_constraints}
        found: list[set[int]] = []
        for names, slots in ((node.input, schema.inputs), (node.output, schema.outputs)):
            kinds = {slot: slots[min(slot, len(slots) - 1)].type_str  # the last may stand for any number
                     for slot, name in enumerate(names) if self._types.get(name) == TensorProto.FLOAT}  # fmt: skip
            variable = {slot for slot, kind in kinds.items() if kind in allowed}
            if any("tensor(float16)" not in allowed[kinds[slot]] for slot in variable):
                return set(), set()
            found.append(variable)
        return found[0], found[1]

    def _version(self, name: str, half: bool) -> str:
        """Return the name of a tensor in one of the two types, made if it is not there yet."""
        versions = self._versions.setdefault(name, {_SINGLE: name})
        if half not in versions:
            versions[half] = f"{name}_{'fp16' if half else 'fp32'}"
            if name in self._weights:
                values = self._narrow(numpy_helper.to_array(self._weights[name]), name)
                self._new_weights.append(numpy_helper.from_array(values, versions[half]))
            else:
                self._nodes.append(_cast(versions[not half], versions[half], half))
        return versions[half]

    def _convert_attributes(self, node: Any) -> None:
        """Change the types that stand in attributes: what a cast makes, and constants."""
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
            elif attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
                values = self._narrow(numpy_helper.to_array(attribute.t), node.name or node.output[0])
                attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))
            elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                values = (
                    np.float32(attribute.f)
                    if attribute.name == "value_float"
                    else np.float32(attribute.floats)
                )
                tensor = numpy_helper.from_array(self._narrow(np.asarray(values), node.output[0]))
                attribute.CopyFrom(helper.make_attribute("value", tensor))

    def _narrow(self, values: Any, name: str) -> Any:
        if values.size and np.abs(values).max() > LARGEST:
            raise ModelError(
                f"{self._path}: {name!r} holds {np.abs(values).max():.3g}; fp16 ends at {LARGEST:.0f}"
            )
        return values.astype(np.float16)


def _types_of(model: Any) -> dict[str, int]:
    """Return the type of every tensor of a model."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    known = {value.name: value.type.tensor_type.elem_type for value in _values(graph)}
    return known | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _values(graph: Any) -> Iterator[Any]:
    yield from graph.input
    yield from graph.output
    yield from graph.value_info


def _cast(source: str, target: str, half: bool) -> Any:
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    return helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind)
