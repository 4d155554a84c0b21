"""What the journal says of a frame, as rows of tables: one for each cell, one for each decision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from ...acquire.reply import Decision
from ..service.journal import Entry

NOT_KNOWN = float("nan")

FRAME_COLUMNS = ("frame", "time_s", "position", "z", "stage_x_um", "stage_y_um")
CELL_COLUMNS = ("track", "parent", "x_px", "y_px")
DECISION_COLUMNS = (
    "frame",
    "time_s",
    "rule",
    "file",
    "track",
    "command",
    "fields",
    "expires_s",
    "refused",
    "reasons",
    "at_s",
    "at_x_px",
    "at_y_px",
    "covariance_xx_px2",
    "covariance_xy_px2",
    "covariance_yy_px2",
    "stage_x_um",
    "stage_y_um",
)


def cell_columns(entry: Entry) -> dict[str, Any]:
    """Return the cells of a segmented frame as columns (n,).

    ``frame`` is its sequence number; ``position`` and ``z`` are text, as the acquisition names them. ``parent`` is 0
    for a cell without a known mother. Those after ``y_px`` are what was measured, and what the tracker says of the
    cell: ``confidence`` is that of the link to the frame before.
    """
    cells, header = entry.reply.cells, entry.segmented
    count = len(cells)
    x_um, y_um = header.stage_um or (NOT_KNOWN, NOT_KNOWN)
    measured = {name: column for name, column in cells.columns.items() if name != "parent"}
    parent = cells.columns.get("parent", np.zeros(count))
    columns: dict[str, Any] = {
        "frame": np.full(count, entry.reply.sequence, np.int64),
        "time_s": np.full(count, header.time_s, np.float64),
        "position": [str(header.axes.get("position", ""))] * count,
        "z": [str(header.axes.get("z", ""))] * count,
        "stage_x_um": np.full(count, x_um, np.float64),
        "stage_y_um": np.full(count, y_um, np.float64),
        "track": cells.track,
        "parent": np.nan_to_num(parent).astype(np.int64),
        "x_px": cells.x_px,
        "y_px": cells.y_px,
    }
    return columns | {name: column for name, column in measured.items() if name not in columns}


def decisions_in(entry: Entry) -> Iterator[tuple[str, Decision]]:
    """Yield the decisions of a frame, with ``""`` or, of shadow rules, the name of their file."""
    for decision in entry.reply.decisions:
        yield "", decision
    for file, decisions in entry.reply.shadow.items():
        for decision in decisions:
            yield file, decision


def decision_row(file: str, decision: Decision) -> dict[str, Any]:
    """Return one row; ``fields`` are those of the command, as JSON.

    ``file`` is that of shadow rules, ``""`` of the rules that were armed. ``refused`` is why the limits refused it,
    ``""`` if they let it pass. ``reasons`` are one a line.
    """
    fields: dict[str, Any] = msgspec.to_builtins(decision.command)
    command = fields.pop("type")
    at = decision.at_px or (NOT_KNOWN, NOT_KNOWN)
    spread = decision.covariance_px2 or (NOT_KNOWN, NOT_KNOWN, NOT_KNOWN)
    stage = decision.stage_um or (NOT_KNOWN, NOT_KNOWN)
    values = (
        decision.sequence,
        decision.time_s,
        decision.rule,
        file,
        decision.track,
        command,
        msgspec.json.encode(fields).decode(),
        decision.expires_s,
        decision.refused,
        "\n".join(decision.reasons),
        NOT_KNOWN if decision.at_s is None else decision.at_s,
        *at,
        *spread,
        *stage,
    )
    return dict(zip(DECISION_COLUMNS, values, strict=True))
