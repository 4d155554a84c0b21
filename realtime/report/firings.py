"""Draws what rules decided: a line of time for each rule, and the cells that were meant."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..trial.firings import Crop, Firing
from .figure import BACKGROUND, FAINT, GRID, INK, SERIES, outlines, prepare

_COLUMNS = 6
_MEANT = "#FFEE55"
_WIDTH_IN, _CROP_IN, _ROW_IN = 13.0, 2.35, 0.42
_SMALL_IN = 2.0


def draw_firings(
    title: str,
    firings: Sequence[Firing],
    rules: Sequence[tuple[str, str]],
    frames: int,
    crops: Sequence[Crop],
    target: Path,
) -> None:
    """Draw into a PNG file.

    Parameters
    ----------
    title
        Stands above.
    firings
        What was decided.
    rules
        (file, rule) of each line, also of those that never fired.
    frames
        How many there were.
    crops
        Cells that were meant.
    target
        The file.
    """
    rows = -(-len(crops) // _COLUMNS)
    lines_in = 1.5 + _ROW_IN * max(len(rules), 1)
    height = 0.7 + lines_in + _CROP_IN * rows
    figure = Figure(figsize=(_WIDTH_IN, height), dpi=110, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    figure.text(0.02, 1 - 0.32 / height, title, color=INK, fontsize=15, fontweight="bold", va="center")
    bottom = (_CROP_IN * rows + 0.6) / height
    plot = figure.add_axes((0.19, bottom, 0.79, (lines_in - 0.85) / height))
    _draw_lines(plot, firings, rules, frames)
    for place, crop in enumerate(crops):
        row, column = divmod(place, _COLUMNS)
        left = 0.02 + column * 0.96 / _COLUMNS
        low = (_CROP_IN * (rows - 1 - row) + 0.08) / height
        axes = figure.add_axes((left, low, 0.93 / _COLUMNS, (_CROP_IN - 0.6) / height))
        draw_crop(axes, crop)
    figure.savefig(target)


def draw_one(crop: Crop, title: str, lines: Sequence[str], target: Path) -> None:
    """Draw one cell with words beside it into a PNG file."""
    height = max(4.2, 1.0 + 0.27 * len(lines))
    figure = Figure(figsize=(12.0, height), dpi=110, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    figure.text(0.02, 1 - 0.32 / height, title, color=INK, fontsize=14, fontweight="bold", va="center")
    draw_crop(figure.add_axes((0.02, 0.05, 0.3, 0.77)), crop)
    for place, line in enumerate(lines):
        y = 1 - (0.85 + 0.27 * place) / height
        figure.text(0.35, y, line, color=INK if line[:1] != " " else FAINT, fontsize=9.5, va="center")
    figure.savefig(target)


def crop_png(crop: Crop) -> bytes:
    """Return a small PNG file of the image around a cell, without words."""
    height, width = crop.image.shape
    scale = _SMALL_IN / max(height, width)
    figure = Figure(figsize=(width * scale, height * scale), dpi=100, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    draw_crop(figure.add_axes((0, 0, 1, 1)), crop)
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def draw_crop(axes: Any, crop: Crop) -> None:
    """Draw the image around a cell, the cell outlined."""
    low, high = np.percentile(crop.image, (0.5, 99.5)).tolist()
    axes.imshow(crop.image, cmap="gray", vmin=low, vmax=max(high, low + 1))
    if crop.labels is not None:
        others = np.unique(crop.labels[(crop.labels > 0) & (crop.labels != crop.label)]).tolist()
        for label in (*others, crop.label):
            lines = [line for found in outlines((crop.labels == label).astype(np.int32)) for line in found]
            paint, width = (_MEANT, 2.0) if label == crop.label else (FAINT, 0.8)
            axes.add_collection(LineCollection(lines, colors=paint, linewidths=width))
    elif crop.box is not None:
        x0, y0, x1, y1 = crop.box
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=_MEANT, linewidth=1.6))
    axes.set_title(crop.title, color=INK, fontsize=8.5, pad=4)
    height, width = crop.image.shape
    axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    for spine in axes.spines.values():
        spine.set_color(GRID)


def _draw_lines(axes: Any, firings: Sequence[Firing], rules: Sequence[tuple[str, str]], frames: int) -> None:
    prepare(axes, f"{len(firings)} firings; crosses were refused by the limits", "frame")
    several = len({file for file, _ in rules}) > 1
    for place, key in enumerate(rules):
        own = [each for each in firings if (each.file, each.rule) == key]
        passed = [each.sequence for each in own if not each.refused]
        refused = [each.sequence for each in own if each.refused]
        paint = SERIES[place % len(SERIES)]
        axes.plot(passed, [place] * len(passed), "|", color=paint, markersize=13, markeredgewidth=1.6)
        axes.plot(refused, [place] * len(refused), "x", color=paint, markersize=6)
    names = [f"{rule}\n({file})" if several else rule for file, rule in rules]
    axes.set_yticks(range(len(rules)), names)
    axes.set_xlim(-0.5, frames - 0.5)
    axes.set_ylim(len(rules) - 0.4, -0.6)
