"""The demo's picture: one column for each act, the figures of all below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..report.contents import RunReport
from ..report.figure import BACKGROUND, FAINT, INK, draw_latency, draw_scores, prepare
from . import panel_follow, panel_stimulate, panel_survive

if TYPE_CHECKING:
    from .play import Played

STRIP = 5
_WIDTH_IN, _HEIGHT_IN = 15.0, 12.6
_KEPT, _BROKEN = "#44BB99", "#FF6E6E"


def draw(played: Played, report: RunReport, target: Path) -> None:
    """Draw the demo into a PNG file."""
    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), dpi=130, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    figure.text(0.02, 0.975, report.title, color=INK, fontsize=21, fontweight="bold", va="center")
    figure.text(0.02, 0.951, report.subtitle, color=FAINT, fontsize=12.5, va="center")
    outer = figure.add_gridspec(1, 3, left=0.02, right=0.985, top=0.903, bottom=0.275, wspace=0.07)
    columns = [_column(figure, outer[place]) for place in range(3)]
    panel_follow.draw(played.followed, *columns[0])
    panel_stimulate.draw(played.stimulated, *columns[1])
    panel_survive.draw(played.survived, *columns[2])
    for number, (act, (image, _, _)) in enumerate(zip(played.acts, columns, strict=True), start=1):
        box = image.get_subplotspec().get_position(figure)
        heading: Any = {"color": INK, "fontsize": 14.5, "fontweight": "bold"}
        figure.text(box.x0, box.y1 + 0.0215, f"{number}  {act.take.title}", **heading)
    below = figure.add_gridspec(
        1, 3, left=0.045, right=0.985, top=0.222, bottom=0.04, wspace=0.1, width_ratios=(1, 0.75, 1.5)
    )
    draw_latency(figure.add_subplot(below[0]), report.latency_ms)
    draw_scores(figure.add_subplot(below[1]), report.scores)
    _draw_promises(figure.add_subplot(below[2]), played)
    figure.savefig(target)


def _column(figure: Any, place: Any) -> tuple[Any, list[Any], Any]:
    """Return the axes of a column: a large image, a strip of small ones, a plot."""
    rows = place.subgridspec(3, 1, height_ratios=(4.6, 0.92, 1.75), hspace=0.12)
    strip = rows[1].subgridspec(1, STRIP, wspace=0.04)
    inset = rows[2].subgridspec(1, 2, width_ratios=(0.075, 1), wspace=0)
    return (
        figure.add_subplot(rows[0]),
        [figure.add_subplot(strip[i]) for i in range(STRIP)],
        figure.add_subplot(inset[1]),
    )


def _draw_promises(axes: Any, played: Played) -> None:
    """List what was promised and what was found, each with a tick or a cross."""
    prepare(axes, "Promises, checked against the ground truth")
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
    axes.grid(False)
    listed = [
        (number, promise) for number, act in enumerate(played.acts, start=1) for promise in act.promises
    ]
    for row, (number, promise) in enumerate(listed):
        y = 1 - (row + 0.7) / (len(listed) + 0.4)
        paint = _KEPT if promise.kept else _BROKEN
        axes.text(
            0.012, y, "✓" if promise.kept else "✗", color=paint, fontsize=10, va="center", fontweight="bold"
        )
        axes.text(0.045, y, f"{number}  {promise.text}", color=INK, fontsize=8.5, va="center")
        axes.text(0.99, y, promise.found, color=paint, fontsize=8.5, va="center", ha="right")
