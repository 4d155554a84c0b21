"""The steps of BioImage.IO before and after a net, as its specification of formats 0.4 and 0.5 defines them.

Each step is named as there and takes the arguments of both formats. Statistics are those of the frame: a stream has
no end, so what the specification calls a dataset is the frame, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import ModelError, nearest_name

Tensor = NDArray[np.float32]
Values = float | list[float]
Positive = Annotated[float, msgspec.Meta(ge=1e-12)]
Mode = Literal["per_sample", "per_dataset", "fixed"]
_LETTERS = {"batch": "b", "channel": "c", "index": "i", "time": "t"}


class Axes:
    """The names of a tensor's axes, one letter each where the specification has one."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(_LETTERS.get(name, name) for name in names)

    def positions(self, chosen: str | Sequence[str] | None) -> tuple[int, ...]:
        """Return where the chosen axes are; all for None. The one frame of a batch is always among them."""
        if chosen is None:
            return tuple(range(len(self.names)))
        found = {self.position(name) for name in chosen}
        return tuple(sorted(found | {i for i, name in enumerate(self.names) if name == "b"}))

    def position(self, name: str) -> int:
        """Return where an axis is.

        Raises
        ------
        ValueError
            If there is none of this name.
        """
        letter = _LETTERS.get(name, name)
        if letter not in self.names:
            raise ValueError(f"no axis {name!r}; the tensor has {', '.join(self.names)}")
        return self.names.index(letter)

    def along(
        self, values: Values, axis: str | None, jointly: str | Sequence[str] | None
    ) -> NDArray[np.float32]:
        """Return values so that they apply along one axis, named, or the one that is not scaled jointly."""
        array = np.asarray(values, np.float32)
        if axis is None and jointly is not None:
            others = [i for i in range(len(self.names)) if i not in self.positions(jointly)]
            if len(others) == 1:
                axis = self.names[others[0]]
        if array.size == 1:
            return array.reshape(())
        if axis is None:
            raise ValueError(f"{array.size} values, and no one axis that they belong to")
        shape = [1] * len(self.names)
        shape[self.position(axis)] = array.size
        return array.reshape(shape)


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step; its fields are the arguments in the specification."""

    def apply(self, tensor: Tensor, axes: Axes, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the tensor after the step, float32.

        Parameters
        ----------
        tensor
            Of any shape, float32.
        axes
            Names of its axes.
        inputs
            The net's inputs by name, as they were before any step.

        Raises
        ------
        ValueError
            If the arguments do not fit the axes.
        """
        return np.asarray(self._apply(tensor, axes, inputs), np.float32)

    def _apply(self, tensor: Tensor, axes: Axes, inputs: Mapping[str, Tensor]) -> NDArray[Any]:
        raise NotImplementedError


class Binarize(Step, frozen=True):
    """1 above the threshold, else 0."""

    threshold: Values
    axis: str | None = None

    def _apply(self, tensor: Tensor, axes: Axes, inputs: Mapping[str, Tensor]) -> NDArray[Any]:
        return tensor > axes.along(self.threshold, self.axis, None)


class Clip(Step, frozen=True):
    """Values and percentiles that limit the tensor."""

    min: float | None = None
    max: float | None = None
    min_percentile: float | None = None
    max_percentile: float | None = None
    axes: str | list[str] | None = None

    def _apply(self, tensor: Tensor, axes: Axes, inputs: Mapping[str, Tensor]) -> NDArray[Any]:
        over = axes.positions(self.axes)
        smallest: Any = (
            self.min if self.min_percentile is None else _percentile(tensor, self.min_percentile, over)
        )
        largest: Any = (
            self.max if self.max_percentile is None else _percentile(tensor, self.max_percentile, over)
        )
        return np.clip(tensor, smallest, largest)


class EnsureDtype(Step, frozen=True):
    """Numbers as another type has them; those that it does not have are refused, not wrapped around."""

    dtype: Literal[
        "float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool"
    ]

    def _apply(self, tensor: Tensor, axes: Axes, inputs: Mapping[str, Tensor]) -> NDArray[Any]:
        if self.dtype[0] in "ui" and tensor.size:
            limits = np.iinfo(self.dtype)
            least, most = float(tensor.min()), float(tensor.max())
            if not (limits.min - 1 < least and most < limits.max + 1):
                raise ValueError(
                    f"values from {least:g} to {most:g} are not {self.dtype}: convert the frames"
                )
        return tensor.astype(self.dtype)


class ScaleLinear(Step, frozen=True):
    """``tensor * gain + offset``."""

    gain: Values = 1.0
    offset: Values = 0.0
    axis: str | None = None
    axes: str | list[str] | None = None

    def _apply(self, tensor: Tensor, axes: Axes, inputs: Mapping[str, Tensor]) -> NDArray[Any]:
        gain, offset = (axes.along(v, self.axis, self.axes) for v in (self.gain, self.offset))
        return tensor * gain + offset


class Sigmoid(Step, frozen=True):
    """``1 / (1 + exp(-tensor))``."""

    def _apply(self, tensor: Tensor, axes: Axes, inputs: Mapping[str, Tensor]) -> NDArray[Any]:
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-tensor))


class Softmax(Step, frozen=True):
    """Shares along an axis that sum to 1."""

    axis: str = "channel"

    def _apply(self, tensor: Tensor, axes: Axes, inputs: Mapping[str, Tensor]) -> NDArray[Any]:
        along = axes.position(self.axis)
        powers = np.exp(tensor - tensor.max(axis=along, keepdims=True))
        return powers / powers.sum(axis=along, keepdims=True)


class FixedZeroMeanUnitVariance(Step, frozen=True):
    """``(tensor - mean) / std`` with given values."""

    mean: Values
    std: Positive | list[Positive]
    axis: str | None = None

    def _apply(self, tensor: Tensor, axes: Axes, inputs: Mapping[str, Tensor]) -> NDArray[Any]:
        mean, std = (axes.along(v, self.axis, None) for v in (self.mean, self.std))
        return (tensor - mean) / std


class ZeroMeanUnitVariance(Step, frozen=True):
    """``(tensor - mean) / (std + eps)``; with given values in mode ``fixed`` of format 0.4."""

    axes: str | list[str] | None = None
    eps: Positive = 1e-6
    mode: Mode | None = None
    mean: Values | None = None
    std: Positive | list[Positive] | None = None

    def _apply(self, tensor: Tensor, axes: Axes, inputs: Mapping[str, Tensor]) -> NDArray[Any]:
        if self.mode == "fixed" or self.mean is not None:
            if self.mean is None or self.std is None:
                raise ValueError("mode 'fixed' needs mean and std")
            mean, std = (axes.along(v, None, self.axes) for v in (self.mean, self.std))
            return (tensor - mean) / (std + self.eps)
        mean, std = _mean_and_std(tensor, axes.positions(self.axes))
        return (tensor - mean) / (std + self.eps)


class ScaleRange(Step, frozen=True):
    """Percentiles of the tensor, or of an input, become 0 and 1."""

    axes: str | list[str] | None = None
    min_percentile: float = 0.0
    max_percentile: float = 100.0
    eps: Positive = 1e-6
    mode: Mode | None = None
    reference_tensor: str | None = None

    def _apply(self, tensor: Tensor, axes: Axes, inputs: Mapping[str, Tensor]) -> NDArray[Any]:
        measured = tensor if self.reference_tensor is None else _reference(inputs, self.reference_tensor)
        over = axes.positions(self.axes)
        low, high = np.percentile(
            measured, (self.min_percentile, self.max_percentile), axis=over, keepdims=True
        )
        return (tensor - low) / (high - low + self.eps)


class ScaleMeanVariance(Step, frozen=True):
    """Mean and deviation of an input are given to the tensor."""

    reference_tensor: str
    axes: str | list[str] | None = None
    eps: Positive = 1e-6
    mode: Mode | None = None

    def _apply(self, tensor: Tensor, axes: Axes, inputs: Mapping[str, Tensor]) -> NDArray[Any]:
        over = axes.positions(self.axes)
        mean, std = _mean_and_std(tensor, over)
        wanted, spread = _mean_and_std(_reference(inputs, self.reference_tensor), over)
        return (tensor - mean) / (std + self.eps) * (spread + self.eps) + wanted


STEPS: Mapping[str, type[Step]] = {
    "binarize": Binarize,
    "clip": Clip,
    "ensure_dtype": EnsureDtype,
    "fixed_zero_mean_unit_variance": FixedZeroMeanUnitVariance,
    "scale_linear": ScaleLinear,
    "scale_mean_variance": ScaleMeanVariance,
    "scale_range": ScaleRange,
    "sigmoid": Sigmoid,
    "softmax": Softmax,
    "zero_mean_unit_variance": ZeroMeanUnitVariance,
}


def read_step(name: str, arguments: Mapping[str, Any]) -> Step:
    """Return a step as a package describes it.

    Parameters
    ----------
    name
        As in the specification.
    arguments
        Its ``kwargs``.

    Raises
    ------
    ModelError
        If there is no such step, or the arguments are not what it takes.
    """
    if name not in STEPS:
        hint = nearest_name(name, STEPS)
        guess = f" Did you mean {hint!r}?" if hint else ""
        raise ModelError(f"unknown step {name!r}; known: {', '.join(STEPS)}.{guess}")
    try:
        return msgspec.convert(arguments, STEPS[name])
    except msgspec.ValidationError as error:
        raise ModelError(f"step {name!r}: {error}") from error


def run_steps(
    steps: Sequence[Step], tensor: Tensor, axes: Sequence[str], inputs: Mapping[str, Tensor]
) -> Tensor:
    """Return the tensor after all steps, float32; see :meth:`Step.apply`.

    Raises
    ------
    ModelError
        If a step cannot be applied.
    """
    named = Axes(axes)
    for step in steps:
        try:
            tensor = step.apply(tensor, named, inputs)
        except ValueError as error:
            raise ModelError(
                f"step {type(step).__name__} on a tensor of shape {tensor.shape}: {error}"
            ) from error
    return np.ascontiguousarray(tensor)


def _percentile(tensor: Tensor, percent: float, over: tuple[int, ...]) -> NDArray[Any]:
    return np.percentile(tensor, percent, axis=over, keepdims=True, method="inverted_cdf")


def _mean_and_std(tensor: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    mean = tensor.mean(axis=over, keepdims=True, dtype=np.float64)
    std = tensor.std(axis=over, keepdims=True, dtype=np.float64)
    return mean.astype(np.float32), std.astype(np.float32)


def _reference(inputs: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in inputs:
        raise ValueError(f"no input {name!r} to refer to; there are {', '.join(inputs) or 'none'}")
    return inputs[name]
