"""Tables with one row for each cell and frame: CSV and Parquet."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import MissingExtraError
from ..graph import TrackGraph
from .names import plain_names
from .target import new_output

_ROWS_AT_ONCE = 1 << 16


def table_of(graph: TrackGraph) -> dict[str, NDArray[Any]]:
    """Return the columns of the table by name, (n,) each, in the order of frames.

    ``frame`` is the number of the frame, ``sequence`` its number in the stream, ``parent`` the mother of the track
    or 0. Further columns are those that were measured, under their own names but for signs that not every program
    takes.
    """
    columns: dict[str, NDArray[Any]] = {
        "track": graph.track,
        "parent": graph.parent,
        "frame": graph.number,
        "sequence": graph.frames.sequence[graph.frame],
        "time_s": graph.frames.time_s[graph.frame],
        "stage_x_um": graph.frames.stage_um[graph.frame, 0],
        "stage_y_um": graph.frames.stage_um[graph.frame, 1],
        "x_px": graph.x_px,
        "y_px": graph.y_px,
    }
    if graph.z_px is not None:
        columns["z_px"] = graph.z_px
    names = plain_names(graph.columns, columns)
    return columns | {names[name]: column for name, column in graph.columns.items()}


def write_csv(graph: TrackGraph, path: Path, *, force: bool = False) -> None:
    """Write the table as CSV; what is not known is an empty field.

    Parameters
    ----------
    graph
        The run.
    path
        The file.
    force
        Replace what is there.

    Raises
    ------
    ExportError
        If it exists or cannot be written.
    """
    with new_output(path, force=force) as file:
        write_rows(file, table_of(graph))


def write_parquet(graph: TrackGraph, path: Path, *, force: bool = False) -> None:
    """Write the table as Parquet, each column with its type; what is not known is NaN.

    The file's own metadata hold ``pixel_size_um``, if it is known.

    Parameters
    ----------
    graph
        The run.
    path
        The file.
    force
        Replace what is there.

    Raises
    ------
    ExportError
        If it exists or cannot be written.
    MissingExtraError
        Without pyarrow.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "formats") from error
    about = {} if graph.pixel_size_um is None else {"pixel_size_um": repr(graph.pixel_size_um)}
    table = pyarrow.table(table_of(graph)).replace_schema_metadata(about)
    with new_output(path, force=force) as file:
        parquet.write_table(table, file)


def write_rows(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write columns of equal length as CSV; numbers have as many digits as their type needs to come back the same."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        count = len(next(iter(columns.values())))
        for first in range(0, count, _ROWS_AT_ONCE):
            texts = [_texts(column[first : first + _ROWS_AT_ONCE]) for column in columns.values()]
            writer.writerows(zip(*texts, strict=True))


def _texts(values: NDArray[Any]) -> list[str]:
    texts = values.astype(str)
    if values.dtype.kind == "f":
        texts[np.isnan(values)] = ""
    return texts.tolist()
