"""GEFF, the graph exchange file format: the graph with all that is known of it, in a folder of Zarr arrays.

Node properties ``t`` (number of the frame), ``y``, ``x`` (px) and, of stacks, ``z`` are the axes; ``track`` is the
identity, ``tracklet`` and ``lineage`` are those of the format's own definition.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...acquire.errors import MissingExtraError
from ..graph import TrackGraph
from .names import plain_names
from .target import new_output

MARKERS = (".zattrs", "zarr.json")


def write_geff(graph: TrackGraph, path: Path, *, force: bool = False) -> None:
    """Write a graph as GEFF; node i has the id i.

    Parameters
    ----------
    graph
        The run.
    path
        The folder, by custom ``NAME.geff``.
    force
        Replace what is there.

    Raises
    ------
    ExportError
        If it exists or cannot be written.
    MissingExtraError
        Without the package geff.
    """
    try:
        from geff.core_io import write_arrays
    except ImportError as error:
        raise MissingExtraError("geff", "formats") from error
    nodes, edges = _node_values(graph), _edge_values(graph)
    with new_output(path, force=force, marker=MARKERS) as folder:
        write_arrays(
            folder,
            np.arange(len(graph), dtype=np.uint64),
            {name: {"values": values, "missing": None} for name, values in nodes.items()},
            graph.edges.astype(np.uint64),
            {name: {"values": values, "missing": None} for name, values in edges.items()},
            _metadata(graph, nodes),
        )


def _node_values(graph: TrackGraph) -> dict[str, Any]:
    values: dict[str, Any] = {"t": graph.number}
    if graph.z_px is not None:
        values["z"] = graph.z_px
    values |= {
        "y": graph.y_px,
        "x": graph.x_px,
        "track": graph.track,
        "parent": graph.parent,
        "tracklet": graph.segment,
        "lineage": graph.family,
        "sequence": graph.frames.sequence[graph.frame],
        "time_s": graph.frames.time_s[graph.frame],
    }
    if not np.isnan(graph.frames.stage_um).all():
        stage = graph.frames.stage_um[graph.frame]
        values |= {"stage_x_um": stage[:, 0], "stage_y_um": stage[:, 1]}
    names = plain_names(graph.columns, values)
    return values | {names[name]: column for name, column in graph.columns.items()}


def _edge_values(graph: TrackGraph) -> dict[str, Any]:
    values: dict[str, Any] = {"missed": graph.missed, "division": graph.is_birth}
    if "confidence" in graph.columns:
        values["confidence"] = graph.columns["confidence"][graph.edges[:, 1]]
    return values


def _metadata(graph: TrackGraph, nodes: dict[str, Any]) -> Any:
    from geff import GeffMetadata
    from geff_spec import Axis, DisplayHint, PropMetadata

    def axis(name: str, kind: Any, unit: str, scale: float | None, scaled_unit: str) -> Axis:
        return Axis(
            name=name, type=kind, unit=unit, scale=scale, scaled_unit=None if scale is None else scaled_unit
        )

    space = [name for name in "zyx" if name in nodes]
    labels = dict(zip(plain_names(graph.columns, ()).values(), graph.columns, strict=True))
    return GeffMetadata(
        directed=True,
        axes=[
            axis("t", "time", "frame", graph.frames.interval_s, "second"),
            *(axis(name, "space", "pixel", graph.pixel_size_um, "micrometer") for name in space),
        ],
        node_props_metadata={
            name: PropMetadata(
                identifier=name, dtype=values.dtype.name, unit=_unit(name), name=labels.get(name, name)
            )
            for name, values in nodes.items()
        },
        edge_props_metadata={},
        track_node_props={"tracklet": "tracklet", "lineage": "lineage"},
        display_hints=DisplayHint(
            display_horizontal="x",
            display_vertical="y",
            display_depth="z" if "z" in nodes else None,
            display_time="t",
        ),
        extra={"cytoloop": {"divisions": graph.divisions, "shape_px": list(graph.shape)}},
    )


def _unit(name: str) -> str | None:
    units = {"_px": "pixel", "_um": "micrometer", "_s": "second"}
    return next((unit for end, unit in units.items() if name.endswith(end)), None)
