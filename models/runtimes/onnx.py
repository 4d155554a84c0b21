"""ONNX Runtime: the runtime that every installation has."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ...acquire.errors import ModelError
from .libraries import load_onnxruntime
from .onnx_file import OnnxFile, read_onnx_file
from .outputs import as_float32, reason_of
from .runtime import Precision, Tensor

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_PROVIDER_OPTIONS: dict[str, dict[str, str]] = {
    # The exhaustive search of the default picks kernels by timing them: other bits from run to run.
    "cuda": {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"},
}
_FATAL_ONLY = 4


class OnnxRuntime:
    """Runs an ONNX file with ONNX Runtime.

    Parameters
    ----------
    weights
        The file. Its own arithmetic is used: fp32, fp16, or int8 if it quantises.
    threads
        Threads of the processor to compute with. They sleep between frames: left to itself, ONNX Runtime
        spins, which doubles the processor time of a 20 Hz stream.
    device
        ``"cpu"``; ``"cuda"`` or ``"tensorrt"`` for an NVIDIA card, which need onnxruntime-gpu in place of
        onnxruntime; ``"auto"`` takes CUDA where it works, else the processor.

    Raises
    ------
    ModelError
        If the file is broken, needs operators that ONNX Runtime does not have, or the device is missing.
    """

    name = "onnxruntime"

    def __init__(self, weights: Path, *, threads: int = 2, device: Device = "auto") -> None:
        if threads < 1:
            raise ValueError(f"threads must be 1 or more, got {threads}")
        self._file = read_onnx_file(weights)
        self.precision: Precision = self._file.precision
        self._session = _open(self._file, threads, device)
        self.device = _used(self._session)

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the net in the order of its file; see :class:`.Runtime`."""
        given = self._file.fit(tensor)
        try:
            outputs = self._session.run(None, {self._file.input_name: given})
        except Exception as error:  # its dozen kinds of errors have no base of their own
            raise ModelError(
                f"{self._file.path}: fails on a tensor of shape {tensor.shape}: {reason_of(error)}"
            ) from error
        return as_float32(self._file, outputs)


def _open(file: OnnxFile, threads: int, device: Device) -> Any:
    library = load_onnxruntime()
    present = library.get_available_providers()
    if device == "auto":
        device = "cuda" if _PROVIDERS["cuda"] in present else "cpu"
        demanded = False
    else:
        demanded = device != "cpu"
    if _PROVIDERS[device] not in present:
        raise ModelError(
            f"{file.path}: device {device!r} needs {_PROVIDERS[device]}; this ONNX Runtime has {', '.join(present)}"
        )
    providers = [(_PROVIDERS[device], _PROVIDER_OPTIONS.get(device, {}))]
    if device != "cpu":
        providers.append((_PROVIDERS["cpu"], {}))
    try:
        session = library.InferenceSession(
            str(file.path), _options(library, threads), providers=providers, enable_fallback=0
        )
    except Exception as error:
        raise ModelError(f"{file.path}: ONNX Runtime cannot open it: {reason_of(error)}") from error
    if demanded and _used(session) != device:
        raise ModelError(
            f"{file.path}: {_PROVIDERS[device]} does not start here (driver, CUDA or cuDNN missing or too old)"
        )
    return session


def _options(library: Any, threads: int) -> Any:
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    # One plan of memory for every shape ever seen would be kept; the arena alone is as fast and half the size.
    options.enable_mem_pattern = False
    options.log_severity_level = _FATAL_ONLY  # the rest comes as exceptions, and is told once
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _used(session: Any) -> str:
    """Return what a session computes on: the first of its providers."""
    first = session.get_providers()[0]
    return next((device for device, provider in _PROVIDERS.items() if provider == first), first)
