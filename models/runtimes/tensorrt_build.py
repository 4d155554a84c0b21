"""Building engines: TensorRT 10 and 11, and TensorRT for RTX, from the same ONNX files.

All three build strongly typed networks: the types in the file are the types of the arithmetic. fp16 therefore
needs a file converted to fp16, and int8 one that quantises (see :mod:`.precision`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from ...acquire.errors import MissingExtraError, ModelError
from .onnx_file import OnnxFile

Library = Literal["auto", "tensorrt", "tensorrt_rtx"]
Report = Callable[[str, int, int | None], None]
"""Called with what is being done, the steps done and, if known, their number."""

CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0")
"""Compute capabilities that TensorRT for RTX builds for: cards of the series 20, A100, 30, 40 and 50."""


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """Sizes (y, x) in px that an engine takes; it is tuned for the usual one.

    The net's own fixed lengths come first: where the file says 512, these do not matter.
    """

    smallest: tuple[int, int] = (32, 32)
    usual: tuple[int, int] = (1024, 1024)
    largest: tuple[int, int] = (3072, 3072)

    def __str__(self) -> str:
        return " ".join(f"{y}x{x}" for y, x in (self.smallest, self.usual, self.largest))


@dataclass(frozen=True, slots=True)
class TensorRT:
    """One of the two libraries, imported.

    Attributes
    ----------
    module
        ``tensorrt`` or ``tensorrt_rtx``; their interfaces are the same but for what RTX adds.
    name, version
        As they are installed.
    """

    module: Any
    name: str
    version: str

    @property
    def is_rtx(self) -> bool:
        """Whether engines are built for a family of cards and finished on the card itself."""
        return self.name == "tensorrt_rtx"

    def log(self) -> Any:
        """Return a logger that keeps what went wrong; by itself the library prints."""
        return _log_of(self.module)


def load_tensorrt(library: Library = "auto") -> TensorRT:
    """Import TensorRT, or TensorRT for RTX; ``"auto"`` takes the first that is installed.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    ModelError
        If it is installed and cannot be loaded.
    """
    wanted = ("tensorrt", "tensorrt_rtx") if library == "auto" else (library,)
    found = next((name for name in wanted if find_spec(name) is not None), None)
    if found is None:
        raise MissingExtraError(" or ".join(wanted), "tensorrt")
    try:
        module = import_module(found)
    except (ImportError, OSError) as error:
        raise ModelError(f"{found} is installed and cannot be loaded: {error}") from error
    return TensorRT(module, found, str(module.__version__))


def build_engine(
    file: OnnxFile,
    tensorrt: TensorRT,
    shapes: ShapeRange,
    *,
    capabilities: Sequence[str] = (),
    report: Report | None = None,
) -> bytes:
    """Build an engine.

    Parameters
    ----------
    file
        The net, in the precision wanted.
    tensorrt
        What builds it. TensorRT needs the card that the engine is for; TensorRT for RTX needs none.
    shapes
        Sizes that it takes.
    capabilities
        For TensorRT for RTX: the compute capabilities to build for, such as ``("8.6",)``.
    report
        Told how far the work is, from threads of the builder.

    Returns
    -------
    bytes
        What :class:`.TensorrtRuntime` loads.

    Raises
    ------
    ModelError
        If the net has what TensorRT cannot build; names the node.
    """
    trt = tensorrt.module
    log = tensorrt.log()
    builder = trt.Builder(log)
    network = builder.create_network(_strongly_typed(tensorrt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(file.path)):
        raise ModelError(
            f"{file.path}: {tensorrt.name} cannot read it: {_parser_errors(parser) or log.told()}"
        )
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 is fp32
    config.add_optimization_profile(_profile(builder, network, file, shapes))
    if tensorrt.is_rtx and capabilities:
        _choose_capabilities(trt, config, capabilities)
    if report is not None:
        config.progress_monitor = _monitor_of(trt, report)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelError(f"{file.path}: {tensorrt.name} cannot build it: {log.told()}")
    return bytes(plan)


def _strongly_typed(tensorrt: TensorRT) -> int:
    """Return the flags of a strongly typed network; from 11 on there are no others."""
    if int(tensorrt.version.partition(".")[0]) >= 11 or tensorrt.is_rtx:
        return 0
    return 1 << int(tensorrt.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _profile(builder: Any, network: Any, file: OnnxFile, shapes: ShapeRange) -> Any:
    given = file.input_shape
    if len(given) != 4:
        raise ModelError(
            f"{file.path}: TensorRT needs an input (n, channels, y, x); this one has {len(given)} axes"
        )
    if given[1] is None:
        raise ModelError(f"{file.path}: TensorRT needs a fixed number of channels; export the net with it")

    def full(size: tuple[int, int]) -> tuple[int, ...]:
        wanted = (1, given[1], *size)
        return tuple(fixed or length or 1 for fixed, length in zip(given, wanted, strict=True))

    profile = builder.create_optimization_profile()
    sizes = (full(shapes.smallest), full(shapes.usual), full(shapes.largest))
    profile.set_shape(network.get_input(0).name, *sizes)
    return profile


def _choose_capabilities(trt: Any, config: Any, capabilities: Sequence[str]) -> None:
    known = {_written(name): getattr(trt.ComputeCapability, name)
             for name in dir(trt.ComputeCapability) if name.startswith("SM")}  # fmt: skip
    unknown = [capability for capability in capabilities if capability not in known]
    if unknown:
        raise ModelError(
            f"TensorRT for RTX builds for compute capability {', '.join(sorted(known, key=float))}, "
            f"not {', '.join(unknown)}: such a card needs TensorRT itself (pip install tensorrt)"
        )
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        config.set_compute_capability(known[capability], index)


def _written(name: str) -> str:
    """Turn ``SM86`` into ``8.6``."""
    return f"{name[2:-1]}.{name[-1]}"


def _parser_errors(parser: Any) -> str:
    """Return the first error in one line; those behind it follow from it."""
    if not parser.num_errors:
        return ""
    error = parser.get_error(0)
    said = " ".join(error.desc().partition("[checkMacros")[0].split())
    return f"{said} (node {error.node_name() or error.node()})"


def _log_of(trt: Any) -> Any:

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(msg)

        def told(self) -> str:
            return "; ".join(self.errors[:3]) or "it does not say why"

    return Log()


def _monitor_of(trt: Any, report: Report) -> Any:
    """Return what the builder tells its progress to."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            report(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            report(phase_name, step + 1, self.steps.get(phase_name))
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()
