"""What links alone cannot explain: one cell that becomes two, and two that are seen as one.

Each possible event is weighed against the links that it would replace; of those that explain more, the best are
taken, none of which share a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .alive import Alive, shape_of, squared, together
from .assignment import Edges, Matching
from .border import END, Border
from .division_model import shipped
from .divisions import Linked, Triples, candidates, division_gains, features
from .links import Possible, Usual, link_gains
from .memory import Memory

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Kind = Literal["division", "late", "pieces", "merge"]

MARGIN = 3.0
"""How much more pieces and merges must explain than the links that they replace: the log of an odds ratio."""
BREAKS, MERGES, JOINS_AGAIN = 0.02, 0.005, 0.3
"""Probability that a cell falls into two pieces, that it is seen as one with a neighbour, and that pieces are one
again, in a frame."""
SUSPECTED = -2.0
"""Log of the odds from which a division is said. Low, because the next frame confirms it or takes it back, and because
real divisions are less like each other than simulated ones."""
MAYBE = -4.0
"""Log of the odds from which two detections that are no division yet may prove to be one, by lasting."""
DIVIDES, PARTS = 0.02, 0.3
"""Probability that a cell divides, and that cells that are seen as one are seen apart again, in a frame."""
JUST_BORN_FRAMES = 3
"""A cell that was born by division divides again at once only very rarely."""
LATE = -3.0
"""Log of the odds that a daughter is missed in her first frame."""
ALIKE = 0.4
"""Pieces together are as large as the cell, and merged cells as both: most by which the log of the areas may differ."""
_SHRUNK = float(np.log(0.8))
"""A track that has just lost so much of its area may have divided, and the other daughter been missed."""


@dataclass(frozen=True, slots=True)
class Event:
    """One of them.

    Attributes
    ----------
    kind
        ``division``: row -> columns. ``late``: the same, one frame too late, so that the first column is where the
        row's link leads. ``pieces``: a cell that is seen as two for a frame; the first column is the larger piece.
        ``merge``: rows -> column.
    rows, columns
        Tracks and detections that take part.
    better
        How much more it explains than the links that it replaces, as the log of an odds ratio.
    odds
        Of pieces: log of the odds that it is a division after all.
    """

    kind: Kind
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    better: float
    odds: float = -np.inf


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A frame as links explain it.

    Attributes
    ----------
    alive, found, usual
        The n tracks where they are expected, the m detections, and what links are weighed with.
    near
        Detections near each track.
    column_of, linked
        (n,) the detection of each track's link, -1 for none; and what the links explain.
    stays, comes
        As for :func:`~cytoloop.trackers.links.link_gains`.
    divides
        (n,) log of the odds that a track divides now rather than ends.
    pieces
        (n,) bool, tracks that may be a piece of a cell, as they have been seen for a frame or two.
    """

    alive: Alive
    found: Alive
    usual: Usual
    near: Edges
    column_of: Ints
    linked: Linked
    stays: Floats
    comes: Floats
    divides: Floats
    pieces: NDArray[np.bool_]

    @staticmethod
    def of(
        alive: Alive,
        found: Alive,
        usual: Usual,
        possible: Possible,
        matching: Matching,
        border: Border,
        memory: Memory,
    ) -> Scene:
        """Return a frame as the links of a matching explain it."""
        linked = np.flatnonzero(matching.column_of >= 0)
        gain, row_of = np.zeros(len(alive)), np.full(len(found), -1, np.int64)
        gain[linked] = possible.gains[matching.edge_of[linked]]
        row_of[matching.column_of[linked]] = linked
        newborn = (alive.parent > 0) & (alive.age < JUST_BORN_FRAMES)
        divides = np.log(DIVIDES / END) - np.where(newborn, 3.0, 0.0) - 2.0 * alive.missed
        carriers = [hidden.carrier for hidden in memory.hidden]
        divides[np.isin(alive.track, carriers)] = np.log(PARTS / END)
        young = (alive.age == 0) | np.isin(alive.track, memory.splits.parts)
        return Scene(
            alive, found, usual, possible.near, matching.column_of, Linked(gain, row_of),
            border.stays, border.comes, divides, young,
        )  # fmt: skip

    @property
    def slack_px(self) -> float:
        """How far a cell may stray."""
        return 4.0 + 2 * self.usual.scales.step_px


def one_to_two(scene: Scene, *, divisions: bool) -> list[Event]:
    """Return cells that are two now: they have divided, or are seen in two pieces."""
    if not divisions:
        triples = candidates(scene.near, scene.alive, scene.found, scene.linked, scene.slack_px)
        return _pieces(scene, triples, scene.linked.lost(triples), np.full(len(triples), -np.inf))
    triples, measured = division_candidates(scene)
    odds = _log_odds(scene.alive, triples, measured)
    return _pieces(scene, triples, measured["lost"], odds) + _events("division", triples, odds, SUSPECTED)


def _pieces(scene: Scene, triples: Triples, lost: Floats, odds: Floats) -> list[Event]:
    """Return cells that both detections together are like."""
    area = scene.found.area
    sized = np.logaddexp(area[triples.one], area[triples.other]) - scene.alive.area[triples.mother]
    alike = (np.abs(sized) <= ALIKE) | (odds > MAYBE)
    triples, lost, odds = triples.take(alike), lost[alike], odds[alike]
    whole = together(scene.found, triples.one, triples.other)
    number = np.arange(len(triples))
    edges = Edges.of(number, number, (len(triples), len(triples)))
    mothers = scene.alive.take(triples.mother)
    away = np.sqrt(squared(whole.place - mothers.place))
    comes = scene.comes[triples.one]
    gains = link_gains(edges, away, mothers, whole, scene.usual, scene.stays[triples.mother], comes)
    # The second piece lies within the cell, instead of anywhere.
    gains += np.log(BREAKS) - mothers.area - scene.comes[triples.other]
    larger = np.where(
        scene.found.area[triples.one] >= scene.found.area[triples.other], triples.one, triples.other
    )
    smaller = triples.one + triples.other - larger
    broken = _events("pieces", Triples(triples.mother, larger, smaller), gains - lost, MARGIN)
    good = np.flatnonzero(gains - lost >= MARGIN)
    return [replace(event, odds=float(odds[t])) for event, t in zip(broken, good, strict=True)]


def late_divisions(scene: Scene) -> list[Event]:
    """Return divisions one frame ago of which only one daughter was found then."""
    edges, alive, found = scene.near, scene.alive, scene.found
    open_ = (
        (scene.linked.row_of[edges.column] < 0)
        & (scene.column_of[edges.row] >= 0)
        & (alive.missed[edges.row] == 0)
    )
    d = alive.place.shape[1]
    open_ &= (alive.area - alive.earlier[:, d] < _SHRUNK)[edges.row]
    row, new = edges.row[open_], edges.column[open_]
    if not len(row):
        return []
    some = alive.take(row)
    mothers = replace(
        some,
        place=some.earlier[:, :d],
        area=some.earlier[:, d],
        brightness=some.earlier[:, d + 1],
        moments=some.earlier[:, d + 2 :],
        shape=shape_of(some.earlier[:, d + 2 :]),
    )
    triples = Triples(np.arange(len(row)), scene.column_of[row], new)
    measured = _measured(scene, mothers, triples, scene.divides[row] + LATE, some.gain, some.gain)
    better = _log_odds(mothers, triples, measured)
    far = squared(found.place[triples.one] - found.place[new]) > (4 * mothers.radius) ** 2
    better[far] = -np.inf
    return [
        replace(event, rows=(int(row[event.rows[0]]),)) for event in _events("late", triples, better, 0.0)
    ]


def merges(scene: Scene) -> list[Event]:
    """Return tracks that are not found because they are seen as one with a neighbour."""
    edges, alive, found = scene.near, scene.alive, scene.found
    open_ = (scene.column_of[edges.row] < 0) & (alive.missed[edges.row] == 0)
    if not open_.any():
        return []
    # Of each such track: what a detection near it is linked to, or if to nothing, another such track near that.
    row, column = edges.row[open_], edges.column[open_]
    partner = scene.linked.row_of[column]
    fits = (partner >= 0) & (alive.missed[partner] == 0)
    order = np.lexsort((row, column))
    order = order[partner[order] < 0]
    free = Edges.of(column[order], row[order], (len(found), len(alive)))
    unlinked = Linked(np.zeros(len(found)), np.full(len(alive), -1, np.int64))
    both = candidates(free, found, alive, unlinked, scene.slack_px)
    into = np.append(column[fits], both.mother)
    one, other = np.append(partner[fits], both.one), np.append(row[fits], both.other)
    alike = np.abs(np.logaddexp(alive.area[one], alive.area[other]) - found.area[into]) <= ALIKE
    into, one, other = into[alike], one[alike], other[alike]
    if not len(into):
        return []
    whole = together(alive, one, other)
    number = np.arange(len(into))
    pairs = Edges.of(number, number, (len(into), len(into)))
    away = np.sqrt(squared(whole.place - found.place[into]))
    stays = np.minimum(scene.stays[one], scene.stays[other])
    gains = link_gains(pairs, away, whole, found.take(into), scene.usual, stays, scene.comes[into])
    again = scene.pieces[one] | scene.pieces[other]
    gains += np.log(np.where(again, JOINS_AGAIN, MERGES)) - scene.linked.gain[one]
    good = np.flatnonzero(gains >= MARGIN)
    return [Event("merge", (int(one[t]), int(other[t])), (int(into[t]),), float(gains[t])) for t in good]


def choose(events: Sequence[Event]) -> list[Event]:
    """Return the best events, none of which share a track or a detection."""
    rows: set[int] = set()
    columns: set[int] = set()
    chosen: list[Event] = []
    for event in sorted(
        events, key=lambda each: (each.kind == "pieces", -each.better, each.rows, each.columns)
    ):
        if rows.isdisjoint(event.rows) and columns.isdisjoint(event.columns):
            rows.update(event.rows)
            columns.update(event.columns)
            chosen.append(event)
    return chosen


def division_candidates(scene: Scene) -> tuple[Triples, dict[str, Floats]]:
    """Return every two detections that could be daughters of one cell, and what the shipped model is given of them."""
    triples = candidates(scene.near, scene.alive, scene.found, scene.linked, scene.slack_px)
    linked, lost = scene.linked.gain[triples.mother], scene.linked.lost(triples)
    return triples, _measured(scene, scene.alive, triples, scene.divides, lost, linked)


def _measured(
    scene: Scene, mothers: Alive, triples: Triples, divides: Floats, lost: Floats, linked: Floats
) -> dict[str, Floats]:
    measured = features(triples, mothers, scene.found, scene.usual.scales)
    gain = division_gains(triples, measured, mothers, scene.found, scene.usual.scales, divides, scene.comes)
    return measured | {"gain": gain, "lost": lost, "linked": linked}


def _log_odds(mothers: Alive, triples: Triples, measured: dict[str, Floats]) -> Floats:
    """Return the log of the odds of each division, by the shipped model."""
    odds = shipped().log_odds(measured)
    # A segmenter that tells classes is believed where it says that the mother is in mitosis; that it does not say so
    # tells little, as mitosis is short.
    seen = np.clip(mothers.mitotic[triples.mother], 0.5, 0.95)
    return odds + np.log(seen / (1 - seen))


def _events(kind: Kind, triples: Triples, better: Floats, least: float) -> list[Event]:
    good = np.flatnonzero(better >= least)
    return [
        Event(kind, (int(triples.mother[t]),), (int(triples.one[t]), int(triples.other[t])), float(better[t]))
        for t in good
    ]
