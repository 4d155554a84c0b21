"""Tracks of a movie from the links that another package found between its cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...acquire.reply import Division
from ...models.detections import Detections
from ..tracks import Ended, Tracks

Ints = NDArray[np.int64]


def first_cells(movie: Sequence[Detections]) -> Ints:
    """Return (frames + 1,) the number of the first cell of each frame, counted over the movie, and of all cells."""
    return np.cumsum([0, *map(len, movie)], dtype=np.int64)


def can_link(movie: Sequence[Detections]) -> bool:
    """Return whether there is anything to link: the packages fail, each in its own way, where there is not."""
    return sum(len(detections) > 0 for detections in movie) > 1


def tracks_of(movie: Sequence[Detections], links: Sequence[tuple[int, int]]) -> list[Tracks]:
    """Return the tracks that links make.

    A cell that is linked to two of one later frame divides: the mother ends, two tracks begin. Of links into
    different frames the earliest goes on as the same track, and what the others lead to begins without a mother.

    Parameters
    ----------
    movie
        Detections of each frame.
    links
        (earlier, later) cell, by their numbers over the movie (:func:`first_cells`).

    Raises
    ------
    ValueError
        If a cell is linked to two earlier ones, or to one that is not earlier.
    """
    start = first_cells(movie)
    frame = np.repeat(np.arange(len(movie)), np.diff(start))
    before, daughters = _followed(frame, links)
    mother_of = {daughter: mother for mother, pair in daughters.items() for daughter in pair}
    track, parent = np.zeros(len(frame), np.int64), np.zeros(len(frame), np.int64)
    began = np.zeros(len(frame), np.int64)
    number = 0
    for cell, earlier in enumerate(before.tolist()):
        if earlier >= 0:
            track[cell], parent[cell], began[cell] = track[earlier], parent[earlier], began[earlier]
            continue
        number += 1
        track[cell], began[cell] = number, frame[cell]
        if cell in mother_of:
            parent[cell] = track[mother_of[cell]]
    divided: dict[int, list[Division]] = {}
    for mother, (one, other) in daughters.items():
        division = Division(int(track[mother]), (int(track[one]), int(track[other])))
        divided.setdefault(int(frame[one]), []).append(division)
    ended = _ends(frame, track, divided)
    velocity = _velocities(np.concatenate([each.yx for each in movie]), frame, before) if len(movie) else []
    made: list[Tracks] = []
    for index, detections in enumerate(movie):
        cells = slice(start[index], start[index + 1])
        # Of half a radius, as nothing is known of how sure another package is.
        variance = detections.area / (4 * np.pi)
        made.append(
            Tracks(
                detections=detections,
                track=track[cells],
                parent=parent[cells],
                age=(index - began[cells]).astype(np.int32),
                velocity=np.asarray(velocity[cells], np.float64),
                covariance=np.stack([variance, variance, np.zeros(len(detections))], axis=1),
                confidence=np.ones(len(detections)),
                divisions=tuple(divided.get(index, ())),
                ended=tuple(ended.get(index, ())),
            )
        )
    return made


def _followed(frame: Ints, links: Sequence[tuple[int, int]]) -> tuple[Ints, dict[int, tuple[int, int]]]:
    """Return (cells,) the earlier cell of the same track, -1 for none; and the daughters of each that divides."""
    later_of: dict[int, list[int]] = {}
    linked: set[int] = set()
    for earlier, later in sorted(links):
        if frame[later] <= frame[earlier] or later in linked:
            raise ValueError(f"cell {later} of frame {frame[later]} cannot follow cell {earlier}")
        linked.add(later)
        later_of.setdefault(earlier, []).append(later)
    before = np.full(len(frame), -1, np.int64)
    daughters: dict[int, tuple[int, int]] = {}
    for earlier, later in later_of.items():
        soonest = [cell for cell in later if frame[cell] == frame[later[0]]]  # cells are numbered by frame
        if len(soonest) > 1:
            daughters[earlier] = (soonest[0], soonest[1])
        else:
            before[soonest[0]] = earlier
    return before, daughters


def _ends(frame: Ints, track: Ints, divided: dict[int, list[Division]]) -> dict[int, list[Ended]]:
    """Return which tracks are over, by the frame in which that shows."""
    ended: dict[int, list[Ended]] = {}
    mothers: set[int] = set()
    for index, divisions in divided.items():
        mothers.update(each.mother for each in divisions)
        ended.setdefault(index, []).extend(Ended(each.mother, "division") for each in divisions)
    last = dict(zip(track.tolist(), frame.tolist(), strict=True))  # cells come in the order of their frames
    for number, index in last.items():
        if number not in mothers:
            ended.setdefault(index + 1, []).append(Ended(number))
    return ended


def _velocities(yx: NDArray[np.float64], frame: Ints, before: Ints) -> NDArray[np.float64]:
    velocity = np.zeros((len(frame), 2))
    cells = np.flatnonzero(before >= 0)
    earlier = before[cells]
    velocity[cells] = (yx[cells] - yx[earlier]) / (frame[cells] - frame[earlier])[:, np.newaxis]
    return velocity
