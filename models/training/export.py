"""Export: a trained net -> an ONNX file, written operator by operator so that every runtime reads it.

Batch normalisation is folded into the convolutions; sides of the input are dynamic. Operator set 17 is old enough
for every runtime in use and new enough for all operators here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...acquire.errors import MissingExtraError
from .net import OUTPUTS, CellNet, Convolution

if TYPE_CHECKING:
    import onnx

OPSET = 17
INPUT, OUTPUT = "planes", "maps"


def export_onnx(net: CellNet, path: Path) -> None:
    """Write a net as fp32 ONNX: ``planes`` (n, channels, y, x) -> ``maps`` (n, 3, y / grid, x / grid).

    Raises
    ------
    MissingExtraError
        Without the ``onnx`` package (extra ``train``).
    """
    try:
        import onnx
        from onnx import helper
    except ImportError as error:
        raise MissingExtraError("exporting a net", "train") from error
    graph = _Graph()
    out = graph.net(net)
    kind = onnx.TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(
            [*graph.nodes, helper.make_node("Identity", [out], [OUTPUT])],
            "cytoloop",
            [helper.make_tensor_value_info(INPUT, kind, ["n", net.channels, "y", "x"])],
            [helper.make_tensor_value_info(OUTPUT, kind, ["n", OUTPUTS, "h", "w"])],
            graph.values,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name="cytoloop",
    )
    onnx.checker.check_model(model)
    part = path.with_suffix(".part")
    part.write_bytes(model.SerializeToString())
    part.replace(path)


class _Graph:
    """The operators of a net in order."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.values: list[onnx.TensorProto] = []

    def net(self, net: CellNet) -> str:
        """Append all of it; mirrors :meth:`CellNet.forward`. Returns the name of the result."""
        fold = net.fold.downscale_factor
        x = INPUT
        if fold > 1:
            x = self._node("SpaceToDepth", [x], blocksize=fold)
        x = self._convolution(x, net.stem, fold, net.channels)
        levels: list[str] = []
        for level, convolve in enumerate(net.down):
            x = self._convolution(x, convolve)
            if level < len(net.wider):
                levels.append(x)
                x = self._conv(x, net.wider[level])
        x = self._convolution(x, net.bottom)
        for level in reversed(range(len(levels))):
            x = self._conv(x, net.narrower[level])
            scales = self._value(np.array([1, 1, 2, 2], np.float32))
            x = self._node(
                "Resize",
                [x, "", scales],
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
            x = self._node("Add", [x, levels[level]])
            x = self._convolution(x, net.up[level])
        x = self._conv(self._convolution(x, net.last), net.head)
        unfold = net.unfold.upscale_factor
        return self._node("DepthToSpace", [x], blocksize=unfold, mode="CRD") if unfold > 1 else x

    def _node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        from onnx import helper

        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def _value(self, array: NDArray[np.float32]) -> str:
        from onnx import numpy_helper

        name = f"value_{len(self.values)}"
        self.values.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _conv(self, x: str, layer: nn.Module) -> str:
        assert isinstance(layer, nn.Conv2d) and layer.bias is not None
        return self._weights(x, layer, layer.weight.detach(), layer.bias.detach())

    def _convolution(self, x: str, block: nn.Module, fold: int = 1, channels: int = 1) -> str:
        """Append convolution and ReLU, with the normalisation folded into the weights."""
        assert isinstance(block, Convolution)
        layer, norm = block[0], block[1]
        assert isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None and norm.running_mean is not None
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = (layer.weight * gain[:, None, None, None]).detach()
        if channels > 1 and fold > 1:  # ONNX folds blocks first, torch channels first
            shape = weight.shape
            weight = weight.view(shape[0], channels, fold * fold, *shape[2:]).transpose(1, 2).reshape(shape)
        bias = (norm.bias - norm.running_mean * gain).detach()
        return self._node("Relu", [self._weights(x, layer, weight, bias)])

    def _weights(self, x: str, layer: nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor) -> str:
        padding, size = int(layer.padding[0]), list(layer.kernel_size)
        return self._node(
            "Conv",
            [x, self._value(weight.float().numpy()), self._value(bias.float().numpy())],
            kernel_shape=size,
            strides=list(layer.stride),
            pads=[padding] * 4,
        )
