"""``cytoloop rules why``: why a cell was or was not chosen, in a run on disk or in a service that runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from .output import DONE, Output, command
from .streams import interval_option

if TYPE_CHECKING:
    from ...acquire.link.messages import Because
    from ..trial.firings import Crop


@command(
    "why",
    examples=(
        "cytoloop rules why RUN --cell 7 --frame 40",
        "cytoloop rules why RUN --cell 7 --frame 40 --rule follow --frames movie/01 --out why.png",
        "cytoloop rules why tcp://127.0.0.1:5790 --cell 7 --out why.png",
    ),
)
@click.argument("run")
@click.option("--cell", type=click.IntRange(min=1), required=True, help="Identity of the cell.")
@click.option(
    "--frame", type=click.IntRange(min=0), help="Number of the frame. Of a service: default the last."
)
@click.option("--rule", help="Only this rule.")
@click.option(
    "--frames", type=click.Path(path_type=Path, exists=True), help="The recording of the run, for a picture."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="PNG to draw.")
@click.option("--stream", help="Name of the service's stream, if it is not called default.")
@click.option(
    "--keys",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of this computer's keys, for a service that is not on loopback.",
)
@interval_option
def why(
    output: Output,
    run: str,
    cell: int,
    frame: int | None,
    rule: str | None,
    frames: Path | None,
    out: Path | None,
    stream: str | None,
    keys: Path | None,
    interval: float,
) -> int:
    """Say why a cell was or was not chosen in a frame.

    RUN is the folder that the service made for a run (log/STREAM/DATE_RUN), or the address of a service that runs.
    Each clause of each rule is told with its value, its threshold, and since when it holds; shadow rules are asked too.
    """
    if "://" in run:
        if frames is not None:
            raise click.UsageError("--frames is for a run on disk; a service sends the picture itself")
        return _of_service(output, run, cell, frame, rule, out, stream or "default", keys)
    folder = Path(run)
    if not folder.is_dir():
        raise click.UsageError(f"{run!r} is neither the folder of a run nor an address (tcp://HOST:PORT)")
    if frame is None:
        raise click.UsageError("--frame is needed for a run on disk")
    if out is not None and frames is None:
        raise click.UsageError("--out draws a picture, which needs --frames RECORDING")
    return _of_run(output, folder, cell, frame, rule, frames, out, interval)


def _of_run(
    output: Output,
    run: Path,
    cell: int,
    frame: int,
    rule: str | None,
    frames: Path | None,
    out: Path | None,
    interval: float,
) -> int:
    from ..trial.why import crop_of_run
    from ..trial.why import why as explain
    from .rules_tables import only_rule, why_lines, why_values

    with output.progress() as progress:
        found = explain(run, cell, frame, progress)
    explanations = only_rule(found.explanations, rule)
    values = why_values(found, explanations) | {"run": run, "picture": None}
    lines = why_lines(found, explanations)
    if frames is not None:
        crop = crop_of_run(run, found, frames, interval)
        values["picture"] = _draw(crop, lines, out or Path(f"why-cell-{cell}-frame-{frame}.png"))
    _tell(output, values, lines)
    return DONE


def _of_service(
    output: Output,
    address: str,
    cell: int,
    frame: int | None,
    rule: str | None,
    out: Path | None,
    stream: str,
    keys: Path | None,
) -> int:
    from ...acquire.link.control import ask_why
    from .rules_tables import only_rule, rules_lines, rules_values

    answer = ask_why(cell, -1 if frame is None else frame, address=address, stream=stream, keys=keys)
    explanations = only_rule(answer.rules, rule)
    values: dict[str, Any] = {
        "cell": cell,
        "frame": answer.sequence,
        "time_s": answer.time_s,
        "seen": answer.seen,
        "rules": rules_values(explanations),
        "run": address,
        "picture": None,
    }
    lines = [f"cell {cell} in frame {answer.sequence} ({answer.time_s:g} s)"]
    lines += [] if answer.seen else ["was not seen in this frame"]
    lines += rules_lines(explanations)
    if out is not None:
        crop = _crop(answer)
        if crop is None:
            output.message(
                "No picture: the pixels of that frame are gone; take --frames with the run's folder"
            )
        else:
            values["picture"] = _draw(crop, lines, out)
    _tell(output, values, lines)
    return DONE


def _crop(answer: Because) -> Crop | None:
    """Return the picture that came with an answer."""
    from ..trial.firings import Crop

    height, width = answer.shape
    if not answer.image or len(answer.image) != height * width:
        return None
    image = np.frombuffer(answer.image, np.uint8).reshape(height, width)
    return Crop(image, None, 0, f"cell {answer.track}, frame {answer.sequence}", answer.box)


def _draw(crop: Crop, lines: list[str], target: Path) -> Path:
    need_drawing()
    from ..report.firings import draw_one

    draw_one(crop, lines[0], lines[1:], target)
    return target


def _tell(output: Output, values: dict[str, Any], lines: list[str]) -> None:
    picture = [f"picture: {values['picture']}"] if values["picture"] else []
    output.result(values, lambda: "\n".join(lines + picture))


def need_drawing() -> None:
    """Fail with advice where nothing can be drawn.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    from ...acquire.errors import MissingExtraError

    try:
        import matplotlib  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise MissingExtraError("matplotlib, which draws pictures,", "report") from error
