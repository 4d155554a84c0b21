"""A layer of tracks for napari: its rows and properties as CSV, and who comes from whom as JSON, in a folder.

``napari`` takes both as they are::

    table = pandas.read_csv("tracks.csv")
    graph = {int(child): parents for child, parents in json.load(open("graph.json")).items()}
    viewer.add_tracks(table[["track_id", "t", "y", "x"]], features=table, graph=graph)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..graph import TrackGraph
from .names import plain_names
from .table import write_rows
from .target import new_output


def write_napari(graph: TrackGraph, path: Path, *, force: bool = False) -> None:
    """Write ``tracks.csv`` (track_id, t, z of stacks, y, x, then properties) and ``graph.json`` into a new folder.

    Rows are in the order of tracks and time, as the layer wants them; ``t`` is the number of the frame, y and x are
    in px of the image.

    Parameters
    ----------
    graph
        The run.
    path
        The folder.
    force
        Replace what is there.

    Raises
    ------
    ExportError
        If it exists or cannot be written.
    """
    order = np.lexsort((graph.frame, graph.track))
    values: dict[str, Any] = {"track_id": graph.track, "t": graph.number}
    if graph.z_px is not None:
        values["z"] = graph.z_px
    values |= {"y": graph.y_px, "x": graph.x_px, "time_s": graph.frames.time_s[graph.frame]}
    names = plain_names(graph.columns, values)
    values |= {names[name]: column for name, column in graph.columns.items()}
    parents = {str(child): [parent] for child, parent in sorted(graph.parents.items())}
    with new_output(path, force=force, marker="graph.json") as folder:
        folder.mkdir()
        write_rows(folder / "tracks.csv", {name: column[order] for name, column in values.items()})
        (folder / "graph.json").write_text(json.dumps(parents, indent=1) + "\n", encoding="ascii")
