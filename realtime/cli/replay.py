"""``cytoloop replay``: a recording through the service's own path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ...acquire.errors import MissingExtraError
from .output import DONE, FAILED, Output, command, short
from .streams import chosen_stream, interval_option


@command(
    "replay",
    examples=(
        "cytoloop replay movie/01 --out replayed",
        "cytoloop replay movie.ome.tif --out replayed --config experiment.toml --speed 10",
    ),
)
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the results."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Experiment file: what finds, follows and decides. Default: net, lap, no rules.",
)
@click.option("--stream", "stream_name", help="Which of the file's streams; needed if it has several.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    help="1 is the recorded pace. Default: as fast as possible.",
)
@interval_option
def replay(
    output: Output,
    path: Path,
    out: Path,
    config: Path | None,
    stream_name: str | None,
    speed: float | None,
    interval: float,
) -> int:
    """Replay a recording through the service.

    Every frame goes through the link, the service and its log. PATH is a folder of t000.tif, t001.tif, ...
    (Cell Tracking Challenge), a TIFF stack or folder, an OME-TIFF, an OME-Zarr or an NDTiff. Leaves in the
    results' folder: ctc/ (masks and res_track.txt), tracks.csv, decisions.jsonl, summary.json, report.html and
    the service's log.
    """
    from ...acquire.sources import open_source
    from ..replay import replay as run
    from ..report.contents import write_report
    from ..report.replayed import drop_masks, figures_of, is_whole, report_of, settings_of
    from ..results import write_results

    stream = chosen_stream(config, stream_name)
    source = open_source(path, interval_s=interval)
    try:
        with output.progress() as progress:
            replayed = run(source, stream, out / "log", progress, speed=speed)
            results = write_results(replayed.folder, out, progress=progress)
    finally:
        source.close()
    for message in replayed.messages:
        output.message(message)
    values = figures_of(replayed, results) | {"out": out, "settings": settings_of(stream)}
    try:
        values["report"] = write_report(report_of(replayed, results, stream), out)
    except MissingExtraError as error:
        output.message(f"No pictures: {error}")
    drop_masks(replayed.folder)
    (out / "summary.json").write_text(json.dumps(values, default=str, indent=2) + "\n", encoding="utf-8")
    output.result(values, lambda: _table(values))
    return DONE if is_whole(replayed, results) else FAILED


def _table(values: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table("figure", "value", title="Replay", title_justify="left")
    for key, value in values.items():
        if key != "settings":
            table.add_row(key.replace("_", " "), short(value))
    return table
