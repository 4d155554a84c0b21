"""The default tracker: exact gated assignment on log-likelihood ratios, with divisions and merges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..models.detections import Detections
from . import assignment, divisions, drift, gate, links, mask_overlaps
from .alive import Alive, beginnings, squared
from .assignment import Edges, match
from .border import Border
from .commit import Commit
from .drift import best_stage_shift, common_shift, stage_shifts
from .events import Event, Scene, choose, late_divisions, merges, one_to_two
from .explained import Chosen, Explained
from .gate import near_pairs
from .links import Population, Possible, Usual, Weights, link_gains
from .looks import likeness_gains, overlap_gains, overlap_shares, unlikeness
from .memory import Memory
from .motion import MODELS, expected
from .scales import first_scales
from .states import check_state
from .tracks import Tracks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


FAINTEST = -10.0
"""Links that explain less, as the log of an odds ratio, are out of the question."""


class LapTracker:
    """Links cells by the assignment of greatest likelihood; declares divisions in the frame where they show.

    A link is scored by motion (Brownian or constant velocity, two-Gaussian innovation), change of area, brightness
    and shape, each as a log-likelihood ratio against an end and a beginning; the scales are learned from the movie.
    Moves of the stage and shifts of the whole field are taken out first. A division ends the mother and begins two
    tracks; it is provisional for a frame, and taken back if its daughters turn out to be one cell. Cells that touch
    and are seen as one get their identities back when they part. One missed frame is bridged.

    Parameters
    ----------
    max_distance_px
        The farthest step that may be linked, in px; None lets the movie say.
    max_gap
        How many frames in a row a cell may be missed.
    divisions
        Whether cells may divide.
    merges
        Whether cells may be seen as one.
    motion
        Where cells are expected: ``"brownian"`` where they were, ``"velocity"`` where their velocity takes them, or
        ``"auto"``, which each track decides for itself.
    weights
        How much each look counts, of ``area``, ``brightness``, ``shape``, ``likeness`` (of appearance vectors, if the
        segmenter gives any; 1 each) and ``overlap`` (of masks; 0, as motion says it better unless cells hardly move).

    Attributes
    ----------
    needs_masks
        Whether detections must come with their mask.
    scene
        The last frame as links alone explain it, for those who look into it; None before the first.
    """

    def __init__(
        self,
        *,
        max_distance_px: float | None = None,
        max_gap: int = 1,
        divisions: bool = True,
        merges: bool = True,
        motion: Literal["auto", "brownian", "velocity"] = "auto",
        weights: dict[str, float] | None = None,
    ) -> None:
        if max_distance_px is not None and not max_distance_px > 0:
            raise ValueError(f"max_distance_px must be above 0, got {max_distance_px}")
        if max_gap < 0:
            raise ValueError(f"max_gap must be 0 or more, got {max_gap}")
        self._reach, self._max_gap, self._divide, self._merge = max_distance_px, max_gap, divisions, merges
        if motion not in MODELS:
            raise ValueError(f"motion must be one of {', '.join(MODELS)}, got {motion!r}")
        self._motion, self._weights = motion, Weights.of(weights or {})
        self.needs_masks = self._weights.overlap > 0
        _warm_up()
        self._memory: Memory | None = None
        self.scene: Scene | None = None

    def update(self, detections: Detections) -> Tracks:
        """Take the next frame's detections and return their identities."""
        found = beginnings(detections)
        memory = self._memory or Memory.empty(found)
        memory, moved_px, drift_px = self._without_shifts(memory, found, detections)
        alive = expected(memory.alive, self._motion, memory.frames_to(detections.time_s))
        scales = memory.scales or first_scales(alive, found)
        usual = Usual(Population.of(found), scales, self._weights)
        border = Border.of(alive, found, scales, detections)
        overlap_of = self._overlap_of(memory, moved_px, detections)
        possible = self._possible(alive, found, usual, border, overlap_of)
        first = match(possible.edges, possible.gains)
        self.scene = Scene.of(alive, found, usual, possible, first, border, memory)
        events = self._events(self.scene)
        links = Chosen.of(possible, events, first)
        explained = Explained(
            detections, found, memory.alive, alive, scales, links, events, drift_px, border.near
        )
        memory, tracks = Commit(memory, explained, self._max_gap).run()
        self._memory = replace(memory, mask=detections.mask) if self.needs_masks else memory
        return tracks

    def state(self) -> dict[str, Any]:
        """Return all that is known of the movie."""
        return {"tracker": "lap", "memory": None if self._memory is None else self._memory.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned.

        Raises
        ------
        ValueError
            If it is something else.
        """
        check_state(state, self.state())
        try:
            self._memory = None if state["memory"] is None else Memory.of_state(state["memory"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"the state of 'lap' is damaged: {type(error).__name__}: {error}") from error

    def _without_shifts(
        self, memory: Memory, found: Alive, detections: Detections
    ) -> tuple[Memory, Floats, tuple[float, float]]:
        """Return what is known without moves of the stage and shifts of the field; both, and the latter, in px."""
        frames = memory.frames_to(detections.time_s)
        where, there = expected(memory.alive, self._motion, frames), found.place[:, -2:]
        if not (len(where) and len(found)):
            return memory, np.zeros(2), (0.0, 0.0)
        radius = float(np.median(found.radius))
        yx = where.place[:, -2:]
        move = np.zeros(2)
        moves = stage_shifts(memory.stage_um, detections)
        if len(moves):
            move = best_stage_shift(yx, there, moves, radius)
        step = memory.scales.step_px if memory.scales else 0.0
        tolerance = max(0.5 * radius, 1.5 * step, 1.0)
        shift = common_shift(yx + move, there, tolerance, where.area, found.area)
        return memory.shifted(move + shift), move + shift, (float(shift[0]), float(shift[1]))

    def _overlap_of(
        self, memory: Memory, moved_px: Floats, detections: Detections
    ) -> Callable[[Edges], Floats] | None:
        """Return what tells how masks overlap, or None if nobody wants to know, or nothing is known."""
        before, now = memory.mask, detections.mask
        if not self.needs_masks:
            return None
        if now is None:
            raise ValueError("weights: overlap needs detections with their mask, these have none")
        if before is None or before.shape != now.shape:
            return None
        seen = int((memory.alive.missed == 0).sum())
        return lambda edges: overlap_shares(before, now, moved_px, seen, edges)

    def _possible(
        self,
        alive: Alive,
        found: Alive,
        usual: Usual,
        border: Border,
        overlap_of: Callable[[Edges], Floats] | None,
    ) -> Possible:
        """Return the possible links; parts of a cell that has divided are near it too."""
        reach = 3.5 * usual.scales.step_px + 1.3 * usual.population.extent + 3.0
        if self._reach is not None:
            reach = self._reach
        near, distances = _near(alive, found, reach)
        gains = link_gains(near, distances, alive, found, usual, border.stays, border.comes)
        unlike, overlap = np.full((2, len(near)), np.nan)
        if found.embedding.shape[1]:
            unlike = unlikeness(alive, found, near)
            gains += self._weights.likeness * likeness_gains(unlike, found, usual.scales.likeness)
        if overlap_of is not None:
            overlap = overlap_of(near)
            gains += self._weights.overlap * overlap_gains(overlap, usual.scales.overlap)
        hopeful = gains > FAINTEST
        edges = Edges.of(near.row[hopeful], near.column[hopeful], near.shape)
        return Possible(near, edges, gains[hopeful], unlike[hopeful], overlap[hopeful])

    def _events(self, scene: Scene) -> list[Event]:
        """Return what links cannot explain."""
        if not len(scene.near):
            return []
        events = one_to_two(scene, divisions=self._divide)
        if self._divide:
            events += late_divisions(scene)
        if self._merge:
            events += merges(scene)
        return choose(events)


def _near(alive: Alive, found: Alive, reach: float) -> tuple[Edges, Floats]:
    """Return the detections within reach of each track, and (e,) how far they are, in px."""
    if not (len(alive) and len(found)):
        none = np.empty(0, np.int64)
        return Edges.of(none, none, (len(alive), len(found))), np.empty(0)
    row, column, distance = near_pairs(alive.place[:, -2:], found.place[:, -2:], reach)
    if found.place.shape[1] > 2:
        away = found.place[column, :-2] - alive.place[row, :-2]
        distance = np.sqrt(np.square(distance) + squared(away))
        reached = distance <= reach
        row, column, distance = row[reached], column[reached], distance[reached]
    return Edges.of(row, column, (len(alive), len(found))), distance


def _warm_up() -> None:
    """Compile the kernels, or load them if they were compiled before: no frame may wait for a compiler."""
    for kernels in (assignment, divisions, drift, gate, links, mask_overlaps):
        kernels.warm_up()
