"""The same net in less precision: fp16 for graphics cards, int8 for processors and cards; extra ``int8``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from ...acquire.errors import ModelError
from .libraries import load_onnx, load_onnxruntime
from .onnx_file import OnnxFile, read_onnx_file
from .outputs import reason_of
from .runtime import Tensor

Target = Literal["processor", "tensorrt"]


def to_fp16(source: Path, target: Path) -> Path:
    """Write a net in half precision.

    Its input and outputs stay fp32; operators that would lose more than rounding stay fp32 between casts
    (:data:`.half.KEPT`).

    Parameters
    ----------
    source
        An fp32 net.
    target
        The file to write.

    Returns
    -------
    Path
        ``target``.

    Raises
    ------
    ModelError
        If the net is not fp32, or has what cannot be converted.
    MissingExtraError
        If the package onnx is not installed.
    """
    onnx = load_onnx("int8")
    file = _fp32(source)
    from .half import HalfConverter

    try:
        converted = HalfConverter(onnx.load(file.path), file.path).convert()
        onnx.shape_inference.infer_shapes(converted, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(f"{file.path}: cannot be converted to fp16: {reason_of(error)}") from error
    onnx.save(converted, target)
    return target


def to_int8(
    source: Path, target: Path, calibration: Iterable[Tensor], *, runs_on: Target = "processor"
) -> Path:
    """Write a net that computes in 8-bit integers where that pays (static quantisation, Q/DQ nodes).

    Weights are quantised per output channel, symmetrically. Activations are quantised per tensor over the range
    that they have on the calibration frames: unsigned with a zero point for processors (1.7 times as fast in
    ONNX Runtime as signed ones, and nearer to fp32, as behind a ReLU all 256 levels are used); signed without
    one, and biases left alone, for TensorRT, which knows nothing else. The first and the last layer stay fp32.

    Parameters
    ----------
    source
        An fp32 net.
    target
        The file to write.
    calibration
        Tensors as the net will see them: a handful of the user's frames, normalised and scaled.
    runs_on
        ``"processor"`` (ONNX Runtime, OpenVINO) or ``"tensorrt"``.

    Returns
    -------
    Path
        ``target``.

    Raises
    ------
    ModelError
        If the net is not fp32, no tensor is given, or one does not fit.
    MissingExtraError
        If the package onnx is not installed.
    """
    load_onnx("int8")
    load_onnxruntime()
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    file = _fp32(source)
    for_tensorrt = runs_on == "tensorrt"
    with tempfile.TemporaryDirectory() as folder:
        ready = _folded(file, Path(folder) / "ready.onnx")
        reader: Any = _Reader(file, calibration)
        try:
            quantize_static(
                ready,
                target,
                reader,
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8 if for_tensorrt else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                nodes_to_exclude=_ends(ready),
                extra_options={
                    "ActivationSymmetric": for_tensorrt,
                    "WeightSymmetric": True,
                    "QuantizeBias": not for_tensorrt,
                },
            )
        except ModelError:
            raise
        except Exception as error:  # ONNX Runtime raises what it likes
            raise ModelError(f"{file.path}: cannot be quantised: {reason_of(error)}") from error
    return target


def _fp32(source: Path) -> OnnxFile:
    file = read_onnx_file(source)
    if file.precision != "fp32":
        raise ModelError(f"{source}: is {file.precision}; only an fp32 net can be converted")
    return file


def _folded(file: OnnxFile, target: Path) -> Path:
    """Write the net with constants and normalisation folded into the weights, and every node named."""
    library, onnx = load_onnxruntime(), load_onnx("int8")
    options = library.SessionOptions()
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    try:
        library.InferenceSession(str(file.path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"{file.path}: ONNX Runtime cannot open it: {reason_of(error)}") from error
    model = onnx.load(target)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    # Says that this has been done: the quantiser would advise it in the log.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    onnx.save(model, target)
    return target


def _ends(net: Path) -> list[str]:
    """Return the nodes that stay in fp32: the first convolution, and the last with all behind it.

    The grey levels that go in and the maps that come out need more than 256 levels: on a shipped net's frames
    this halves the px that differ from fp32, for a fifth more time.
    """
    nodes = load_onnx("int8").load(net, load_external_data=False).graph.node
    convolutions = [number for number, node in enumerate(nodes) if node.op_type == "Conv"]
    if len(convolutions) < 3:
        return []
    return [nodes[convolutions[0]].name, *(node.name for node in nodes[convolutions[-1] :])]


class _Reader:
    """Hands the calibration tensors over one by one, as ONNX Runtime asks for them."""

    def __init__(self, file: OnnxFile, tensors: Iterable[Tensor]) -> None:
        self._file, self._tensors, self._given = file, iter(tensors), 0

    def get_next(self) -> dict[str, Any] | None:
        tensor = next(self._tensors, None)
        if tensor is None:
            if not self._given:
                raise ModelError(f"{self._file.path}: quantising needs at least one frame to calibrate on")
            return None
        self._given += 1
        return {self._file.input_name: self._file.fit(tensor)}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.get_next, None)
