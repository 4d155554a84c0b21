"""What the panels of the three acts share: film strips, shading, words on an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from ..report.figure import BACKGROUND, GRID, INK, colour, outlines
from .record import Take

FOLLOWED, LIGHT, FAULT = "#55E6FF", "#FFEE55", "#FF6E6E"
SHOWN = 0.66


@dataclass(frozen=True, slots=True)
class Crop:
    """One small image of a film strip.

    Attributes
    ----------
    frame, at_px
        Which frame, and the (x, y) in px that it is centred on.
    text, paint
        Words in its corner, and their colour.
    frame_paint
        Colour of its frame.
    """

    frame: int
    at_px: tuple[float, float]
    text: str
    paint: str = INK
    frame_paint: str = GRID


def part_of(take: Take, middle: tuple[float, float]) -> tuple[float, float, float, float]:
    """Return the part of the image around a point, x0, y0, x1, y1 in px, that a panel shows: cells are larger in it."""
    height, width = take.microscope.camera.shape
    side = SHOWN * min(height, width)
    x0 = min(max(middle[0] - side / 2, 0.0), width - side) - 0.5
    y0 = min(max(middle[1] - side / 2, 0.0), height - side) - 0.5
    return x0, y0, x0 + side, y0 + side


def draw_strip(axes: Sequence[Any], take: Take, crops: Sequence[Crop], half_px: int) -> None:
    """Draw crops beside each other, all with the same contrast, outlined in the colours of their identities.

    A frame whose answer was lost has no identities, and no outlines.
    """
    images = [_cut(take.image(crop.frame), crop.at_px, half_px) for crop in crops]
    stack = np.stack(images)
    low, high = np.percentile(stack, 20), np.percentile(stack, 99.8)
    cells_of = {reply.sequence: reply.cells for reply in take.replies}
    for place, crop, image in zip(axes, crops, images, strict=True):
        shown = np.clip((image - low) / max(high - low, 1.0), 0, 1) ** 0.7
        place.imshow(shown, cmap="gray", vmin=0, vmax=1)
        labels = _cut(take.labels(crop.frame), crop.at_px, half_px)
        tracks = cells_of[crop.frame].track if crop.frame in cells_of else np.empty(0, np.int64)
        for label in np.unique(labels[(labels > 0) & (labels <= len(tracks))]).tolist():
            lines = outlines((labels == label).astype(np.int32))[0]
            track = int(tracks[label - 1])
            place.add_collection(LineCollection(lines, colors=colour(track), linewidths=1.2))
            rows, columns = np.nonzero(labels == label)
            x, y = columns.mean(), rows.max()
            if max(abs(x - half_px), abs(y - half_px)) < 0.75 * half_px:
                place.text(x, y + 0.06 * half_px, str(track), color=colour(track), fontsize=7, ha="center", va="top",
                           path_effects=[withStroke(linewidth=2, foreground=BACKGROUND)])  # fmt: skip
        place.set(xticks=[], yticks=[], xlim=(-0.5, 2 * half_px - 0.5), ylim=(2 * half_px - 0.5, -0.5))
        for spine in place.spines.values():
            spine.set(color=crop.frame_paint, linewidth=1.4)
        say(place, 0.05, 0.94, crop.text, crop.paint)


def _cut(image: NDArray[Any], at_px: tuple[float, float], half_px: int) -> NDArray[Any]:
    """Return a square around a point, dark beyond the image's edge."""
    x, y = round(at_px[0]), round(at_px[1])
    padded = np.pad(image, half_px, constant_values=0 if image.dtype == np.int32 else int(image.min()))
    height, width = image.shape
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    return padded[y : y + 2 * half_px, x : x + 2 * half_px]


def say(axes: Any, x: float, y: float, text: str, paint: str = INK, **style: Any) -> None:
    """Write on an image at a fraction of its width and height, legible on any ground."""
    outline = [withStroke(linewidth=2.6, foreground=BACKGROUND)]
    style = {"fontsize": 8.5, "fontweight": "bold", "ha": "left", "va": "top"} | style
    axes.text(x, y, text, color=paint, transform=axes.transAxes, path_effects=outline, **style)
