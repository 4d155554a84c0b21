"""Writing a package as BioImage.IO 0.5 describes it, with a part of our own."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ...acquire.errors import ModelError
from ..runtimes.onnx_file import Shape, read_onnx_file
from ..runtimes.runtime import Tensor
from .archive import DESCRIPTIONS
from .contents import ModelPackage, WeightsFile
from .framing import Framing
from .normalise import Normalisation
from .reading import VERSION, hash_of, read_folder

FORMAT = "0.5.3"
MAP_NAMES = {"core": ("foreground", "core", "breadth")}
"""What the channels of a net's output are called, by decoder."""
_SPDX = re.compile(r"[A-Za-z0-9.+-]+")


def weights_file(path: Path) -> WeightsFile:
    """Return what a package says about an ONNX file.

    Raises
    ------
    ModelError
        If it is broken.
    """
    return WeightsFile(path, "onnx", read_onnx_file(path).precision, hash_of(path))


def save_package(
    package: ModelPackage,
    folder: Path,
    *,
    authors: Sequence[str] = (),
    example: tuple[Tensor, Sequence[Tensor]] | None = None,
) -> ModelPackage:
    """Write a package of our own kind; it is there whole or not at all.

    Parameters
    ----------
    package
        Its weights may lie anywhere; the first are the reference. ``folder`` is not looked at.
    folder
        Where to write it; a package that is there is replaced.
    authors
        Names.
    example
        An input (1, channels, y, x) float32 as the net gets it, and its outputs, for others to test with.

    Returns
    -------
    ModelPackage
        What was written, read again.

    Raises
    ------
    ModelError
        If the package cannot be written this way, or something else is in the folder.
    """
    _check(package, folder)
    try:
        _replace(folder, lambda new: _write(package, new, list(authors), example))
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return read_folder(folder)


def _replace(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder beside another and, if it can be read as a package, put it in its place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    new.mkdir()
    old = new.with_name(f"{new.name}-old")
    try:
        write(new)
        read_folder(new)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)


def _check(package: ModelPackage, folder: Path) -> None:
    ours = package.framing == Framing() and not package.preprocess and not any(package.postprocess)
    if not ours or not package.weights or any(weights.kind != "onnx" for weights in package.weights):
        raise ModelError(
            f"{package.name}: only ONNX nets that need no steps but the normalisation can be written"
        )
    if folder.exists() and not folder.is_dir():
        raise ModelError(f"{folder}: a file is there")
    if (
        folder.is_dir()
        and any(folder.iterdir())
        and not any((folder / name).is_file() for name in DESCRIPTIONS)
    ):
        raise ModelError(f"{folder}: holds other files than a model package; name a new folder")


def _write(
    package: ModelPackage, folder: Path, authors: list[str], example: tuple[Tensor, Sequence[Tensor]] | None
) -> None:
    main = read_onnx_file(package.weights[0].path)
    entries: list[dict[str, Any]] = []
    for index, weights in enumerate(package.weights):
        if read_onnx_file(weights.path).external:
            raise ModelError(f"{weights.path}: keeps its weights in another file; save it as one")
        name = "weights.onnx" if index == 0 else f"weights.{index}.{weights.precision}.onnx"
        shutil.copyfile(weights.path, folder / name)
        entries.append({"source": name, "sha256": weights.sha256, "precision": weights.precision})
    (folder / "README.md").write_text(package.card, encoding="utf-8")
    inputs = [_input(package, main.input_name)]
    shapes = zip(main.output_names, main.output_shapes, strict=True)
    outputs = [_output(package, main.input_name, name, shape) for name, shape in shapes]
    if example is not None:
        tensors = [example[0], *example[1]]
        for described, tensor in zip([*inputs, *outputs], tensors, strict=True):
            file = f"test_{described['id']}.npy"
            np.save(folder / file, tensor)
            described["test_tensor"] = {"source": file, "sha256": hash_of(folder / file)}
    description: dict[str, Any] = {
        "format_version": FORMAT,
        "type": "model",
        "name": _plain_name(f"cytoloop {package.name}"),
        "description": f"Finds cells in microscope images; decoded by {package.decoder!r} of cytoloop.",
        "authors": [{"name": author} for author in authors],
        "documentation": {"source": "README.md"},
        "tags": ["cytoloop", "segmentation", "cells"],
        "inputs": inputs,
        "outputs": outputs,
        "weights": {
            "onnx": {
                "source": entries[0]["source"],
                "sha256": entries[0]["sha256"],
                "opset_version": main.opset,
            }
        },
        "config": {"cytoloop": _our_part(package, entries[1:])},
    }
    if _SPDX.fullmatch(package.terms):
        description["license"] = package.terms
    text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    (folder / "rdf.yaml").write_text(text, encoding="utf-8")


def _our_part(package: ModelPackage, further: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what BioImage.IO has no words for."""
    rule = package.normalise
    part: dict[str, Any] = {
        "version": VERSION,
        "name": package.name,
        "normalise": {
            "kind": rule.kind,
            "low": rule.low,
            "high": rule.high,
            "clip": None if rule.clip is None else list(rule.clip),
        },
        "diameter_px": package.diameter_px,
        "diameter_range": None if package.diameter_range is None else list(package.diameter_range),
        "shown_px": package.shown_px,
        "novelty": None if package.novelty is None else dict(package.novelty),
        "decoder": package.decoder,
        "decoder_options": dict(package.decoder_options),
        "weights": further,
        "terms": package.terms,
    }
    said = {key: value for key, value in part.items() if value is not None and value not in ({}, [])}
    # Numbers of numpy, as statistics come in, as plain ones.
    return json.loads(json.dumps(said, default=lambda number: number.item()))


def _input(package: ModelPackage, name: str) -> dict[str, Any]:
    sizes = package.fixed_shape or [{"min": package.step, "step": package.step} for _ in "yx"]
    names = package.channel_names or [f"channel{i}" for i in range(package.channels)]
    return {
        "id": _tensor_id(name),
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": list(names)},
            *({"type": "space", "id": axis, "size": size} for axis, size in zip("yx", sizes, strict=True)),
        ],
        "data": {"type": "float32"},
        "preprocessing": _steps(package.normalise),
    }


def _steps(rule: Normalisation) -> list[dict[str, Any]]:
    """Return the steps that come nearest to our rule, for other programs."""
    found: list[dict[str, Any]] = [{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}]
    if rule.kind == "percentile":
        arguments = {"axes": ["y", "x"], "min_percentile": rule.low, "max_percentile": rule.high}
        found.append({"id": "scale_range", "kwargs": arguments})
    elif rule.kind == "mean_std":
        found.append({"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"]}})
    elif rule.kind == "fixed" and (rule.low, rule.high) != (0, 1):
        gain = 1 / (rule.high - rule.low)
        found.append({"id": "scale_linear", "kwargs": {"gain": gain, "offset": -rule.low * gain}})
    if rule.clip is not None:
        found.append({"id": "clip", "kwargs": {"min": rule.clip[0], "max": rule.clip[1]}})
    return [*found, {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}]


def _output(package: ModelPackage, input_name: str, name: str, shape: Shape | None) -> dict[str, Any]:
    data = {"type": "float32"}
    if shape is None or len(shape) != 4 or shape[1] is None:
        sizes = shape if shape is not None else (None,)
        axes = [
            {"type": "index", "id": f"index{i}", "size": {"min": 1} if size is None else size}
            for i, size in enumerate(sizes)
        ]
        return {"id": _tensor_id(name), "axes": axes, "data": data}
    names = MAP_NAMES.get(package.decoder, ())
    names = names if len(names) == shape[1] else [f"map{i}" for i in range(shape[1])]
    axes: list[dict[str, Any]] = [{"type": "batch"}, {"type": "channel", "channel_names": list(names)}]
    for axis in "yx":
        size = {"tensor_id": _tensor_id(input_name), "axis_id": axis}
        axes.append({"type": "space", "id": axis, "size": size, "scale": float(package.grid)})
    return {"id": _tensor_id(name), "axes": axes, "data": data}


def _tensor_id(name: str) -> str:
    """Return a name as an identifier of BioImage.IO: lower case, letters, digits and underscores."""
    plain = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")[:32]
    return plain if plain[:1].isalpha() else f"tensor_{plain}"[:32]


def _plain_name(name: str) -> str:
    """Return a name in the characters that BioImage.IO allows."""
    return re.sub(r"[^A-Za-z0-9_+ ()-]", "-", name)[:128]
