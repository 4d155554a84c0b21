"""The documents of an OME-Zarr 0.5 recording (``zarr.json``), as plain dictionaries.

Source of the formats: Zarr 3 core, codec ``sharding_indexed`` 1.0, OME-Zarr 0.5 (``multiscales``, ``omero``,
``labels``, ``image-label``, ``bioformats2raw.layout`` 3). What is ours stands in attributes of the name ``cytoloop``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .codec import make_codec
from .layout import ImageLayout

VERSION = "0.5"
FRAME_AXES = "tczyx"
LABEL_AXES = "tzyx"  # napari shows masks over images that are split into channels only without the axis c
_KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
_COLOURS = ("00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")


class Recorded(msgspec.Struct, frozen=True):
    """What the root of a recording says in attributes of our own.

    Attributes
    ----------
    layout
        What its images look like.
    positions
        Names of its positions; their images lie in the folders ``0``, ``1``, ...
    finished
        Whether its writer closed it.
    """

    layout: ImageLayout
    positions: tuple[str, ...]
    finished: bool = False


def root_group(recorded: Recorded) -> dict[str, Any]:
    """Return the document of the recording's folder."""
    return _group({"bioformats2raw.layout": 3}, msgspec.to_builtins(recorded))


def series_group(positions: int) -> dict[str, Any]:
    """Return the document of the folder ``OME``: which images there are."""
    return _group({"series": [str(number) for number in range(positions)]})


def image_group(layout: ImageLayout, name: str) -> dict[str, Any]:
    """Return the document of an image's folder, with the name of its position."""
    largest = 255 if layout.dtype == "uint8" else 65_535
    one = len(layout.channels) == 1
    channels = [
        {
            "label": channel,
            "color": "FFFFFF" if one else _COLOURS[number % len(_COLOURS)],
            "active": True,
            "window": {"min": 0, "max": largest, "start": 0, "end": largest},
        }
        for number, channel in enumerate(layout.channels)
    ]
    attributes = {
        "multiscales": [_multiscale(layout, name, FRAME_AXES)],
        "omero": {"channels": channels, "rdefs": {"model": "greyscale" if one else "color"}},
    }
    return _group(attributes, {"position": name, "affine_um_per_px": layout.affine})


def labels_group() -> dict[str, Any]:
    """Return the document of an image's folder ``labels``."""
    return _group({"labels": ["cells"]})


def cells_group(layout: ImageLayout, name: str) -> dict[str, Any]:
    """Return the document of the label image ``labels/cells``."""
    attributes = {
        "multiscales": [_multiscale(layout, f"{name} cells".strip(), LABEL_AXES)],
        "image-label": {"source": {"image": "../../"}},
    }
    return _group(attributes)


def array(layout: ImageLayout, dtype: str, axes: str, time_points: int) -> dict[str, Any]:
    """Return the document of an array: one chunk for each plane, one file for each block of time points.

    Parameters
    ----------
    layout
        What the images look like.
    dtype
        Pixel type.
    axes
        Names of the axes, one letter each.
    time_points
        Length of the axis t.
    """
    height, width = layout.shape
    lengths = {"t": time_points, "c": len(layout.channels), "z": layout.z_planes, "y": height, "x": width}
    plane = [lengths[axis] if axis in "yx" else 1 for axis in axes]
    index_codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    sharding = {
        "chunk_shape": plane,
        "codecs": make_codec(layout.codec).metadata(dtype),
        "index_codecs": index_codecs,
        "index_location": "start",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [lengths[axis] for axis in axes],
        "data_type": dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [layout.frames_per_shard, *plane[1:]]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": list(axes),
        "attributes": {},
    }


def _group(ome: dict[str, Any], ours: dict[str, Any] | None = None) -> dict[str, Any]:
    attributes = {"ome": {"version": VERSION, **ome}}
    if ours is not None:
        attributes["cytoloop"] = ours
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _multiscale(layout: ImageLayout, name: str, letters: str) -> dict[str, Any]:
    """Return the axes and the scale: of an axis without a known step, 1 without a unit."""
    px = layout.pixel_size_um
    steps = {"t": layout.interval_s, "c": None, "z": layout.z_step_um, "y": px, "x": px}
    axes: list[dict[str, str]] = []
    scale: list[float] = []
    for axis in letters:
        step = steps[axis]
        unit = {} if step is None else {"unit": "second" if axis == "t" else "micrometer"}
        axes.append({"name": axis, "type": _KINDS[axis], **unit})
        scale.append(1.0 if step is None else step)
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    return {"name": name, "axes": axes, "datasets": [dataset]}
