"""ONNX and TorchScript with torch: on an NVIDIA card with CUDA graphs, or the processor; extra ``train``."""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...acquire.errors import MissingExtraError, ModelError
from .onnx_file import OnnxFile, read_onnx_file
from .runtime import Precision, Tensor

_SHAPES_KEPT = 4
_WARM_UP = 3
_FAILURES = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError)
"""What torch raises where a tensor does not fit a net."""


class TorchRuntime:
    """Runs an ONNX file of a plain convolutional net, or a TorchScript file.

    On a card, each size of input gets memory of its own and a CUDA graph of upload, net and download. On the
    processor, ONNX Runtime is faster.

    Parameters
    ----------
    weights
        The file: ``.onnx`` in fp32, or what ``torch.jit.save`` writes (``.pt``).
    threads
        Threads of the processor; torch has one number of threads for the whole process.
    device
        ``"cpu"``, ``"cuda"``, or ``"auto"`` for the card where there is one.
    precision
        ``"fp32"``, or ``"fp16"`` on a card; the input and outputs are fp32 either way.

    Raises
    ------
    ModelError
        If the file is broken, neither ONNX nor TorchScript, or has operators that torch does not compute, or
        the device is missing.
    MissingExtraError
        If torch is not installed, or for ONNX the package onnx.
    """

    name = "torch"

    def __init__(
        self,
        weights: Path,
        *,
        threads: int = 2,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        precision: Literal["fp32", "fp16"] = "fp32",
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads must be 1 or more, got {threads}")
        self._torch, self._path = _load_torch(), Path(weights)
        # Nothing opens a file before it was checked.
        self._file = read_onnx_file(self._path) if self._path.suffix.lower() == ".onnx" else None
        on_card = device == "cuda" or (device == "auto" and self._torch.cuda.is_available())
        if on_card and not self._torch.cuda.is_available():
            raise ModelError(f"{weights}: this torch sees no NVIDIA card")
        if precision == "fp16" and not on_card:
            raise ModelError(f"{weights}: torch computes fp16 on a card only; use fp32")
        self.precision: Precision = precision
        self.device = self._torch.cuda.get_device_name() if on_card else "cpu"
        self._torch.set_num_threads(threads)
        self._net = self._load("cuda" if on_card else "cpu")
        self._on_card = on_card
        self._kept: OrderedDict[tuple[int, ...], _Way] = OrderedDict()

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the net; on a card, the next call overwrites them. See :class:`.Runtime`."""
        if tensor.dtype != np.float32 or tensor.ndim != 4 or not tensor.size:
            raise ModelError(
                f"{self._path}: takes float32 of shape (n, channels, y, x), "
                f"got {tensor.dtype} of shape {tensor.shape}"
            )
        if self._file is not None:
            tensor = self._file.fit(tensor)
        try:
            with self._torch.inference_mode(), self._torch.jit.optimized_execution(False):
                return self._run_on_card(tensor) if self._on_card else self._run_here(tensor)
        except _FAILURES as error:
            raise ModelError(
                f"{self._path}: fails on a tensor of shape {tensor.shape}: {_reason(error)}"
            ) from error

    def _run_here(self, tensor: Tensor) -> tuple[Tensor, ...]:
        answer = self._net(self._torch.from_numpy(np.ascontiguousarray(tensor)))
        return tuple(output.float().numpy() for output in _tensors(self._torch, answer, self._path))

    def _run_on_card(self, tensor: Tensor) -> tuple[Tensor, ...]:
        way = self._kept.get(tensor.shape)
        if way is None:
            if len(self._kept) == _SHAPES_KEPT:
                self._kept.popitem(last=False)
            way = self._kept[tensor.shape] = _Way(
                self._torch, self._net, self._path, self.precision, tensor.shape
            )
        self._kept.move_to_end(tensor.shape)
        return way.run(tensor)

    def _load(self, device: str) -> Any:
        net = self._load_torchscript(device) if self._file is None else _load_onnx(self._file)
        try:
            net = net.to(device)
            if device == "cuda":
                net = net.to(memory_format=self._torch.channels_last)
            if self.precision == "fp32":
                return net
            net = net.half()
            too_large = any(bool(weight.isinf().any()) for weight in net.buffers())
        except RuntimeError as error:  # the memory of the card may be full
            raise ModelError(f"{self._path}: cannot be put on {self.device}: {_reason(error)}") from error
        if self._file is not None and too_large:
            raise ModelError(f"{self._path}: has weights beyond 65504, where fp16 ends; use fp32")
        return net

    def _load_torchscript(self, device: str) -> Any:
        try:
            with warnings.catch_warnings():  # torch would rather have another format; packages hold this one
                warnings.simplefilter("ignore", DeprecationWarning)
                return self._torch.jit.load(str(self._path), map_location=device).eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelError(
                f"{self._path}: torch cannot open it as TorchScript: {_reason(error)}"
            ) from error


class _Way:
    """The way of one size of input over the card: pinned memory, and the graph of all that is done."""

    def __init__(
        self, torch: Any, net: Any, path: Path, precision: Precision, shape: tuple[int, ...]
    ) -> None:
        self._torch, self._net, self._path = torch, net, path
        self._type = torch.float16 if precision == "fp16" else torch.float32
        self._given = torch.zeros(shape, dtype=torch.float32, pin_memory=True)
        self._there = torch.zeros(shape, dtype=torch.float32, device="cuda")
        self._outputs: list[Any] = []
        # Kernels chosen by timing them, and TF32, would change bits from run to run and from fp32.
        self._exact = {"enabled": True, "benchmark": False, "deterministic": True, "allow_tf32": False}
        self._done = torch.cuda.Event(blocking=True)
        self._stream = torch.cuda.Stream()
        # The stream that brought the weights and cleared the memory may still be at it.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream), torch.backends.cudnn.flags(**self._exact):
            for _ in range(_WARM_UP):
                self._all()
            self._stream.synchronize()
        self._graph = self._record()

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        self._given.numpy()[...] = tensor
        with self._torch.cuda.stream(self._stream):
            if self._graph is not None:
                self._graph.replay()
            else:
                with self._torch.backends.cudnn.flags(**self._exact):
                    self._all()
            self._done.record(self._stream)
        self._done.synchronize()
        return tuple(output.numpy() for output in self._outputs)

    def _record(self) -> Any:
        """Return the graph of all that is done, or None for a net that cannot be recorded."""
        graph = self._torch.cuda.CUDAGraph()
        try:
            with (
                self._torch.backends.cudnn.flags(**self._exact),
                self._torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                self._all()
        except RuntimeError:
            self._torch.cuda.synchronize()
            return None
        return graph

    def _all(self) -> None:
        self._there.copy_(self._given, non_blocking=True)
        given = self._there.to(self._type)
        if given.ndim == 4:  # ONNX nets may take fewer axes
            given = given.contiguous(memory_format=self._torch.channels_last)
        answers = list(_tensors(self._torch, self._net(given), self._path))
        if not self._outputs:
            self._outputs = [
                self._torch.empty(answer.shape, dtype=self._torch.float32, pin_memory=True)
                for answer in answers
            ]
        for output, answer in zip(self._outputs, answers, strict=True):
            output.copy_(answer.float(), non_blocking=True)


def _tensors(torch: Any, answer: Any, path: Path) -> Iterator[Any]:
    """Yield the tensors that a net returned, alone or in tuples, lists or dictionaries."""
    if isinstance(answer, torch.Tensor):
        yield answer
    elif isinstance(answer, dict | list | tuple):
        for inner in answer.values() if isinstance(answer, dict) else answer:
            yield from _tensors(torch, inner, path)
    else:
        raise ModelError(f"{path}: the net returns {type(answer).__name__}; tensors are needed")


def _load_torch() -> Any:
    # Read when torch starts its threads: without it they spin for a while behind every frame.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return import_module("torch")
    except ImportError:
        raise MissingExtraError("torch", "train") from None


def _load_onnx(file: OnnxFile) -> Any:
    from .onnx_to_torch import OnnxModule  # imports torch, after it was looked for

    return OnnxModule(file).eval()


def _reason(error: Exception) -> str:
    """Return the last line of an error of torch, which says why; the others show where in the net."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(" This is an internal miniz error")[0] if lines else type(error).__name__
