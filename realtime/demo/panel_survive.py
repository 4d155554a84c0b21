"""The third act as one sees it: identities that outlive the engine, and no frame missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..report.contents import Mark, Picture
from ..report.figure import FAINT, INK, SERIES, draw_picture, prepare
from .follow import RUNAWAY
from .panels import FAULT, Crop, draw_strip, part_of
from .survive import Fault, Survived

_SOON = 6


def draw(act: Survived, image: Any, strip: list[Any], plot: Any) -> None:
    """Draw the act into its axes."""
    draw_picture(image, _picture(act))
    _draw_stills(act, strip)
    _draw_timeline(act, plot)


def _picture(act: Survived) -> Picture:
    take = act.take
    reply = max(take.replies, key=lambda reply: reply.sequence)  # the last frame, unless its answer was lost
    frame, cells = reply.sequence, reply.cells
    row = np.flatnonzero(cells.track == take.matches[frame].track_of.get(RUNAWAY, -1))
    marks = [Mark("move_stage", float(cells.x_px[i]), float(cells.y_px[i])) for i in row]
    return Picture(
        f"frame {frame}, identities as before the faults",
        take.image(frame),
        take.labels(frame),
        cells,
        take.tails(frame),
        marks,
        take.microscope.affine.pixel_size_um,
        part_of(take, take.centre_px),
    )


def _draw_stills(act: Survived, strip: list[Any]) -> None:
    """Draw the middle of the field while the engine is away and soon after, and at the end."""
    take, last = act.take, len(act.take.matches) - 1
    crops: list[Crop] = []
    for fault in act.faults[:2]:
        during, after = _around(act, fault)
        crops.append(Crop(during, take.centre_px, _signed(fault.kind), FAULT, FAULT))
        crops.append(Crop(after, take.centre_px, "back"))
    draw_strip(strip, take, [*crops, Crop(last, take.centre_px, "end")], half_px=64)


def _around(act: Survived, fault: Fault) -> tuple[int, int]:
    """Return the last frame that was taken during an outage, and one soon after it."""
    end_s = fault.at_s + fault.recovery_ms / 1000
    missed = np.flatnonzero((act.acquired_s > fault.at_s) & (act.acquired_s < end_s))
    during = int(missed[-1]) if len(missed) else fault.frame
    return during, min(during + _SOON, len(act.acquired_s) - 1)


def _signed(kind: str) -> str:
    return kind.replace("-", "−")


def _draw_timeline(act: Survived, axes: Any) -> None:
    prepare(axes, "No frame is lost while the engine is away", "s", "frames")
    order = np.arange(1, len(act.acquired_s) + 1)
    for fault in act.faults:
        end_s = fault.at_s + np.nan_to_num(fault.recovery_ms, nan=0.0) / 1000
        axes.axvspan(fault.at_s, end_s, color=FAULT, alpha=0.22, linewidth=0)
        axes.axvline(fault.at_s, color=FAULT, linewidth=1.4)
        axes.text(fault.at_s - 0.15, len(order) * 0.98, f"{_signed(fault.kind)}\nback in\n{fault.recovery_ms:.0f} ms",
                  color=FAULT, fontsize=9, va="top", ha="right")  # fmt: skip
    axes.step(act.acquired_s, order, where="post", color=FAINT, linewidth=3, label="acquired")
    axes.step(act.decided_s, order, where="post", color=SERIES[3], linewidth=1.7, label="decided")
    axes.set(xlim=(act.acquired_s[1] - 0.4, None), ylim=(0, len(order) * 1.04))
    axes.legend(loc="lower right", fontsize=9.5, frameon=False, labelcolor=INK)
