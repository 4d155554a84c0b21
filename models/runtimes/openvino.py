"""OpenVINO: the fastest runtime on most processors; extra ``openvino``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from ...acquire.errors import ModelError
from .libraries import load_openvino
from .onnx_file import OnnxFile, read_onnx_file
from .outputs import as_float32
from .runtime import Precision, Tensor

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"bf16": "BF16", "fp16": "FP16"}


class OpenvinoRuntime:
    """Runs an ONNX file with OpenVINO on the processor.

    Parameters
    ----------
    weights
        The file; one that quantises runs in int8.
    threads
        Threads of the processor to compute with; they sleep between frames.
    precision
        Of the arithmetic of an fp32 file: ``"bf16"`` or ``"fp16"`` halve the time where the processor has
        them; no calibration is needed. Leave it at ``"fp32"`` for a file that quantises.

    Raises
    ------
    ModelError
        If the file is broken or has operators that OpenVINO does not know, or the processor lacks the precision.
    MissingExtraError
        If OpenVINO is not installed.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self, weights: Path, *, threads: int = 2, precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads must be 1 or more, got {threads}")
        if precision not in _HINTS:
            raise ValueError(f"precision must be one of {', '.join(_HINTS)}, got {precision!r}")
        self._file = read_onnx_file(weights)
        self.precision: Precision = precision if self._file.precision == "fp32" else self._file.precision
        self._request = _open(self._file, threads, precision)

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the net in the order of its file; the next call overwrites them.

        See :class:`.Runtime`.
        """
        given = self._file.fit(tensor)
        try:
            answer = self._request.infer({0: given}, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise ModelError(
                f"{self._file.path}: fails on a tensor of shape {tensor.shape}: {_reason(error)}"
            ) from error
        return as_float32(self._file, [answer[index] for index in range(len(self._file.output_names))])


def precisions() -> tuple[Precision, ...]:
    """Return what OpenVINO computes in on this processor.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    has = load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name in get_args(Precision) if _CAPABILITIES.get(name, "FP32") in has)


def _open(file: OnnxFile, threads: int, precision: str) -> Any:
    """Return a request of inference that can be used again and again."""
    core = load_openvino().Core()
    has: list[str] = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    needed = _CAPABILITIES.get(precision)
    if needed is not None and needed not in has:
        raise ModelError(
            f"{file.path}: this processor computes no {precision}; it has {', '.join(sorted(has))}"
        )
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "ENABLE_CPU_PINNING": False,  # pinned threads wait for whatever else runs on their core
    }
    try:
        return core.compile_model(core.read_model(file.path), "CPU", options).create_infer_request()
    except RuntimeError as error:
        raise ModelError(f"{file.path}: OpenVINO cannot open it: {_reason(error)}") from error


def _reason(error: RuntimeError) -> str:
    """Return the line of an error that says why; the others say where in OpenVINO."""
    lines = [line.strip("- ") for line in str(error).splitlines() if line.strip()]
    unknown = [line for line in lines if line.startswith("No conversion rule")]
    return (unknown or lines[-1:] or [type(error).__name__])[0]
