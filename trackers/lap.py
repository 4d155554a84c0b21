"""The default tracker: exact gated assignment on log-likelihood ratios, with divisions and merges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..models.detections import Detections
from . import assignment, divisions, drift, gate, links, mask_overlaps
from .alive import Alive, beginnings
from .assignment import Edges, link_probabilities, margins, match
from .border import Border
from .commit import Commit
from .drift import best_stage_shift, common_shift, stage_shifts
from .events import Event, Scene, choose, late_divisions, merges, one_to_two
from .explained import Explained
from .gate import near_pairs
from .links import Population, Weights, link_gains
from .looks import likeness_gains, overlap_gains, overlap_shares, unlikeness
from .memory import Memory
from .motion import MODELS, expected
from .scales import Scales, first_scales
from .states import check_state
from .tracks import Tracks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


ROUNDS = 4
"""Rounds of messages for the probabilities of links: more change them in the fourth decimal."""
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
        memory, moved_px, drifted = self._without_shifts(memory, found, detections)
        alive = expected(memory.alive, self._motion, memory.frames_to(detections.time_s))
        scales = memory.scales or first_scales(alive, found)
        border = Border.of(alive, found, scales, detections)
        population = Population.of(found)
        near, distances = self._near(alive, found, population, scales)
        gains = link_gains(
            near, distances, alive, found, population, scales, border.stays, border.comes, self._weights
        )
        unlike, overlap = self._more_looks(memory, moved_px, alive, found, near, detections)
        gains += self._weights.likeness * likeness_gains(unlike, found, scales.likeness)
        gains += self._weights.overlap * overlap_gains(overlap, scales.overlap)
        if self._reach is not None:
            gains[distances > self._reach] = -np.inf
        hopeful = gains > FAINTEST
        edges = Edges.of(near.row[hopeful], near.column[hopeful], near.shape)
        gains = gains[hopeful]
        matching = match(edges, gains)
        scene = Scene.of(
            alive, found, population, scales, self._weights, near, edges, gains, matching, border, memory
        )
        self.scene, events = scene, self._events(scene)
        alone = [event for event in events if event.kind != "late"]
        left = gains
        if alone:  # the others are matched again without those that take part
            row_left, column_left = np.ones(len(alive), bool), np.ones(len(found), bool)
            row_left[[row for event in alone for row in event.rows]] = False
            column_left[[column for event in alone for column in event.columns]] = False
            left = np.where(row_left[edges.row] & column_left[edges.column], gains, -np.inf)
            matching = match(edges, left)
        share, gain = np.zeros((2, len(alive)))
        likeness, shared = np.full((2, len(alive)), np.nan)
        linked = np.flatnonzero(matching.edge_of >= 0)
        chosen = matching.edge_of[linked]
        share[linked] = link_probabilities(edges.row, edges.column, gains, edges.shape, rounds=ROUNDS)[chosen]
        gain[linked] = gains[chosen]
        likeness[linked], shared[linked] = unlike[hopeful][chosen], overlap[hopeful][chosen]
        margin = margins(edges, left, matching)
        explained = Explained(
            detections,
            found,
            memory.alive,
            alive,
            scales,
            matching.column_of,
            share,
            margin,
            gain,
            likeness,
            shared,
            events,
            drifted,
            border.near,
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

    def _more_looks(
        self,
        memory: Memory,
        moved_px: Floats,
        alive: Alive,
        found: Alive,
        near: Edges,
        detections: Detections,
    ) -> tuple[Floats, Floats]:
        """Return (e,) each: how unlike appearance vectors are, and how masks overlap; NaN where nothing is known."""
        overlap = np.full(len(near), np.nan)
        if self.needs_masks:
            if detections.mask is None:
                raise ValueError("weights: overlap needs detections with their mask, these have none")
            if memory.mask is not None and memory.mask.shape == detections.mask.shape:
                seen = int((alive.missed == 0).sum())
                overlap = overlap_shares(memory.mask, detections.mask, moved_px, seen, near)
        return unlikeness(alive, found, near), overlap

    def _near(
        self, alive: Alive, found: Alive, population: Population, scales: Scales
    ) -> tuple[Edges, Floats]:
        """Return the possible links and their lengths in px; parts of a cell that has divided are near it too."""
        if not (len(alive) and len(found)):
            none = np.empty(0, np.int64)
            return Edges.of(none, none, (len(alive), len(found))), np.empty(0)
        reach = 3.5 * scales.step_px + 1.3 * population.extent + 3.0
        if self._reach is not None:
            reach = self._reach
        row, column, distance = near_pairs(alive.place[:, -2:], found.place[:, -2:], reach)
        if found.place.shape[1] > 2:
            away = found.place[column, :-2] - alive.place[row, :-2]
            distance = np.sqrt(np.square(distance) + np.square(away).sum(axis=1))
            reached = distance <= reach
            row, column, distance = row[reached], column[reached], distance[reached]
        return Edges.of(row, column, (len(alive), len(found))), distance

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


def _warm_up() -> None:
    """Compile the kernels, or load them if they were compiled before: no frame may wait for a compiler."""
    for kernels in (assignment, divisions, drift, gate, links, mask_overlaps):
        kernels.warm_up()
