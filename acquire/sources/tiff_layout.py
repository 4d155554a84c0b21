"""Which page of a TIFF stack is which frame: plain, ImageJ and tifffile ("shaped") stacks.

OME-TIFF has a module of its own, :mod:`.ome_tiff`; both give the same :class:`Plan`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import SourceError
from .recording import check_interval
from .tiff_pages import TiffPages

ImageAxes = Mapping[str, int]
"""Length of each of ``time``, ``position``, ``z``, ``channel``."""


class PageRef(NamedTuple):
    """Where one plane lies: file, page in it, and image in the run of bytes that the page may stand for."""

    file: Path
    page: int
    image: int = 0


@dataclass(frozen=True, slots=True)
class PlannedFrame:
    """One frame before it is read; ``pages`` has one entry per channel, the rest is as in Frame."""

    pages: tuple[PageRef, ...]
    axes: Mapping[str, int | str]
    time_s: float
    stage_um: tuple[float, float] | None = None
    z_um: float | None = None
    exposure_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """All frames of a recording in order, and what they share.

    Attributes
    ----------
    pixel_size_um
        Edge of a pixel in um as the description states it; None leaves it to the resolution tags.
    damage
        Why the frame after the last planned one is missing, or ``""`` when none is.
    shape
        (y, x) in px as the metadata state it, or None where they do not.
    """

    frames: Sequence[PlannedFrame]
    channels: tuple[str, ...] = ("",)
    pixel_size_um: float | None = None
    damage: str = ""
    shape: tuple[int, int] | None = None


UM_PER_UNIT = {"um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "nm": 1e-3} | {
    "nanometer": 1e-3, "mm": 1e3, "millimeter": 1e3, "cm": 1e4, "centimeter": 1e4, "m": 1e6, "meter": 1e6
}  # fmt: skip
S_PER_UNIT = {"s": 1.0, "sec": 1.0, "second": 1.0, "ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3} | {
    "µs": 1e-6, "μs": 1e-6, "us": 1e-6, "microsecond": 1e-6, "ns": 1e-9, "nanosecond": 1e-9,
    "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0
}  # fmt: skip


def frame_axes(time: int, position: int, z: int, sizes: ImageAxes) -> dict[str, int | str]:
    """Return the axes of a frame: always ``time``; ``position`` and ``z`` only where there are several."""
    axes: dict[str, int | str] = {"time": time}
    if sizes.get("position", 1) > 1:
        axes["position"] = position
    if sizes.get("z", 1) > 1:
        axes["z"] = z
    return axes


def plan_stack(pages: TiffPages, interval_s: float) -> Plan:
    """Plan a stack that is not OME-TIFF, from what ImageJ or tifffile wrote into its description.

    A stack without either is one channel over time.

    Raises
    ------
    SourceError
        If the description contradicts the number of pages, or leaves open what the axes are.
    """
    text = pages.description()
    if text.startswith("ImageJ="):
        return _plan_imagej(pages, text, interval_s)
    if text.startswith("{") and '"shape"' in text:
        return _plan_shaped(pages, text, interval_s)
    return _plan(pages, ("time",), (len(pages),), interval_s)


def _plan_imagej(pages: TiffPages, text: str, interval_s: float) -> Plan:
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    try:
        images = int(values.get("images", 1))
        sizes = [int(values.get(key, 1)) for key in ("frames", "slices", "channels")]
        interval_s = (
            float(values.get("finterval", 0)) * S_PER_UNIT.get(values.get("tunit", "s"), 0.0) or interval_s
        )
    except ValueError as error:
        raise SourceError(pages.path, f"the ImageJ description is damaged: {error}") from error
    if values.get("hyperstack") != "true" and "spacing" not in values and sizes[0] == sizes[2] == 1:
        # A plain ImageJ stack calls its images slices, whatever they are; without a z spacing they are times.
        sizes = [images, 1, 1]
    if math.prod(sizes) != images:
        raise SourceError(pages.path, f"ImageJ states {images} images but {sizes} frames, slices, channels")
    unit = UM_PER_UNIT.get(values.get("unit", "").replace("\\u00B5", "µ").strip())
    density = pages.pixels_per_unit()
    size_um = unit / density if unit and density else None
    return _plan(pages, ("time", "z", "channel"), sizes, interval_s, size_um)


def _plan_shaped(pages: TiffPages, text: str, interval_s: float) -> Plan:
    try:
        described: dict[str, Any] = json.loads(text)
        shape = [int(side) for side in described["shape"]]
        letters = str(described.get("axes", "")).upper()
        interval_s = float(described.get("finterval", 0)) or interval_s
    except (ValueError, TypeError, KeyError) as error:
        raise SourceError(pages.path, f"tifffile's description of the stack is damaged: {error}") from error
    if letters and (len(letters) != len(shape) or letters[-2:] != "YX"):
        raise SourceError(
            pages.path, f"axes {letters!r} of shape {shape} do not end in YX; colour is not supported"
        )
    leading = [
        (letter, side)
        for letter, side in zip(letters[:-2] or "Q" * (len(shape) - 2), shape[:-2], strict=True)
    ]
    leading = [(letter, side) for letter, side in leading if side != 1]
    if not leading:
        # One frame per write: each page describes itself only.
        leading = [("T", len(pages))]
    if len(leading) == 1 and leading[0][0] in "QI":
        leading = [("T", leading[0][1])]
    names = {"T": "time", "Z": "z", "C": "channel"}
    unknown = [letter for letter, _ in leading if letter not in names]
    if unknown or len({letter for letter, _ in leading}) < len(leading):
        raise SourceError(
            pages.path,
            f"shape {shape} with axes {letters!r} leaves open which axis is time; write it with"
            " tifffile.imwrite(..., metadata={'axes': 'TCYX'}), letters T, Z, C",
        )
    order = tuple(names[letter] for letter, _ in leading)
    return _plan(pages, order, [side for _, side in leading], interval_s)


def _plan(
    pages: TiffPages,
    order: Sequence[str],
    lengths: Sequence[int],
    interval_s: float,
    pixel_size_um: float | None = None,
) -> Plan:
    """Plan pages that run over ``order``, slowest axis first."""
    if min(lengths) < 1:
        raise SourceError(
            pages.path, f"axes {list(order)} have lengths {list(lengths)}; each must be at least 1"
        )
    check_interval(pages.path, interval_s)
    sizes = dict(zip(order, lengths, strict=True))
    wanted, held, damage = math.prod(lengths), len(pages), pages.damage
    one_run = held == 1 and wanted > 1 and not damage
    if one_run:
        # ImageJ describes a large stack by its first image; the others follow it without a page of their own.
        held = pages.images_in_run()
        damage = f"truncated: {wanted} images are stated, the file has room for {held}"
    elif wanted < held:
        raise SourceError(pages.path, f"its description states {wanted} images, the file holds {held}")
    strides = {axis: math.prod(lengths[place + 1 :]) for place, axis in enumerate(order)}
    channels = sizes.get("channel", 1)
    frames: list[PlannedFrame] = []
    slices = sizes.get("z", 1)
    for time, z in (divmod(number, slices) for number in range(sizes.get("time", 1) * slices)):
        first = time * strides.get("time", 0) + z * strides.get("z", 0)
        if first + (channels - 1) * strides.get("channel", 0) >= held:
            break
        numbers = [first + channel * strides.get("channel", 0) for channel in range(channels)]
        refs = tuple(PageRef(pages.path, 0, n) if one_run else PageRef(pages.path, n) for n in numbers)
        frames.append(PlannedFrame(refs, frame_axes(time, 0, z, sizes), time * interval_s))
    else:
        # A chain of pages that breaks after the last stated one, too, means that something is cut off.
        damage = "" if one_run else pages.damage
    if not damage and wanted > held:
        damage = f"its description states {wanted} images, the file holds {held}"
    names = ("",) * min(channels, held)
    return Plan(frames, names, pixel_size_um, damage)
