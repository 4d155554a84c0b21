"""The layers of ONNX nets that torch computes: convolutions, pools, normalisation, changes of size.

Each function reads a node once and returns the function of it. Only what torch does exactly as ONNX says is here;
a node that asks for more raises ValueError with the reason, at once or when it is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Compute = Callable[..., Tensor]
_HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")
_LARGEST_FACTOR = 32
"""Up to here torch finds the nearest px without rounding errors."""
_CONVOLVE: Any = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_SPREAD: Any = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
_LARGEST: Any = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEAN: Any = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its operator, attributes, and the version of the operator set."""

    operator: str
    attributes: Mapping[str, Any]
    opset: int

    def get(self, name: str, default: Any) -> Any:
        """Return an attribute, or what ONNX takes without it."""
        return self.attributes.get(name, default)

    def demand(self, name: str, *allowed: Any) -> Any:
        """Return an attribute that may have these values only, the first of them by default."""
        value = self.get(name, allowed[0])
        if value not in allowed:
            raise ValueError(f"{name} is {value}; {' or '.join(map(str, allowed))} can be computed")
        return value


def _pads(node: Node, sides: Sequence[int], kernel: Sequence[int]) -> list[tuple[int, int]]:
    """Return how many px are put before and behind each axis of an image with these sides."""
    axes = len(kernel)
    auto = node.demand("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    if auto == "NOTSET":
        pads = node.get("pads", [0] * 2 * axes)
        return list(zip(pads[:axes], pads[axes:], strict=True))
    if auto == "VALID":
        return [(0, 0)] * axes
    strides, dilations = node.get("strides", [1] * axes), node.get("dilations", [1] * axes)
    found: list[tuple[int, int]] = []
    for side, edge, stride, dilation in zip(sides, kernel, strides, dilations, strict=True):
        lacking = max((-(-side // stride) - 1) * stride + (edge - 1) * dilation + 1 - side, 0)
        less, more = lacking // 2, lacking - lacking // 2
        found.append((less, more) if auto == "SAME_UPPER" else (more, less))
    return found


def _padded(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0, mode: str = "constant") -> Tensor:
    """Return an image with px around it; torch wants the last axis first."""
    behind_first = [px for pair in reversed(pads) for px in pair]
    return functional.pad(x, behind_first, mode, value if mode == "constant" else None)


def conv(node: Node) -> Compute:
    """Convolution over 1 to 3 axes; pads that are not the same on both sides are put around the image first."""

    def compute(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        kernel, ones = weight.shape[2:], [1] * (weight.ndim - 2)
        pads = _pads(node, x.shape[2:], kernel)
        if any(before != behind for before, behind in pads):
            x, pads = _padded(x, pads), [(0, 0)] * len(pads)
        strides, dilations = node.get("strides", ones), node.get("dilations", ones)
        padding = [before for before, _ in pads]
        return _CONVOLVE[len(kernel)](x, weight, bias, strides, padding, dilations, node.get("group", 1))

    return compute


def conv_transpose(node: Node) -> Compute:
    """Transposed convolution; what pads take from one side only is cut off afterwards."""
    node.demand("auto_pad", "NOTSET", "VALID")
    if "output_shape" in node.attributes:
        raise ValueError("output_shape cannot be computed; pads can")

    def compute(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        ones = [1] * (weight.ndim - 2)
        pads = _pads(node, x.shape[2:], weight.shape[2:])
        common = [min(pair) for pair in pads]  # the rest is cut off, as torch takes the same on both sides
        strides, more = node.get("strides", ones), node.get("output_padding", [0] * len(ones))
        groups, dilations = node.get("group", 1), node.get("dilations", ones)
        x = _SPREAD[len(ones)](x, weight, bias, strides, common, more, groups, dilations)
        for axis, ((before, behind), cut) in enumerate(zip(pads, common, strict=True), 2):
            x = x.narrow(axis, before - cut, x.shape[axis] - (before - cut) - (behind - cut))
        return x

    return compute


def max_pool(node: Node) -> Compute:
    """Largest px of every window."""
    kernel, ceil = node.attributes["kernel_shape"], bool(node.get("ceil_mode", 0))
    ones = [1] * len(kernel)
    strides, dilations = node.get("strides", ones), node.get("dilations", ones)

    def compute(x: Tensor) -> Tensor:
        pads = _pads(node, x.shape[2:], kernel)
        if any(pad[0] != pad[1] or 2 * pad[0] > edge for pad, edge in zip(pads, kernel, strict=True)):
            if ceil:
                raise ValueError("ceil_mode with such pads cannot be computed")
            x, pads = _padded(x, pads, -math.inf), [(0, 0)] * len(pads)
        padding = [before for before, _ in pads]
        return _LARGEST[len(kernel)](x, kernel, strides, padding, dilations, ceil_mode=ceil)

    return compute


def average_pool(node: Node) -> Compute:
    """Mean of every window."""
    kernel = node.attributes["kernel_shape"]
    node.demand("auto_pad", "NOTSET", "VALID")
    node.demand("dilations", [1] * len(kernel))
    pads = _pads(node, kernel, kernel)
    if any(pad[0] != pad[1] or 2 * pad[0] > edge for pad, edge in zip(pads, kernel, strict=True)):
        raise ValueError(f"pads {node.get('pads', [])} cannot be computed; the same on both sides can")
    ceil, counted = bool(node.get("ceil_mode", 0)), bool(node.get("count_include_pad", 0))
    strides, padding = node.get("strides", [1] * len(kernel)), [before for before, _ in pads]

    def compute(x: Tensor) -> Tensor:
        return _MEAN[len(kernel)](x, kernel, strides, padding, ceil, counted)

    return compute


def normalise(node: Node) -> Compute:
    """Batch normalisation with the statistics of the file."""
    node.demand("training_mode", 0)
    node.demand("spatial", 1)
    epsilon = node.get("epsilon", 1e-5)

    def compute(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return functional.batch_norm(x, mean, variance, scale, bias, eps=epsilon)

    return compute


def normalise_image(node: Node) -> Compute:
    """Normalisation of each channel of each image."""
    epsilon = node.get("epsilon", 1e-5)

    def compute(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return functional.instance_norm(x, weight=scale, bias=bias, eps=epsilon)

    return compute


def normalise_groups(node: Node) -> Compute:
    """Normalisation of groups of channels of each image."""
    groups, epsilon = node.attributes["num_groups"], node.get("epsilon", 1e-5)

    def compute(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if scale.numel() == groups:  # one for each group, before operator set 21
            scale, bias = (each.repeat_interleave(x.shape[1] // groups) for each in (scale, bias))
        return functional.group_norm(x, groups, scale, bias, epsilon)

    return compute


def resize(node: Node) -> Compute:
    """Change of the sides y and x: nearest px for whole factors, or bilinear. ``Upsample`` is its older name."""
    mode = node.demand("mode", "nearest", "linear")
    if node.operator == "Upsample" or node.opset < 11:
        coordinates, rounding = "asymmetric", "floor"
    else:
        coordinates = node.get("coordinate_transformation_mode", "half_pixel")
        rounding = node.get("nearest_mode", "round_prefer_floor")
    node.demand("antialias", 0)
    node.demand("keep_aspect_ratio_policy", "stretch")
    node.demand("axes", None, [2, 3], [-2, -1])
    # Enlarged by a whole factor, these two find the same px, and so does torch.
    centred = coordinates in _HALF_PIXEL and rounding.startswith("round_prefer")
    corners = coordinates == "asymmetric" and rounding == "floor"
    smooth = coordinates in (*_HALF_PIXEL, "align_corners")
    if not (smooth if mode == "linear" else centred or corners):
        asked = f"{mode}, {coordinates}" + (f", {rounding}" if mode == "nearest" else "")
        raise ValueError(f"{asked} cannot be computed exactly")

    def compute(x: Tensor, *given: Tensor | None) -> Tensor:
        # Since operator set 11: region, scales, sizes; before: scales alone, or an attribute.
        scales, sizes = [*given[1:], None, None][:2] if node.opset > 10 else [*given, None, None][:2]
        if scales is None and "scales" in node.attributes:
            scales = torch.tensor(node.attributes["scales"])
        if sizes is not None and not sizes.numel():  # as some exporters write what is left out
            sizes = None
        factors, size = _factors(x, scales, sizes)
        if mode == "linear":
            if coordinates == "pytorch_half_pixel" and 1 in size:
                raise ValueError(f"{coordinates} cannot be computed for a side of 1 px")
            exactly: dict[str, Any] = {"size": size} if sizes is not None else {"scale_factor": factors}
            return functional.interpolate(
                x, mode="bilinear", align_corners=coordinates == "align_corners", **exactly
            )
        if any(factor not in range(1, _LARGEST_FACTOR + 1) for factor in factors):
            raise ValueError(
                f"nearest px for the factors {factors}; whole ones to {_LARGEST_FACTOR} can be computed exactly"
            )
        return functional.interpolate(x, scale_factor=factors, mode="nearest")

    return compute


def _factors(x: Tensor, scales: Tensor | None, sizes: Tensor | None) -> tuple[list[float], list[int]]:
    """Return how much larger an image becomes along y and x, and its new sides."""
    if x.ndim != 4:
        raise ValueError(f"resizes {x.ndim} axes; 4 can be computed")
    height, width = x.shape[-2:]
    if sizes is not None:
        *others, high, wide = sizes.tolist()
        unchanged, factors = others in ([], list(x.shape[:2])), [high / height, wide / width]
    elif scales is not None and scales.numel():
        *others, down, across = scales.tolist()
        unchanged, factors = others in ([], [1, 1]), [down, across]
        high, wide = int(height * down), int(width * across)
    else:
        raise ValueError("neither scales nor sizes are given")
    if not unchanged:
        raise ValueError("resizes along n or channels; y and x can be computed")
    return factors, [high, wide]


def space_to_depth(node: Node) -> Compute:
    """Blocks of px become channels."""
    edge = node.attributes["blocksize"]

    def compute(x: Tensor) -> Tensor:
        folded = functional.pixel_unshuffle(x, edge)
        if x.shape[1] == 1:
            return folded
        # Here the channels are outside and the px of a block inside; in ONNX it is the reverse.
        return folded.unflatten(1, (x.shape[1], edge * edge)).transpose(1, 2).flatten(1, 2)

    return compute


def depth_to_space(node: Node) -> Compute:
    """Channels become blocks of px."""
    edge = node.attributes["blocksize"]
    blocks_outside = node.demand("mode", "DCR", "CRD") == "DCR"

    def compute(x: Tensor) -> Tensor:
        if blocks_outside:  # torch wants channels outside
            x = x.unflatten(1, (edge * edge, -1)).transpose(1, 2).flatten(1, 2)
        return functional.pixel_shuffle(x, edge)

    return compute


def pad(node: Node) -> Compute:
    """Px put around the image: a constant, the border itself, or what it mirrors."""
    mode = node.demand("mode", "constant", "reflect", "edge")

    def compute(
        x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
    ) -> Tensor:
        given = node.attributes["pads"] if pads is None else pads.tolist()
        which = range(x.ndim) if axes is None else [axis % x.ndim for axis in axes.tolist()]
        pairs = [(0, 0)] * x.ndim
        for axis, before, behind in zip(which, given[: len(which)], given[len(which) :], strict=True):
            pairs[axis] = (before, behind)
        if mode == "constant":
            return _padded(x, pairs, node.get("value", 0.0) if value is None else value.item())
        if any(px for pair in pairs[:2] for px in pair):
            raise ValueError(f"{mode} beyond y and x cannot be computed")
        return _padded(x, pairs[2:], mode="reflect" if mode == "reflect" else "replicate")

    return compute
