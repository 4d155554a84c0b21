"""What every runtime does with what its library returns: outputs of one type, and errors that fit in a line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...acquire.errors import ModelError
from .onnx_file import OnnxFile
from .runtime import Tensor

_CODES = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed: ?)?")


def as_float32(file: OnnxFile, outputs: Sequence[Any]) -> tuple[Tensor, ...]:
    """Return outputs of any number type as float32, without a copy where they are.

    Raises
    ------
    ModelError
        If an output is no array of numbers.
    """
    for name, output in zip(file.output_names, outputs, strict=True):
        if not isinstance(output, np.ndarray) or output.dtype.kind not in "fiub":
            raise ModelError(f"{file.path}: output {name!r} is no array of numbers")
    return tuple(np.asarray(output, np.float32) for output in outputs)


def reason_of(error: BaseException) -> str:
    """Return what an error of ONNX Runtime says in one line, without its codes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _CODES.sub("", lines[0]) if lines else type(error).__name__
