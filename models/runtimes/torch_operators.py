"""The operators of ONNX that torch computes, by name: for each, what reads a node and returns the function of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .torch_layers import (
    Compute,
    Node,
    average_pool,
    conv,
    conv_transpose,
    depth_to_space,
    max_pool,
    normalise,
    normalise_groups,
    normalise_image,
    pad,
    resize,
    space_to_depth,
)

NUMBERS: Mapping[str, Sequence[int]] = {
    "Clip": (1, 2), "Gather": (1,), "Pad": (1, 2, 3), "ReduceMean": (1,), "Reshape": (1,), "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4), "Squeeze": (1,), "Unsqueeze": (1,), "Upsample": (1,),
}  # fmt: skip
"""Inputs that are read as numbers while the net runs: they stay with the processor, in full precision."""
_FLOATS = (1, 10, 11, 16)
_INTEGERS = {2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool}


def _reduce_mean(node: Node) -> Compute:
    keep, nothing_to_do = bool(node.get("keepdims", 1)), bool(node.get("noop_with_empty_axes", 0))

    def compute(x: Tensor, axes: Tensor | None = None) -> Tensor:
        over = axes.tolist() if axes is not None else node.get("axes", [])
        return x if nothing_to_do and not over else x.mean(over or None, keepdim=keep)

    return compute


def _reshape(node: Node) -> Compute:
    node.demand("allowzero", 0)

    def compute(x: Tensor, shape: Tensor | None = None) -> Tensor:
        wanted = node.attributes["shape"] if shape is None else shape.tolist()
        return x.reshape([x.shape[axis] if side == 0 else side for axis, side in enumerate(wanted)])

    return compute


def _transpose(node: Node) -> Compute:
    def compute(x: Tensor) -> Tensor:
        return x.permute(node.get("perm", list(reversed(range(x.ndim)))))

    return compute


def _slice(node: Node) -> Compute:
    def compute(x: Tensor, *given: Tensor | None) -> Tensor:
        if not given:  # before operator set 10
            given = tuple(torch.tensor(node.attributes[name]) for name in ("starts", "ends"))
            given += (torch.tensor(node.attributes["axes"]),) if "axes" in node.attributes else ()
        starts, ends, axes, steps = (
            None if each is None else each.tolist() for each in (*given, None, None)[:4]
        )
        for number, (start, end) in enumerate(zip(starts or [], ends or [], strict=True)):
            axis, step = axes[number] % x.ndim if axes else number, steps[number] if steps else 1
            if step < 1:
                raise ValueError(f"a slice in steps of {step} cannot be computed")
            x = x[(slice(None),) * axis + (slice(start, end, step),)]
        return x

    return compute


def _axes(node: Node, given: Tensor | None) -> list[int]:
    """Return the axes that a node speaks of: an input since operator set 13, before an attribute."""
    return node.get("axes", []) if given is None else given.tolist()


def _squeeze(node: Node) -> Compute:
    def compute(x: Tensor, axes: Tensor | None = None) -> Tensor:
        return x.squeeze(tuple(_axes(node, axes) or range(x.ndim)))

    return compute


def _unsqueeze(node: Node) -> Compute:
    def compute(x: Tensor, axes: Tensor | None = None) -> Tensor:
        given = _axes(node, axes)
        for axis in sorted(axis % (x.ndim + len(given)) for axis in given):
            x = x.unsqueeze(axis)
        return x

    return compute


def _gather(node: Node) -> Compute:
    axis = node.get("axis", 0)

    def compute(x: Tensor, indices: Tensor) -> Tensor:
        if indices.ndim > 1:
            raise ValueError("indices of more than one axis cannot be computed")
        found = [x.select(axis, index) for index in indices.reshape(-1).tolist()]
        return torch.stack(found, axis) if indices.ndim else found[0]

    return compute


def _shape(node: Node) -> Compute:
    def compute(x: Tensor) -> Tensor:
        return torch.tensor(list(x.shape)[node.get("start", 0) : node.get("end", None)])

    return compute


def _cast(node: Node) -> Compute:
    to = node.attributes["to"]
    if to not in (*_FLOATS, *_INTEGERS):
        raise ValueError(f"numbers of type {to} cannot be computed")

    def compute(x: Tensor) -> Tensor:
        if to in _INTEGERS:
            return x.to(_INTEGERS[to])
        return x if x.is_floating_point() else x.float()  # floats stay in what the net is computed in

    return compute


def _clip(node: Node) -> Compute:
    def compute(x: Tensor, least: Tensor | None = None, most: Tensor | None = None) -> Tensor:
        low = node.get("min", None) if least is None else least.item()
        high = node.get("max", None) if most is None else most.item()
        return x if low is None and high is None else x.clamp(low, high)

    return compute


def _softmax(node: Node) -> Compute:
    def compute(x: Tensor) -> Tensor:
        if node.opset > 12:
            return x.softmax(node.get("axis", -1))
        return x.flatten(node.get("axis", 1)).softmax(-1).reshape(x.shape)  # all axes from this one on as one

    return compute


def _concat(node: Node) -> Compute:
    axis = node.attributes["axis"]

    def compute(*given: Tensor) -> Tensor:
        return torch.cat(given, axis)

    return compute


def _global_mean(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def _global_largest(x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


def _divide(x: Tensor, y: Tensor) -> Tensor:
    whole = not (x.is_floating_point() or y.is_floating_point())
    return torch.div(x, y, rounding_mode="trunc" if whole else None)


def _steep(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


def _hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


def _same(x: Tensor, *_: Tensor | None) -> Tensor:
    return x


def _plain(function: Compute, **attributes: float) -> Callable[[Node], Compute]:
    """Return what computes a node with a function; attributes, with their defaults, are its last arguments."""

    def read(node: Node) -> Compute:
        last = [node.get(name, usual) for name, usual in attributes.items()]
        return lambda *given: function(*given, *last)

    return read


OPERATORS: Mapping[str, Callable[[Node], Compute]] = {
    "Abs": _plain(torch.abs),
    "Add": _plain(torch.add),
    "AveragePool": average_pool,
    "BatchNormalization": normalise,
    "Cast": _cast,
    "Ceil": _plain(torch.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DepthToSpace": depth_to_space,
    "Div": _plain(_divide),
    "Dropout": _plain(_same),
    "Elu": _plain(functional.elu, alpha=1.0),
    "Exp": _plain(torch.exp),
    "Floor": _plain(torch.floor),
    "Gather": _gather,
    "GlobalAveragePool": _plain(_global_mean),
    "GlobalMaxPool": _plain(_global_largest),
    "GroupNormalization": normalise_groups,
    "HardSigmoid": _plain(_hard_sigmoid, alpha=0.2, beta=0.5),
    "HardSwish": _plain(functional.hardswish),
    "Identity": _plain(_same),
    "InstanceNormalization": normalise_image,
    "LeakyRelu": _plain(functional.leaky_relu, alpha=0.01),
    "MaxPool": max_pool,
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "PRelu": _plain(_steep),
    "Pad": pad,
    "Pow": _plain(torch.pow),
    "ReduceMean": _reduce_mean,
    "Relu": _plain(torch.relu),
    "Reshape": _reshape,
    "Resize": resize,
    "Shape": _shape,
    "Sigmoid": _plain(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": _plain(functional.softplus),
    "SpaceToDepth": space_to_depth,
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
    "Tanh": _plain(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": resize,
}
"""What reads a node of each operator and returns its function; raises ValueError for what torch cannot do."""
