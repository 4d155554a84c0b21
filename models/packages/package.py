"""Model packages: finding a net, and all that is needed to use it, by name or path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...acquire.errors import ModelError, nearest_name
from ...acquire.plugins import known_names
from ..runtimes.onnx_file import OnnxFile, Shape, read_onnx_file
from .archive import unpack
from .contents import ModelPackage, WeightsFile
from .framing import Framing
from .reading import hash_of, read_folder

__all__ = ["ModelPackage", "WeightsFile", "known_packages", "load_package"]

SHIPPED = Path(__file__).parent / "weights"
MOST_CHANNELS = 16
"""An axis of a plain ONNX file that is fixed and not longer than this is taken for the channels."""
USUAL_STEP = 32
"""Sides of the input of a plain ONNX file are made multiples of it: five levels of halving are usual."""


def known_packages() -> list[str]:
    """Return the names of the packages that come with cytoloop, sorted."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/rdf.yaml"))


def load_package(
    name_or_path: str | Path, *, decoder: str | None = None, decoder_options: Mapping[str, Any] | None = None
) -> ModelPackage:
    """Read a model package.

    Parameters
    ----------
    name_or_path
        Name of a shipped package; or the path of a BioImage.IO package (folder or .zip), or of a plain .onnx
        file, of which only the shapes are known.
    decoder
        What makes cells of the outputs, in place of what the package says; needed if it says nothing.
    decoder_options
        Options of the decoder; they are added to those of the package, or stand alone with another decoder.

    Raises
    ------
    ModelError
        Names the file, and what is wrong with it.
    """
    path = Path(name_or_path)
    if str(name_or_path) in known_packages():
        package = read_folder(SHIPPED / name_or_path)
    elif path.is_dir():
        package = read_folder(path)
    elif path.suffix.lower() == ".onnx":
        package = _plain(path, decoder)
    elif path.is_file():
        package = read_folder(unpack(path))
    else:
        known = known_packages()
        hint = nearest_name(str(name_or_path), known)
        raise ModelError(
            f"{name_or_path}: no model package of this name or path; shipped: {', '.join(known) or 'none'}."
            + (f" Did you mean {hint!r}?" if hint else "")
        )
    if decoder is not None and decoder != package.decoder:
        package = replace(package, decoder=decoder, decoder_options={})
    if not package.decoder:
        known = ", ".join(known_names("decoders"))
        raise ModelError(f"{name_or_path}: says not what its outputs mean; set decoder to one of {known}")
    return replace(package, decoder_options={**package.decoder_options, **(decoder_options or {})})


def _plain(path: Path, decoder: str | None) -> ModelPackage:
    """Return what a plain ONNX file tells, with defaults for all else."""
    file = read_onnx_file(path)
    layout = _layout(path, file.input_shape)
    given = dict(zip(layout, file.input_shape, strict=True))
    channels = given.get("c") or 1
    y, x = given["y"], given["x"]
    if (y is None) != (x is None):
        raise ModelError(f"{path}: one of y and x has a fixed size, the other has not")
    # Boxes and their masks have four axes at times, but no px of the frame.
    layouts = tuple(_map_layout(shape, layout) if decoder != "boxes" else "" for shape in file.output_shapes)
    return ModelPackage(
        name=path.stem,
        folder=path.parent,
        weights=(WeightsFile(path, "onnx", file.precision, hash_of(path)),),
        channels=channels,
        channel_names=tuple(f"channel{i}" for i in range(channels)),
        step=USUAL_STEP if y is None else 1,
        fixed_shape=None if y is None or x is None else (y, x),
        grid=_grid(file, layouts, given),
        input_name=file.input_name,
        framing=Framing(layout=layout, output_layouts=layouts),
    )


def _layout(path: Path, shape: Shape) -> str:
    """Tell channels from sides: the channels are few and fixed, or where they usually are."""
    few = [length is not None and length <= MOST_CHANNELS for length in shape]
    if len(shape) == 4:
        return "byxc" if few[3] and not few[1] else "bcyx"
    if len(shape) == 3:
        return "cyx" if few[0] else "yxc" if few[2] else "byx"
    raise ModelError(f"{path}: its input has {len(shape)} axes; (n, channels, y, x) is needed")


def _map_layout(shape: Shape | None, layout: str) -> str:
    """Return the axes of an output that has as many of them as the input."""
    return layout if shape is not None and len(shape) == len(layout) else ""


def _grid(file: OnnxFile, layouts: tuple[str, ...], given: Mapping[str, int | None]) -> int:
    """Return input px per output px where the file fixes both, else 1."""
    for shape, layout in zip(file.output_shapes, layouts, strict=True):
        if shape is not None and layout:
            sides, of = shape[layout.index("y")], given["y"]
            if sides and of and of % sides == 0:
                return of // sides
    return 1
