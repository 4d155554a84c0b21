"""``cytoloop export``: the tracks of a run for other programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .output import DONE, Output, command


@command(
    "export",
    examples=(
        "cytoloop export runs/default/2026-05-04_101500_a1b2 --format geff --out tracks.geff",
        "cytoloop export RUN --format trackmate --out tracks.xml",
        "cytoloop export RUN --format ctc --out 01_RES",
    ),
)
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--format",
    "name",
    default="geff",
    show_default=True,
    help="geff, ctc, trackmate, napari, csv or parquet.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File or folder to write.")
@click.option("--force", is_flag=True, help="Replace what is there.")
def export(output: Output, run: Path, name: str, out: Path, force: bool) -> int:
    """Write the tracks of a run for other programs.

    RUN is the folder that the service made for a run (log/STREAM/DATE_RUN), with its journal. What was corrected
    during the run is written as it was corrected. Several fields of view give one file or folder each.
    """
    from ..export import export_run

    with output.progress() as progress:
        exported = export_run(run, name, out, force=force, progress=progress)
    for each in exported:
        if each.ignored:
            output.message(f"{each.path}: {each.ignored} corrections contradict themselves and were left out")
    values = {"format": name, "run": run, "fields": [asdict(each) for each in exported]}
    output.result(values, lambda: _table(values))
    return DONE


def _table(values: dict[str, Any]) -> Any:
    from rich.table import Table

    columns = ("path", "position", "z", "frames", "cells", "tracks", "divisions")
    table = Table(title=f"{values['run']} as {values['format']}", title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")  # a path is shown whole
    for field in values["fields"]:
        table.add_row(*(str(field[column]) for column in columns))
    return table
