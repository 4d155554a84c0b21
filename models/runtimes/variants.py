"""A net in another precision, converted when it is first wanted and kept."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from ...acquire.errors import ModelError
from .cache import CacheDamagedError, cache_folder, key_of, read_cached, write_cached
from .onnx_file import content_hash, read_onnx_file
from .precision import Target, to_fp16, to_int8
from .runtime import Tensor

_RECIPE = "1"
"""Changes when nets are converted otherwise than before."""


def converted(
    source: Path,
    precision: Literal["fp16", "int8"],
    *,
    runs_on: Target,
    calibration: Iterable[Tensor] = (),
    again: bool = False,
) -> Path:
    """Return an fp32 net in less precision, from the cache or converted.

    Parameters
    ----------
    source
        The fp32 net.
    precision
        What it becomes.
    runs_on
        What it is for; see :func:`.to_int8`.
    calibration
        Tensors for int8. They are not part of what tells files apart: a net that was calibrated once stays as
        it is, so that every start computes the same, until ``again`` is set.
    again
        Convert it even if it is there.

    Raises
    ------
    ModelError
        If it cannot be converted, or must be calibrated and there is nothing to do it with.
    MissingExtraError
        If the package onnx is not installed.
    """
    runs_on = runs_on if precision == "int8" else "processor"
    made_from = {
        "what": "net",
        "recipe": _RECIPE,
        "precision": precision,
        "for": runs_on,
        "weights": content_hash(read_onnx_file(source)),
    }
    path = cache_folder() / "nets" / f"{source.stem}-{precision}-{key_of(made_from)}.onnx"
    if not again and _is_whole(path, made_from):
        return path
    tensors = list(calibration)
    if precision == "int8" and not tensors:
        raise ModelError(f"{source}: int8 needs frames to calibrate on")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    except OSError as error:
        raise ModelError(
            f"{source}: its {precision} form cannot be kept in {path.parent}: {error}"
        ) from error
    os.close(handle)
    try:
        part = Path(name)
        if precision == "fp16":
            to_fp16(source, part)
        else:
            to_int8(source, part, tensors, runs_on=runs_on)
        digest = hashlib.sha256(part.read_bytes()).hexdigest()
        part.replace(path)
        write_cached(_seal(path), made_from, digest.encode())
    finally:
        Path(name).unlink(missing_ok=True)
    return path


def _seal(path: Path) -> Path:
    """Return the file beside a net that holds its checksum: the net itself must stay plain ONNX."""
    return path.with_suffix(".sealed")


def _is_whole(path: Path, made_from: dict[str, str]) -> bool:
    try:
        digest = read_cached(_seal(path), made_from)
        return digest == hashlib.sha256(path.read_bytes()).hexdigest().encode()
    except (CacheDamagedError, OSError):
        return False
