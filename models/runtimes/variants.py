"""A net in another precision, converted when it is first wanted and kept."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ...acquire.errors import ModelError
from .cache import CacheDamagedError, cache_folder, key_of, read_cached, write_cached
from .onnx_file import content_hash, read_onnx_file
from .precision import Target, to_fp16, to_int8
from .runtime import Tensor

_MOST_TENSORS = 16
_RECIPE = "2"
"""Changes when nets are converted otherwise than before."""


def converted(
    source: Path,
    precision: Literal["fp16", "int8"],
    *,
    runs_on: Target,
    calibration: Sequence[Tensor] = (),
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
        Tensors for int8, of which the first 16 count. Without any, a net that was calibrated before is taken as
        it is, so that every start computes the same; with others than before it is calibrated anew.

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
    tensors = calibration[:_MOST_TENSORS] if precision == "int8" else ()
    calibrated_on = _hash_of(tensors)
    if _is_whole(path, made_from, calibrated_on):
        return path
    if precision == "int8" and not tensors:
        raise ModelError(f"{source}: int8 needs frames to calibrate on")
    try:
        _convert(source, path, precision, runs_on, tensors)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        write_cached(_seal(path), made_from, f"{digest} {calibrated_on}".encode())
    except OSError as error:
        raise ModelError(
            f"{source}: its {precision} form cannot be kept in {path.parent}: {error}"
        ) from error
    return path


def _convert(source: Path, path: Path, precision: str, runs_on: Target, tensors: Sequence[Tensor]) -> None:
    """Write the converted net so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        if precision == "fp16":
            to_fp16(source, part)
        else:
            to_int8(source, part, tensors, runs_on=runs_on)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _seal(path: Path) -> Path:
    """Return the file beside a net that holds its checksum: the net itself must stay plain ONNX."""
    return path.with_suffix(".sealed")


def _is_whole(path: Path, made_from: dict[str, str], calibrated_on: str) -> bool:
    """Tell whether a net is there, as it was written, and calibrated on these frames or on any."""
    try:
        sealed = (read_cached(_seal(path), made_from) or b"").decode().split(" ")
        whole = sealed[0] == hashlib.sha256(path.read_bytes()).hexdigest()
    except (CacheDamagedError, OSError):
        return False
    return whole and calibrated_on in ("", sealed[-1])


def _hash_of(tensors: Sequence[Tensor]) -> str:
    """Return what tells calibration frames apart; ``""`` for none."""
    if not tensors:
        return ""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(tensor.shape).encode() + np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()
