"""Draws a training: how it went, and what the net found before and after; needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ...models.scores import match, pool
from ...models.training.folder import Annotated, Mask
from ...models.training.loop import History
from ...models.training.validate import Judged, mean_ap
from .compared import MATCHED_IOU
from .figure import BACKGROUND, FAINT, INK, SERIES, contrast, outlines, prepare

MOST_IMAGES = 6
SHORTEST_SHOWN_PX, LONGEST_SHOWN_PX, MARGIN_PX = 160, 512, 24
_TRUE, _RIGHT, _WRONG = "#77AADD", "#44BB99", "#EE8866"
_DPI = 120


def draw_training(
    history: History, before: Sequence[Judged], after: Sequence[Judged], folder: Path
) -> list[Path]:
    """Draw the curve of learning, the scores, and the images that changed most; return the files.

    Parameters
    ----------
    history
        What happened at the checks.
    before, after
        Of the same images; ``before`` may be empty.
    folder
        Where to write ``learning.png``, ``scores.png`` and ``held_out_NAME.png``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "learning.png", folder / "scores.png"]
    draw_learning(history, before, files[0])
    draw_scores(before, after, files[1])
    for position in _most_changed(before, after):
        name = after[position].image.name.replace("/", "_").replace("\\", "_")
        files.append(folder / f"held_out_{name}.png")
        draw_side_by_side(before[position] if before else None, after[position], files[-1])
    return files


def draw_learning(history: History, before: Sequence[Judged], target: Path) -> None:
    """Draw loss, and the AP of images held out if they were judged on the way, against the steps."""
    figure = _figure(9.0, 4.0)
    axes = figure.subplots(1, 2 if history.score else 1, squeeze=False)[0]
    prepare(axes[0], "loss", "step")
    axes[0].plot(*zip(*history.loss, strict=True), color=SERIES[0], marker="o", markersize=3)
    if history.score:
        prepare(axes[1], "mean AP of images held out, IoU 0.5 to 0.9", "step")
        axes[1].plot(*zip(*history.score, strict=True), color=SERIES[3], marker="o", markersize=3)
        axes[1].plot(*history.best, color=SERIES[2], marker="*", markersize=12, linestyle="none")
        if before:
            axes[1].axhline(mean_ap(before), color=FAINT, linestyle="--")
            axes[1].annotate("before", (0.01, mean_ap(before)), xycoords=("axes fraction", "data"), color=INK)
        axes[1].set_ylim(0, 1)
    figure.tight_layout()
    figure.savefig(target)


def draw_scores(before: Sequence[Judged], after: Sequence[Judged], target: Path) -> None:
    """Draw AP and F1 before and after against the IoU from which a pair counts."""
    figure = _figure(9.0, 4.0)
    for axes, name in zip(figure.subplots(1, 2), ("AP", "F1"), strict=True):
        prepare(axes, f"{name} of images held out", "IoU from which a cell counts as found")
        for judged, label, paint in ((before, "before", SERIES[1]), (after, "after", SERIES[3])):
            if judged:
                whole = pool(one.scores for one in judged)
                values = whole.ap if name == "AP" else whole.f1
                axes.plot(
                    list(values), list(values.values()), color=paint, marker="o", markersize=3, label=label
                )
        axes.set_ylim(0, 1)
        axes.legend(frameon=False, labelcolor=INK)
    figure.tight_layout()
    figure.savefig(target)


def draw_side_by_side(before: Judged | None, after: Judged, target: Path) -> None:
    """Draw an image, its true cells, and what was found before and after, where most cells are."""
    shown = crowded_part(after.image.mask)
    image = contrast(after.image.image[shown])
    panels: list[tuple[str, Mask | None]] = [("image", None), ("drawn by hand", after.image.mask)]
    if before is not None:
        panels.append((_told("before", before), before.found))
    panels.append((_told("after", after), after.found))
    height, width = image.shape
    side = 4.2
    figure = _figure(side * len(panels), side * height / width + 0.35)
    for axes, (title, mask) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        axes.axis("off")
        axes.set_title(title, color=INK, fontsize=10)
        if mask is not None:
            for lines, paint in _outlines(after.image, mask, shown):
                axes.add_collection(LineCollection(lines, colors=paint, linewidths=1.1))
    figure.tight_layout(pad=0.4)
    figure.savefig(target)


def crowded_part(mask: Mask) -> tuple[slice, slice]:
    """Return a part of an image, at most 512 px wide and high, with its middle among the cells of the mask."""
    cuts: list[slice] = []
    for length, at in zip(mask.shape, np.nonzero(mask), strict=True):
        size = int(
            np.clip(np.ptp(at) + 2 * MARGIN_PX, min(length, SHORTEST_SHOWN_PX), min(length, LONGEST_SHOWN_PX))
        )
        start = int(np.clip(np.median(at) - size / 2, 0, length - size))
        cuts.append(slice(start, start + size))
    return cuts[0], cuts[1]


def _outlines(image: Annotated, mask: Mask, shown: tuple[slice, slice]) -> list[tuple[list[Any], str]]:
    """Return the outlines of a mask: one colour for true cells, two for those found, right and wrong."""
    drawn = outlines(mask)
    if mask is image.mask:
        groups = [(range(1, len(drawn) + 1), _TRUE)]
    else:
        right = set(match(image.mask, mask).at(MATCHED_IOU).found.tolist())
        wrong = set(range(1, len(drawn) + 1)) - right
        groups = [(right, _RIGHT), (wrong, _WRONG)]
    corner = np.array([shown[1].start, shown[0].start])
    return [
        ([line - corner for n in sorted(numbers) for line in drawn[n - 1]], paint)
        for numbers, paint in groups
    ]


def _told(when: str, judged: Judged) -> str:
    scores = judged.scores
    return f"{when}: {scores.matched[0]} of {scores.cells_true} found, {scores.cells_found - scores.matched[0]} wrong"


def _most_changed(before: Sequence[Judged], after: Sequence[Judged]) -> list[int]:
    """Return positions of the images whose AP changed most, falling; the first ones without a before."""
    if not before:
        return list(range(min(len(after), MOST_IMAGES)))
    change = [abs(mean_ap([a]) - mean_ap([b])) for a, b in zip(after, before, strict=True)]
    return [int(p) for p in np.argsort(change, kind="stable")[::-1][:MOST_IMAGES]]


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    return figure
