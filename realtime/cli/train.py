"""``cytoloop train``: images and masks in, a model package out."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from ...acquire.errors import MissingExtraError
from .output import DONE, FAILED, Output, command

NETS = ("q16", "q32", "h16", "f16")
NEEDED = ("torch", "onnx", "matplotlib")


@command(
    "train",
    examples=(
        "cytoloop train corrected --out my-cells",
        "cytoloop train corrected --out my-cells --from h16 --steps 200 --test other-day",
        "cytoloop train thousand-images --out my-net --net q32",
    ),
)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the model package.")
@click.option("--from", "start", help="Shipped net, or model package, to start from. Default: q32.")
@click.option("--net", type=click.Choice(NETS), help="Train this net from scratch instead.")
@click.option("--steps", type=click.IntRange(1, 1_000_000), help="Default: 300, or 4000 from scratch.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same package."
)
@click.option(
    "--hold-out",
    "share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.25,
    show_default=True,
    help="Share of the images to judge by.",
)
@click.option(
    "--keep",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.5,
    show_default=True,
    help="How much of the net it starts from stays in its weights; more is safer on other images.",
)
@click.option(
    "--test",
    "tests",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Images that have no part in it, judged before and after.",
)
@click.option("--channel", type=click.IntRange(min=0), help="Of images that have several, from 0.")
@click.option("--foreground", is_flag=True, help="Masks hold one number: each connected piece is a cell.")
@click.option("--partial", is_flag=True, help="Masks hold only some of the cells, whole groups of them.")
@click.option("--name", help="Of the package. Default: its folder's.")
@click.option("--terms", default="", help="On which the package may be used, such as CC-BY-4.0.")
@click.option(
    "--threads", type=click.IntRange(1, 256), default=2, show_default=True, help="Of the processor."
)
@click.option(
    "--device",
    type=click.Choice(("auto", "cpu", "cuda")),
    default="auto",
    show_default=True,
    help="Where the net learns; auto takes an NVIDIA card if torch sees one.",
)
@click.option("--resume", is_flag=True, help="Go on with a training that was interrupted.")
def train(
    output: Output,
    folder: Path,
    out: Path,
    start: str | None,
    net: str | None,
    name: str | None,
    terms: str,
    **given: Any,
) -> int:
    """Train a net on images of your own.

    Fits a shipped net to 5 to 20 images in minutes, or makes a net from scratch. FOLDER holds images/ and
    masks/ (PNG, TIFF; same names), or images with NAME_masks files beside them, or a sequence in the layout of
    the Cell Tracking Challenge, or what "cytoloop annotate" made. Leaves a model package with figures, which
    NetSegmenter(model=PACKAGE) takes. Exit code 1 if the net became no better on images held out. Needs
    cytoloop[train].
    """
    if start is not None and net is not None:
        raise click.UsageError("--from starts from a trained net, --net from scratch: give one of them")
    for module in NEEDED:
        if find_spec(module) is None:
            raise MissingExtraError(f"{module}, which training needs,", "train")
    from ..report.training import draw_training
    from ..train import Order
    from ..train import train as run
    from ..training_card import card, figures_of_training
    from ..training_folder import work_path

    out = out.absolute()
    order = Order(folder=folder, out=out, start=None if net else start or "q32", net=net or "q32", **given)
    try:
        with output.progress() as progress:
            trained = run(order, progress)
    except KeyboardInterrupt:
        output.message(
            f"Stopped. What was learned up to the last check is in {work_path(out)}; the same command with --resume"
            " goes on from there."
        )
        raise
    name = name or out.name
    package = trained.write(out, name=name, card=card(name, order, trained, terms), terms=terms)
    drawn = draw_training(trained.history, trained.before, trained.after, out / "figures")
    trained.work.remove()
    values = {"out": package.folder, "name": name} | figures_of_training(order, trained) | {"figures": drawn}
    output.result(values, lambda: _tables(values))
    if not trained.improved:
        output.message(
            f"The net is no better than {order.start} on the images held out: go on with {order.start}, or give more"
            " images that are unlike those it knows."
        )
    return DONE if trained.improved else FAILED


def _tables(values: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table

    from ..training_card import rows_of

    how = "each held out once" if values["held_out_in_turn"] else "held out"
    tables = [_scores(f"{len(values['held_out'])} images, {how}", rows_of(values["before"], values["after"]))]
    if values["tests"]:
        count = values["tests"]["after"]["images"]
        rows = rows_of(values["tests"]["before"], values["tests"]["after"])
        tables.append(_scores(f"{count} images that had no part in it", rows))
    written = Table(show_header=False)
    written.add_row("package", str(values["out"]))
    written.add_row("steps", f"{values['best_step']} of {values['steps']}")
    written.add_row("figures", "\n".join(map(str, values["figures"])))
    return Group(*tables, written)


def _scores(title: str, rows: list[tuple[str, str, str]]) -> Any:
    from rich.table import Table

    table = Table("", "before", "after", title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table
