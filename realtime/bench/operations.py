"""How many arithmetic operations a net needs, counted while ONNX Runtime runs it."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...acquire.errors import ModelError
from ...models.runtimes.libraries import load_onnxruntime
from ...models.runtimes.onnx_file import read_onnx_file
from ...models.runtimes.outputs import reason_of
from ...models.runtimes.runtime import Tensor

Shape = Sequence[int]

# Operations of one node from the shapes of its inputs and its output; a multiplication and an addition are two.
_COUNTED: dict[str, Callable[[list[Shape], Shape], int]] = {
    "Conv": lambda inputs, output: 2 * math.prod(output) * math.prod(inputs[1][1:]),
    "ConvTranspose": lambda inputs, output: 2 * math.prod(inputs[0]) * math.prod(inputs[1][1:]),
    "MatMul": lambda inputs, output: 2 * math.prod(output) * inputs[0][-1],
}


def operations(path: Path, tensor: Tensor) -> int:
    """Return the operations of convolutions and matrix products when a net runs on a tensor; the rest is little.

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
    return sum(_of_node(event["args"]) for event in events if event["name"].endswith("_kernel_time"))


def _of_node(node: dict[str, Any]) -> int:
    count = _COUNTED.get(node["op_name"])
    if count is None:
        return 0
    inputs = [next(iter(each.values())) for each in node["input_type_shape"]]
    (output,) = node["output_type_shape"][0].values()
    return count(inputs, output)
