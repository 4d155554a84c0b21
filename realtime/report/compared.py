"""Draws found cells beside true ones on their image; needs matplotlib (the ``report`` extra)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ...acquire.frame import Pixels
from ...models.labels import numbered
from ...models.scores import match
from .figure import BACKGROUND, INK, LONGEST_DRAWN_PX, contrast, outlines

MATCHED_IOU = 0.5
_TRUE, _FOUND, _MISSED, _WRONG = "#77AADD", "#44BB99", "#FFEE55", "#EE8866"
_DPI = 120
_SHORTEST_IN = 5.0
_MARGIN_IN = 0.45


def draw_compared(
    title: str, pixels: Pixels, truth: NDArray[np.int32], found: NDArray[np.int32], target: Path
) -> None:
    """Draw an image with the outlines of its true and its found cells into a PNG file.

    Pairs of an IoU of 0.5 or more are drawn thin, true cells that were missed and found ones that are not true
    thick and in colours of their own.

    Parameters
    ----------
    title
        Above the image.
    pixels, truth, found
        (y, x) image and masks; 0 is background.
    target
        The file to write.
    """
    pairs = match(truth, found).at(MATCHED_IOU)
    height, width = pixels.shape
    scale = max(min(max(height, width), LONGEST_DRAWN_PX) / _DPI, _SHORTEST_IN) / max(height, width)
    size = width * scale, height * scale + 2 * _MARGIN_IN
    figure = Figure(figsize=size, dpi=_DPI, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, _MARGIN_IN / size[1], 1, 1 - 2 * _MARGIN_IN / size[1]))
    step = -(-max(height, width) // LONGEST_DRAWN_PX)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(contrast(pixels[::step, ::step]), cmap="gray", vmin=0, vmax=1, extent=extent)
    axes.set(xlim=extent[:2], ylim=extent[2:])
    axes.axis("off")
    handles: list[Line2D] = []
    for mask, matched, name, paint, alone, alone_paint in (
        (truth, pairs.truth, "true", _TRUE, "missed", _MISSED),
        (found, pairs.found, "found", _FOUND, "not true", _WRONG),
    ):
        thin, thick = _apart(mask, set(matched.tolist()))
        axes.add_collection(LineCollection(thin, colors=paint, linewidths=0.9))
        axes.add_collection(LineCollection(thick, colors=alone_paint, linewidths=1.9))
        handles += [Line2D([], [], color=paint, label=name), Line2D([], [], color=alone_paint, label=alone)]
    figure.text(0.02, 1 - _MARGIN_IN / 2 / size[1], title, color=INK, fontsize=10, va="center")
    figure.legend(handles=handles, loc="lower center", ncols=4, frameon=False, labelcolor=INK, fontsize=9)
    figure.savefig(target)


def _apart(
    mask: NDArray[np.int32], matched: Collection[int]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Return the outlines of the matched cells of a mask, and those of the others."""
    compact, numbers = numbered(mask)
    drawn = outlines(compact)
    thin: list[NDArray[np.float64]] = []
    thick: list[NDArray[np.float64]] = []
    for number, lines in zip(numbers.tolist(), drawn, strict=True):
        (thin if number in matched else thick).extend(lines)
    return thin, thick
