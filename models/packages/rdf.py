"""The description of a model as BioImage.IO defines it, formats 0.4 and 0.5, as far as it is needed here.

Both formats are brought to the same facts; fields that are not needed are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ...acquire.errors import ModelError
from .yaml_file import read_yaml

LARGEST_SIDE = 1 << 15
_LETTERS = {"batch": "b", "channel": "c", "index": "i", "time": "t"}


class Size(msgspec.Struct):
    """A size that depends on something, format 0.5."""

    min: int | None = None
    step: int | None = None
    tensor_id: str | None = None
    axis_id: str | None = None
    offset: int = 0


class AxisDescription(msgspec.Struct):
    """An axis, format 0.5."""

    type: str
    id: str | None = None
    size: int | Size | None = None
    channel_names: list[str] | None = None
    scale: float = 1.0
    halo: int = 0


class Shape(msgspec.Struct):
    """A shape that depends on something, format 0.4."""

    min: list[int] | None = None
    step: list[int] | None = None
    reference_tensor: str | None = None
    scale: list[float | None] | None = None
    offset: list[float] | None = None


class StepDescription(msgspec.Struct):
    """A step before or after the net."""

    id: str | None = None
    name: str | None = None
    kwargs: dict[str, Any] | None = None


class DataDescription(msgspec.Struct):
    """What the values of a tensor are, format 0.5."""

    type: str = "float32"


class TensorDescription(msgspec.Struct):
    """An input or output."""

    axes: str | list[AxisDescription]
    id: str | None = None
    name: str | None = None
    shape: list[int] | Shape | None = None
    halo: list[int] | None = None
    data: DataDescription | list[DataDescription] | None = None
    data_type: str | None = None
    optional: bool = False
    preprocessing: list[StepDescription] = []
    postprocessing: list[StepDescription] = []


class FileReference(msgspec.Struct):
    """A file of the package."""

    source: str
    sha256: str | None = None


class WeightsDescription(FileReference):
    """The weights in one format."""

    external_data: FileReference | None = None


class WeightsDescriptions(msgspec.Struct):
    """The weights in the formats that can be run here."""

    onnx: WeightsDescription | None = None
    torchscript: WeightsDescription | None = None


class Description(msgspec.Struct):
    """All of it."""

    format_version: str
    inputs: list[TensorDescription]
    outputs: list[TensorDescription]
    weights: WeightsDescriptions
    type: str = "model"
    name: str = ""
    license: str | None = None
    documentation: str | FileReference | None = None
    tags: list[Any] = []
    config: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AxisFacts:
    """What is said of one axis, in either format.

    Attributes
    ----------
    letter
        ``b``, ``c``, ``y``, ``x``, or another.
    size
        Fixed length, or None.
    least, step
        Otherwise the length is ``least + n * step``; 0 and 1 if nothing is said.
    scale
        Output px per px of the input's axis; None if it depends on none.
    offset
        What the output is longer than ``scale`` times the input, in output px.
    halo
        Output px that are to be cut off at either end.
    names
        Of channels.
    """

    letter: str
    size: int | None = None
    least: int = 0
    step: int = 1
    scale: float | None = None
    offset: float = 0.0
    halo: int = 0
    names: tuple[str, ...] = ()


def data_type(tensor: TensorDescription) -> str:
    """Return the type of a tensor's values, in either format."""
    data = tensor.data[0] if isinstance(tensor.data, list) and tensor.data else tensor.data
    return data.type if isinstance(data, DataDescription) else tensor.data_type or "float32"


def read_description(path: Path) -> Description:
    """Read a ``rdf.yaml``.

    Raises
    ------
    ModelError
        If it is no description of a model in format 0.4 or 0.5; names the file and the field.
    """
    raw = read_yaml(path)
    version = str(raw.get("format_version", "missing"))
    if not version.startswith(("0.4.", "0.5.")):
        raise ModelError(
            f"{path}: format_version is {version}; 0.4 and 0.5 of the BioImage.IO model format are read"
        )
    if raw.get("type", "model") != "model":
        raise ModelError(f"{path}: describes a {str(raw['type'])[:40]!r}, not a model")
    try:
        found = msgspec.convert(raw, Description)
    except msgspec.ValidationError as error:
        raise ModelError(f"{path}: {error}") from error
    if found.weights.onnx is None and found.weights.torchscript is None:
        formats = ", ".join(str(key) for key in raw["weights"]) or "none"
        raise ModelError(f"{path}: weights only as {formats}; onnx or torchscript is needed")
    return found


def read_axes(tensor: TensorDescription, inputs: Sequence[TensorDescription] = ()) -> list[AxisFacts]:
    """Return the facts about the axes of an input; or of an output, if the inputs are given.

    Raises
    ------
    ValueError
        If the fields contradict each other.
    """
    if isinstance(tensor.axes, str):
        found = _axes_04(tensor.axes, tensor.shape, tensor.halo)
    else:
        found = [_axis_05(axis, tensor, inputs) for axis in tensor.axes]
    if len({axis.letter for axis in found}) != len(found):
        raise ValueError(f"axes {''.join(axis.letter for axis in found)!r} name one twice")
    for axis in found:
        lengths = (axis.size or 1, axis.least or 1, axis.step, axis.halo + 1)
        if not all(1 <= length <= LARGEST_SIDE for length in lengths):
            raise ValueError(f"axis {axis.letter!r} has a size that is not 1 to {LARGEST_SIDE}")
        if axis.scale is not None and not (math.isfinite(axis.scale) and axis.scale > 0):
            raise ValueError(f"axis {axis.letter!r} has scale {axis.scale}")
    return found


def _axes_04(letters: str, shape: list[int] | Shape | None, halo: list[int] | None) -> list[AxisFacts]:
    n = len(letters)

    def of_length(values: list[Any] | None, field: str) -> list[Any]:
        if values is None or len(values) != n:
            raise ValueError(f"{field} must have {n} numbers, one for each of the axes {letters!r}")
        return values

    halos = [0] * n if halo is None else of_length(halo, "halo")
    if not isinstance(shape, Shape):
        sizes = of_length(shape, "shape")
        return [
            AxisFacts(letter, size, halo=h) for letter, size, h in zip(letters, sizes, halos, strict=True)
        ]
    if shape.min is not None:
        least, steps = of_length(shape.min, "shape.min"), of_length(shape.step, "shape.step")
        return [
            AxisFacts(letter, low) if step == 0 else AxisFacts(letter, None, low, step)
            for letter, low, step in zip(letters, least, steps, strict=True)
        ]
    scales, offsets = of_length(shape.scale, "shape.scale"), of_length(shape.offset, "shape.offset")
    return [
        AxisFacts(letter, scale=scale, offset=2 * offset, halo=h)
        if scale
        else AxisFacts(letter, int(2 * offset))
        for letter, scale, offset, h in zip(letters, scales, offsets, halos, strict=True)
    ]


def _axis_05(
    axis: AxisDescription, tensor: TensorDescription, inputs: Sequence[TensorDescription]
) -> AxisFacts:
    letter = _LETTERS.get(axis.type) or axis.id or "x"
    if axis.type == "channel":
        names = tuple(axis.channel_names or ())
        return AxisFacts(letter, len(names) or None, names=names)
    if not (math.isfinite(axis.scale) and axis.scale > 0):
        raise ValueError(f"axis {letter!r} has scale {axis.scale}")
    size = axis.size
    if size is None or isinstance(size, int):
        return AxisFacts(letter, size, halo=axis.halo)
    if size.axis_id is None:
        return AxisFacts(letter, None, size.min or 0, 1 if size.step is None else size.step)
    referred = _referred(size, [tensor, *inputs])
    if not inputs:  # an input whose y is as long as its x
        same = _axis_05(referred, tensor, ())
        return AxisFacts(letter, same.size, same.least, same.step)
    return AxisFacts(letter, scale=referred.scale / axis.scale, offset=size.offset, halo=axis.halo)


def _referred(size: Size, tensors: Sequence[TensorDescription]) -> AxisDescription:
    """Return the axis that a size refers to."""
    for tensor in tensors:
        if tensor.id == size.tensor_id and not isinstance(tensor.axes, str):
            for axis in tensor.axes:
                if (axis.id or "x") == size.axis_id and not (
                    isinstance(axis.size, Size) and axis.size.axis_id
                ):
                    return axis
    raise ValueError(f"a size refers to axis {size.axis_id!r} of {size.tensor_id!r}, which is not there")
