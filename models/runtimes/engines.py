"""Engines of TensorRT, built once and kept: per card, library, version, precision, sizes and weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from .cache import CacheDamagedError, cache_folder, key_of, read_cached, write_cached
from .onnx_file import OnnxFile, content_hash, read_onnx_file
from .tensorrt_build import CAPABILITIES, Report, ShapeRange, TensorRT, build_engine, load_tensorrt

_log = logging.getLogger(__name__)


def silent(text: str, done: int, total: int | None) -> None:
    """Tell nobody."""


def engine_for(
    file: OnnxFile, tensorrt: TensorRT, card: str, capability: str, shapes: ShapeRange, report: Report
) -> tuple[bytes, Path]:
    """Return the engine of a net for a card, from the cache or built, and where it is kept.

    TensorRT tunes an engine for one model of card; TensorRT for RTX builds for a compute capability, so that an
    engine built ahead on another computer serves as well.

    Parameters
    ----------
    file
        The net.
    tensorrt
        The library.
    card, capability
        Name of the card, such as ``"NVIDIA RTX A4000"``, and its compute capability, such as ``"8.6"``.
    shapes
        Sizes that the engine takes.
    report
        Told when an engine is built, how far that is, and when a cached one was damaged.

    Raises
    ------
    ModelError
        If the net cannot be built.
    """
    made_from = {
        "what": "engine",
        "library": f"{tensorrt.name} {tensorrt.version}",
        "for": capability if tensorrt.is_rtx else f"{card} {capability}",
        "net": file.path.name,
        "precision": file.precision,
        "sizes": str(shapes),
        "weights": content_hash(file),
    }
    path = cache_folder() / "engines" / f"{file.path.stem}-{key_of(made_from)}.engine"
    try:
        cached = read_cached(path, made_from)
    except CacheDamagedError as error:
        _log.warning("%s; the engine is built again", error)
        report(f"{error}; the engine is built again", 0, None)
        cached = None
    if cached is not None:
        return cached, path
    _log.warning("building the TensorRT engine of %s; this takes minutes, once", file.path)
    report(f"building the engine of {file.path.name}", 0, None)
    engine = build_engine(
        file, tensorrt, shapes, capabilities=(capability,) if tensorrt.is_rtx else (), report=report
    )
    try:
        write_cached(path, made_from, engine)
    except OSError as error:
        _log.warning("%s cannot be kept: %s", path, error)
    return engine, path


def build_ahead(
    weights: Path,
    *,
    capabilities: Sequence[str] = CAPABILITIES,
    shapes: ShapeRange | None = None,
    report: Report = silent,
) -> list[Path]:
    """Build the engines of a net with TensorRT for RTX for cards that need not be here, and keep them.

    Parameters
    ----------
    weights
        The ONNX file, in the precision wanted.
    capabilities
        Compute capabilities of the cards, one engine each.
    shapes
        Sizes that they take.
    report
        Told how far the work is.

    Returns
    -------
    list of Path
        Where the engines are; a :class:`.TensorrtRuntime` with the same sizes takes them from there.

    Raises
    ------
    ModelError
        If the net cannot be built, or there is no such capability.
    MissingExtraError
        If TensorRT for RTX is not installed.
    """
    tensorrt, file = load_tensorrt("tensorrt_rtx"), read_onnx_file(weights)
    return [engine_for(file, tensorrt, "", each, shapes or ShapeRange(), report)[1] for each in capabilities]
