"""From links and events to identities: what is said of a frame, and what is remembered of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..acquire.reply import Correction, Division, Merge
from .alive import Alive
from .events import Event
from .explained import Explained
from .memory import Hidden, Memory
from .motion import Motion, first_steadiness, moved
from .scales import Scales, learned
from .splits import Splits
from .tracks import Ended, Tracks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NEWEST = 0.2
"""Share of the newest area and brightness in a track's usual ones."""
LONGEST_MERGE = 20
"""Frames after which a cell that is seen as one with another is given up."""
WHOLE_AGAIN = float(np.log(0.75))
"""A daughter that is alone, and so large again as a share of her mother, was the mother all along."""
ENOUGH_TO_TELL, LONGEST_BLANK = 3, 10
"""Frames without any cell, where there were so many, in which none is given up."""
RECENT_FRAMES = 6
"""For so many frames daughters that are seen as one cell again were never two."""
LASTS = 3.0
"""How much more likely than pieces daughters are to be seen apart again, each time: the log of an odds ratio."""
DYING_AREA, DYING_LIGHT = float(np.log(0.65)), float(np.log(1.4))
"""A cell that has shrunk and grown bright like this before it vanishes has died (condensation)."""


@dataclass(frozen=True, slots=True)
class _Birth:
    """Daughters: the row of the mother, their detections, and the first frame in which they were seen."""

    mother: int
    columns: tuple[int, int]
    since: int


class Commit:
    """The bookkeeping of one frame; used once.

    Rows are the tracks that were alive, and behind them the hidden cells. Every detection gets a source: the row
    that goes on in it, or -1.
    """

    def __init__(self, memory: Memory, of: Explained, max_gap: int) -> None:
        self._memory, self._of, self._max_gap = memory, of, max_gap
        m = len(of.found)
        self._hidden = {int(each.cell.track[0]): each for each in memory.hidden}
        self._row_of_hidden = {track: len(of.alive) + i for i, track in enumerate(self._hidden)}
        self._rows = of.at_rest.joined(*(each.cell for each in memory.hidden))
        self._track, self._parent = self._rows.track.copy(), self._rows.parent.copy()
        self._since, self._age = self._rows.since.copy(), self._rows.age.copy()
        self._settled = np.zeros(len(self._rows), bool)  # goes on, or is over
        self._settled[len(of.alive) :] = True
        self._source = np.full(m, -1, np.int64)
        self._still = np.zeros(m, bool)  # the detection says nothing of the motion of its source
        self._confidence, self._margin = np.ones(m), np.full(m, np.inf)
        self._gain = np.zeros(m)
        self._splits = memory.splits
        self._born: list[_Birth] = []
        self._pieces: list[tuple[int, tuple[int, int], float]] = []  # row, detections, log odds of a division
        self._corrections: list[Correction] = []
        self._ended: list[Ended] = []

    def run(self) -> tuple[Memory, Tracks]:
        """Return what is remembered, and what is said."""
        linked = np.flatnonzero(self._of.links.column_of >= 0)
        columns = self._of.links.column_of[linked]
        self._source[columns], self._settled[linked] = linked, True
        self._confidence[columns], self._margin[columns] = (
            self._of.links.confidence[linked],
            self._of.links.margin[linked],
        )
        self._gain[columns] = self._of.links.gain[linked]
        for event in self._of.events:
            columns = list(event.columns)
            if event.kind == "late" and self._source[columns].tolist() != [event.rows[0], -1]:
                continue  # its link is another, now that the cells of other events are taken out
            self._confidence[columns] = 1 / (1 + np.exp(-event.better))
            self._margin[columns] = max(event.better, 0.0)  # divisions are said even if others are as likely
            if event.kind == "merge":
                self._merge(event.rows, event.columns[0])
            elif event.kind == "late":
                self._born.append(
                    _Birth(event.rows[0], (event.columns[0], event.columns[1]), self._memory.sequence)
                )
            elif not self._part(event.rows[0], event.columns):
                self._split(event)
        return self._finish()

    # --- two that are seen as one, and their parting ----------------------------------------------------------

    def _merge(self, rows: tuple[int, ...], column: int) -> None:
        # A cell that was seen once only is rather a part of the other that was seen apart for a frame.
        kept, other = sorted(rows, key=lambda row: (self._age[row] == 0, -self._rows.area[row], row))
        self._source[column], self._settled[[kept, other]], self._still[column] = kept, True, True
        name, lost = int(self._track[kept]), int(self._track[other])
        rejoined = (np.sort(self._splits.parts, axis=1) == sorted((name, lost))).all(axis=1)
        if rejoined.any():
            self._ended.append(Ended(lost))
            split = int(np.flatnonzero(rejoined)[0])
            if self._splits.divided[split]:
                self._revoke(split, kept, "its daughters are one cell again")
            self._splits = self._splits.take(~rejoined)
            return
        if self._age[other] == 0:
            self._ended.append(Ended(lost))
            return
        for track, hidden in self._hidden.items():
            if hidden.carrier == lost:  # what the other hid is now in the same one
                self._hidden[track] = replace(hidden, carrier=name)
        cell = self._rows.take(np.array([other]))
        self._hidden[lost] = Hidden(name, replace(cell, place=cell.place - self._rows.place[kept]), 0)

    def _part(self, row: int, columns: tuple[int, ...]) -> bool:
        """Give both identities back if the track was two; return whether it was."""
        inside = [t for t, each in self._hidden.items() if each.carrier == self._track[row]]
        if not inside:
            return False
        rows, found = (row, self._row_of_hidden[inside[0]]), self._of.found
        offset = self._hidden.pop(inside[0]).cell.place[0]

        def unlike(pair: tuple[int, ...]) -> float:
            """Return how badly the first detection fits the one that was seen, and the second the hidden one."""
            away = found.place[pair[1]] - found.place[pair[0]] - offset
            size = found.area[list(pair)] - self._rows.usual_area[list(rows)]
            return float(np.square(away).sum() / self._rows.radius[row] ** 2 + np.square(size / 0.2).sum())

        pair = list(min(columns, columns[::-1], key=unlike))
        self._source[pair], self._settled[row], self._still[pair] = rows, True, True
        return True

    # --- one that becomes two ---------------------------------------------------------------------------------

    def _split(self, event: Event) -> None:
        """Begin two daughters, or go on with the larger of two pieces."""
        row, (one, other) = event.rows[0], event.columns
        self._settled[row] = True
        if event.kind == "division":
            self._born.append(_Birth(row, (one, other), self._of.detections.sequence))
            return
        self._source[one], self._still[one] = row, True
        self._pieces.append((row, (one, other), event.odds))

    def _revoke(self, split: int, row: int, reason: str) -> None:
        """Make a row the mother of a division that was none; the other daughter is nobody's."""
        mother, own = self._splits.cell.take(np.array([split])), int(self._track[row])
        name, parent, since = int(mother.track[0]), int(mother.parent[0]), int(self._splits.since[split])
        for daughter in self._splits.parts[split].tolist():
            right = (name, parent) if daughter == own else (daughter, 0)
            self._corrections.append(Correction(since, daughter, *right, f"{name} did not divide: {reason}"))
            if daughter != own:
                self._parent[self._track == daughter] = 0
        oldest = self._age[np.isin(self._track, self._splits.parts[split])].max()
        self._track[row], self._parent[row], self._since[row] = name, parent, mother.since[0]
        self._age[row] = mother.age[0] + 1 + oldest

    def _judge_splits(self, waiting: NDArray[np.bool_]) -> Splits:
        """Confirm or revoke the splits of which there is news; return those that may still prove wrong."""
        splits = self._splits
        columns = self._columns_of(splits.parts)
        both = (columns >= 0).all(axis=1)
        unsure = (np.isin(splits.parts, self._track[: len(waiting)][waiting]) & (columns < 0)).any(axis=1)
        daughters = both & ~splits.divided & (splits.odds + LASTS * (splits.frames + 1) > 0)
        for split in np.flatnonzero(~both & ~unsure & splits.divided).tolist():
            self._judge_lone(split, columns[split])
        taken = {column for birth in self._born for column in birth.columns}
        for split in np.flatnonzero(daughters).tolist():
            one, other = columns[split].tolist()
            row = int(self._source[one])
            # Of three pieces, two are daughters; and one thing after another if its own birth was just revoked.
            if not taken.isdisjoint((one, other)) or self._track[row] != self._rows.track[row]:
                daughters[split] = False
                continue
            taken |= {one, other}
            self._born.append(_Birth(row, (one, other), int(splits.since[split])))
        over = both & ~daughters & (splits.frames + 1 >= RECENT_FRAMES)
        self._ended += [
            Ended(track, "division") for track in splits.cell.track[over & splits.divided].tolist()
        ]
        kept = (both & ~daughters & ~over) | (~both & unsure)
        return replace(splits, frames=splits.frames + both).take(kept)

    def _judge_lone(self, split: int, columns: Ints) -> None:
        """Revoke a division of which one daughter was seen once only, if the other is as large as the mother was."""
        seen, mother = np.flatnonzero(columns >= 0), self._splits.cell
        if len(seen) == 1:
            column, gone = int(columns[seen[0]]), self._splits.parts[split, 1 - seen[0]]
            young = (self._age[self._track == gone] == 0).any()
            whole = max(mother.area[split], mother.usual_area[split])  # she may have shrunk before
            if young and self._of.found.area[column] > whole + WHOLE_AGAIN:
                self._revoke(
                    split, int(self._source[column]), "one daughter is gone, the other is the whole cell"
                )
                return
        self._ended.append(Ended(int(self._splits.cell.track[split]), "division"))

    def _columns_of(self, tracks: Ints) -> Ints:
        """Return the detections of tracks that go on, -1 for those that do not."""
        columns = np.flatnonzero(self._source >= 0)
        going = self._track[self._source[columns]]
        if not len(going):
            return np.full(tracks.shape, -1)
        order = np.argsort(going)
        at = np.minimum(np.searchsorted(going[order], tracks), len(going) - 1)
        return np.where(going[order][at] == tracks, columns[order][at], -1)

    # --- what is said and kept --------------------------------------------------------------------------------

    def _finish(self) -> tuple[Memory, Tracks]:
        of, n = self._of, len(self._of.alive)
        missed = ~self._settled[:n]
        # Where nothing at all is found, the light or the focus failed rather than every cell.
        blank = len(of.found) == 0 and n >= ENOUGH_TO_TELL
        given_up = missed & (of.alive.missed >= self._max_gap + (LONGEST_BLANK if blank else 0))
        self._ended += [
            Ended(int(self._track[row]), self._why(row)) for row in np.flatnonzero(given_up).tolist()
        ]
        waiting = missed & ~given_up
        splits = self._judge_splits(waiting)
        now, motion = self._going_on()
        now, said, new_splits = self._named(now)
        kept = replace(
            of.at_rest.take(waiting),
            track=self._track[:n][waiting],
            parent=self._parent[:n][waiting],
            missed=of.at_rest.missed[waiting] + 1,
            place=of.alive.place[waiting],
        )
        alive = now.joined(kept)
        memory = Memory(
            alive=alive,
            scales=self._learned(motion, int(given_up.sum())),
            splits=splits.joined(new_splits),
            hidden=self._still_hidden(alive),
            number=int(max(now.track.max(initial=0) + 1, self._memory.number)),
            sequence=of.detections.sequence,
            stage_um=of.detections.stage_um,
            time_s=of.detections.time_s,
            interval_s=self._memory.interval_to(of.detections.time_s),
        )
        return memory, self._tracks(now, memory, said)

    def _going_on(self) -> tuple[Alive, Motion | None]:
        """Return the detections with the past of their sources, and what was learned of motion."""
        of, found = self._of, self._of.found
        now = replace(found, steadiness=np.full(len(found), first_steadiness(of.scales)))
        columns = np.flatnonzero(self._source >= 0)
        if not len(columns):
            return now, None
        rows = self._source[columns]
        old = self._rows
        usual_area, usual_light = old.usual_area[rows], old.usual_brightness[rows]
        past = {
            "track": self._track[rows],
            "parent": self._parent[rows],
            "since": self._since[rows],
            "age": self._age[rows] + 1 + old.missed[rows],
            "velocity": old.velocity[rows],
            "steadiness": old.steadiness[rows],
            "unrest": old.unrest[rows],
            "gain": self._gain[columns],
            "earlier": np.column_stack([old.place, old.area, old.brightness, old.moments])[rows],
            "usual_area": usual_area + NEWEST * (found.area[columns] - usual_area),
            "usual_brightness": usual_light + NEWEST * (found.brightness[columns] - usual_light),
        }
        changed = {name: getattr(now, name).copy() for name in past}
        for name, values in past.items():
            changed[name][columns] = values
        moving = ~self._still[columns]
        motion = None
        if moving.any():
            seen, moved_rows = columns[moving], rows[moving]
            motion = moved(old, moved_rows, of.alive.place[moved_rows], found.place[seen], of.scales)
            changed["velocity"][seen], changed["steadiness"][seen] = motion.velocity, motion.steadiness
            changed["unrest"][seen] = motion.unrest
        return replace(now, **changed), motion

    def _named(self, now: Alive) -> tuple[Alive, tuple[Division, ...], Splits]:
        """Number what is new, in the order of the detections; return the divisions, and what may prove wrong."""
        today = self._of.detections.sequence
        new = self._source < 0
        new[[birth.columns[0] for birth in self._born]] = True
        track, parent, age = now.track.copy(), now.parent.copy(), now.age.copy()
        track[new], parent[new], age[new] = self._memory.number + np.arange(new.sum()), 0, 0
        since = np.where(new, today, now.since)
        divisions: list[Division] = []
        for birth in self._born:
            mother, columns = int(self._track[birth.mother]), list(birth.columns)
            parent[columns] = mother
            one, other = track[columns].tolist()
            divisions.append(Division(mother, (one, other)))
            if birth.since == today:
                continue
            reason = f"{mother} had divided, which was not certain then"
            said = int(self._rows.track[birth.mother])  # not her name if her own birth is revoked now
            self._corrections.append(Correction(birth.since, said, one, mother, reason))
            # Pieces began together; a daughter that was missed is one frame younger.
            since[columns[0]], age[columns[0]] = birth.since, 1 if new[columns[1]] else age[columns[1]]
            if not new[columns[1]]:
                self._corrections.append(Correction(birth.since, other, other, mother, reason))
        rows = [birth.mother for birth in self._born] + [row for row, _, _ in self._pieces]
        pairs = [birth.columns for birth in self._born] + [columns for _, columns, _ in self._pieces]
        cell = replace(self._rows, track=self._track, parent=self._parent).take(np.array(rows, np.int64))
        said_for = np.array(
            [age[birth.columns[0]] for birth in self._born] + [0] * len(self._pieces), np.int32
        )
        splits = Splits.new(
            replace(cell, age=cell.age + cell.missed - said_for),  # in the frame before they were two
            track[np.array(pairs, np.int64).reshape(-1, 2)],
            np.array([birth.since for birth in self._born] + [today] * len(self._pieces), np.int64),
            np.array([True] * len(self._born) + [False] * len(self._pieces), bool),
            np.array([np.inf] * len(self._born) + [odds for _, _, odds in self._pieces]),
        )
        return replace(now, track=track, parent=parent, age=age, since=since), tuple(divisions), splits

    def _why(self, row: int) -> Literal["exit", "death", "lost"]:
        """Return why a track is over."""
        old = self._rows
        shrunk = old.area[row] - old.usual_area[row] < DYING_AREA
        if old.dead[row] > 0.5 or (shrunk and old.brightness[row] - old.usual_brightness[row] > DYING_LIGHT):
            return "death"
        return "exit" if self._of.at_border[row] else "lost"

    def _learned(self, motion: Motion | None, ended: int) -> Scales | None:
        if motion is None:
            return self._memory.scales
        columns = np.flatnonzero((self._source >= 0) & ~self._still)
        came = int((self._source < 0).sum()) - 2 * len(self._born)
        of, rows = self._of, self._source[columns]
        looks = of.links.unlike[rows], of.links.overlap[rows]
        return learned(of.scales, of.alive, of.found, rows, columns, motion, *looks, ended, max(came, 0))

    def _still_hidden(self, alive: Alive) -> tuple[Hidden, ...]:
        """Return the hidden cells whose carriers go on; the others, and those hidden for too long, are lost."""
        if not self._hidden:
            return ()
        tracks, seen = set(alive.track.tolist()), set(alive.track[alive.missed == 0].tolist())
        kept: list[Hidden] = []
        for track, hidden in self._hidden.items():
            frames = hidden.frames + (hidden.carrier in seen)
            if hidden.carrier not in tracks or frames > LONGEST_MERGE:
                self._ended.append(Ended(track))
            else:
                cell = replace(hidden.cell, missed=hidden.cell.missed + 1)
                kept.append(replace(hidden, frames=frames, cell=cell))
        return tuple(kept)

    def _tracks(self, now: Alive, memory: Memory, said: tuple[Division, ...]) -> Tracks:
        splits = memory.splits
        unsure = np.isin(now.track, splits.parts[splits.divided & (splits.frames == 0)])
        scales = memory.scales or self._of.scales
        variance = scales.step_px**2 * now.unrest
        trust = 1 / (1 + np.exp(-now.steadiness))
        return Tracks(
            detections=self._of.detections,
            track=now.track,
            parent=now.parent,
            age=now.age,
            velocity=(trust[:, np.newaxis] * now.velocity)[:, -2:],
            covariance=np.stack([variance, variance, np.zeros_like(variance)], axis=1),
            confidence=self._confidence,
            divisions=said,
            ended=tuple(self._ended),
            margin=self._margin,
            provisional=(now.age == 0) | unsure,
            merges=_merges(memory.hidden, now.track),
            corrections=tuple(self._corrections),
            drift_px=self._of.drift_px,
        )


def _merges(hidden: tuple[Hidden, ...], seen: Ints) -> tuple[Merge, ...]:
    """Return which of the tracks that are seen hide others."""
    if not hidden:
        return ()
    inside: dict[int, tuple[int, ...]] = {}
    for each in hidden:
        inside[each.carrier] = (*inside.get(each.carrier, ()), int(each.cell.track[0]))
    there = np.isin(list(inside), seen)
    return tuple(Merge(*each) for each, is_there in zip(inside.items(), there, strict=True) if is_there)
