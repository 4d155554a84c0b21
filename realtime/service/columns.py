"""Detections as bytes per column, as the journal keeps them, and back, exactly."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...acquire.link.messages import FrameHeader
from ...models.detections import Compartments, Detections

Columns: TypeAlias = tuple[tuple[str, str, int], ...]

# Name, type and width of each column of Detections; 0 is the number of channels. Those of the second list belong
# to its compartments; those of the third are there if the segmenter says them.
_COLUMNS = (
    ("yx", "f8", 2),
    ("area", "f8", 1),
    ("bbox", "i4", 4),
    ("mean", "f8", 0),
    ("maximum", "f8", 0),
    ("moments", "f8", 3),
)
_PARTS = (
    ("nuclei", "i4", 1),
    ("nuclear_area", "f8", 1),
    ("cytoplasm_area", "f8", 1),
    ("nuclear_mean", "f8", 0),
    ("cytoplasm_mean", "f8", 0),
)
_OPTIONAL = (("confidence", "f4", 1), ("z", "f8", 1))
_NUMBERS = ("novelty", "focus", "agreement")  # one for the whole frame, if somebody says it
_CLASS = "class:"  # stands before the name of a class
_WIDTH = struct.Struct("<I")
_MOST_NARROW = 65_536
_FASTEST = 1  # of zlib's levels: the mask is on the way to the reply


def columns_of(detections: Detections, *, with_mask: bool = False) -> dict[str, bytes]:
    """Return all columns that are there; the mask, compressed, only if it is asked for."""
    columns = _bytes_of(detections, _COLUMNS)
    if detections.compartments is not None:
        columns |= _bytes_of(detections.compartments, _PARTS)
    there = tuple(column for column in _OPTIONAL if getattr(detections, column[0]) is not None)
    columns |= _bytes_of(detections, there)
    for name in _NUMBERS:
        if (value := getattr(detections, name)) is not None:
            columns[name] = struct.pack("<d", value)
    columns |= {
        f"{_CLASS}{name}": np.ascontiguousarray(values, "<f4").tobytes()
        for name, values in detections.classes.items()
    }
    if detections.embedding is not None:
        values = np.ascontiguousarray(detections.embedding, "<f4")
        columns["embedding"] = _WIDTH.pack(values.shape[1]) + values.tobytes()
    if with_mask and detections.mask is not None:
        narrow = len(detections) < _MOST_NARROW
        mask = np.ascontiguousarray(detections.mask, "<u2" if narrow else "<i4")
        columns["mask"] = zlib.compress(mask.tobytes(), _FASTEST)
    return columns


def detections_from(columns: Mapping[str, bytes], header: FrameHeader) -> Detections:
    """Return the detections of a frame as they were measured, from what :func:`columns_of` made."""
    channels = len(header.channels)
    shape = (header.shape[-2], header.shape[-1])
    there = tuple(column for column in _OPTIONAL if column[0] in columns)
    others: dict[str, Any] = _arrays_of(columns, _COLUMNS + there, channels)
    if "nuclei" in columns:
        others["compartments"] = Compartments(**_arrays_of(columns, _PARTS, channels))
    for name in _NUMBERS:
        if name in columns:
            (others[name],) = struct.unpack("<d", columns[name])
    if "embedding" in columns:
        (width,) = _WIDTH.unpack_from(columns["embedding"])
        values = np.frombuffer(columns["embedding"], "<f4", offset=_WIDTH.size)
        others["embedding"] = values.reshape(len(others["area"]), width)
    if "mask" in columns:
        others["mask"] = _mask_from(zlib.decompress(columns["mask"]), shape)
    return Detections(
        sequence=header.sequence,
        time_s=header.time_s,
        shape=shape,
        stage_um=header.stage_um,
        pixel_size_um=header.pixel_size_um,
        channels=header.channels,
        classes={
            name.removeprefix(_CLASS): np.frombuffer(stored, "<f4")
            for name, stored in columns.items()
            if name.startswith(_CLASS)
        },
        **others,
    )


def _mask_from(stored: bytes, shape: tuple[int, int]) -> NDArray[np.int32]:
    narrow = len(stored) < 4 * shape[0] * shape[1]
    return np.frombuffer(stored, "<u2" if narrow else "<i4").reshape(shape).astype(np.int32)


def _bytes_of(table: Detections | Compartments, columns: Columns) -> dict[str, bytes]:
    return {name: np.ascontiguousarray(getattr(table, name), dtype).tobytes() for name, dtype, _ in columns}


def _arrays_of(stored: Mapping[str, bytes], columns: Columns, channels: int) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for name, dtype, width in columns:
        array: NDArray[Any] = np.frombuffer(stored[name], dtype)
        arrays[name] = array if width == 1 else array.reshape(-1, width or channels)
    return arrays
