"""The ways there are to compute a net: which runtimes, in which precision, from which file."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from ...acquire.errors import MissingExtraError, ModelError, nearest_name
from ...acquire.machine import cpu_name, usable_cores
from ...acquire.plugins import find_class, known_names
from ..packages.adapt import adapt
from ..packages.contents import ModelPackage
from . import cuda, openvino
from .onnx import OnnxRuntime
from .onnx_file import content_hash, read_onnx_file
from .runtime import Precision, Runtime, Tensor
from .tensorrt_build import Report
from .variants import converted

OFFERED: Mapping[str, tuple[Precision, ...]] = {
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "fp16", "int8"),
    "tensorrt": ("fp32", "fp16", "int8"),
    "torch": ("fp32", "fp16"),
}
"""What each runtime computes in; another one that is registered computes in what its file has."""
_LIBRARIES = {"tensorrt": ("tensorrt", "tensorrt_rtx")}
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx", "torch", "onnx")


@dataclass(frozen=True, slots=True)
class Way:
    """A runtime and the precision that it computes in."""

    runtime: str
    precision: Precision


@dataclass(frozen=True, slots=True)
class Net:
    """The files of a net.

    Attributes
    ----------
    onnx, torchscript
        The file of each kind that the others are made of, if there is one.
    int8
        An ONNX file that quantises, made for processors, if it came with the net.
    precision
        Of ``onnx``: fp32, unless the net came in less only. Then it is run as it is.
    package
        Where the files come from, if from a package.
    """

    onnx: Path | None
    torchscript: Path | None
    int8: Path | None = None
    precision: Precision = "fp32"
    package: ModelPackage | None = None

    @property
    def reference(self) -> Way:
        """What the others are compared with: the file as it came, on the processor."""
        return Way("onnxruntime", self.precision) if self.onnx else Way("torch", "fp32")


def net_of(model: ModelPackage | str | Path) -> Net:
    """Return the files of a package, or of a net that is one file.

    Raises
    ------
    ModelError
        If there is none that a runtime could run, or the ONNX file is broken.
    """
    if isinstance(model, ModelPackage):
        onnx = [file for file in model.weights if file.kind == "onnx"]
        whole = sorted(onnx, key=lambda file: file.precision != "fp32")
        script = next((file.path for file in model.weights if file.kind == "torchscript"), None)
        if not onnx and script is None:
            raise ModelError(f"{model.folder}: has no ONNX and no TorchScript weights")
        int8 = next((file.path for file in whole[1:] if file.precision == "int8"), None)
        first = whole[0].path if whole else None
        return Net(first, script, int8, read_onnx_file(first).precision if first else "fp32", model)
    path = Path(model)
    if path.suffix.lower() in (".pt", ".pth", ".ts", ".torchscript"):
        return Net(None, path)
    return Net(path, None, precision=read_onnx_file(path).precision)


def ways(net: Net, runtime: str, precision: str) -> list[Way]:
    """Return the ways that were asked for, the reference first if it is among them.

    Raises
    ------
    ModelError
        If there is none.
    ValueError
        If there is no such precision.
    """
    if precision != "auto" and precision not in get_args(Precision):
        hint = nearest_name(precision, get_args(Precision))
        raise ValueError(
            f"precision must be 'auto' or one of {', '.join(get_args(Precision))}, got {precision!r}"
            + (f"; did you mean {hint!r}?" if hint else "")
        )
    names = [name for name in known_names("runtimes") if is_here(name)] if runtime == "auto" else [runtime]
    if precision == "auto":
        found = [Way(name, each) for name in names for each in _precisions(net, name) if each in here(name)]
    else:
        found = [Way(name, each) for name in names for each in _precisions(net, name) if each == precision]
    if not found:
        kinds = "ONNX" if net.onnx else "TorchScript"
        raise ModelError(
            f"{net.onnx or net.torchscript}: no way to run {kinds} weights in {net.precision}"
            f" with runtime {runtime!r} and precision {precision!r}"
            + ("; torch runs fp32 ones on an NVIDIA card: use onnxruntime" if runtime == "torch" else "")
        )
    return sorted(found, key=lambda way: way != net.reference)


def is_here(runtime: str) -> bool:
    """Tell whether a runtime's library is installed and, for TensorRT, there is a card to run it on."""
    if runtime == "tensorrt" and not cuda.cards():
        return False
    if runtime not in OFFERED:
        return True
    return any(find_spec(name) is not None for name in _LIBRARIES.get(runtime, (runtime,)))


def here(runtime: str) -> Sequence[Precision]:
    """Return what an installed runtime computes in on this computer."""
    if runtime == "openvino" and is_here(runtime):
        return openvino.precisions()
    if runtime == "torch" and not cuda.cards():
        return ("fp32",)
    return OFFERED.get(runtime, get_args(Precision))


def _precisions(net: Net, runtime: str) -> Sequence[Precision]:
    """Return in what a runtime, wherever it is, can compute a net."""
    if runtime == "torch" and net.torchscript is None:
        # Of ONNX, torch reads fp32; and on the processor ONNX Runtime is always faster.
        return OFFERED[runtime] if net.precision == "fp32" and cuda.cards() else ()
    if runtime != "torch" and net.onnx is None:
        return ()
    if net.precision != "fp32" and runtime != "torch":
        return (net.precision,)
    return OFFERED.get(runtime, (net.precision,))


def open_way(
    way: Way,
    net: Net,
    threads: int,
    *,
    frames: Sequence[Tensor] | None = None,
    report: Report,
) -> Runtime:
    """Build a runtime, after converting the net if its precision asks for that.

    Raises
    ------
    ModelError
        If the way does not work here; says why.
    MissingExtraError, PluginError
        If the runtime is not installed, or there is none of this name.
    """
    kind = find_class("runtimes", way.runtime)
    precision = "fp32" if way.precision == "int8" else way.precision
    wishes = {"threads": threads, "precision": precision, "report": report}
    known = inspect.signature(kind).parameters
    return kind(file_of(way, net, frames), **{name: wish for name, wish in wishes.items() if name in known})


def file_of(way: Way, net: Net, frames: Sequence[Tensor] | None = None) -> Path:
    """Return the file that a way runs, converted if need be.

    Raises
    ------
    ModelError
        If it cannot be converted.
    MissingExtraError
        If what converts it is not installed.
    """
    if way.runtime == "torch" and net.torchscript is not None:
        return net.torchscript
    assert net.onnx is not None
    on_card = way.runtime == "tensorrt"
    if way.precision == "int8" and net.precision == "fp32":
        tensors = _as_the_file_takes(net, frames or ())
        try:
            target = "tensorrt" if on_card else "processor"
            return converted(net.onnx, "int8", runs_on=target, calibration=tensors)
        except (ModelError, MissingExtraError):
            if net.int8 is None or on_card:
                raise
            return net.int8  # as it came: nothing was ever calibrated here
    if way.precision == "fp16" and net.precision == "fp32" and on_card:
        return converted(net.onnx, "fp16", runs_on="tensorrt")
    return net.onnx  # torch, like OpenVINO, halves it while it loads


class Recorder:
    """Keeps what a runtime is given, in ``tensors``; it answers as that runtime does."""

    def __init__(self, runtime: Runtime) -> None:
        self.name, self.device = runtime.name, runtime.device
        self.precision: Precision = runtime.precision
        self.tensors: list[Tensor] = []
        self._runtime = runtime

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Return what the runtime says; see :class:`.Runtime`."""
        self.tensors.append(tensor.copy())
        return self._runtime.run(tensor)


def _as_the_file_takes(net: Net, frames: Sequence[Tensor]) -> list[Tensor]:
    """Return frames with the axes and sizes of the ONNX file, behind what its package does to them."""
    if net.package is None or not frames or net.onnx is None:
        return list(frames)
    recorder = Recorder(OnnxRuntime(net.onnx))
    seen = adapt(recorder, net.package)
    if seen is recorder:
        return list(frames)
    for frame in frames:
        seen.run(frame)
    return recorder.tensors


def identity(net: Net) -> dict[str, str]:
    """Return what a choice depends on: this computer, its libraries, and what the net computes."""
    files = [hash_of(path) for path in (net.onnx, net.torchscript, net.int8) if path is not None]
    package = net.package
    decoder = f"{package.decoder} {sorted(package.decoder_options.items())}" if package else ""
    return {
        "machine": f"{cpu_name()}, {usable_cores()} cores, {', '.join(cuda.cards()) or 'no card'}",
        "libraries": ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name))),
        "weights": " ".join(files),
        "decoder": decoder,
    }


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file of weights, and of those that it refers to."""
    if path.suffix == ".onnx":
        return content_hash(read_onnx_file(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
