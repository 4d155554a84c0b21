"""From a model package back to a net that learns: the inverse of :mod:`.export`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...acquire.errors import MissingExtraError, ModelError
from ..packages.contents import ModelPackage
from ..runtimes.onnx import OnnxRuntime
from .net import Architecture, CellNet, Convolution

if TYPE_CHECKING:
    import onnx

Floats = NDArray[np.float32]

TOLERANCE = 1e-3
"""By how much a restored net may differ from its file, in logits; single precision differs by about 1e-5."""


class FixedNorm(nn.BatchNorm2d):
    """Normalisation that is done already: it only scales and shifts, and learns both.

    A package holds convolutions in which the normalisation is folded. Few images would give statistics of their
    own and take away what the net knows; fixed ones leave it exactly as it was before the first step.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        assert self.running_var is not None
        self.running_var.fill_(1 - self.eps)
        self.eval()

    def train(self, mode: bool = True) -> FixedNorm:
        """Stay as it is: statistics are never taken of a batch."""
        super().train(False)
        return self


def fixed_net(architecture: Architecture, channels: int = 1) -> CellNet:
    """Return a net whose normalisations are all :class:`FixedNorm`."""
    net = CellNet(architecture, channels)
    for block in net.modules():
        if isinstance(block, Convolution):
            norm = block[1]
            assert isinstance(norm, nn.BatchNorm2d)
            block[1] = FixedNorm(norm.num_features)
    return net


def net_from_onnx(package: ModelPackage) -> CellNet:
    """Return the net of a package, ready to be trained on.

    Parameters
    ----------
    package
        One that holds a net of cytoloop's own family, as :func:`.export.export_onnx` wrote it.

    Raises
    ------
    ModelError
        If it is another kind of net; names the file.
    MissingExtraError
        Without the ``onnx`` package (extra ``train``).
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("reading the weights of a net", "train") from error
    path = package.weights[0].path
    runtime = OnnxRuntime(path)  # refuses what is broken, unsafe or too large before it is parsed here
    graph = onnx.load(path).graph
    try:
        net = fixed_net(_architecture(graph, package), package.channels)
        _fill(net, _convolutions(graph))
        differs = _difference(net, runtime)
    except (ValueError, IndexError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{path}: not a net of cytoloop's own family, which alone can be trained on: {error}"
        ) from error
    if not differs <= TOLERANCE:
        raise ModelError(
            f"{path}: not a net of cytoloop's own family, which alone can be trained on:"
            f" restored, it answers otherwise by {differs:.3g}"
        )
    return net


def _architecture(graph: onnx.GraphProto, package: ModelPackage) -> Architecture:
    """Read the build of a net off its operators."""
    if package.diameter_px is None or package.diameter_range is None:
        raise ValueError("the package does not say for which breadths of cells it is made")
    weights = [weight for weight, _ in _convolutions(graph)]
    # Between levels there are convolutions of 2 x 2 px, and only there.
    steps = [weight.shape[:2] for weight in weights if weight.shape[-1] == 2]
    widths = (len(weights[0]), *(after for after, _ in steps))
    fold, unfold = _block(graph, "SpaceToDepth"), _block(graph, "DepthToSpace")
    return Architecture(
        fold, widths, fold // unfold, package.diameter_px, package.diameter_range, package.shown_px
    )


def _block(graph: onnx.GraphProto, operator: str) -> int:
    sizes = [
        a.i
        for node in graph.node
        if node.op_type == operator
        for a in node.attribute
        if a.name == "blocksize"
    ]
    return sizes[0] if sizes else 1


def _convolutions(graph: onnx.GraphProto) -> list[tuple[Floats, Floats]]:
    """Return weights and biases of all convolutions in their order."""
    from onnx import numpy_helper

    values: dict[str, Any] = {value.name: value for value in graph.initializer}
    return [
        (
            numpy_helper.to_array(values[node.input[1]]).astype(np.float32),
            numpy_helper.to_array(values[node.input[2]]).astype(np.float32),
        )
        for node in graph.node
        if node.op_type == "Conv"
    ]


def _fill(net: CellNet, convolutions: list[tuple[Floats, Floats]]) -> None:
    """Give each layer its weights; the biases go to the normalisation where there is one."""
    layers = list(_layers(net))
    if len(layers) != len(convolutions):
        raise ValueError(f"{len(convolutions)} convolutions where {len(layers)} are expected")
    fold = net.fold.downscale_factor
    for index, (layer, (weight, bias)) in enumerate(zip(layers, convolutions, strict=True)):
        block = isinstance(layer, Convolution)
        convolution, biased = (layer[0], layer[1]) if block else (layer, layer)
        assert isinstance(convolution, nn.Conv2d) and isinstance(biased.bias, nn.Parameter)
        given = torch.from_numpy(weight)
        if index == 0 and net.channels > 1 and fold > 1:  # ONNX folds blocks first, torch channels first
            shape = given.shape
            given = given.view(shape[0], fold * fold, net.channels, *shape[2:]).transpose(1, 2).reshape(shape)
        if given.shape != convolution.weight.shape:
            raise ValueError(
                f"convolution {index} has the shape {tuple(given.shape)}, not {tuple(convolution.weight.shape)}"
            )
        with torch.no_grad():
            convolution.weight.copy_(given)
            biased.bias.copy_(torch.from_numpy(bias))


def _layers(net: CellNet) -> Iterator[nn.Module]:
    """Yield the layers with weights in the order in which they are computed; mirrors :meth:`CellNet.forward`."""
    yield net.stem
    for level, convolve in enumerate(net.down):
        yield convolve
        if level < len(net.wider):
            yield net.wider[level]
    yield net.bottom
    for level in reversed(range(len(net.up))):
        yield net.narrower[level]
        yield net.up[level]
    yield net.last
    yield net.head


@torch.no_grad()
def _difference(net: CellNet, runtime: OnnxRuntime) -> float:
    """Return by how much a net and the file that it is from answer differently to noise."""
    side = 2 * net.architecture.step
    noise = np.random.default_rng(0).normal(0.3, 0.5, (1, net.channels, side, side)).astype(np.float32)
    said = runtime.run(noise)[0]
    return float(np.abs(said - net(torch.from_numpy(noise)).numpy()).max())
