"""``cytoloop evaluate``: scores against ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import DONE, FAILED, Output, command, short
from .streams import chosen_stream

if TYPE_CHECKING:
    from ..experiment.stream import PluginChoice, StreamConfig

SCORES = ("SEG", "DET", "TRA", "LNK", "BIO", "edge_f1", "division_f1")
EXAMPLES = (
    "cytoloop evaluate --sequence Fluo-N2DH-SIM+",
    "cytoloop evaluate --sequence Fluo-N2DH-SIM+/01 --tracker nearest",
    "cytoloop evaluate --sequence movie/01 --labels movie/01_GT/TRA --json",
    "cytoloop evaluate --sequence movie/01 --labels movie/01_GT/TRA --option missed=0.05 --option broken=0.05",
    "cytoloop evaluate --sequence movie/01 --tracker laptrack --tracker-option max_distance_px=15",
    "cytoloop evaluate --images DSB2018/images --masks DSB2018/masks --draw worst",
)
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@command("evaluate", examples=EXAMPLES)
@click.option(
    "--sequence",
    type=_FOLDER,
    help="Folder of images such as 01 with 01_GT beside it, or the folder that holds both.",
)
@click.option("--images", type=_FOLDER, help="Folder of single images, PNG or TIFF; with --masks.")
@click.option(
    "--masks", type=_FOLDER, help="Folder of their true masks, named as the images, or with _mask behind."
)
@click.option("--list", "listed", type=_FILE, help="Names of the images to take, one a line. Default: all.")
@click.option("--segmenter", help="Another segmenter: its name, or module:Class.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the segmenter, or of what --labels gives; may be repeated.",
)
@click.option(
    "--tracker", help="Another tracker: its name, or module:Class; also one that needs the whole movie."
)
@click.option(
    "--tracker-option",
    "tracker_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the tracker; may be repeated.",
)
@click.option(
    "--labels",
    type=_FOLDER,
    help="Folder of found masks to use instead of the segmenter; --option missed, broken and seed make them worse.",
)
@click.option("--config", type=_FILE, help="Experiment file to take segmenter and tracker from.")
@click.option("--stream", "stream_name", help="Which of the file's streams; needed if it has several.")
@click.option(
    "--table",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="CSV file to write, a row for each of the --images.",
)
@click.option(
    "--draw",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to draw the worst of the --images into, with true and found outlines.",
)
@click.option(
    "--worst", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many of them to draw."
)
def evaluate(
    output: Output,
    sequence: Path | None,
    images: Path | None,
    masks: Path | None,
    segmenter: str | None,
    options: tuple[str, ...],
    tracker: str | None,
    tracker_options: tuple[str, ...],
    config: Path | None,
    stream_name: str | None,
    **others: Any,
) -> int:
    """Score the service against ground truth.

    With --sequence it replays a sequence in the layout of the Cell Tracking Challenge through the service's own
    path and prints SEG, DET, TRA, LNK, BIO (py-ctcmetrics), edge and division F1 (traccuracy) and speed. Of
    several sequences in a folder each is scored, and the means are printed. Needs cytoloop[scores].

    With --images and --masks it segments single images, each by itself, and prints AP, F1, PQ, SEG and speed.
    """
    if (sequence is None) == (images is None and masks is None):
        raise click.UsageError("give either --sequence, or --images with --masks")
    stream = _stream_with(chosen_stream(config, stream_name), segmenter, options, tracker, tracker_options)
    if sequence is not None:
        _refuse("--images", others, "listed", "table", "draw")
        return _sequences(output, sequence, stream, others["labels"], options)
    if images is None or masks is None:
        raise click.UsageError("--images and --masks belong together")
    if tracker is not None or tracker_options:
        raise click.UsageError("--tracker and --tracker-option belong to --sequence")
    return _images(output, images, masks, stream, **others)


def _refuse(needed: str, others: dict[str, Any], *names: str) -> None:
    for name in names:
        if others[name] is not None:
            raise click.UsageError(f"--{'list' if name == 'listed' else name} belongs to {needed}")


def _stream_with(
    stream: StreamConfig,
    segmenter: str | None,
    options: tuple[str, ...],
    tracker: str | None,
    tracker_options: tuple[str, ...],
) -> StreamConfig:
    """Return the stream with another segmenter or tracker, or other options of them, if they can be made."""
    from msgspec.structs import replace

    stream = replace(
        stream,
        segmenter=_choice(stream.segmenter, segmenter, options, "--option"),
        tracker=_choice(stream.tracker, tracker, tracker_options, "--tracker-option"),
    )
    stream.tracker.build("trackers")
    return stream


def _choice(before: PluginChoice, use: str | None, options: tuple[str, ...], flag: str) -> PluginChoice:
    from ..experiment.stream import PluginChoice

    choice = before if use is None else PluginChoice(use)
    return PluginChoice(choice.use, {**choice.options, **dict(_option(text, flag) for text in options)})


def _option(text: str, flag: str) -> tuple[str, Any]:
    """Read KEY=VALUE; the value is written as in an experiment file, and text needs no quotes."""
    import tomllib

    key, equals, value = text.partition("=")
    if not (key and equals):
        raise click.UsageError(f"{flag} {text!r}: KEY=VALUE is needed, such as diameter_px=20")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _sequences(
    output: Output, sequence: Path, stream: StreamConfig, labels: Path | None, options: tuple[str, ...]
) -> int:
    from msgspec.structs import replace

    from ..evaluate import evaluate as run
    from ..evaluate import figures_of_all, find_sequences
    from ..experiment.stream import PluginChoice
    from ..report.replayed import is_whole, settings_of

    if labels is not None:
        given = dict(_option(text, "--option") for text in options) | {"path": str(labels.absolute())}
        stream = replace(stream, segmenter=PluginChoice("cytoloop.models.given:GivenSegmenter", given))
    stream.segmenter.build("segmenters")
    with output.progress() as progress:
        done = [run(images, truth, stream, progress) for images, truth in find_sequences(sequence)]
    for message in dict.fromkeys(message for each in done for message in each.replayed.messages):
        output.message(message)
    values = figures_of_all(done) | {"settings": settings_of(stream)}
    output.result(values, lambda: _table(values))
    return DONE if all(is_whole(each.replayed, each.results) for each in done) else FAILED


def _images(
    output: Output,
    images: Path,
    masks: Path,
    stream: StreamConfig,
    *,
    listed: Path | None,
    labels: Path | None,
    table: Path | None,
    draw: Path | None,
    worst: int,
) -> int:
    from ...models.image_pairs import pair_files, read_names
    from ..evaluate_images import evaluate_images, figures_of_images, worst_drawer, write_image_table
    from ..report.replayed import settings_of

    draw_worst = worst_drawer(draw) if draw else None
    files = pair_files(images, masks, read_names(listed) if listed else None)
    if files.without_mask:
        output.message(f"images without a mask, left out: {len(files.without_mask)}")
    with output.progress() as progress:
        evaluated = evaluate_images(files.pairs, stream, labels=labels, worst=worst, progress=progress)
    if table is not None:
        table.parent.mkdir(parents=True, exist_ok=True)
        write_image_table(evaluated, table)
    if draw_worst is not None:
        draw_worst(evaluated)
    settings = {"labels": str(labels)} if labels else {"segmenter": settings_of(stream)["segmenter"]}
    values = figures_of_images(evaluated) | {"settings": settings}
    output.result(values, lambda: _image_tables(values))
    return DONE


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


def _image_tables(values: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table

    columns = ("AP", "F1", "precision", "recall")
    by_iou = Table("IoU", *columns)
    for threshold in values["AP"]:
        by_iou.add_row(threshold, *(f"{values[column][threshold]:.4f}" for column in columns))
    single = Table("", "")
    for key in ("PQ", "SEG", "images", "cells_true", "cells_found", "ms_per_image"):
        single.add_row(key.replace("_", " "), short(values[key]))
    worst = Table("worst images", "AP at 0.5", "AP at 0.75")
    for each in values["worst"]:
        worst.add_row(each["image"], *(f"{each['AP'][threshold]:.3f}" for threshold in ("0.5", "0.75")))
    return Group(by_iou, single, worst)
