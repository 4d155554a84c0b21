"""Importing the libraries that run and read nets, so that they report to nobody.

Left to themselves, OpenVINO 2026 and ONNX Runtime 1.32 tell their makers over the network that they were
imported and what they run, and keep an identifier in the user's home. A microscope computer must not: what it
measures is nobody's business, and the threads that report take time from the frames.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from ...acquire.errors import MissingExtraError


def load_onnxruntime() -> Any:
    """Import ONNX Runtime with its telemetry off; an explicit ``ORT_DISABLE_TELEMETRY=0`` is respected."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when the library starts
    library = import_module("onnxruntime")
    if os.environ["ORT_DISABLE_TELEMETRY"] == "1":
        library.disable_telemetry_events()  # older versions on Windows know only this
    return library


def load_onnx(extra: str) -> Any:
    """Import the package onnx, which reads and writes graphs.

    Parameters
    ----------
    extra
        What brings it, to be told where it is missing.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        return import_module("onnx")
    except ImportError:
        raise MissingExtraError("onnx", extra) from None


def load_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    telemetry = "openvino_telemetry"
    there = telemetry in sys.modules
    if not there:
        sys.modules[telemetry] = None  # type: ignore[assignment]  # cannot be imported: OpenVINO does without
    try:
        return import_module("openvino")
    except ImportError:
        raise MissingExtraError("OpenVINO", "openvino") from None
    finally:
        if not there:
            del sys.modules[telemetry]
