"""The table of cells that a reply carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..acquire.reply import Cells
from ..models.detections import Compartments, Detections
from ..trackers.tracks import Tracks


def cells_of(tracks: Tracks, channels: Sequence[str]) -> Cells:
    """Return the cells of a frame as columns.

    ``mean`` and ``max`` are those of the segmented channel. ``confidence`` is that of the link to the frame
    before, ``cell_confidence`` how sure the segmenter is of the cell. Of several channels each has columns of its own,
    such as ``mean_GFP``; where cells have nuclei, there are ``nuclei`` (how many), ``nuclear_mean_GFP`` and
    ``cytoplasm_mean_GFP`` as well.

    Parameters
    ----------
    tracks
        The cells and their measurements.
    channels
        Channels that have columns; NaN in a frame that lacks the channel. Where names are missing or alike, all
        are numbered.
    """
    found = tracks.detections
    columns: dict[str, NDArray[Any]] = {
        "area_px": found.area,
        "mean": found.mean[:, found.channel],
        "max": found.maximum[:, found.channel],
        "major_px": found.axes_px[:, 0],
        "minor_px": found.axes_px[:, 1],
        "parent": tracks.parent,
        "age": tracks.age,
        "confidence": tracks.confidence,
    }
    if found.confidence is not None:
        columns["cell_confidence"] = found.confidence
    places = _places(channels, found)
    if len(channels) > 1:
        columns |= _by_channel("mean", found.mean, places) | _by_channel("max", found.maximum, places)
    if found.compartments is not None:
        columns |= _of_parts(found.compartments, places)
    return Cells(
        track=np.asarray(tracks.track, np.int64),
        x_px=_column(found.yx[:, 1]),
        y_px=_column(found.yx[:, 0]),
        columns={name: _column(values) for name, values in columns.items()},
    )


def _of_parts(parts: Compartments, places: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    sizes = {
        "nuclei": parts.nuclei,
        "nuclear_area_px": parts.nuclear_area,
        "cytoplasm_area_px": parts.cytoplasm_area,
    }
    nuclear = _by_channel("nuclear_mean", parts.nuclear_mean, places)
    return sizes | nuclear | _by_channel("cytoplasm_mean", parts.cytoplasm_mean, places)


def _places(channels: Sequence[str], found: Detections) -> dict[str, int]:
    """Return the column of each channel by what it is called in the table; -1 for one that was not measured."""
    if len(channels) == 1:
        return {"": found.channel}
    if "" in channels or len(set(channels)) < len(channels):
        return {str(index): index for index in range(len(channels))}
    return {name: found.channels.index(name) if name in found.channels else -1 for name in channels}


def _by_channel(
    name: str, values: NDArray[np.float64], places: Mapping[str, int]
) -> dict[str, NDArray[np.float64]]:
    missing = np.full(len(values), np.nan)
    return {
        f"{name}_{channel}" if channel else name: values[:, place]
        if 0 <= place < values.shape[1]
        else missing
        for channel, place in places.items()
    }


def _column(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, np.float32)
