"""How a frame is explained: what the tracker has decided of it, before it is put into identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..models.detections import Detections
from .alive import Alive
from .assignment import Matching, link_probabilities, margins, match
from .events import Event
from .links import Possible
from .scales import Scales

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROUNDS = 4
"""Rounds of messages for the probabilities of links: more change them in the fourth decimal."""


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The links of n tracks.

    Attributes
    ----------
    column_of
        (n,) the detection that each is linked to, -1 for none.
    confidence, margin, gain
        (n,) how likely the link is, by how much it beats the best other explanation, and how much it explains.
    unlike, overlap
        (n,) distance of the appearance vectors and overlap of the masks of each link; NaN where nothing is known.
    """

    column_of: Ints
    confidence: Floats
    margin: Floats
    gain: Floats
    unlike: Floats
    overlap: Floats

    @staticmethod
    def of(possible: Possible, events: Sequence[Event], first: Matching) -> Chosen:
        """Return the best links of what takes no part in events; ``first`` is the matching as if there were none."""
        edges, gains, matching = possible.edges, possible.gains, first
        apart = [event for event in events if event.kind != "late"]
        if apart:
            row_left, column_left = np.ones(edges.shape[0], bool), np.ones(edges.shape[1], bool)
            row_left[[row for event in apart for row in event.rows]] = False
            column_left[[column for event in apart for column in event.columns]] = False
            gains = np.where(row_left[edges.row] & column_left[edges.column], gains, -np.inf)
            matching = match(edges, gains)
        linked = np.flatnonzero(matching.edge_of >= 0)
        chosen = matching.edge_of[linked]
        probable = link_probabilities(edges.row, edges.column, possible.gains, edges.shape, rounds=ROUNDS)
        confidence, gain = np.zeros((2, edges.shape[0]))
        unlike, overlap = np.full((2, edges.shape[0]), np.nan)
        confidence[linked], gain[linked] = probable[chosen], gains[chosen]
        unlike[linked], overlap[linked] = possible.unlike[chosen], possible.overlap[chosen]
        return Chosen(matching.column_of, confidence, margins(edges, gains, matching), gain, unlike, overlap)


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
    links
        Those of the tracks.
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
    links: Chosen
    events: list[Event]
    drift_px: tuple[float, float]
    at_border: NDArray[np.bool_]
