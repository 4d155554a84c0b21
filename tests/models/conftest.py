"""Nuclei whose mask is known, and small nets that were never trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage


def _draw_nuclei(shape, count, *, seed=0, radius=9.0, signal=120.0, background=40.0, gap=2.6):
    """Return (uint16 image with Poisson noise, int32 mask) of ellipses that do not overlap."""
    random = np.random.default_rng(seed)
    y, x = np.indices(shape)
    mask, centres = np.zeros(shape, np.int32), []
    while len(centres) < count:
        centre = random.uniform(radius, np.array(shape) - radius)
        if all(np.hypot(*(centre - other)) > gap * radius for other in centres):
            centres.append(centre)
            angle, stretch = random.uniform(0, np.pi), random.uniform(1.0, 1.25)
            dy, dx = y - centre[0], x - centre[1]
            along, across = dy * np.sin(angle) + dx * np.cos(angle), dy * np.cos(angle) - dx * np.sin(angle)
            mask[(along / stretch) ** 2 + (across * stretch) ** 2 <= radius**2] = len(centres)
    light = background + signal * random.uniform(0.5, 1.5, count + 1)[mask] * (mask > 0)
    return random.poisson(ndimage.gaussian_filter(light, 1.0)).astype(np.uint16), mask


@pytest.fixture
def draw_nuclei():
    return _draw_nuclei


class _NetWriter:
    """Collects the nodes of an additive-skip U-Net behind a space-to-depth stem, as the shipped nets are built."""

    def __init__(self, seed: int) -> None:
        self.helper = pytest.importorskip("onnx.helper", reason="the int8 extra is not installed")
        self.random, self.nodes, self.weights = np.random.default_rng(seed), [], []

    def add(self, operator: str, inputs: list[str], **attributes: object) -> str:
        name = f"{operator}{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def weight(self, values: np.ndarray) -> str:
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(values.astype(np.float32), f"weight{len(self.weights)}"))
        return self.weights[-1].name

    def convolve(self, tensor: str, inputs: int, outputs: int, size: int = 3, stride: int = 1) -> str:
        scale = np.sqrt(2 / (inputs * size * size))
        kernel = self.weight(self.random.normal(0, scale, (outputs, inputs, size, size)))
        bias = self.weight(self.random.normal(0, 0.05, outputs))
        pads = [size // 2] * 4
        return self.add(
            "Conv", [tensor, kernel, bias], kernel_shape=[size] * 2, pads=pads, strides=[stride] * 2
        )

    def block(self, tensor: str, inputs: int, outputs: int, stride: int = 1) -> str:
        return self.add("Relu", [self.convolve(tensor, inputs, outputs, 3, stride)])


def _write_net(path: Path, *, channels: int = 1, width: int = 8, levels: int = 2, seed: int = 0) -> Path:
    """Write an ONNX net (1, channels, y, x) -> logits (1, 3, y / 2, x / 2) with random weights; y, x in 16 px steps."""
    from onnx import TensorProto, checker, helper, save

    net, skips, now = _NetWriter(seed), [], width
    tensor = net.block(net.add("SpaceToDepth", ["planes"], blocksize=4), channels * 16, width)
    for _ in range(levels):
        tensor = net.block(tensor, now, now)
        skips.append((tensor, now))
        tensor, now = net.block(tensor, now, 2 * now, stride=2), 2 * now
    scales = net.weight(np.array([1, 1, 2, 2]))
    for skip, wide in reversed(skips):
        larger = net.add("Resize", [net.convolve(tensor, now, wide, 1), "", scales], mode="nearest")
        tensor, now = net.block(net.add("Add", [larger, skip]), wide, wide), wide
    net.add("DepthToSpace", [net.convolve(tensor, now, 12, 1)], blocksize=2, mode="CRD")
    net.nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        net.nodes,
        "net",
        [helper.make_tensor_value_info("planes", TensorProto.FLOAT, [1, channels, "y", "x"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, "y2", "x2"])],
        net.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, path)
    return path


@pytest.fixture
def write_net():
    pytest.importorskip("onnx", reason="the int8 extra is not installed")
    return _write_net


@pytest.fixture
def planes():
    """A normalised image (1, 1, 96, 128) of soft blobs."""
    noise = np.random.default_rng(7).normal(size=(96, 128))
    blobs = ndimage.gaussian_filter(noise, 4.0)
    return (blobs / blobs.std() + 0.1 * noise).astype(np.float32)[np.newaxis, np.newaxis]
