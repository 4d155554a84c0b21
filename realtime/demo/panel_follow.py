"""The first act as one sees it: the way of the cell through the sample, and its distance from the centre."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from ..report.figure import FAINT, GRID, INK, SERIES, contrast, draw_scale_bar, outlines, prepare
from .follow import RUNAWAY, WITHIN_UM, Followed, half_field_um, p95_last_half
from .panels import FOLLOWED, Crop, draw_strip, say

_STILLS = 5


def draw(act: Followed, image: Any, strip: list[Any], plot: Any) -> None:
    """Draw the act into its axes."""
    stills = np.linspace(0, len(act.cell_um) - 1, _STILLS).round().astype(int).tolist()
    _draw_way(act, image, stills)
    crops = [Crop(frame, act.take.centre_px, f"frame {frame}", frame_paint=FOLLOWED) for frame in stills]
    draw_strip(strip, act.take, crops, half_px=45)
    _draw_distance(act, plot)


def _draw_way(act: Followed, axes: Any, stills: list[int]) -> None:
    """Draw the fields that were seen where they lie in the sample, and the way of the cell over them."""
    take, half = act.take, half_field_um(act.take.microscope)
    axes.set_title(
        "the fields that were seen, and the way of the cell", color=INK, fontsize=11.5, loc="left", pad=6
    )
    for spine in axes.spines.values():
        spine.set_color(GRID)
    axes.set(xticks=[], yticks=[], facecolor="#05070a")
    for order, frame in enumerate(stills):
        x, y = act.stage_um[frame]
        extent = (x - half, x + half, y + half, y - half)
        axes.imshow(contrast(take.image(frame)), cmap="gray", vmin=0, vmax=1, extent=extent, zorder=order)
    first, last = act.stage_um[0], act.stage_um[-1]
    for centre, paint, style in ((first, FAINT, (0, (4, 3))), (last, FOLLOWED, "-")):
        corner = (centre[0] - half, centre[1] - half)
        axes.add_patch(
            Rectangle(
                corner,
                2 * half,
                2 * half,
                fill=False,
                edgecolor=paint,
                linestyle=style,
                linewidth=1.6,
                zorder=20,
            )
        )
    shadow = [withStroke(linewidth=4, foreground="#000000b0")]
    axes.plot(*act.cell_um.T, color=FOLLOWED, linewidth=1.8, zorder=21, path_effects=shadow)
    for frame in stills:
        for line in _outline(act, frame):
            axes.add_collection(LineCollection([line], colors=FOLLOWED, linewidths=1.6, zorder=22))
    reach = np.abs(act.stage_um - (first + last) / 2).max() + half * 1.04
    middle = (first + last) / 2
    axes.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] + reach, middle[1] - reach))
    axes.set_aspect("equal")
    left = np.flatnonzero(act.left_alone_um > half)
    said = [("field at the start", FAINT), (f"field at frame {len(act.cell_um) - 1}", FOLLOWED)]
    for row, (text, paint) in enumerate(said):
        say(axes, 0.02, 0.98 - 0.045 * row, text, paint, fontsize=10)
    if len(left):
        at = act.cell_um[left[0]]
        axes.plot(*at, "o", color=INK, markersize=5, zorder=23, path_effects=shadow)
        axes.annotate(
            f"  would have left at frame {left[0]}",
            at,
            color=INK,
            fontsize=9.5,
            zorder=24,
            path_effects=shadow,
        )
    draw_scale_bar(axes, 1.0)


def _outline(act: Followed, frame: int) -> list[NDArray[np.float64]]:
    """Return the followed cell's outline as it was found, in um of the sample; empty if it was not found."""
    take = act.take
    track = take.matches[frame].track_of.get(RUNAWAY)
    reply = next((reply for reply in take.replies if reply.sequence == frame), None)
    if track is None or reply is None:
        return []
    label = int(np.flatnonzero(reply.cells.track == track)[0]) + 1
    lines = outlines((take.labels(frame) == label).astype(np.int32))[0]
    return [
        (line - take.centre_px) * take.microscope.affine.pixel_size_um + act.stage_um[frame] for line in lines
    ]


def _draw_distance(act: Followed, axes: Any) -> None:
    prepare(axes, "Distance of the cell from the centre of the field", "frame", "µm")
    frames, half = np.arange(len(act.cell_um)), half_field_um(act.take.microscope)
    top = max(float(act.left_alone_um.max()), half) * 1.12
    axes.axhspan(half, top, color=GRID, alpha=0.7, zorder=0)
    axes.text(0.015 * frames[-1], 0.97 * top, "outside the field", color=FAINT, fontsize=9.5, va="top")
    axes.plot(frames, act.left_alone_um, color=SERIES[1], linewidth=2.2)
    axes.plot(frames, act.distance_um, color=FOLLOWED, linewidth=2.2)
    at = round(0.52 * len(frames))
    axes.text(
        at - 2, act.left_alone_um[at], "stage at rest", color=SERIES[1], fontsize=9.5, ha="right", va="bottom"
    )
    words = f"stage steered: {p95_last_half(act.distance_um):.1f} µm"
    axes.text(
        0.985 * frames[-1],
        WITHIN_UM + 0.03 * top,
        words,
        color=FOLLOWED,
        fontsize=9.5,
        ha="right",
        va="bottom",
    )
    axes.axhline(WITHIN_UM, color=FAINT, linestyle="--", linewidth=1)
    axes.set(ylim=(0, top), xlim=(0, frames[-1]))
