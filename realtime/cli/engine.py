"""``cytoloop engine``: what computes a net here, how far that can be trusted, and what is kept of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import DONE, FAILED, Output, command, examples_text

if TYPE_CHECKING:
    from ...acquire.frame import Frame
    from ...models.nets.check import Checked, Row
    from ...models.parity import Parity
    from ...models.runtimes.runtime import Precision

EXAMPLES = (
    "cytoloop engine check q32 movie/01",
    "cytoloop engine build q32",
    "cytoloop engine list",
)

_MOST_APART = 50
"""Frames of a recording that are taken lie at most so far apart, so that a long one need not be read to its end."""


@click.group(epilog=examples_text(EXAMPLES))
def engine() -> None:
    """Compare, build and list what computes a net."""


@command(
    "check",
    examples=(
        "cytoloop engine check q32 movie/01",
        "cytoloop engine check my-net/ images/ --runtime openvino --precision int8",
        "cytoloop engine check q32 movie.tif --count 50 --json",
    ),
)
@click.argument("model")
@click.argument("frames", type=click.Path(path_type=Path, exists=True))
@click.option("--runtime", default="auto", show_default=True, help="Only this runtime.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16", "int8"]),
    default="auto",
    show_default=True,
    help="Only this precision.",
)
@click.option("--channel", default="0", show_default=True, help="Name or number of the channel to look at.")
@click.option("--second-channel", help="Name or number of the second channel, for nets with two.")
@click.option(
    "--diameter", type=click.FloatRange(min=2), help="Breadth of the cells in px. Default: estimated."
)
@click.option("--decoder", help="What makes cells of the outputs. Default: what the package says.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Of the processor.")
@click.option(
    "--count", type=click.IntRange(min=1), default=16, show_default=True, help="Most frames to take."
)
def check(
    output: Output,
    model: str,
    frames: Path,
    runtime: str,
    precision: str,
    channel: str,
    second_channel: str | None,
    diameter: float | None,
    decoder: str | None,
    threads: int,
    count: int,
) -> int:
    """Compare every way to compute a net with the reference, on your own frames.

    MODEL is a shipped net, a model package or an ONNX file; FRAMES a recording, or a folder of single images
    (PNG). Each runtime in each precision segments the frames, int8 calibrated on them, and is compared with
    fp32 cell by cell, px by px and by where the cells are. What does not reach the agreement that is demanded
    is refused, with exit code 1. After a check of everything, runtime and precision "auto" take the fastest
    that agrees.
    """
    from ...models.nets.check import check as run

    options: dict[str, Any] = {"channel": _channel(channel), "diameter_px": diameter}
    options |= {"second_channel": _channel(second_channel)} if second_channel is not None else {}
    options |= {"decoder": decoder} if decoder is not None else {}
    taken, in_order = _some_frames(frames, count)
    with output.progress() as progress:
        checked = run(
            model,
            taken,
            in_order=in_order,
            threads=threads,
            options=options,
            runtime=runtime,
            precision=precision,
            report=progress,
        )
    values = _values(checked, len(taken)) | {"model": model, "threads": threads}
    output.result(values, lambda: _table(checked))
    refused = [
        row for row in checked.rows[1:] if row.failures and (row.works or "auto" not in (runtime, precision))
    ]
    return FAILED if refused else DONE


def _channel(name: str) -> int | str:
    return int(name) if name.isdecimal() else name


def _some_frames(path: Path, count: int) -> tuple[list[Frame], bool]:
    """Return frames from all over a recording, or single images, and whether they are a stream."""
    from itertools import islice

    from ...acquire.frame import Frame
    from ...acquire.sources import open_source
    from ...models.image_files import read_image

    images = sorted(path.glob("*.png")) if path.is_dir() else [path] if path.suffix.lower() == ".png" else []
    if images:
        return [Frame(read_image(image)) for image in images[:: max(1, len(images) // count)][:count]], False
    source = open_source(path)
    try:
        apart = min(max(1, (source.count or 0) // count), _MOST_APART)
        return list(islice(source.frames(), 0, apart * count, apart)), True
    finally:
        source.close()


def _values(checked: Checked, frames: int) -> dict[str, Any]:
    from dataclasses import asdict

    rows = [_row(row) for row in checked.rows]
    choice = checked.choice and {
        key: value for key, value in asdict(checked.choice).items() if key != "trials"
    }
    return {"frames": frames, "demanded": str(checked.demanded), "rows": rows, "choice": choice}


def _row(row: Row) -> dict[str, Any]:
    import numpy as np

    parity = row.parity
    return {
        "runtime": row.runtime,
        "precision": row.precision,
        "device": row.device,
        "cells": row.cells,
        "F1": {f"{iou:g}": value for iou, value in parity.f1.items()} if parity else None,
        "px_disagreement": parity.disagreement if parity else None,
        "centroid_shift_px": _shifts(parity) if parity else None,
        "ms": {f"p{p}": float(np.percentile(row.ms, p)) for p in (50, 99)} if row.works else None,
        "accepted": not row.failures,
        "reason": "; ".join(row.failures),
    }


def _shifts(parity: Parity) -> dict[str, float]:
    return {name: parity.shift_px(p) for name, p in (("p50", 50), ("p99", 99), ("max", 100))}


def _table(checked: Checked) -> Any:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    heads = ("", "runtime", "cells", "F1@0.5 0.75 0.9", "px apart", "shift p50 p99", "ms p50 p99")
    table = Table(*heads, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in table.columns[1:4]:
        column.no_wrap = True
    for row in map(_row, checked.rows):
        f1, shift, ms = row["F1"], row["centroid_shift_px"], row["ms"]
        table.add_row(
            Text("ok", "green")
            if row["accepted"]
            else Text("!!", "bold red")
            if ms
            else Text("--", "yellow"),
            f"{row['runtime']} {row['precision']}",
            str(row["cells"]) if ms else "",
            " ".join(f"{value:.3f}" for value in f1.values()) if f1 else "reference" if ms else "",
            f"{row['px_disagreement']:.2%}" if f1 else "",
            f"{shift['p50']:.2f} {shift['p99']:.2f}" if shift else "",
            f"{ms['p50']:.1f} {ms['p99']:.1f}" if ms else "",
        )
    told = [Text(f"Demanded: {checked.demanded}.", "dim")]
    told += [
        Text(f"{row.runtime} {row.precision}: {'; '.join(row.failures)}")
        for row in checked.rows
        if row.failures
    ]
    if checked.choice is not None:
        picked = checked.choice
        told.append(Text(f"auto takes {picked.runtime} {picked.precision}: {picked.reason}."))
    return Group(table, *told)


@command(
    "build",
    examples=(
        "cytoloop engine build q32",
        "cytoloop engine build q32 --precision int8",
        "cytoloop engine build my-net.onnx --for 8.6 --for 8.9",
    ),
)
@click.argument("model")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp16",
    show_default=True,
    help="Of the arithmetic; int8 needs a net that was calibrated by cytoloop engine check.",
)
@click.option(
    "--for",
    "capabilities",
    multiple=True,
    metavar="CAPABILITY",
    help="Build ahead for cards of this compute capability, with TensorRT for RTX; may be repeated.",
)
def build(output: Output, model: str, precision: Precision, capabilities: tuple[str, ...]) -> int:
    """Build the TensorRT engine of a net, and keep it.

    For the card in this computer, which takes minutes; it would else be done at the first start. With --for,
    TensorRT for RTX builds for cards that are elsewhere, and none is needed here.
    """
    from ...acquire.errors import ModelError
    from ...models.packages.package import load_package
    from ...models.runtimes import cuda
    from ...models.runtimes.engines import build_ahead
    from ...models.runtimes.tensorrt import TensorrtRuntime
    from ...models.runtimes.ways import Way, file_of, net_of

    if not capabilities and not cuda.cards():
        raise ModelError(
            "there is no NVIDIA card here; for one elsewhere build ahead, such as with --for 8.6"
        )
    net = net_of(Path(model) if model.endswith(".onnx") else load_package(model))
    with output.progress() as progress:
        file = file_of(Way("tensorrt", precision), net)
        if capabilities:
            engines = build_ahead(file, capabilities=capabilities, report=progress)
        else:
            engines = [TensorrtRuntime(file, report=progress).engine_path]
    values = {"model": model, "precision": precision, "engines": engines}
    output.result(values, lambda: "\n".join(map(str, engines)))
    return DONE


@command("list", examples=("cytoloop engine list", "cytoloop engine list --json"))
def list_engines(output: Output) -> int:
    """List the runtimes that are here, and what is kept: engines, converted nets, choices.

    What is kept can be deleted at any time; it is made again when it is needed.
    """
    from ...models.runtimes.cache import cache_folder, kept_files
    from ...models.runtimes.ways import OFFERED, here, is_here

    runtimes = [
        {"runtime": name, "installed": is_here(name), "precisions": list(here(name)) if is_here(name) else []}
        for name in OFFERED
    ]
    kept = [{"kind": each.kind, "path": each.path, "bytes": each.size} for each in kept_files()]
    values = {"runtimes": runtimes, "kept": kept, "folder": cache_folder()}
    output.result(values, lambda: _tables(values))
    return DONE


def _tables(values: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table

    runtimes = Table("runtime", "computes in")
    for row in values["runtimes"]:
        runtimes.add_row(row["runtime"], ", ".join(row["precisions"]) if row["installed"] else "not here")
    kept = Table("kept", "file", "MB", title=str(values["folder"]), title_justify="left")
    for row in values["kept"]:
        kept.add_row(row["kind"], row["path"].name, f"{row['bytes'] / 1e6:.2f}")
    return Group(runtimes, kept)


for _command in (check, build, list_engines):
    engine.add_command(_command)
