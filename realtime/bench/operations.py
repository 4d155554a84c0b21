"""How many operations a net needs, and how many bytes it moves, counted while ONNX Runtime runs it."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...acquire.errors import ModelError
from ...models.runtimes.libraries import load_onnxruntime
from ...models.runtimes.onnx_file import read_onnx_file
from ...models.runtimes.outputs import reason_of
from ...models.runtimes.runtime import Precision, Tensor

Shape = Sequence[int]

# Operations of one node from the shapes of its inputs and its output; a multiplication and an addition are two.
_COUNTED: dict[str, Callable[[list[Shape], Shape], int]] = {
    "Conv": lambda inputs, output: 2 * math.prod(output) * math.prod(inputs[1][1:]),
    "ConvTranspose": lambda inputs, output: 2 * math.prod(inputs[0]) * math.prod(inputs[1][1:]),
    "MatMul": lambda inputs, output: 2 * math.prod(output) * inputs[0][-1],
}
_BYTES: Mapping[Precision, int] = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a net takes at least, layer by layer and nothing fused; the rest is little.

    A net whose layers are fused moves less, as it keeps what passes between them.

    Attributes
    ----------
    operations
        Of convolutions and matrix products.
    maps
        Values that these read and write, weights aside: the inputs and the output of each, once.
    weights
        Values of their weights and biases, each once.
    """

    operations: float
    maps: float
    weights: float

    def bytes(self, precision: Precision) -> float:
        """Return the fewest bytes that move if every value has this precision."""
        return _BYTES[precision] * (self.maps + self.weights)

    def scaled(self, area: float, runs: int) -> Cost:
        """Return the cost of so many times the px in so many runs, each of which reads the weights anew."""
        return Cost(self.operations * area, self.maps * area, self.weights * runs)


UNKNOWN = Cost(math.nan, math.nan, math.nan)
"""Of a net that cannot be counted."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What a net took for one frame; NaN: unknown, or there is no net.

    Attributes
    ----------
    operations, bytes
        See :class:`Cost`.
    net_ms
        Time of the net alone, on a card with upload and download.
    """

    operations: float = math.nan
    bytes: float = math.nan
    net_ms: float = math.nan


def cost_of(path: Path, tensor: Tensor) -> Cost:
    """Return what a net takes when it runs on a tensor.

    Parameters
    ----------
    path
        An ONNX file that does not quantise.
    tensor
        (n, channels, y, x) float32.

    Raises
    ------
    ModelError
        If the file is broken, or the tensor does not fit it.
    """
    file = read_onnx_file(path)
    library = load_onnxruntime()
    with tempfile.TemporaryDirectory(prefix="cytoloop-") as folder:
        options = library.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        # As written: optimised, convolutions go by other names.
        options.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Weights that were packed anew are not in the profile.
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.log_severity_level = 4
        given = {file.input_name: file.fit(tensor)}
        try:
            session = library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            session.run(None, given)
        except Exception as error:  # its dozen kinds of errors have no base of their own
            raise ModelError(f"{path}: cannot be counted: {reason_of(error)}") from error
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    costs = [_of_node(event["args"]) for event in events if event["name"].endswith("_kernel_time")]
    return Cost(
        sum(cost.operations for cost in costs),
        sum(cost.maps for cost in costs),
        sum(cost.weights for cost in costs),
    )


def _of_node(node: dict[str, Any]) -> Cost:
    count = _COUNTED.get(node["op_name"])
    if count is None:
        return Cost(0, 0, 0)
    inputs: list[Shape] = [next(iter(each.values())) for each in node["input_type_shape"]]
    (output,) = node["output_type_shape"][0].values()
    # Two stacks of matrices come from the frame, both of them; a plain matrix does not.
    given = 2 if node["op_name"] == "MatMul" and len(inputs[1]) > 2 else 1
    maps = [*inputs[:given], output]
    return Cost(count(inputs, output), sum(map(math.prod, maps)), sum(map(math.prod, inputs[given:])))
