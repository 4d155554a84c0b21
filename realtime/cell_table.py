"""The table of cells that a reply carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..acquire.reply import Cells
from ..models.detections import Compartments, Detections
from ..trackers.history import Descent
from ..trackers.tracks import Tracks


def measured_of(tracks: Tracks, channels: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return what is measured of the cells of a frame, by name, (n,) each.

    ``mean`` and ``max`` are those of the segmented channel. ``cell_confidence`` is how sure the segmenter is of the
    cell, ``p_mitotic`` how likely it is of that class. Of several channels each has columns of its own, such as
    ``mean_GFP``; where cells have nuclei, there are ``nuclei`` (how many), ``nuclear_mean_GFP`` and
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
    }
    if found.z is not None:
        columns["z_px"] = found.z
    if found.confidence is not None:
        columns["cell_confidence"] = found.confidence
    columns |= {f"p_{name}": values for name, values in found.classes.items()}
    places = _places(channels, found)
    if len(channels) > 1:
        columns |= _by_channel("mean", found.mean, places) | _by_channel("max", found.maximum, places)
    if found.compartments is not None:
        columns |= _of_parts(found.compartments, places)
    return columns


def cells_of(tracks: Tracks, measured: Mapping[str, NDArray[Any]], descent: Descent) -> Cells:
    """Return the cells of a frame as columns: what is measured, and what the tracker says of them.

    ``confidence`` is that of the link to the frame before, ``margin`` by how much it beats the best other way to
    explain the frame; ``provisional`` is 1 where the identity may yet be corrected.

    Parameters
    ----------
    tracks
        The cells.
    measured
        What is measured of them, (n,) each.
    descent
        Where they come from.
    """
    found = tracks.detections
    columns = {
        **measured,
        "parent": tracks.parent,
        "age": tracks.age,
        "confidence": tracks.confidence,
        "generation": descent.generation,
        "sister": descent.sister,
        "since_division_s": descent.since_division_s,
    }
    if tracks.margin is not None:
        columns["margin"] = tracks.margin
    if tracks.provisional is not None:
        columns["provisional"] = tracks.provisional
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
