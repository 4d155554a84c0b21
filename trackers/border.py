"""What comes and goes: cells that end or begin, anywhere in the field and at its border."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..models.detections import Detections
from .alive import Alive
from .scales import Scales

Floats = NDArray[np.float64]

END = 0.02
"""Probability that a cell is gone or missed in the next frame."""
RAREST = 0.004
"""Share of cells that end, and that come from nowhere, in a frame, however few have been seen to."""
MISSED_AGAIN = 0.5
"""How likely a missed cell is back in the next frame, against one that was seen."""
FADING, FADED = float(np.log(0.6)), -20.0
"""A cell that has shrunk to this before it is missed leaves the focus or dies: log of the odds that it comes back."""
BORDER_ENDS, BORDER_CAME = 0.15, 5.0
"""Probability that a cell at the border is gone in the next frame; how many times as many come there."""


@dataclass(frozen=True, slots=True, eq=False)
class Border:
    """What the border of the field means: cells come and go there.

    Attributes
    ----------
    near
        (n,) bool, tracks that are expected at the border.
    stays
        (n,) log of the odds that a track goes on and is seen.
    goes, comes
        (n,), (m,) log density in 1/px^d of cells that end, or that come from nowhere, at each track and detection.
    """

    near: NDArray[np.bool_]
    stays: Floats
    goes: Floats
    comes: Floats

    @staticmethod
    def of(alive: Alive, found: Alive, scales: Scales, detections: Detections) -> Border:
        """Return it for a frame."""
        shape = np.array(detections.shape, float)
        depth = 1.0
        if detections.z is not None and len(found):
            depth = max(float(np.ptp(found.place[:, 0])), 2 * float(np.median(found.radius)))
        near = [_at_border(each, shape, scales) for each in (alive, found)]
        ends = np.where(near[0], BORDER_ENDS, max(scales.ended, RAREST))
        fading = (alive.missed > 0) & (alive.area - alive.usual_area < FADING)
        stays = np.log((1 - ends) / ends) + np.log(MISSED_AGAIN) * alive.missed + np.where(fading, FADED, 0.0)
        per_px = max(max(scales.came, RAREST) * max(len(alive), len(found)), 0.5) / (shape.prod() * depth)
        goes, comes = (np.log(per_px * np.where(at, BORDER_CAME, 1.0)) for at in near)
        return Border(near[0], stays, goes, comes)


def _at_border(cells: Alive, shape: Floats, scales: Scales) -> NDArray[np.bool_]:
    y, x = cells.place[:, -2:].T
    inside = np.minimum(np.minimum(y, shape[0] - 1 - y), np.minimum(x, shape[1] - 1 - x))
    return inside < cells.radius + 2 * scales.step_px
