"""How well tracks match the truth, where it is known who each detection is.

A link is two detections that are called successive ones of one cell, or a mother's last and a daughter's first.
Links over one missed frame are asked for; longer ones are not, and are held against nobody if they are right.
A division is right if the mother and both daughters are, in the right frame. One of which a cell was not detected in
the two frames is not asked for, and held against nobody.

Both are judged twice: as they were said at once, and as they stand after all corrections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...acquire.reply import Correction
from ...trackers.recipes.crowd import CrowdFrame
from ...trackers.tracks import Tracks

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

Triple = tuple[int, int, int]
"""A mother and her daughters: names, or rows, the daughters' in rising order."""

LONGEST_STEP = 2
"""Frames from one end of a link to the other, at most: one frame may be missed."""
BINS = 10
"""Of equal width, of the confidence."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Links or divisions of a movie, counted frame by frame.

    Attributes
    ----------
    right, wrong, missing
        (frames,) int64, how many were said rightly, wrongly, and not; in the frame of the later end.
    """

    right: Ints
    wrong: Ints
    missing: Ints

    def f1(self, frames: int | None = None) -> float:
        """Return the F1 over the first frames, or all; NaN if there was nothing to say and nothing said."""
        right, wrong, missing = (int(each[:frames].sum()) for each in (self.right, self.wrong, self.missing))
        total = 2 * right + wrong + missing
        return 2 * right / total if total else float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class TrackScores:
    """What a tracker's answer to a movie is worth.

    Attributes
    ----------
    edges, divisions
        After all corrections.
    edges_at_once, divisions_at_once
        As first said.
    id_switches, id_switches_at_once
        How often a cell got another identity than it had when it was last seen.
    ece
        Expected calibration error of the confidence of links, when they were said: mean distance, over ten bins of
        the confidence, of the mean confidence and the share of links that were right. NaN if the tracker says the
        same of each, or there is no link.
    """

    edges: Judged
    divisions: Judged
    edges_at_once: Judged
    divisions_at_once: Judged
    id_switches: int
    id_switches_at_once: int
    ece: float

    def figures(self) -> dict[str, float]:
        """Return them all by the name that scripts read."""
        return {
            "edge_f1": self.edges.f1(),
            "division_f1": self.divisions.f1(),
            "edge_f1_at_once": self.edges_at_once.f1(),
            "division_f1_at_once": self.divisions_at_once.f1(),
            "id_switches": self.id_switches,
            "id_switches_at_once": self.id_switches_at_once,
            "ece": self.ece,
        }


def score_tracks(movie: Sequence[CrowdFrame], said: Sequence[Tracks]) -> TrackScores:
    """Judge the answers to all frames of a movie, from its first.

    Parameters
    ----------
    movie
        The frames with their truth; sequences are 0, 1, ...
    said
        What the tracker answered to each.
    """
    truth = _Truth(movie)
    rows = _Rows([each.track for each in said])
    at_once = _Answer(rows, np.concatenate([each.track for each in said]), _parents(said))
    corrected = at_once.corrected([each.corrections for each in said])
    first, last = _divisions_said(at_once, said)
    return TrackScores(
        edges=_judged_edges(truth, corrected),
        divisions=_judged_divisions(truth, last),
        edges_at_once=_judged_edges(truth, at_once),
        divisions_at_once=_judged_divisions(truth, first),
        id_switches=_switches(truth, corrected),
        id_switches_at_once=_switches(truth, at_once),
        ece=_calibration_error(movie, said),
    )


class _Rows:
    """The detections of a whole movie as one column: where each frame's begin, and the frame of each."""

    def __init__(self, columns: Sequence[Ints]) -> None:
        lengths = [len(column) for column in columns]
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.frame = np.repeat(np.arange(len(columns)), lengths)
        self.frames = len(columns)

    def of(self, frame: int) -> slice:
        return slice(int(self.starts[frame]), int(self.starts[frame + 1]))


class _Chains:
    """Rows that bear the same name, in order of time: who follows whom, who is first and last."""

    def __init__(self, name: Ints, frame: Ints) -> None:
        order = np.lexsort((frame, name))
        order = order[name[order] > 0]
        self.names, begin = np.unique(name[order], return_index=True)
        same = name[order[1:]] == name[order[:-1]]
        self.before, self.after = order[:-1][same], order[1:][same]
        self.first = order[begin]
        self._order, self._begin = order, np.append(begin, len(order))

    def first_of(self, name: int) -> int:
        """Return the first row of a name, or -1."""
        at = int(np.searchsorted(self.names, name))
        return int(self.first[at]) if at < len(self.names) and self.names[at] == name else -1

    def last_before(self, name: int, frame: int, frames: Ints) -> int:
        """Return the last row of a name before a frame, or -1."""
        at = int(np.searchsorted(self.names, name))
        if at == len(self.names) or self.names[at] != name:
            return -1
        chain = self._order[self._begin[at] : self._begin[at + 1]]
        count = int(np.searchsorted(frames[chain], frame))
        return int(chain[count - 1]) if count else -1


class _Truth:
    """Who each row is, the links that are asked for, and the divisions."""

    def __init__(self, movie: Sequence[CrowdFrame]) -> None:
        self.rows = _Rows([each.identity for each in movie])
        self.identity = np.concatenate([each.identity for each in movie])
        frame = self.rows.frame
        chains = _Chains(self.identity, frame)
        births = [(number, *triple) for number, each in enumerate(movie) for triple in each.born.tolist()]
        asked: list[tuple[int, int]] = []
        self.divisions: set[Triple] = set()
        """Rows of mother and daughters of those that are asked for."""
        self.not_asked: dict[int, list[tuple[int, set[int]]]] = {}
        """The others by the identity of each cell: the frame, and all three identities."""
        for number, mother, one, other in births:
            last = chains.last_before(mother, number, frame)
            firsts = [chains.first_of(one), chains.first_of(other)]
            asked += [(last, first) for first in firsts if last >= 0 and first >= 0]
            seen = last >= 0 and frame[last] == number - 1
            if seen and all(first >= 0 and frame[first] == number for first in firsts):
                self.divisions.add((last, min(firsts), max(firsts)))
            else:
                family = {mother, one, other}
                for identity in family:
                    self.not_asked.setdefault(identity, []).append((number, family))
        born = np.array(asked, np.int64).reshape(-1, 2)
        self.edges = np.concatenate([np.stack([chains.before, chains.after], axis=1), born])
        """(e, 2) rows of all true links, those that are too long to be asked for as well."""


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """The identity that a tracker gives to each row, and the mother of each identity."""

    rows: _Rows
    track: Ints
    parents: Mapping[int, int]

    def edges(self) -> Ints:
        """Return (e, 2) rows of all links."""
        frame = self.rows.frame
        chains = _Chains(self.track, frame)
        born: list[tuple[int, int]] = []
        for child, mother in self.parents.items():
            first = chains.first_of(child)
            last = chains.last_before(mother, int(frame[first]), frame) if first >= 0 else -1
            if last >= 0:
                born.append((last, first))
        links = np.stack([chains.before, chains.after], axis=1)
        return np.concatenate([links, np.array(born, np.int64).reshape(-1, 2)])

    def corrected(self, corrections: Sequence[Sequence[Correction]]) -> _Answer:
        """Return the answer after the corrections that each frame brought."""
        track, parents = self.track.copy(), dict(self.parents)
        for number, brought in enumerate(corrections):
            _correct(track, self.rows, number, brought)
            for each in brought:
                parents.pop(each.new, None)
                if each.parent:
                    parents[each.new] = each.parent
        return _Answer(self.rows, track, parents)


def _correct(track: Ints, rows: _Rows, number: int, brought: Sequence[Correction]) -> None:
    """Rename rows of earlier frames, in place; the corrections that one frame brings hold together."""
    if not brought:
        return
    begin, end = int(rows.starts[max(min(each.since for each in brought), 0)]), int(rows.starts[number])
    before = track[begin:end].copy()
    for each in brought:
        since = int(rows.starts[max(each.since, 0)])
        track[since:end][before[since - begin :] == each.old] = each.new


def _parents(said: Sequence[Tracks]) -> dict[int, int]:
    parents: dict[int, int] = {}
    for each in said:
        for row in np.flatnonzero(each.parent > 0).tolist():
            parents.setdefault(int(each.track[row]), int(each.parent[row]))
    return parents


def _divisions_said(at_once: _Answer, said: Sequence[Tracks]) -> tuple[set[Triple], set[Triple]]:
    """Return the divisions as first said and after all corrections, as rows of the mother and both daughters."""
    rows, track = at_once.rows, at_once.track.copy()
    first: set[Triple] = set()
    standing: dict[Triple, Triple] = {}  # rows -> names
    for number, each in enumerate(said):
        _correct(track, rows, number, each.corrections)
        _revoke(standing, rows, each.corrections)
        for since, family in _late_divisions(each.corrections):
            standing[_rows_of(family, since, track, rows)] = family
        for division in each.divisions:
            family = (division.mother, *division.daughters)
            key = _rows_of(family, number, track, rows)
            first.add(key)
            standing[key] = family
    return first, set(standing)


def _revoke(standing: dict[Triple, Triple], rows: _Rows, brought: Sequence[Correction]) -> None:
    """Take out the divisions of which a daughter is said not to be the mother's, then or before."""
    by_old = {each.old: each for each in brought}
    for key, (mother, *daughters) in list(standing.items()) if brought else ():
        for name in daughters:
            each = by_old.get(name)
            if each is not None and each.since <= int(rows.frame[key[2]]) and each.parent != mother:
                standing.pop(key, None)


def _late_divisions(brought: Sequence[Correction]) -> list[tuple[int, Triple]]:
    """Return frame and names of the divisions that one frame adds: two corrections with a mother since a frame."""
    families: dict[tuple[int, int], list[int]] = {}
    for each in brought:
        if each.parent:
            families.setdefault((each.since, each.parent), []).append(each.new)
    return [(key[0], (key[1], names[0], names[1])) for key, names in families.items() if len(names) == 2]


def _rows_of(family: Triple, frame: int, track: Ints, rows: _Rows) -> Triple:
    """Return the rows of a mother, when she was last seen, and of her daughters; -1 for one that is not there."""
    daughters = sorted(_row_of(name, frame, track, rows) for name in family[1:])
    earlier = range(frame - 1, max(frame - 1 - LONGEST_STEP, -1), -1)
    found = (_row_of(family[0], before, track, rows) for before in earlier)
    return next((row for row in found if row >= 0), -1), daughters[0], daughters[1]


def _row_of(name: int, frame: int, track: Ints, rows: _Rows) -> int:
    span = rows.of(frame)
    found = np.flatnonzero(track[span] == name)
    return span.start + int(found[0]) if len(found) else -1


def _judged_edges(truth: _Truth, answer: _Answer) -> Judged:
    rows = truth.rows
    true, said = truth.edges, answer.edges()
    total = len(truth.identity) + 1
    true_keys, said_keys = (each[:, 0] * total + each[:, 1] for each in (true, said))
    asked = rows.frame[true[:, 1]] - rows.frame[true[:, 0]] <= LONGEST_STEP
    right = np.isin(said_keys, true_keys[asked])
    wrong = ~np.isin(said_keys, true_keys)
    missing = asked & ~np.isin(true_keys, said_keys)
    return Judged(
        *(
            np.bincount(rows.frame[ends], minlength=rows.frames)
            for ends in (said[right, 1], said[wrong, 1], true[missing, 1])
        )
    )


def _judged_divisions(truth: _Truth, said: set[Triple]) -> Judged:
    frame, counts = truth.rows.frame, np.zeros((3, truth.rows.frames), np.int64)
    for division in said:
        at = int(frame[division[2]])
        if division in truth.divisions:
            counts[0, at] += 1
        elif not _is_excused(truth, division, at):
            counts[1, at] += 1
    for division in truth.divisions - said:
        counts[2, int(frame[division[2]])] += 1
    return Judged(*counts)


def _is_excused(truth: _Truth, division: Triple, at: int) -> bool:
    """Tell whether it was said of one that is not asked for: two of its cells, in its frame or the next."""
    identities = {int(truth.identity[row]) for row in division if row >= 0}
    return any(
        number <= at < number + LONGEST_STEP and len(identities & family) >= 2
        for identity in identities
        for number, family in truth.not_asked.get(identity, ())
    )


def _switches(truth: _Truth, answer: _Answer) -> int:
    chains = _Chains(truth.identity, truth.rows.frame)
    return int((answer.track[chains.before] != answer.track[chains.after]).sum())


def _calibration_error(movie: Sequence[CrowdFrame], said: Sequence[Tracks]) -> float:
    """Return the calibration error of links to the row that bore the track's name when the link was said."""
    who = np.zeros(1 + max((int(each.track.max(initial=0)) for each in said), default=0), np.int64)
    confidences: list[Floats] = []
    rights: list[NDArray[np.bool_]] = []
    for frame, each in zip(movie, said, strict=True):
        moved = [(change.new, int(who[change.old])) for change in each.corrections if change.old < len(who)]
        for new, identity in moved:
            if new < len(who):
                who[new] = identity
        linked = each.age > 0
        now = frame.identity
        rights.append(((who[each.track] == now) & (now > 0))[linked])
        confidences.append(each.confidence[linked])
        who[each.track] = now
    confidence = np.concatenate(confidences) if confidences else np.empty(0)
    right = np.concatenate(rights) if rights else np.empty(0, bool)
    if len(confidence) == 0 or not np.ptp(confidence) > 0:
        return float("nan")
    return calibration_error(confidence, right)


def calibration_error(confidence: Floats, right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error of (n,) confidences, 0 to 1, in ten bins of equal width."""
    bins = np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
    said = np.bincount(bins, confidence, BINS)
    true = np.bincount(bins, right.astype(np.float64), BINS)
    return float(np.abs(said - true).sum() / len(confidence))
