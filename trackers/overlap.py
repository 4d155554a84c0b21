"""A tracker that links cells by the overlap of their masks. No motion model: steps must be short for the cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..acquire.reply import Division
from ..models.detections import Detections
from . import assignment, mask_overlaps
from .assignment import Edges, match
from .columns import Columns
from .mask_overlaps import Overlaps, overlaps_of
from .states import check_state
from .tracks import Ended, Tracks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.int32]

INSIDE = 0.3
"""The least share of a daughter's area that lies within her mother: when first seen they may have moved apart."""
ALIKE = 0.5
"""The smaller daughter has at least this share of the larger one's area."""


@dataclass(frozen=True, slots=True, eq=False)
class _Alive(Columns):
    """The n tracks that may go on, as columns; row i is label i + 1 of the mask that is remembered."""

    track: Ints
    parent: Ints
    age: NDArray[np.int32]
    missed: NDArray[np.int32]
    yx: Floats


class OverlapTracker:
    """Links cells by the assignment of greatest total IoU of their masks in successive frames.

    A cell divides where two cells of similar size lie within it, more than within any other, by a good part of
    their area and, together, fit it better than either alone. A missed cell is remembered where it was, as far as
    no other cell lies there now.
    Frames are compared as they are: stage moves and drift are not made up for.

    Parameters
    ----------
    min_iou
        The least IoU that may be linked, above 0 and at most 1.
    max_gap
        How many frames in a row a cell may be missed.
    divisions
        Whether cells may divide.
    """

    needs_masks = True
    """The journal keeps the masks, from which the state is restored."""

    def __init__(self, *, min_iou: float = 0.1, max_gap: int = 1, divisions: bool = True) -> None:
        if not 0 < min_iou <= 1:
            raise ValueError(f"min_iou must be above 0 and at most 1, got {min_iou}")
        if max_gap < 0:
            raise ValueError(f"max_gap must be 0 or more, got {max_gap}")
        self._min_iou, self._max_gap, self._divide = min_iou, max_gap, divisions
        assignment.warm_up()
        mask_overlaps.warm_up()
        self._mask = np.zeros((0, 0), np.int32)
        none = np.empty(0, np.int64)
        self._alive = _Alive(none, none, none.astype(np.int32), none.astype(np.int32), np.empty((0, 2)))
        self._next = 1

    def update(self, detections: Detections) -> Tracks:
        """Take the next frame's detections and return their identities; confidence is the IoU of the link.

        Raises
        ------
        ValueError
            If the detections hold no mask.
        """
        if detections.mask is None:
            raise ValueError("the tracker 'overlap' compares masks, but Detections.mask is None")
        alive = self._alive
        overlaps = overlaps_of(self._mask, detections.mask, len(alive), len(detections))
        iou = overlaps.iou
        triples = _divisions(overlaps, iou) if self._divide else np.empty((0, 3), np.int64)
        gains = np.where(iou >= self._min_iou, iou, -np.inf)
        gains[np.isin(overlaps.rows, triples[:, 0]) | np.isin(overlaps.columns, triples[:, 1:])] = -np.inf
        edges = Edges.of(overlaps.rows, overlaps.columns, (len(alive), len(detections)))
        matching = match(edges, gains)
        linked = np.flatnonzero(matching.column_of >= 0)
        return self._commit(
            detections, overlaps, linked, matching.column_of[linked], iou[matching.edge_of[linked]], triples
        )

    def _commit(
        self,
        detections: Detections,
        overlaps: Overlaps,
        linked: Ints,
        columns: Ints,
        iou: Floats,
        triples: Ints,
    ) -> Tracks:
        alive, n = self._alive, len(detections)
        track, parent, age = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int32)
        velocity, confidence = np.zeros((n, 2)), np.ones(n)
        frames = 1 + alive.missed[linked]
        track[columns], parent[columns] = alive.track[linked], alive.parent[linked]
        age[columns] = alive.age[linked] + frames
        velocity[columns] = (detections.yx[columns] - alive.yx[linked]) / frames[:, np.newaxis]
        confidence[columns] = iou
        new = np.flatnonzero(track == 0)
        track[new] = self._next + np.arange(len(new))
        self._next += len(new)
        mothers = alive.track[triples[:, 0]]
        parent[triples[:, 1:]] = mothers[:, np.newaxis]
        lost = np.setdiff1d(np.arange(len(alive)), np.concatenate([linked, triples[:, 0]]))
        now = _Alive(track, parent, age, np.zeros(n, np.int32), detections.yx)
        given_up = self._remember(now, lost, overlaps, detections)
        variance = detections.area / (4 * np.pi)  # of half a radius: steps are shorter than cells are wide
        return Tracks(
            detections=detections,
            track=track,
            parent=parent,
            age=age,
            velocity=velocity,
            covariance=np.stack([variance, variance, np.zeros(n)], axis=1),
            confidence=confidence,
            divisions=tuple(
                Division(mother, (int(track[one]), int(track[other])))
                for mother, (_, one, other) in zip(mothers.tolist(), triples.tolist(), strict=True)
            ),
            ended=(
                *(Ended(mother, "division") for mother in mothers.tolist()),
                *(Ended(each) for each in alive.track[given_up].tolist()),
            ),
        )

    def _remember(self, now: _Alive, lost: Ints, overlaps: Overlaps, detections: Detections) -> Ints:
        """Keep the frame, with lost cells where it is empty; return the rows of those that are given up."""
        assert detections.mask is not None
        alive, mask = self._alive, detections.mask
        covered = np.bincount(overlaps.rows, overlaps.px, minlength=len(alive))
        waits = (alive.missed[lost] < self._max_gap) & (covered[lost] < overlaps.before[lost])
        kept, given_up = lost[waits], lost[~waits]
        if len(kept):
            number = np.zeros(len(alive) + 1, np.int32)
            number[kept + 1] = len(now) + 1 + np.arange(len(kept))
            mask = np.where(mask > 0, mask, number[self._mask])
        waiting = alive.take(kept)
        self._alive = now.joined(replace(waiting, missed=waiting.missed + 1))
        self._mask = mask
        return given_up

    def state(self) -> dict[str, Any]:
        """Return the mask and the tracks that may go on."""
        alive = {name: getattr(self._alive, name) for name in _Alive.__slots__}
        return {"tracker": "overlap", "next": self._next, "mask": self._mask, **alive}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        own = self.state()
        check_state(state, own)
        self._next, self._mask = int(state["next"]), np.array(state["mask"], np.int32)
        self._alive = _Alive(*(np.array(state[name], own[name].dtype) for name in _Alive.__slots__))


def _divisions(overlaps: Overlaps, iou: Floats) -> Ints:
    """Return (d, 3) mother row and daughter columns of the cells that have become two."""
    # Each cell within the one that it shares most px with, of several the first.
    order = np.lexsort((overlaps.rows, -overlaps.px, overlaps.columns))
    columns = overlaps.columns[order]
    within = order[np.diff(columns, prepend=-1) != 0]
    within = within[overlaps.px[within] >= INSIDE * overlaps.now[overlaps.columns[within]]]
    # The two of each mother that share most px with her follow each other.
    within = within[np.lexsort((overlaps.columns[within], -overlaps.px[within], overlaps.rows[within]))]
    rows = overlaps.rows[within]
    first = np.flatnonzero((rows[:-1] == rows[1:]) & (np.diff(rows, prepend=-1)[:-1] != 0))
    one, other = within[first], within[first + 1]
    a, b = overlaps.now[overlaps.columns[one]], overlaps.now[overlaps.columns[other]]
    shared = overlaps.px[one] + overlaps.px[other]
    together = shared / (overlaps.before[overlaps.rows[one]] + a + b - shared)
    better = together > np.maximum(iou[one], iou[other])
    divided = better & (np.minimum(a, b) >= ALIKE * np.maximum(a, b))
    pairs = np.stack([overlaps.columns[one], overlaps.columns[other]], axis=1)
    return np.column_stack([overlaps.rows[one], np.sort(pairs, axis=1)])[divided]
