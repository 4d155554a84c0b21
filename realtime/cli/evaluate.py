"""``cytoloop evaluate``: scores against ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import DONE, FAILED, Output, command, short
from .streams import chosen_stream

if TYPE_CHECKING:
    from ..experiment.config import StreamConfig

SCORES = ("SEG", "DET", "TRA", "LNK", "BIO", "edge_f1", "division_f1")
EXAMPLES = (
    "cytoloop evaluate --sequence Fluo-N2DH-SIM+",
    "cytoloop evaluate --sequence Fluo-N2DH-SIM+/01 --tracker nearest",
    "cytoloop evaluate --sequence movie/01 --labels movie/01_GT/SEG --json",
)


@command("evaluate", examples=EXAMPLES)
@click.option(
    "--sequence",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder of images such as 01 with 01_GT beside it, or the folder that holds both.",
)
@click.option("--tracker", help="Another tracker: its name, or module:Class.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of masks to use instead of the segmenter; the number in a name is the frame's.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Experiment file to take segmenter and tracker from. Default: classical and lap.",
)
@click.option("--stream", "stream_name", help="Which of the file's streams; needed if it has several.")
def evaluate(
    output: Output,
    sequence: Path,
    tracker: str | None,
    labels: Path | None,
    config: Path | None,
    stream_name: str | None,
) -> int:
    """Score the service against ground truth.

    Replays a sequence in the layout of the Cell Tracking Challenge through the service's own path and prints
    SEG, DET, TRA, LNK, BIO (py-ctcmetrics), edge and division F1 (traccuracy) and speed. Of several sequences
    in a folder each is scored, and the means are printed. Needs cytoloop[scores].
    """
    from ..evaluate import evaluate as run
    from ..evaluate import figures_of_all, find_sequences
    from ..report.replayed import is_whole, settings_of

    stream = _stream_with(chosen_stream(config, stream_name), tracker, labels)
    with output.progress() as progress:
        done = [run(images, truth, stream, progress) for images, truth in find_sequences(sequence)]
    for message in dict.fromkeys(message for each in done for message in each.replayed.messages):
        output.message(message)
    values = figures_of_all(done) | {"settings": settings_of(stream)}
    output.result(values, lambda: _table(values))
    return DONE if all(is_whole(each.replayed, each.results) for each in done) else FAILED


def _stream_with(stream: StreamConfig, tracker: str | None, labels: Path | None) -> StreamConfig:
    """Return the stream with another tracker, or given masks, after checking that they can be made."""
    from msgspec.structs import replace

    from ..experiment.config import PluginChoice

    if tracker is not None:
        stream = replace(stream, tracker=PluginChoice(tracker))
    if labels is not None:
        options = {"path": str(labels.absolute())}
        stream = replace(stream, segmenter=PluginChoice("cytoloop.models.given:GivenSegmenter", options))
    stream.tracker.build("trackers")
    stream.segmenter.build("segmenters")
    return stream


def _table(values: dict[str, Any]) -> Any:
    from rich.table import Table

    columns = list(values["sequences"])
    heads = [column["sequence"] for column in columns]
    if len(columns) > 1:
        columns, heads = [*columns, values], [*heads, "mean"]
    table = Table("", *heads)
    for key in SCORES:
        table.add_row(key, *(f"{column[key]:.4f}" for column in columns))
    for key in ("frames", "frames_per_s", "latency_ms"):
        table.add_row(key.replace("_", " "), *(short(column[key]) for column in columns))
    return table
