"""How a frame is explained: what the tracker has decided of it, before it is put into identities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..models.detections import Detections
from .alive import Alive
from .events import Event
from .scales import Scales

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """A frame, its links and its events.

    Attributes
    ----------
    detections, found
        The m detections, and they as tracks without a past.
    at_rest, alive
        The n tracks where they were last seen, with the shift of the field taken out, and where they are expected.
    scales
        What the movie had taught before.
    column_of, confidence, margin, gain
        (n,) the detection that each track is linked to, -1 for none; how likely the link is, its margin, and how
        much it explains.
    unlike, overlap
        (n,) distance of the appearance vectors and overlap of the masks of each link; NaN where nothing is known.
    events
        What links cannot explain; tracks and detections that take part are not linked, but for late divisions.
    drift_px
        (y, x) that the field has moved, beyond what the stage is known to have moved.
    at_border
        (n,) bool, tracks that are expected at the border.
    """

    detections: Detections
    found: Alive
    at_rest: Alive
    alive: Alive
    scales: Scales
    column_of: Ints
    confidence: Floats
    margin: Floats
    gain: Floats
    unlike: Floats
    overlap: Floats
    events: list[Event]
    drift_px: tuple[float, float]
    at_border: NDArray[np.bool_]
