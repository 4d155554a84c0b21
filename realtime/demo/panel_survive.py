"""The third act as one sees it: identities that outlive the engine, and no frame missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..report import Mark, Picture
from ..report_figure import FAINT, INK, SERIES, draw_picture, prepare
from .follow import RUNAWAY
from .panels import FAULT, FOLLOWED, Crop, draw_strip
from .survive import Survived


def draw(act: Survived, image: Any, strip: list[Any], plot: Any) -> None:
    """Draw the act into its axes."""
    draw_picture(image, _picture(act))
    _draw_stills(act, strip)
    _draw_timeline(act, plot)


def _picture(act: Survived) -> Picture:
    take = act.take
    frame = len(take.matches) - 1
    cells = next(reply.cells for reply in take.replies if reply.sequence == frame)
    row = np.flatnonzero(cells.track == take.matches[frame].track_of.get(RUNAWAY, -1))
    marks = [Mark("move_stage", float(cells.x_px[i]), float(cells.y_px[i])) for i in row]
    return Picture(
        f"frame {frame}: after {len(act.faults)} faults, the same identities",
        take.image(frame),
        take.labels(frame),
        cells,
        take.tails(frame),
        marks,
        take.microscope.affine.pixel_size_um,
    )


def _draw_stills(act: Survived, strip: list[Any]) -> None:
    """Draw the field just before and just after each fault, and at the end."""
    take, last = act.take, len(act.take.matches) - 1
    moments = [(frame, text) for fault in act.faults for frame, text in _around(act, fault.frame, fault.kind)]
    moments = [*moments[:4], (last, "end")]
    crops = [
        Crop(frame, take.centre_px, text, FAULT if text.startswith("during") else INK,
             FAULT if text.startswith("during") else FOLLOWED)
        for frame, text in moments
    ]  # fmt: skip
    draw_strip(strip, take, crops, half_px=75)


def _around(act: Survived, frame: int, kind: str) -> list[tuple[int, str]]:
    """Return a frame in the middle of an outage and one soon after it."""
    fault = next(fault for fault in act.faults if fault.frame == frame)
    end_s = fault.at_s + fault.recovery_ms / 1000
    missed = np.flatnonzero((act.acquired_s > fault.at_s) & (act.acquired_s < end_s))
    during = int(missed[-1]) if len(missed) else frame
    after = min(int(np.searchsorted(act.acquired_s, end_s)) + 4, len(act.acquired_s) - 1)
    return [(during, f"during the {kind}"), (after, "after")]


def _draw_timeline(act: Survived, axes: Any) -> None:
    prepare(axes, "Frames acquired and decided", "s", "frames")
    order = np.arange(1, len(act.acquired_s) + 1)
    for fault in act.faults:
        axes.axvspan(fault.at_s, fault.at_s + fault.recovery_ms / 1000, color=FAULT, alpha=0.22, linewidth=0)
        axes.axvline(fault.at_s, color=FAULT, linewidth=1.4)
        axes.text(fault.at_s - 0.1, len(order) * 0.97, f"{fault.kind}\n{fault.recovery_ms:.0f} ms",
                  color=FAULT, fontsize=9, va="top", ha="right")  # fmt: skip
    axes.step(act.acquired_s, order, where="post", color=FAINT, linewidth=2.6, label="acquired")
    axes.step(act.decided_s, order, where="post", color=SERIES[3], linewidth=1.6, label="decided")
    axes.set(xlim=(0, None), ylim=(0, len(order) * 1.04))
    axes.legend(loc="lower right", fontsize=9, frameon=False, labelcolor=INK)
