"""From a folder with a description to a package, each part checked against the others."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ...acquire.errors import ModelError
from ..runtimes.onnx_file import OnnxFile, read_onnx_file
from ..runtimes.runtime import Precision
from .archive import DESCRIPTIONS
from .contents import ModelPackage, WeightsFile
from .framing import Framing, geometry
from .normalise import Kind, Normalisation
from .processing import Binarize, EnsureDtype, ScaleMeanVariance, Step, read_step, run_steps
from .rdf import (
    Description,
    FileReference,
    StepDescription,
    TensorDescription,
    data_type,
    read_axes,
    read_description,
)
from .torchscript import check_torchscript

VERSION = 1
"""Of our own part of a description."""
LONGEST_CARD = 1 << 20
DECODING_STEPS = {
    "stardist_postprocessing": (
        "stardist",
        {"prob_threshold": "prob_threshold", "nms_threshold": "nms_threshold"},
    ),
    "cellpose_flow_dynamics": (
        "flows",
        {
            "cellprob_threshold": "cellprob_threshold",
            "flow_threshold": "flow_threshold",
            "min_size": "smallest_px",
        },
    ),
}
"""Steps of BioImage.IO that make cells; the decoders that do it here, and what these call the arguments."""


class NormalisationDescription(msgspec.Struct, forbid_unknown_fields=True):
    """See :class:`.Normalisation`."""

    kind: Kind
    low: float = 1.0
    high: float = 99.8
    clip: tuple[float, float] | None = None


class FurtherWeights(FileReference, forbid_unknown_fields=True):
    """The ONNX weights in another precision."""

    precision: Precision = "fp32"


class OurPart(msgspec.Struct, forbid_unknown_fields=True):
    """What ``config: cytoloop:`` of a description says."""

    version: int = VERSION
    name: str = ""
    normalise: NormalisationDescription | None = None
    diameter_px: float | None = None
    diameter_range: tuple[float, float] | None = None
    shown_px: float | None = None
    novelty: dict[str, float] | None = None
    decoder: str = ""
    decoder_options: dict[str, Any] = {}
    weights: list[FurtherWeights] = []
    terms: str = ""


def read_folder(folder: Path) -> ModelPackage:
    """Read a package that lies in a folder.

    Raises
    ------
    ModelError
        Names the file and what is wrong with it.
    """
    path = next((folder / name for name in DESCRIPTIONS if (folder / name).is_file()), None)
    if path is None:
        raise ModelError(f"{folder}: no model package: there is no {DESCRIPTIONS[0]} in it")
    description = read_description(path)
    try:
        return _Reader(path, description).read()
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error


class _Reader:
    """Reads one description; errors are ValueErrors without the path, or ModelErrors with it."""

    def __init__(self, path: Path, description: Description) -> None:
        self._path, self._description = path, description
        self._ours = self._our_part()
        needed = [tensor for tensor in description.inputs if not tensor.optional]
        if len(needed) != 1 or not description.outputs:
            raise ValueError(
                f"{len(needed)} inputs and {len(description.outputs)} outputs; nets from one image are run"
            )
        self._input = needed[0]
        self._given = read_axes(self._input)
        self._outputs = [read_axes(output, description.inputs) for output in description.outputs]
        self._geometry = geometry(self._given, self._outputs)

    def read(self) -> ModelPackage:
        """Return the package."""
        ours, found = self._ours, self._geometry
        by_us = ours is not None and ours.normalise is not None
        postprocess, decoder, options = self._postprocess()
        return ModelPackage(
            name=(ours.name if ours else "") or self._description.name or self._path.parent.name,
            folder=self._path.parent,
            weights=self._weights(),
            channels=found.channels,
            channel_names=found.channel_names,
            step=found.step,
            fixed_shape=found.fixed_shape,
            normalise=_normalisation(ours.normalise) if ours and ours.normalise else AS_IT_IS,
            diameter_px=ours.diameter_px if ours else None,
            diameter_range=ours.diameter_range if ours else None,
            shown_px=ours.shown_px if ours else None,
            grid=found.grid,
            novelty=ours.novelty if ours else None,
            decoder=decoder,
            decoder_options=options,
            card=self._card(),
            terms=(ours.terms if ours else "") or self._description.license or "",
            preprocess=() if by_us else self._preprocess(),
            postprocess=postprocess,
            input_name=self._input.id or self._input.name or "input",
            framing=self._framing(by_us),
        )

    def _our_part(self) -> OurPart | None:
        raw = (self._description.config or {}).get("cytoloop")
        if raw is None:
            return None
        version = raw.get("version") if isinstance(raw, Mapping) else None
        if isinstance(version, int) and version > VERSION:
            raise ValueError(
                f"config.cytoloop.version is {version}; up to {VERSION} is read: update cytoloop"
            )
        try:
            ours = msgspec.convert(raw, OurPart)
        except msgspec.ValidationError as error:
            raise ValueError(f"config.cytoloop: {error}") from error
        numbers = [ours.diameter_px or 1.0, ours.shown_px or 1.0, *(ours.diameter_range or (1.0, 1.0))]
        if not all(math.isfinite(number) and number > 0 for number in numbers):
            raise ValueError("config.cytoloop: diameters must be above 0 px")
        if not all(math.isfinite(number) for number in (ours.novelty or {}).values()):
            raise ValueError("config.cytoloop.novelty: numbers must be finite")
        return ours

    def _framing(self, by_us: bool) -> Framing:
        """Leave out what our own nets have as the protocol wants it, so that they are run as they are."""
        found = self._geometry.framing
        straight = all(layout in ("", "bcyx") for layout in found.output_layouts)
        least = 0 if self._geometry.fixed_shape else self._geometry.step
        plain = Framing(output_layouts=found.output_layouts, least=least)
        return Framing() if by_us and straight and found == plain else found

    def _preprocess(self) -> tuple[Step, ...]:
        steps = [_step(found) for found in self._input.preprocessing]
        kind = data_type(self._input)
        if kind != "float32":  # what the specification adds where it is not written
            cast = _step(StepDescription("ensure_dtype", kwargs={"dtype": kind}))
            if not steps or not isinstance(steps[0], EnsureDtype):
                steps.insert(0, cast)
            if self._input.data is not None and not isinstance(steps[-1], (EnsureDtype, Binarize)):
                steps.append(cast)
        self._try(steps, self._input, "preprocessing")
        return tuple(steps)

    def _postprocess(self) -> tuple[tuple[tuple[Step, ...], ...], str, dict[str, Any]]:
        """Return the steps of each output, the decoder and its options."""
        decoder, options = _named_decoder(self._description)
        if self._ours and self._ours.decoder:
            decoder, options = self._ours.decoder, dict(self._ours.decoder_options)
        of_outputs: list[tuple[Step, ...]] = []
        for output in self._description.outputs:
            steps: list[Step] = []
            for found in output.postprocessing:
                name = found.id or found.name or ""
                if name in DECODING_STEPS:
                    if not decoder:
                        decoder, names = DECODING_STEPS[name]
                        options = {
                            names[key]: value for key, value in (found.kwargs or {}).items() if key in names
                        }
                    break
                steps.append(_step(found))
            self._try(steps, output, "postprocessing")
            of_outputs.append(tuple(steps))
        if decoder == "stardist" and not (self._ours and self._ours.decoder):
            options["grid"] = self._geometry.grid
        return tuple(of_outputs) if any(of_outputs) else (), decoder, options

    def _try(self, steps: Sequence[Step], tensor: TensorDescription, where: str) -> None:
        """Apply the steps to a small tensor, to find now what would fail later."""
        name = tensor.id or tensor.name
        axes = self._given if tensor is self._input else read_axes(tensor, self._description.inputs)
        trial = np.zeros([axis.size if axis.letter == "c" and axis.size else 1 for axis in axes], np.float32)
        inputs = {self._input.id or self._input.name or "input": trial} if tensor is self._input else {}
        if tensor is not self._input and any(_refers(step) for step in steps):
            raise ValueError(
                f"{where} of {name!r} brings an image back to the input; that is no segmentation"
            )
        try:
            run_steps(steps, trial, [axis.letter for axis in axes], inputs)
        except ModelError as error:
            raise ValueError(f"{where} of {name!r}: {error}") from error

    def _weights(self) -> tuple[WeightsFile, ...]:
        """Return the files, each checked against its checksum and the description."""
        found: list[WeightsFile] = []
        onnx, torchscript = self._description.weights.onnx, self._description.weights.torchscript
        if onnx is not None:
            if onnx.external_data is not None:
                self._file(onnx.external_data)
            found.append(self._onnx(onnx))
        for further in self._ours.weights if self._ours else []:
            found.append(self._onnx(further))
            if found[-1].precision != further.precision:
                raise ValueError(f"{further.source} is {found[-1].precision}, not {further.precision}")
        if torchscript is not None:
            path, digest = self._file(torchscript)
            check_torchscript(path)
            found.append(WeightsFile(path, "torchscript", "fp32", digest))
        return tuple(found)

    def _onnx(self, reference: FileReference) -> WeightsFile:
        path, digest = self._file(reference)
        file = read_onnx_file(path)
        self._check_shapes(file)
        return WeightsFile(path, "onnx", file.precision, digest)

    def _file(self, reference: FileReference) -> tuple[Path, str]:
        """Return where a file is, and its SHA-256."""
        source = reference.source
        if "://" in source:
            raise ValueError(f"{source!r} lies on the network: download the whole package as a .zip")
        folder = self._path.parent.resolve()
        path = (folder / source.replace("\0", "?")).resolve()
        if not path.is_relative_to(folder):
            raise ValueError(f"{source!r} lies outside of the package")
        digest = hash_of(path)
        if reference.sha256 is not None and reference.sha256.lower() != digest:
            raise ModelError(f"{path}: is not the file that {self._path.name} describes: its SHA-256 differs")
        return path, digest

    def _check_shapes(self, file: OnnxFile) -> None:
        """Compare the file's shapes with those of the description."""
        if len(file.output_names) != len(self._outputs):
            raise ModelError(
                f"{file.path}: {len(file.output_names)} outputs; {self._path.name} describes {len(self._outputs)}"
            )
        pairs = [("input", file.input_shape, self._given)]
        for name, shape, axes in zip(file.output_names, file.output_shapes, self._outputs, strict=True):
            if shape is not None:
                pairs.append((f"output {name!r}", shape, axes))
        for what, shape, axes in pairs:
            letters = "".join(axis.letter for axis in axes)
            if len(shape) != len(axes):
                raise ModelError(
                    f"{file.path}: {what} has {len(shape)} axes; {self._path.name} describes {letters!r}"
                )
            for length, axis in zip(shape, axes, strict=True):
                differs = axis.size is not None and length not in (None, axis.size)
                if axis.letter != "b" and (differs or (what == "input" and length and axis.size is None)):
                    wanted = "any length" if axis.size is None else axis.size
                    raise ModelError(
                        f"{file.path}: {what} has {length} along {axis.letter};"
                        f" {self._path.name} describes {wanted}"
                    )

    def _card(self) -> str:
        """Return the text for people, if it is there."""
        source = self._description.documentation
        source = source.source if isinstance(source, FileReference) else source
        if not source or "://" in source:
            return ""
        path = (self._path.parent / source.replace("\0", "?")).resolve()
        if not path.is_relative_to(self._path.parent.resolve()) or not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(LONGEST_CARD).decode("utf-8", "replace")


AS_IT_IS = Normalisation("none", clip=None)


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hex digits.

    Raises
    ------
    ModelError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error


def _normalisation(found: NormalisationDescription) -> Normalisation:
    try:
        return Normalisation(found.kind, found.low, found.high, found.clip)
    except ValueError as error:
        raise ValueError(f"config.cytoloop.normalise: {error}") from error


def _step(found: StepDescription) -> Step:
    try:
        return read_step(found.id or found.name or "", found.kwargs or {})
    except ModelError as error:
        raise ValueError(str(error)) from error


def _refers(step: Step) -> bool:
    return isinstance(step, ScaleMeanVariance) or getattr(step, "reference_tensor", None) is not None


def _named_decoder(description: Description) -> tuple[str, dict[str, Any]]:
    """Return the decoder of a description that names one as its family writes it."""
    stardist = (description.config or {}).get("stardist")
    if not isinstance(stardist, Mapping):
        return "", {}
    limits = stardist.get("thresholds")
    if not isinstance(limits, Mapping):
        return "stardist", {}
    names = {"prob": "prob_threshold", "nms": "nms_threshold"}
    return "stardist", {names[key]: limits[key] for key in names if isinstance(limits.get(key), float)}
