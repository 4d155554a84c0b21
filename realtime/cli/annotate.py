"""``cytoloop annotate``: the worst frames of a recording out, to be corrected; and the corrected ones back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .output import DONE, FAILED, Output, command


@command(
    "annotate",
    examples=(
        "cytoloop annotate movie/01 --out corrected --frames 10",
        "cytoloop annotate --back corrected",
        "cytoloop train corrected --out my-cells",
    ),
)
@click.argument("recording", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="New folder for the frames.")
@click.option(
    "--frames", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many to correct."
)
@click.option("--model", default="q32", show_default=True, help="What finds the cells: net or model package.")
@click.option("--channel", default="0", show_default=True, help="In which to look, by index or name.")
@click.option("--diameter", "diameter_px", type=click.FloatRange(2, 4000), help="Breadth of the cells in px.")
@click.option(
    "--threads", type=click.IntRange(1, 256), default=2, show_default=True, help="Of the processor."
)
@click.option(
    "--back",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Check the corrected masks of this folder instead, and mark it as ready for cytoloop train.",
)
@click.option("--accept", is_flag=True, help="With --back: cells in pieces, and very small ones, are meant.")
def annotate(
    output: Output, recording: Path | None, out: Path | None, back: Path | None, accept: bool, **given: Any
) -> int:
    """Choose the worst frames of a recording for correction by hand.

    Worst are frames whose cells the net is unsure of, finds otherwise when it sees them upside down, or that
    look unlike what it knows; they are spread over the recording. RECORDING is whatever "cytoloop replay"
    takes, or a folder of images. The folder that is written opens in napari (its README.md says how); --back
    checks the corrected masks and says what was changed.
    """
    if back is not None:
        if recording is not None or out is not None:
            raise click.UsageError("--back takes a corrected folder alone, without RECORDING and --out")
        return _back(output, back, accept)
    if recording is None or out is None:
        raise click.UsageError("give RECORDING and --out FOLDER, or --back FOLDER")
    if accept:
        raise click.UsageError("--accept belongs to --back")
    return _choose(output, recording, out, **given)


def _choose(
    output: Output, recording: Path, out: Path, *, frames: int, channel: str, model: str, **given: Any
) -> int:
    from ..annotate import worst_frames
    from ..annotation_folder import check_new, write_annotation_folder

    check_new(out)
    which = int(channel) if channel.isdecimal() else channel
    with output.progress() as progress:
        chosen, looked_at = worst_frames(
            recording, count=frames, channel=which, model=model, progress=progress, **given
        )
    write_annotation_folder(out, chosen, recording, model)
    listed = [
        {
            "name": one.name,
            "sequence": one.frame.sequence,
            "cells": one.labels.count,
            "unsure": round(one.unsure, 4),
            "unsteady": round(one.unsteady, 4),
            "novelty": round(one.novelty, 4),
            "reason": one.reason,
        }
        for one in chosen
    ]
    values = {"out": out, "frames_looked_at": looked_at, "model": model, "frames": listed}
    output.result(values, lambda: _frames_table(values))
    return DONE


def _back(output: Output, folder: Path, accept: bool) -> int:
    from ..annotation_folder import take_back

    changes, problems = take_back(folder, accept=accept)
    kinds = ("added", "removed", "reshaped", "unchanged")
    values = {
        "ok": not problems,
        "folder": folder,
        "problems": [asdict(problem) for problem in problems],
        "images": [asdict(each) for each in changes],
        **{kind: sum(getattr(each, kind) for each in changes) for kind in kinds},
    }
    output.result(values, lambda: _changes_table(values))
    untouched = [each.name for each in changes if not (each.added or each.removed or each.reshaped)]
    if untouched:
        output.message(f"As the net found them: {', '.join(untouched)}")
    if problems and all(problem.doubtful for problem in problems):
        output.message("If all of this is meant: --accept")
    elif not problems:
        output.message(f"Ready: cytoloop train {folder} --out PACKAGE")
    return FAILED if problems else DONE


def _frames_table(values: dict[str, Any]) -> Any:
    from rich.table import Table

    title = f"{len(values['frames'])} of {values['frames_looked_at']} frames, in {values['out']}"
    table = Table("frame", "cells", "why", title=title, title_justify="left")
    for one in values["frames"]:
        table.add_row(one["name"], str(one["cells"]), one["reason"])
    return table


def _changes_table(values: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table

    kinds = ("added", "removed", "reshaped", "unchanged")
    changes = Table("cells", *kinds, title=str(values["folder"]), title_justify="left")
    for one in values["images"]:
        changes.add_row(one["name"], *(str(one[kind]) for kind in kinds))
    changes.add_row("all", *(str(values[kind]) for kind in kinds))
    if not values["problems"]:
        return changes
    problems = Table("mask", "what is wrong")
    for one in values["problems"]:
        problems.add_row(Path(one["file"]).name, one["reason"])
    return Group(changes, problems)
