"""Micro-Manager's words in ours: image metadata -> Frame, acquisition events <-> Step.

Only keys that pycro-manager's Java and Python backends share are used, and any of them may be missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from ..coordinates import Affine
from ..frame import Frame
from .step import Step


def frame_of(
    image: Any, metadata: Mapping[str, Any], step: Step | None, affine: Sequence[float] = ()
) -> Frame:
    """Return an image as a Frame without its times; reads nothing but its arguments.

    Parameters
    ----------
    image
        What pycro-manager hands to ``image_process_fn``.
    metadata
        Its metadata; ``Axes``, ``Exposure``, ``XPosition_um_Intended`` and so on.
    step
        What is known to have been asked of the hardware for this image, for what the metadata leave out.
    affine
        The six numbers of the core's ``getPixelSizeAffine``, if the metadata leave them out.

    Raises
    ------
    FrameError
        If the image is not gray, 8 or 16 bit and two-dimensional.
    """
    known = step or Step()
    x, y = _number(metadata, "XPosition_um_Intended"), _number(metadata, "YPosition_um_Intended")
    z = _number(metadata, "ZPosition_um_Intended")
    exposure = _number(metadata, "Exposure")
    pixel_size = _number(metadata, "PixelSizeUm") or _number(metadata, "PixelSize_um")
    axes = {str(name): _index(value) for name, value in dict(metadata.get("Axes") or {}).items()}
    channel = axes.get("channel", metadata.get("Channel"))
    return Frame(
        np.ascontiguousarray(image) if isinstance(image, np.ndarray) else image,
        axes=axes,
        channels=("" if channel is None else str(channel),),
        stage_um=known.xy_um if x is None or y is None else (x, y),
        z_um=known.z_um if z is None else z,
        exposure_ms=known.exposure_ms if exposure is None else exposure,
        pixel_size_um=pixel_size if pixel_size and pixel_size > 0 else None,
        affine=Affine.given(_affine(metadata) or affine, pixel_size),
    )


def elapsed_s(metadata: Mapping[str, Any]) -> float | None:
    """Return the time in s since the first image of the acquisition, or None."""
    elapsed_ms = _number(metadata, "ElapsedTime-ms")
    return None if elapsed_ms is None else elapsed_ms / 1000


def received(metadata: Mapping[str, Any]) -> datetime | None:
    """Return when the core received an image of a burst (wall clock), or None."""
    try:
        return datetime.fromisoformat(metadata["TimeReceivedByCore"])
    except (KeyError, TypeError, ValueError):
        return None


def step_of(event: Mapping[str, Any]) -> Step:
    """Return what an acquisition event plans."""
    x, y, group = event.get("x"), event.get("y"), event.get("config_group")
    return Step(
        xy_um=None if x is None or y is None else (float(x), float(y)),
        z_um=_number(event, "z"),
        exposure_ms=_number(event, "exposure"),
        channel=None if group is None else (str(group[0]), str(group[1])),
        start_s=_number(event, "min_start_time"),
        time=_time(event),
    )


def edited(event: Mapping[str, Any], step: Step, placed: Step) -> dict[str, Any]:
    """Return the event with the step's position, focus, exposure, channel, start and properties in it.

    A position at which the hardware stands already (``placed``) is left out, so that it is not set twice.
    """
    new = dict(event)
    if step.xy_um is not None:
        new["x"], new["y"] = step.xy_um
    if step.xy_um is not None and step.xy_um == placed.xy_um:
        del new["x"], new["y"]
    if step.z_um is not None:
        new["z"] = step.z_um
    if step.z_um is not None and step.z_um == placed.z_um:
        del new["z"]
    if step.exposure_ms is not None:
        new["exposure"] = step.exposure_ms
    if step.channel is not None:
        new["config_group"] = list(step.channel)
    if step.start_s is not None:
        new["min_start_time"] = step.start_s
    if step.properties:
        new["properties"] = [*event.get("properties", ()), *map(list, step.properties)]
    return new


def add_position(metadata: dict[str, Any], step: Step) -> None:
    """Write down where an image was taken, where its event did not say so."""
    if step.xy_um is not None and "XPosition_um_Intended" not in metadata:
        metadata["XPosition_um_Intended"], metadata["YPosition_um_Intended"] = step.xy_um
    if step.z_um is not None:
        metadata.setdefault("ZPosition_um_Intended", step.z_um)


def _number(table: Mapping[str, Any], name: str) -> float | None:
    try:
        value = float(table[name])
    except (KeyError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _time(event: Mapping[str, Any]) -> int | str | None:
    axes = event.get("axes")
    return _index(axes["time"]) if isinstance(axes, Mapping) and "time" in axes else None


def _affine(metadata: Mapping[str, Any]) -> list[float]:
    """Return the numbers of ``PixelSizeAffine``, "xx;xy;x0;yx;yy;y0" of the Java backend; none if it is broken."""
    try:
        return [float(value) for value in str(metadata["PixelSizeAffine"]).split(";")]
    except (KeyError, ValueError):
        return []


def _index(value: Any) -> int | str:
    return value if isinstance(value, str) else int(value)
