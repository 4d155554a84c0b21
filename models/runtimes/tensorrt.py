"""TensorRT and TensorRT for RTX on an NVIDIA card; extra ``tensorrt``."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import ModelError
from .cache import CacheDamagedError, read_cached, write_cached
from .cuda import Card
from .engines import engine_for, silent
from .onnx_file import OnnxFile, read_onnx_file
from .outputs import as_float32
from .runtime import Precision, Tensor
from .tensorrt_build import Library, Report, ShapeRange, TensorRT, load_tensorrt

_SHAPES_KEPT = 4
"""Sizes of input whose memory and graph are kept; a stream has one, or one and its tiles."""


class TensorrtRuntime:
    """Runs an ONNX file with TensorRT, from an engine that is built once and kept.

    For each size of input the whole way (upload, net, download) is recorded as one CUDA graph. The thread
    sleeps until the card is done.

    Parameters
    ----------
    weights
        The file. Networks are strongly typed: fp32, fp16 or int8 as the file has it (see :mod:`.precision`).
    library
        ``"tensorrt"`` (10 or newer), ``"tensorrt_rtx"``, or ``"auto"`` for the first that is installed.
    shapes
        Sizes of input that it takes; None takes 32 to 3072 px, tuned for 1024.
    card
        Which card.
    report
        Told how far the building of the engine is.

    Attributes
    ----------
    engine_path
        Where the engine is kept.

    Raises
    ------
    ModelError
        If there is no card, or the net cannot be built for it.
    MissingExtraError
        If TensorRT is not installed.
    """

    name = "tensorrt"

    def __init__(
        self,
        weights: Path,
        *,
        library: Library = "auto",
        shapes: ShapeRange | None = None,
        card: int = 0,
        report: Report = silent,
    ) -> None:
        self._file = read_onnx_file(weights)
        self._tensorrt = load_tensorrt(library)
        self._card = Card(card)
        self._shapes = shapes or ShapeRange()
        self.precision: Precision = self._file.precision
        self.device = self._card.name
        self._loaded = _Engine(self._file, self._tensorrt, self._card, self._shapes, report)
        self.engine_path = self._loaded.path
        self._kept: OrderedDict[tuple[int, ...], _Way] = OrderedDict()

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the net in the order of its file; the next call overwrites them.

        See :class:`.Runtime`.
        """
        given = self._file.fit(tensor)
        self._card.activate()
        way = self._kept.get(given.shape)
        if way is None:
            if len(self._kept) == _SHAPES_KEPT:
                self._kept.popitem(last=False)
            way = self._kept[given.shape] = _Way(self._loaded, self._card, self._file, given.shape)
        self._kept.move_to_end(given.shape)
        return way.run(given)


class _Engine:
    """The engine on the card, and what TensorRT for RTX compiled for it there."""

    def __init__(
        self, file: OnnxFile, tensorrt: TensorRT, card: Card, shapes: ShapeRange, report: Report
    ) -> None:
        trt = tensorrt.module
        self.log = tensorrt.log()
        self._runtime = trt.Runtime(self.log)
        plan, self.path = engine_for(file, tensorrt, card.name, card.capability, shapes, report)
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise ModelError(
                f"{file.path}: {tensorrt.name} cannot load its engine {self.path}: {self.log.told()}"
            )
        self.trt, self.shapes = trt, shapes
        self._compiled = _Compiled(tensorrt, self.engine, card, self.path) if tensorrt.is_rtx else None

    def context(self) -> Any:
        """Return a new context: what one size of input is run with. It waits for its memory."""
        if self._compiled is not None:
            context = self._compiled.context()
        else:
            context = self.engine.create_execution_context(_memory_is_ours(self.trt))
        if context is None:
            raise ModelError(f"TensorRT cannot run its engine: {self.log.told()}")
        return context

    def keep(self) -> None:
        """Keep what was compiled for a new size."""
        if self._compiled is not None:
            self._compiled.keep()


class _Compiled:
    """The kernels that TensorRT for RTX compiles on the card: kept, so that the next start is fast."""

    def __init__(self, tensorrt: TensorRT, engine: Any, card: Card, path: Path) -> None:
        trt = tensorrt.module
        self._engine, self._path = engine, path.with_suffix(".kernels")
        self._made_from = {
            "what": "kernels",
            "engine": path.name,
            "library": tensorrt.version,
            "card": card.name,
            "driver": card.driver,
        }
        self._config = engine.create_runtime_config()
        # Lazily compiled kernels would replace the general ones between two frames, and change bits.
        self._config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        self._config.set_execution_context_allocation_strategy(_memory_is_ours(trt))
        self._cache = self._config.create_runtime_cache()
        try:
            kept = read_cached(self._path, self._made_from)
        except CacheDamagedError:
            kept = None
        if kept is not None:
            self._cache.deserialize(kept)
        self._config.set_runtime_cache(self._cache)
        self._written = len(kept or b"")

    def context(self) -> Any:
        return self._engine.create_execution_context(self._config)

    def keep(self) -> None:
        content = bytes(self._cache.serialize())
        if len(content) != self._written:
            self._written = len(content)
            try:
                write_cached(self._path, self._made_from, content)
            except OSError:
                return  # the next start compiles again


class _Way:
    """The way of one size of input: its memory on both sides, and the graph of all that is done."""

    def __init__(self, engine: _Engine, card: Card, file: OnnxFile, shape: tuple[int, ...]) -> None:
        self._card, self._file, self._engine = card, file, engine
        self._context = engine.context()
        if not self._context.set_input_shape(file.input_name, shape):
            raise ModelError(
                f"{file.path}: its engine takes sizes (smallest, usual, largest) {engine.shapes}, "
                f"got {shape[-2]}x{shape[-1]}"
            )
        # By itself TensorRT takes what the largest size would need.
        needed = self._context.update_device_memory_size_for_shapes()
        self._context.set_device_memory(card.memory(self, needed), needed)
        self._given = card.pinned(shape, self._type(file.input_name))
        self._given_there = self._there(file.input_name, self._given)
        self._outputs = [card.pinned(self._shape(name), self._type(name)) for name in file.output_names]
        self._outputs_there = [
            self._there(name, output) for name, output in zip(file.output_names, self._outputs, strict=True)
        ]
        self._given[...] = 0
        self._all()  # the first time, memory is taken and kernels are loaded: that cannot be recorded
        card.wait()
        self._graph = card.capture(self, self._all)
        engine.keep()

    def run(self, given: NDArray[Any]) -> tuple[Tensor, ...]:
        """Compute the net; the outputs are overwritten by the next call."""
        np.copyto(self._given, given, casting="same_kind")
        if self._graph is None:
            self._all()
        else:
            self._card.launch(self._graph)
        self._card.wait()
        return as_float32(self._file, self._outputs)

    def _all(self) -> None:
        self._card.upload(self._given_there, self._given)
        if not self._context.execute_async_v3(self._card.stream):
            raise ModelError(f"{self._file.path}: the graphics card fails: {self._engine.log.told()}")
        for output, there in zip(self._outputs, self._outputs_there, strict=True):
            self._card.download(output, there)

    def _type(self, name: str) -> Any:
        return np.dtype(self._engine.trt.nptype(self._engine.engine.get_tensor_dtype(name)))

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise ModelError(
                f"{self._file.path}: the size of output {name!r} depends on the image; use the runtime onnxruntime"
            )
        return shape

    def _there(self, name: str, array: NDArray[Any]) -> int:
        address = self._card.memory(self, array.nbytes)
        self._context.set_tensor_address(name, address)
        return address


def _memory_is_ours(trt: Any) -> Any:
    return trt.ExecutionContextAllocationStrategy.USER_MANAGED
