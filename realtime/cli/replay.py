"""``cytoloop replay``: a recording through the service's own path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...acquire.errors import MissingExtraError
from .output import DONE, FAILED, Output, command, short
from .streams import chosen_stream, interval_option

if TYPE_CHECKING:
    from ..progress import Progress
    from ..results import Results
    from ..trial.examples import Example


@command(
    "replay",
    examples=(
        "cytoloop replay movie/01 --out replayed",
        "cytoloop replay movie.ome.tif --out replayed --config experiment.toml --speed 10",
        "cytoloop replay log/default/2026-05-04_101500_a1b2 --out replayed",
    ),
)
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the results."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Experiment file: what finds, follows and decides. Default: net, lap, no rules; of a run: its own.",
)
@click.option("--stream", "stream_name", help="Which of the file's streams; needed if it has several.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    help="1 is the recorded pace. Default: as fast as possible.",
)
@click.option("--damaged", is_flag=True, help="Of a run: replay frames too whose pixels are damaged.")
@interval_option
def replay(
    output: Output,
    path: Path,
    out: Path,
    config: Path | None,
    stream_name: str | None,
    speed: float | None,
    damaged: bool,
    interval: float,
) -> int:
    """Replay a recording through the service.

    Every frame goes through the link, the service and its log. PATH is a folder of t000.tif, t001.tif, ...
    (Cell Tracking Challenge), a TIFF stack or folder, an OME-TIFF, an OME-Zarr or an NDTiff; or the folder of a
    run whose frames were recorded: then everything is compared with what the run said, with its own configuration
    unless another is given, and the first difference is told with its cause. Leaves in the
    results' folder: ctc/ (masks and res_track.txt), tracks.csv, decisions.jsonl, summary.json, the service's log,
    and report.html, which also says, for some cells of each rule, why they were or were not chosen.
    """
    from ...acquire.sources import open_source
    from ..replay import replay as run
    from ..report.contents import write_report
    from ..report.replayed import drop_masks, figures_of, is_whole, report_of, settings_of
    from ..results import write_results
    from ..service.run_folder import is_run

    if is_run(path):
        if speed is not None:
            raise click.UsageError("--speed is not for a run: its frames are compared one after the other")
        from .replay_run import replayed_run

        chosen = None if config is None and stream_name is None else chosen_stream(config, stream_name)
        return replayed_run(output, path, out, chosen, damaged)
    if damaged:
        raise click.UsageError("--damaged is for the folder of a run")
    stream = chosen_stream(config, stream_name)
    source = open_source(path, interval_s=interval)
    try:
        with output.progress() as progress:
            replayed = run(source, stream, out / "log", progress, speed=speed)
            results = write_results(replayed.folder, out, progress=progress)
            examples = examples_for(output, replayed.folder, results, path, interval, progress)
    finally:
        source.close()
    for message in replayed.messages:
        output.message(message)
    values = figures_of(replayed, results) | {"out": out, "settings": settings_of(stream)}
    try:
        values["report"] = write_report(report_of(replayed, results, stream, examples=examples), out)
    except MissingExtraError as error:
        output.message(f"No pictures: {error}")
    drop_masks(replayed.folder)
    (out / "summary.json").write_text(json.dumps(values, default=str, indent=2) + "\n", encoding="utf-8")
    output.result(values, lambda: table_of(values))
    return DONE if is_whole(replayed, results) else FAILED


def examples_for(
    output: Output, run: Path, results: Results, recording: Path, interval: float, progress: Progress
) -> dict[str, list[Example]]:
    """Return cells that the rules chose and did not choose, for the report; none where nothing can be drawn."""
    from ...acquire.errors import CytoloopError, MissingExtraError
    from ..trial.examples import examples_of
    from ..trial.images import images_in
    from .rules_why import need_drawing

    try:
        need_drawing()
        return examples_of(
            run, results.first_decisions, lambda wanted: images_in(recording, wanted, interval), progress
        )
    except MissingExtraError:  # told when the report is written
        return {}
    except CytoloopError as error:
        output.message(f"The report does not say why cells were chosen: {error}")
        return {}


def table_of(values: dict[str, Any]) -> Any:
    """Return the figures of a replay for people."""
    from rich.table import Table

    table = Table("figure", "value", title="Replay", title_justify="left")
    for key, value in values.items():
        if key != "settings":
            nobody = key == "outcomes" and value is None
            table.add_row(key.replace("_", " "), "no microscope took part" if nobody else short(value))
    return table
