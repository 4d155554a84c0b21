"""The scores of tracks: each kind of mistake costs what it must, and traccuracy agrees where it judges the same."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from cytoloop.acquire.reply import Correction, Division
from cytoloop.models.detections import Detections
from cytoloop.realtime.bench.track_scores import TrackScores, calibration_error, score_tracks
from cytoloop.trackers.recipes.crowd import CrowdFrame
from cytoloop.trackers.tracks import Tracks

Family = tuple[int, int, int]


def frame_of(number: int, identity: Sequence[int], born: Sequence[Family] = ()) -> CrowdFrame:
    n = len(identity)
    yx = np.array([[20.0 * who, 10.0] for who in identity]).reshape(-1, 2)
    return CrowdFrame(
        Detections(
            sequence=number,
            time_s=float(number),
            shape=(1000, 1000),
            yx=yx,
            area=np.full(n, 100.0),
            bbox=np.zeros((n, 4), np.int32),
            mean=np.ones((n, 1)),
            maximum=np.ones((n, 1)),
            moments=np.ones((n, 3)),
        ),
        np.array(identity, np.int64),
        np.array(born, np.int64).reshape(-1, 3),
    )


def movie_of(*frames: Sequence[int], born: dict[int, Sequence[Family]] | None = None) -> list[CrowdFrame]:
    return [
        frame_of(number, identity, (born or {}).get(number, ())) for number, identity in enumerate(frames)
    ]


def answers(
    movie: Sequence[CrowdFrame],
    *tracks: Sequence[int],
    parents: dict[int, int] | None = None,
    divisions: dict[int, Sequence[Family]] | None = None,
    corrections: dict[int, Sequence[Correction]] | None = None,
    confidence: float = 1.0,
) -> list[Tracks]:
    seen: set[int] = set()
    said: list[Tracks] = []
    for number, (frame, names) in enumerate(zip(movie, tracks, strict=True)):
        n = len(names)
        born = tuple(Division(m, (a, b)) for m, a, b in (divisions or {}).get(number, ()))
        said.append(
            Tracks(
                detections=frame.detections,
                track=np.array(names, np.int64),
                parent=np.array([(parents or {}).get(name, 0) for name in names], np.int64),
                age=np.array([int(name in seen) for name in names], np.int32),
                velocity=np.zeros((n, 2)),
                covariance=np.zeros((n, 3)),
                confidence=np.full(n, confidence) - 0.01 * (np.arange(n) == 0),
                divisions=born,
                corrections=tuple((corrections or {}).get(number, ())),
            )
        )
        seen.update(names)
    return said


def counts(scores: TrackScores) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return right, wrong and missing links, and divisions."""
    return tuple(
        (int(each.right.sum()), int(each.wrong.sum()), int(each.missing.sum()))
        for each in (scores.edges, scores.divisions)
    )  # type: ignore[return-value]


def test_the_truth_itself_has_no_mistake():
    movie = movie_of([1, 2], [1, 2], [1, 3, 4], [1, 3, 4], born={2: [(2, 3, 4)]})
    said = answers(
        movie, [7, 8], [7, 8], [7, 9, 10], [7, 9, 10], parents={9: 8, 10: 8}, divisions={2: [(8, 9, 10)]}
    )
    scores = score_tracks(movie, said)
    assert counts(scores) == ((8, 0, 0), (1, 0, 0))
    assert scores.figures() == {
        "edge_f1": 1.0,
        "division_f1": 1.0,
        "edge_f1_at_once": 1.0,
        "division_f1_at_once": 1.0,
        "id_switches": 0,
        "id_switches_at_once": 0,
        "ece": pytest.approx(0.0, abs=0.01),
    }


def test_two_cells_that_change_names_are_two_wrong_links_two_missing_ones_and_two_switches():
    movie = movie_of([1, 2], [1, 2], [1, 2])
    scores = score_tracks(movie, answers(movie, [1, 2], [2, 1], [2, 1]))
    assert counts(scores)[0] == (2, 2, 2)
    assert scores.id_switches == 2
    assert scores.edges.f1(2) == 0.0


def test_a_link_to_a_detection_of_nothing_is_wrong():
    movie = movie_of([1, 0], [1, 0], [1])
    scores = score_tracks(movie, answers(movie, [1, 2], [1, 2], [1]))
    assert counts(scores)[0] == (2, 1, 0)


def test_a_link_over_one_missed_frame_is_asked_for_and_over_two_it_is_not():
    movie = movie_of([1, 2], [2], [1, 2], [2], [2], [1, 2])
    kept = score_tracks(movie, answers(movie, [1, 2], [2], [1, 2], [2], [2], [1, 2]))
    assert counts(kept)[0] == (6, 0, 0)
    lost = score_tracks(movie, answers(movie, [1, 2], [2], [3, 2], [2], [2], [4, 2]))
    assert counts(lost)[0] == (5, 0, 1)
    assert lost.id_switches == 2


def test_a_division_is_right_only_with_both_daughters_in_its_frame():
    movie = movie_of([1], [2, 3], [2, 3], born={1: [(1, 2, 3)]})
    late = answers(movie, [1], [1, 5], [6, 7], parents={6: 1, 7: 1}, divisions={2: [(1, 6, 7)]})
    assert counts(score_tracks(movie, late))[1] == (0, 1, 1)
    one = answers(movie, [1], [1, 5], [1, 5])
    scores = score_tracks(movie, one)
    assert counts(scores) == ((3, 0, 1), (0, 0, 1))  # going on as a daughter is a link, but no division
    wrong = movie_of([1, 4], [2, 3, 4], born={1: [(1, 2, 3)]})
    said = answers(wrong, [1, 9], [2, 3, 4], parents={2: 1, 4: 1}, divisions={1: [(1, 2, 4)]})
    assert counts(score_tracks(wrong, said)) == ((1, 1, 2), (0, 1, 1))


@pytest.mark.parametrize(
    ("frames", "tracks", "said_in"),
    [
        (([1], [2], [2, 3]), ([1], [2], [2, 3]), 2),  # a daughter was missed
        (([1, 9], [9], [2, 3, 9]), ([1, 9], [9], [2, 3, 9]), 2),  # the mother was
    ],
)
def test_a_division_of_which_a_cell_was_missed_is_neither_asked_for_nor_held_against_anyone(
    frames, tracks, said_in: int
):
    born = {1: [(1, 2, 3)]} if 2 in frames[1] else {2: [(1, 2, 3)]}
    movie = movie_of(*frames, born=born)
    silent = score_tracks(movie, answers(movie, *tracks))
    assert counts(silent)[1] == (0, 0, 0)
    assert math.isnan(silent.divisions.f1())
    said = answers(movie, *tracks, parents={2: 1, 3: 1}, divisions={said_in: [(1, 2, 3)]})
    scores = score_tracks(movie, said)
    assert counts(scores)[1] == (0, 0, 0)
    assert counts(scores)[0][1:] == (0, 0)
    beside = answers(movie, *tracks, divisions={said_in: [(tracks[0][-1], 3, tracks[2][-1])]})
    assert counts(score_tracks(movie, beside))[1][1] == int(tracks[0][-1] == 9)


def test_a_revoked_division_counts_at_once_only():
    movie = movie_of([1], [1, 5], [1, 5])
    said = answers(
        movie,
        [1],
        [2, 3],
        [1, 3],
        parents={2: 1, 3: 1},
        divisions={1: [(1, 2, 3)]},
        corrections={
            2: [
                Correction(since=1, old=2, new=1, parent=0, reason="it went on"),
                Correction(since=1, old=3, new=3, parent=0, reason="it came from elsewhere"),
            ]
        },
    )
    scores = score_tracks(movie, said)
    assert counts(scores) == ((3, 0, 0), (0, 0, 0))
    assert scores.divisions_at_once.f1() == 0.0
    assert scores.edges_at_once.f1() < 1
    assert (scores.id_switches, scores.id_switches_at_once) == (0, 2)


def test_a_late_division_counts_after_the_correction_only():
    movie = movie_of([1], [2, 3], [2, 3], born={1: [(1, 2, 3)]})
    said = answers(
        movie,
        [1],
        [1, 5],
        [6, 7],
        parents={},
        corrections={
            2: [
                Correction(since=1, old=1, new=6, parent=1, reason="a late division"),
                Correction(since=1, old=5, new=7, parent=1, reason="a late division"),
            ]
        },
    )
    scores = score_tracks(movie, said)
    assert counts(scores) == ((4, 0, 0), (1, 0, 0))
    assert scores.divisions_at_once.f1() == 0.0
    assert scores.edges_at_once.f1() < 1


def test_corrections_of_one_frame_hold_together_and_leave_later_frames_alone():
    movie = movie_of([1, 2], [1, 2], [1, 2])
    swap = [
        Correction(since=1, old=1, new=2, parent=0, reason="they were mixed up"),
        Correction(since=1, old=2, new=1, parent=0, reason="they were mixed up"),
    ]
    scores = score_tracks(movie, answers(movie, [1, 2], [2, 1], [1, 2], corrections={2: swap}))
    assert counts(scores)[0] == (4, 0, 0)
    assert (scores.id_switches, scores.id_switches_at_once) == (0, 4)
    assert math.isnan(scores.divisions.f1())


def test_confidence_is_judged_by_whether_the_track_was_the_same_cell_before():
    movie = movie_of([1, 2], [1, 2], [1, 2])
    said = answers(movie, [1, 2], [1, 2], [1, 2], confidence=0.75)
    assert score_tracks(movie, said).ece == pytest.approx(0.255)
    # A track that goes on as a daughter is not the same cell.
    divided = movie_of([1], [2, 3], born={1: [(1, 2, 3)]})
    said = answers(divided, [1], [1, 5], confidence=0.75)
    assert math.isnan(score_tracks(divided, said).ece)  # one confidence: nothing to judge
    both = movie_of([1, 4], [2, 4, 3], born={1: [(1, 2, 3)]})
    assert score_tracks(both, answers(both, [1, 4], [1, 4, 5], confidence=0.8)).ece == pytest.approx(
        (0.79 + 0.2) / 2
    )


def test_calibration_is_perfect_where_as_many_are_right_as_is_said():
    confidence = np.repeat([0.25, 0.75, 1.0], 4)
    right = np.array([1, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1], bool)
    assert calibration_error(confidence, right) == pytest.approx(0)
    assert calibration_error(confidence, ~right) == pytest.approx((0.5 + 0.5 + 1) / 3)


def mistaken(seed: int) -> tuple[list[CrowdFrame], list[Tracks]]:
    """Return cells of which some divide, each seen in every frame, and an answer with many kinds of mistakes."""
    random = np.random.default_rng(seed)
    alive, following = list(range(1, 9)), 9
    frames: list[list[int]] = [list(alive)]
    born: dict[int, list[Family]] = {}
    for number in range(1, 8):
        mother = alive.pop(int(random.integers(len(alive))))
        alive += [following, following + 1]
        born[number] = [(mother, following, following + 1)]
        following += 2
        frames.append(list(alive))
    name = {who: who for who in range(following)}
    fresh, mothers = 1000, dict[int, int]()
    tracks: list[list[int]] = []
    for number, identity in enumerate(frames):
        for mother, *daughters in born.get(number, ()):
            if random.random() < 0.6:
                mothers |= {name[daughter]: name[mother] for daughter in daughters}
            else:
                name[daughters[0]] = name[mother]
        for who in identity:
            if number and random.random() < 0.1:
                fresh += 1
                name[who] = fresh
        if random.random() < 0.5:
            one, other = identity[:2]
            name[one], name[other] = name[other], name[one]
        tracks.append([name[who] for who in identity])
    parents, divisions = sound(mothers, tracks)
    movie = movie_of(*frames, born=born)
    return movie, answers(movie, *tracks, parents=parents, divisions=divisions)


def sound(
    mothers: dict[int, int], tracks: list[list[int]]
) -> tuple[dict[int, int], dict[int, Sequence[Family]]]:
    """Return mothers, and divisions by frame, without those that a tracker cannot say after all mistakes."""
    seen: dict[int, list[int]] = {}
    for number, names in enumerate(tracks):
        for name in names:
            seen.setdefault(name, []).append(number)
    parents, divisions = dict[int, int](), dict[int, list[Family]]()
    for mother in set(mothers.values()) & set(seen):
        daughters = [each for each, of in mothers.items() if of == mother and each in seen]
        first = {seen[each][0] for each in daughters}
        if len(daughters) == 2 and first == {seen[mother][-1] + 1}:
            parents |= dict.fromkeys(daughters, mother)
            divisions.setdefault(first.pop(), []).append((mother, daughters[0], daughters[1]))
    return parents, divisions


@pytest.mark.filterwarnings("ignore")  # of the other package
@pytest.mark.parametrize("seed", range(6))
def test_traccuracy_counts_the_same_links_and_divisions(seed: int):
    traccuracy = pytest.importorskip("traccuracy", reason="needs cytoloop[scores]")
    pytest.importorskip("tqdm").tqdm.monitor_interval = 0
    from traccuracy.matchers import PointMatcher
    from traccuracy.metrics import BasicMetrics, DivisionMetrics

    movie, said = mistaken(seed)
    identities = [frame.identity.tolist() for frame in movie]
    families = [tuple(family) for frame in movie for family in frame.born.tolist()]
    mothers = {child: mother for mother, *children in families for child in children}
    truth = traccuracy.TrackingGraph(
        graph_of(movie, identities, mothers), location_keys=("y", "x"), label_key=None
    )
    parents = {
        int(name): int(mother)
        for each in said
        for name, mother in zip(each.track, each.parent, strict=True)
        if mother
    }
    found = traccuracy.TrackingGraph(
        graph_of(movie, [each.track.tolist() for each in said], parents),
        location_keys=("y", "x"),
        label_key=None,
    )
    rows, _ = traccuracy.run_metrics(
        truth, found, PointMatcher(threshold=1.0), [BasicMetrics(), DivisionMetrics()]
    )
    links, divisions = (row["results"] for row in rows)
    scores = score_tracks(movie, said)
    assert scores.edges.f1() == pytest.approx(links["Edge F1"])
    assert 0 < scores.edges.f1() < 1
    right, _, missing = counts(scores)[1]
    buffered = divisions["Frame Buffer 0"]
    assert (right, right + missing) == (buffered["True Positive Divisions"], buffered["Total GT Divisions"])


def graph_of(movie: Sequence[CrowdFrame], names: Sequence[Sequence[int]], parents: dict[int, int]):
    """Return the graph of detections whose edges join those of one name, and mothers with daughters."""
    import networkx as nx

    graph = nx.DiGraph()
    last: dict[int, int] = {}
    node = 0
    for number, (frame, row) in enumerate(zip(movie, names, strict=True)):
        now: dict[int, int] = {}
        for (y, x), name in zip(frame.detections.yx.tolist(), row, strict=True):
            node += 1
            graph.add_node(node, t=number, y=y, x=x)
            before = last.get(name, last.get(parents.get(name, 0)))
            if before is not None:
                graph.add_edge(before, node)
            now[name] = node
        last |= now
    return graph
