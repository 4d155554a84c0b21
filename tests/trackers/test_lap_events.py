"""What the default tracker says when cells divide, break, touch, end: of a field of cells one is played with."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.trackers.commit import LONGEST_MERGE, RECENT_FRAMES
from cytoloop.trackers.lap import LapTracker
from cytoloop.trackers.lineage import LineageBuilder

SIDE, ONE, NEXT = 6, 14, 15  # a square of cells; the one that is played with, and its neighbour in x
WHEN = 6
KINDS = ("nuclei", "rods")


def ellipse(yx, long, short, angle, light):
    """Return y, x, area, yy, xx, yx, mean of an ellipse with these half axes."""
    p, q, s, c = long**2 / 4, short**2 / 4, np.sin(angle), np.cos(angle)
    return [*yx, np.pi * long * short, p * s * s + q * c * c, p * c * c + q * s * s, (p - q) * s * c, light]


def halves(yx, long, short, angle, light, gap=0.0):
    """Return both halves of an ellipse cut across its long axis, each moved away from the cut."""
    s, c, off = np.sin(angle), np.cos(angle), 4 * long / (3 * np.pi)
    p, q = long**2 / 4 - off**2, short**2 / 4
    moments = [p * s * s + q * c * c, p * c * c + q * s * s, (p - q) * s * c]
    return [
        [*(yx + side * (off + gap) * np.array([s, c])), np.pi * long * short / 2, *moments, light]
        for side in (-1, 1)
    ]


def as_one(cells):
    """Return what is seen of cells that touch: their union."""
    table = np.array(cells)
    share = table[:, 2] / table[:, 2].sum()
    yx = share @ table[:, :2]
    y, x = (table[:, :2] - yx).T
    moments = share @ (table[:, 3:6] + np.stack([y * y, x * x, y * x], axis=1))
    return [*yx, table[:, 2].sum(), *moments, share @ table[:, 6]]


class Field:
    """A square of cells that wander a little, followed by a tracker; remembers all that is said."""

    def __init__(self, detections, kind="nuclei", seed=0, **options):
        self.random, self.kind = np.random.default_rng(seed), kind
        n = SIDE * SIDE
        self.yx = (
            np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).reshape(-1, 2)[:, ::-1] * 60.0 + 90
        )
        self.long = self.random.uniform(8, 10, n) if kind == "nuclei" else self.random.uniform(14, 20, n)
        self.short = self.long * self.random.uniform(0.75, 0.95, n) if kind == "nuclei" else np.full(n, 5.0)
        self.angle, self.light = self.random.uniform(0, np.pi, n), self.random.uniform(40, 60, n)
        self.detections, self.tracker, self.lineage = detections, LapTracker(**options), LineageBuilder()
        self.said, self.who = [], []

    def play(self, frames, change=None, order=None, **more):
        """Go on for some frames; ``change(frame, cells)`` may change {cell: its rows}, as may others' order."""
        for _ in range(frames):
            number = len(self.said)
            yx = self.yx + self.random.normal(0, 0.7, self.yx.shape)
            long = self.long * np.exp(self.random.normal(0, 0.02, len(yx)))
            light = self.light * np.exp(self.random.normal(0, 0.02, len(yx)))
            angle = self.angle + self.random.normal(0, 0.05, len(yx))
            self.now = list(zip(yx, long, self.short, angle, light, strict=True))
            cells = {cell: [ellipse(*looks)] for cell, looks in enumerate(self.now)}
            if change is not None:
                change(number, cells)
            rows = [(cell, row) for cell, parts in cells.items() for row in parts]
            rows = [rows[k] for k in (order or range)(len(rows))]
            table = np.array([row for _, row in rows])
            given = {name: of([cell for cell, _ in rows]) for name, of in more.items()}
            tracks = self.tracker.update(
                self.detections(
                    table[:, :2], number, area=table[:, 2], moments=table[:, 3:6], mean=table[:, 6], **given
                )
            )
            self.lineage.add(number, tracks.track, tracks.divisions, tracks.corrections)
            self.said.append(tracks)
            self.who.append([cell for cell, _ in rows])
        return self

    def names(self, cell, frame=-1, *, in_the_end=False):
        """Return the identities of a cell's parts in a frame, as said then or as they are after all corrections."""
        track = self.said[frame].track
        if in_the_end:
            track = self.lineage.build().corrected(frame % len(self.said), track)
        return [t for t, who in zip(track.tolist(), self.who[frame], strict=True) if who == cell]

    def heard(self, what):
        """Return all divisions, corrections, ends or merges with the frames in which they were said."""
        return [(frame, each) for frame, tracks in enumerate(self.said) for each in getattr(tracks, what)]

    def daughters(self, gap=1.0):
        """Return two daughters, where the cell that is played with would be."""
        yx, long, short, angle, light = self.now[ONE]
        if self.kind == "rods":
            return halves(yx, long, short, angle, light, 2.0 + gap)
        away = (0.9 * long + gap) * np.array([np.sin(angle), np.cos(angle)])
        return [ellipse(yx + side * away, 0.72 * long, 0.68 * long, angle, light) for side in (-1, 1)]

    def pieces(self, gap=0.0):
        return halves(*self.now[ONE], gap)

    def breaks(self, first, last, gap=0.0):
        """Return a change in which the cell is seen in two halves from one frame to another."""
        return lambda frame, cells: cells.update({ONE: self.pieces(gap)} if first <= frame <= last else {})


@pytest.fixture(params=KINDS)
def field(request, detections):
    return Field(detections, request.param)


def divided(field, frames, **more):
    return field.play(WHEN).play(
        frames, lambda frame, cells: cells.update({ONE: field.daughters(0.5 * (frame - WHEN) + 1)}), **more
    )


def test_daughters_are_provisional_in_their_first_frame_only(field):
    divided(field, 4)
    mother, daughters = field.names(ONE, 0), field.names(ONE, WHEN)
    assert [(frame, [each.mother], sorted(each.daughters)) for frame, each in field.heard("divisions")] == [
        (WHEN, mother, sorted(daughters))
    ]
    first, second = field.said[WHEN], field.said[WHEN + 1]
    assert sorted(first.track[first.provisional].tolist()) == sorted(daughters)
    assert field.names(ONE, WHEN + 1) == daughters
    assert not second.provisional.any()
    assert field.heard("corrections") == []


def test_a_mother_is_over_once_her_division_is_certain_and_never_comes_back(field):
    divided(field, RECENT_FRAMES + 6)
    mother = field.names(ONE, 0)[0]
    assert [(frame, each.track, each.why) for frame, each in field.heard("ended")] == [
        (WHEN + RECENT_FRAMES, mother, "division")
    ]
    assert all(mother not in tracks.track for tracks in field.said[WHEN:])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_that_is_seen_in_two_halves_for_a_frame_keeps_its_identity(detections, kind, seed):
    field = Field(detections, kind, seed)
    field.play(12, field.breaks(WHEN, WHEN))
    name = field.names(ONE, 0)
    assert name[0] in field.names(ONE, WHEN)
    assert field.names(ONE) == name
    lineage = field.lineage.build()
    assert lineage.parents == {}
    assert field.said[-1].age[field.said[-1].row(name[0])] == 11


@pytest.mark.parametrize("lasts", [1, 2, 3])
def test_a_division_is_taken_back_if_its_daughters_are_one_rod_again(detections, lasts):
    field = Field(detections, "rods")
    field.play(WHEN + lasts + 3, field.breaks(WHEN, WHEN + lasts - 1, gap=3.0))
    mother, daughters = field.names(ONE, 0)[0], field.names(ONE, WHEN)
    assert [each.mother for _, each in field.heard("divisions")] == [mother]
    corrections = field.heard("corrections")
    assert {frame for frame, _ in corrections} == {WHEN + lasts}
    assert {each.since for _, each in corrections} == {WHEN}
    goes_on, alone = sorted((each for _, each in corrections), key=lambda each: each.new != mother)
    assert sorted([goes_on.old, alone.old]) == sorted(daughters)
    assert (goes_on.new, goes_on.parent) == (mother, 0)
    assert (alone.new, alone.parent) == (alone.old, 0)
    assert field.names(ONE) == [mother]
    lineage = field.lineage.build()
    assert (lineage.parents, lineage.divisions, lineage.refused) == ({}, {}, ())
    assert lineage.spans[mother] == [(0, WHEN + lasts + 2)]
    assert lineage.spans[alone.old] == [(WHEN, WHEN + lasts - 1)]
    assert field.said[-1].age[field.said[-1].row(mother)] == WHEN + lasts + 2
    assert "division" not in {each.why for _, each in field.heard("ended")}


def test_a_revoked_daughter_of_a_daughter_leaves_the_first_division_as_it_was(detections):
    field = Field(detections, "rods")
    divided(field, 3)
    grandmother, mother = field.names(ONE, 0)[0], field.names(ONE)[0]

    def again(frame, cells):
        one, other = field.daughters(2.5)
        if frame == WHEN + 3:  # one of the daughters falls into two, well apart
            y, x, _, yy, xx, yx, light = one
            long, short = np.sqrt(4 * np.linalg.eigvalsh([[yy, yx], [yx, xx]]))[::-1]
            one = halves(np.array([y, x]), long, short, field.now[ONE][3], light, 4.0)
            cells[ONE] = [*one, other]
        else:
            cells[ONE] = [one, other]

    field.play(4, again)
    lineage = field.lineage.build()
    assert [lineage.parents[name] for name in field.names(ONE)] == [grandmother, grandmother]
    assert mother in field.names(ONE)
    assert set(lineage.parents.values()) == {grandmother}


@pytest.mark.parametrize("speed", [0.0, 0.5, 1.0])
def test_halves_that_last_are_daughters_from_their_first_frame_on(field, speed):
    field.play(WHEN).play(
        8, lambda frame, cells: cells.update({ONE: field.pieces(speed * (frame - WHEN))}), order=None
    )
    mother = field.names(ONE, 0)[0]
    (frame, division), *others = field.heard("divisions")
    assert others == []
    assert WHEN < frame <= WHEN + 3
    assert (division.mother, sorted(division.daughters)) == (mother, sorted(field.names(ONE)))
    assert {(said, each.since, each.new, each.parent) for said, each in field.heard("corrections")} == {
        (frame, WHEN, daughter, mother) for daughter in division.daughters
    }
    lineage = field.lineage.build()
    assert [lineage.parents[name] for name in field.names(ONE, WHEN, in_the_end=True)] == [mother, mother]
    assert lineage.spans[mother] == [(0, WHEN - 1)]
    assert list(lineage.divisions) == [WHEN]


@pytest.mark.parametrize("missed", [0, 1])
def test_a_daughter_that_is_missed_in_her_first_frame_makes_a_late_division(detections, missed):
    field = Field(detections, "rods")
    field.play(WHEN)
    field.play(1, lambda frame, cells: cells.update({ONE: field.daughters()[missed : missed + 1]}))
    assert field.heard("divisions") == []
    field.play(5, lambda frame, cells: cells.update({ONE: field.daughters(1.5)}))
    mother, seen = field.names(ONE, 0)[0], field.names(ONE, WHEN, in_the_end=True)
    assert [(frame, each.mother) for frame, each in field.heard("divisions")] == [(WHEN + 1, mother)]
    assert [(each.since, each.old, [each.new], each.parent) for _, each in field.heard("corrections")] == [
        (WHEN, mother, seen, mother)
    ]
    lineage = field.lineage.build()
    assert {lineage.parents[name] for name in field.names(ONE)} == {mother}
    assert seen[0] in field.names(ONE)
    ages = field.said[-1].age[[field.said[-1].row(name) for name in field.names(ONE)]]
    assert sorted(ages.tolist()) == [4, 5]


def meet(field, length, *, third=False):
    """Return a change in which the cell and its neighbour come together, are seen as one, and part again."""
    if third:  # beside both
        field.yx[ONE + SIDE] = (field.yx[ONE] + field.yx[NEXT]) / 2 + (28, 0)
    field.angle[[ONE, NEXT]] = np.pi / 2
    touch = 0.98 * (field.long[ONE] + field.long[NEXT]) if field.kind == "nuclei" else 11.0

    def change(frame, cells):
        away = max(WHEN - frame, frame - WHEN - length + 1, 0) * 3.0 + touch
        middle = (field.yx[ONE] + field.yx[NEXT]) / 2
        for side, cell in ((-1, ONE), (1, NEXT)):
            place = field.random.normal(0, 0.4, 2) + middle + np.array([0, side * away / 2])
            cells[cell] = [ellipse(place, *field.now[cell][1:])]
        if WHEN <= frame < WHEN + length:
            cells["both"] = [as_one([*cells.pop(ONE), *cells.pop(NEXT)])]

    return change


@pytest.mark.parametrize("third", [False, True])
@pytest.mark.parametrize("order", [range, lambda n: range(n)[::-1]], ids=["in order", "turned"])
@pytest.mark.parametrize("length", [1, 4, LONGEST_MERGE - 2])
def test_two_cells_that_are_seen_as_one_get_their_identities_back(field, length, order, third):
    field.play(WHEN + length + 6, meet(field, length, third=third), order)
    assert field.names(ONE) == field.names(ONE, 0)
    assert field.names(NEXT) == field.names(NEXT, 0)
    assert [frame for frame, _ in field.heard("merges")] == list(range(WHEN, WHEN + length))
    pair = {*field.names(ONE), *field.names(NEXT)}
    for frame, merge in field.heard("merges"):
        assert field.names("both", frame) == [merge.track]
        assert {merge.track, *merge.hidden} == pair
    assert (field.heard("divisions"), field.heard("ended"), field.heard("corrections")) == ([], [], [])
    assert (field.said[-1].age == len(field.said) - 1).all()


def test_a_cell_that_is_hidden_for_too_long_is_lost_once_and_its_identity_is_gone(field):
    length = LONGEST_MERGE + 4
    field.play(WHEN + length + 8, meet(field, length))
    hidden = field.heard("merges")[0][1].hidden[0]
    assert [frame for frame, _ in field.heard("merges")] == list(range(WHEN, WHEN + LONGEST_MERGE))
    assert [each.why for _, each in field.heard("ended") if each.track == hidden] == ["lost"]
    assert all(hidden not in tracks.track for tracks in field.said[WHEN:])
    assert field.names(ONE) != field.names(NEXT)


def test_without_merges_no_cell_is_said_to_be_hidden(detections):
    field = Field(detections, "nuclei", merges=False)
    field.play(WHEN + 10, meet(field, 4))
    assert field.heard("merges") == []


def gone(first):
    return lambda frame, cells: cells.pop(ONE) if frame >= first else None


def test_a_cell_that_vanishes_in_the_middle_of_the_field_is_lost(field):
    field.play(WHEN + 3, gone(WHEN))
    name = field.names(ONE, 0)[0]
    assert [(frame, each) for frame, each in field.heard("ended")] == [(WHEN + 1, (name, "lost"))]


def test_a_cell_that_was_seen_to_be_dead_has_died_when_it_is_gone(field):
    def dead(cells):
        return {"dead": np.array([0.9 if cell == ONE else 0.02 for cell in cells], np.float32)}

    field.play(WHEN + 3, gone(WHEN), classes=dead)
    assert [each for _, each in field.heard("ended")] == [(field.names(ONE, 0)[0], "death")]


def shrinking(field, by, brighter=1.0, until=WHEN + 3):
    def change(frame, cells):
        if frame >= WHEN:
            times = frame - WHEN + 1
            y, x, *looks, light = cells[ONE][0]
            cells[ONE] = [[y, x, *(value * by**times for value in looks), light * brighter**times]]
        if frame > until:
            cells.pop(ONE)

    return change


def test_a_cell_that_shrinks_and_grows_bright_has_died_when_it_is_gone(detections):
    field = Field(detections)
    field.play(WHEN + 7, shrinking(field, 0.8, 1.2))
    assert [each for _, each in field.heard("ended")] == [(field.names(ONE, 0)[0], "death")]


def test_a_cell_that_has_shrunk_to_nothing_is_not_another_that_comes_there(detections):
    field = Field(detections)
    field.play(WHEN + 5, shrinking(field, 0.65))
    name = field.names(ONE, 0)
    field.play(3)
    assert field.names(ONE) != name
    assert [each for _, each in field.heard("ended")] == [(*name, "lost")]
    assert field.heard("divisions") == []


def test_a_cell_that_walks_out_of_the_field_exits(detections):
    field = Field(detections)

    def walks(frame, cells):
        x = 70.0 - 6 * frame
        cells[ONE] = [ellipse((250.0, x), 9.0, 8.0, 0.0, 50.0)] if x > 4 else []

    field.play(16, walks)
    assert [each for _, each in field.heard("ended")] == [(field.names(ONE, 0)[0], "exit")]


@pytest.mark.parametrize(("kind", "gap"), [("nuclei", 0.5), ("rods", 1.0)])
def test_a_mother_that_is_seen_in_mitosis_is_believed_to_divide(detections, kind, gap):
    def said(likely):
        fields = [Field(detections, kind, seed) for seed in range(8)]
        for field in fields:
            more = {}
            if likely is not None:
                more["classes"] = lambda cells: {
                    "mitotic": np.array([likely if cell == ONE else 0.0 for cell in cells], np.float32)
                }
            field.play(WHEN + 1, field.breaks(WHEN, WHEN, gap), **more)
        return [(field.said[WHEN].divisions, field.said[WHEN].track.tolist()) for field in fields]

    without, sure = said(None), said(0.99)
    assert sum(map(len, (divisions for divisions, _ in sure))) > sum(
        map(len, (divisions for divisions, _ in without))
    )
    assert said(0.0) == without
