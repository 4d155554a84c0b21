"""SORT (Bewley et al. 2016, doi 10.1109/ICIP.2016.7533003): bounding boxes, constant velocity, IoU. No divisions.

The state of a track is its box's centre, area and width over height, and how fast all but the last change. In the
published filter the four do not mix, so that it is four filters of one or two numbers each, for all tracks at once.
Unlike there every cell has an identity from its first frame on, and links below the least IoU are left out before
the assignment and not after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.detections import Detections
from . import assignment, gate
from .assignment import Edges, match
from .columns import Columns
from .gate import near_pairs
from .states import check_state
from .tracks import Ended, Tracks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# As published, for y, x, area, shape: variance of a measurement, of the first state and its speed, and what is
# added in each frame. The shape has no speed.
MEASURED = np.array([1.0, 1.0, 10.0, 10.0])
FIRST = np.full(4, 10.0)
FIRST_SPEED = np.array([1e4, 1e4, 1e4, 0.0])
ADDED = np.ones(4)
ADDED_SPEED = np.array([0.01, 0.01, 1e-4, 0.0])


@dataclass(frozen=True, slots=True, eq=False)
class _Alive(Columns):
    """The n tracks that may go on, as columns; (n, 4) are of y, x, area and shape.

    ``spread``, ``mixed`` and ``spread_speed`` are the covariance of place and speed of each.
    """

    track: Ints
    age: NDArray[np.int32]
    missed: NDArray[np.int32]
    place: Floats
    speed: Floats
    spread: Floats
    mixed: Floats
    spread_speed: Floats

    @staticmethod
    def beginning(track: Ints, measured: Floats) -> _Alive:
        n = len(track)
        none = np.zeros(n, np.int32)
        first, speed = np.tile(FIRST, (n, 1)), np.tile(FIRST_SPEED, (n, 1))
        still = np.zeros((n, 4))
        return _Alive(track, none, none, measured, still, first, still, speed)

    def one_frame_on(self) -> _Alive:
        """Return the tracks as they are expected in the next frame."""
        speed = self.speed.copy()
        speed[:, 2] = np.where(self.place[:, 2] + speed[:, 2] <= 0, 0.0, speed[:, 2])  # no box vanishes
        return _Alive(
            self.track,
            self.age + 1,
            self.missed + 1,
            self.place + speed,
            speed,
            self.spread + 2 * self.mixed + self.spread_speed + ADDED,
            self.mixed + self.spread_speed,
            self.spread_speed + ADDED_SPEED,
        )

    def corrected(self, measured: Floats) -> _Alive:
        """Return the tracks after a measurement of each, (n, 4)."""
        surprise, total = measured - self.place, self.spread + MEASURED
        gain, gain_speed = self.spread / total, self.mixed / total
        return _Alive(
            self.track,
            self.age,
            np.zeros_like(self.missed),
            self.place + gain * surprise,
            self.speed + gain_speed * surprise,
            (1 - gain) * self.spread,
            (1 - gain) * self.mixed,
            self.spread_speed - gain_speed * self.mixed,
        )


class SortTracker:
    """Links cells by the assignment of greatest total IoU of their boxes with those that were expected.

    Parameters
    ----------
    min_iou
        The least IoU that may be linked, above 0 and below 1; 0.3 as published.
    max_gap
        How many frames in a row a cell may be missed; 1 as published (there ``max_age``).
    """

    def __init__(self, *, min_iou: float = 0.3, max_gap: int = 1) -> None:
        if not 0 < min_iou < 1:
            raise ValueError(f"min_iou must be above 0 and below 1, got {min_iou}")
        if max_gap < 0:
            raise ValueError(f"max_gap must be 0 or more, got {max_gap}")
        self._min_iou, self._max_gap = min_iou, max_gap
        assignment.warm_up()
        gate.warm_up()
        self._alive = _Alive.beginning(np.empty(0, np.int64), np.empty((0, 4)))
        self._next = 1

    def update(self, detections: Detections) -> Tracks:
        """Take the next frame's detections and return their identities; confidence is the IoU of the link."""
        n = len(detections)
        boxes = detections.bbox.astype(np.float64)
        measured = _states_of(boxes)
        alive = self._alive.one_frame_on()
        rows, columns, iou = _overlapping(_boxes_of(alive.place), boxes, self._min_iou)
        matching = match(Edges.of(rows, columns, (len(alive), n)), iou)
        linked = np.flatnonzero(matching.column_of >= 0)
        found, confidence = matching.column_of[linked], np.ones(n)
        confidence[found] = iou[matching.edge_of[linked]]
        new = np.setdiff1d(np.arange(n), found)
        born = _Alive.beginning(self._next + np.arange(len(new)), measured[new])
        self._next += len(new)
        # Back into the order of the detections.
        now = alive.take(linked).corrected(measured[found]).joined(born)
        now = now.take(np.argsort(np.concatenate([found, new])))
        missing = matching.column_of < 0
        self._alive = now.joined(alive.take(missing & (alive.missed <= self._max_gap)))
        over = alive.track[missing & (alive.missed > self._max_gap)]
        spread = (now.spread + 2 * now.mixed + now.spread_speed + ADDED)[:, :2]
        return Tracks(
            detections=detections,
            track=now.track,
            parent=np.zeros(n, np.int64),
            age=now.age,
            velocity=now.speed[:, :2],
            covariance=np.column_stack([spread, np.zeros(n)]),
            confidence=confidence,
            ended=tuple(map(Ended, over.tolist())),
        )

    def state(self) -> dict[str, Any]:
        """Return the tracks that may go on."""
        alive = {name: getattr(self._alive, name) for name in _Alive.__slots__}
        return {"tracker": "sort", "next": self._next, **alive}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        own = self.state()
        check_state(state, own)
        self._next = int(state["next"])
        self._alive = _Alive(*(np.array(state[name], own[name].dtype) for name in _Alive.__slots__))


def _states_of(boxes: Floats) -> Floats:
    """Return (n, 4) centre y and x, area and width over height of (n, 4) boxes y0, x0, y1, x1."""
    height, width = (np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-9)).T
    return np.column_stack([(boxes[:, :2] + boxes[:, 2:]) / 2, height * width, width / height])


def _boxes_of(states: Floats) -> Floats:
    area, shape = np.maximum(states[:, 2:], 1e-9).T
    width = np.sqrt(area * shape)
    half = np.stack([area / width, width], axis=1) / 2
    return np.concatenate([states[:, :2] - half, states[:, :2] + half], axis=1)


def _overlapping(one: Floats, other: Floats, least: float) -> tuple[Ints, Ints, Floats]:
    """Return the pairs of boxes with at least this IoU, sorted by the first, then by the second, and their IoU.

    Boxes are compared with those of about their size only, so that a few large ones, whose reach is wide, do not
    pair all the small ones with each other.
    """
    sizes_one, sizes_other = _octaves(one), _octaves(other)
    # Sides that differ by more than 1 / least, or centres that are further apart, leave less than that IoU.
    apart = int(np.ceil(-np.log2(least)))
    middles_one, middles_other = ((each[:, :2] + each[:, 2:]) / 2 for each in (one, other))
    rows: list[Ints] = [np.empty(0, np.int64)]
    columns: list[Ints] = [np.empty(0, np.int64)]
    for octave in np.unique(sizes_one).tolist():
        here = np.flatnonzero(sizes_one == octave)
        for size in range(octave - apart, octave + apart + 1):
            there = np.flatnonzero(sizes_other == size)
            reach = np.sqrt(2) * (1 - least) * 2.0 ** (max(octave, size) + 1)
            i, j, _ = near_pairs(middles_one[here], middles_other[there], reach)
            rows.append(here[i])
            columns.append(there[j])
    row, column = np.concatenate(rows), np.concatenate(columns)
    iou = _iou(one[row], other[column])
    order = np.lexsort((column, row))
    order = order[iou[order] >= least]
    return row[order], column[order], iou[order]


def _octaves(boxes: Floats) -> Ints:
    """Return (n,) the power of two that the longer side of each box reaches."""
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=1e-9)
    return np.floor(np.log2(sides)).astype(np.int64)


def _iou(one: Floats, other: Floats) -> Floats:
    inner = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = np.maximum(inner, 0).prod(axis=1)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (one, other)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)
