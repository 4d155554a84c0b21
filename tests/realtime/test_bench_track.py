"""The measurement of trackers: the crowd is what it says it is, and nothing is left out in silence."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
from cytoloop.acquire.errors import CytoloopError
from cytoloop.realtime.bench import track
from cytoloop.realtime.bench.track_peers import PEERS
from cytoloop.realtime.bench.track_worker import Job, build_tracker, work
from cytoloop.realtime.cli import main
from cytoloop.realtime.progress import silent
from cytoloop.trackers.adapters.borrowed import EXTRA
from cytoloop.trackers.recipes.crowd import CROWDS, CrowdFrame, crowd
from scipy.spatial import KDTree

DENSITIES = ("easy", "hard")


def movie_of(objects: int, density: str, frames: int, **arguments: object) -> list[CrowdFrame]:
    return list(islice(crowd(objects, density, **arguments), frames))


@pytest.fixture(scope="module")
def movies() -> dict[str, list[CrowdFrame]]:
    return {density: movie_of(600, density, 60) for density in DENSITIES}


def test_the_same_seed_gives_the_same_crowd_and_another_gives_another():
    one, same, other = (movie_of(50, "hard", 5, seed=seed) for seed in (3, 3, 4))
    for a, b in zip(one, same, strict=True):
        for name in ("yx", "area", "mean", "moments", "bbox"):
            assert np.array_equal(getattr(a.detections, name), getattr(b.detections, name)), name
        assert np.array_equal(a.identity, b.identity)
        assert np.array_equal(a.born, b.born)
    assert one[0].detections.yx[0, 0] != other[0].detections.yx[0, 0]


@pytest.mark.parametrize("density", DENSITIES)
def test_a_crowd_keeps_its_number_and_its_rates(density: str, movies: dict[str, list[CrowdFrame]]):
    movie, habits = movies[density], CROWDS[density]
    counts = np.array([len(frame.identity) for frame in movie])
    assert abs(counts.mean() - 600) < 60
    assert counts.max() < 1.25 * counts.min()
    false = np.concatenate([frame.identity for frame in movie]) == 0
    assert false.mean() == pytest.approx(habits.false, abs=0.006)
    divisions = sum(len(frame.born) for frame in movie[1:]) / counts[1:].sum()
    assert (
        habits.divisions * 0.7 < divisions < habits.divisions * 1.6
    )  # those at the border are counted as well
    assert missed_share(movie) == pytest.approx(habits.missed, abs=0.01)


def missed_share(movie: list[CrowdFrame]) -> float:
    """Return the share of cells that are not there in a frame, of those that are there before and after."""
    there = missing = 0
    for before, now, after in zip(movie, movie[1:], movie[2:], strict=False):
        both = np.intersect1d(before.identity, after.identity)
        both = both[both > 0]
        there += len(both)
        missing += len(np.setdiff1d(both, now.identity))
    return missing / there


@pytest.mark.parametrize("density", DENSITIES)
def test_cells_walk_and_drift_as_far_as_it_is_said_and_keep_apart(
    density: str, movies: dict[str, list[CrowdFrame]]
):
    movie, habits = movies[density], CROWDS[density]
    drifts, steps, near = [], [], []
    for before, now in pairwise(movie):
        who, one, other = np.intersect1d(before.identity, now.identity, return_indices=True)
        moved = (now.detections.yx[other] - before.detections.yx[one])[who > 0]
        drifts.append(np.median(moved, axis=0))
        steps.append(moved - drifts[-1])
        cells = now.identity > 0
        yx, radius = now.detections.yx[cells], np.sqrt(now.detections.area[cells] / np.pi)
        distance, nearest = KDTree(yx).query(yx, k=2)
        near.append(distance[:, 1] / (radius + radius[nearest[:, 1]]))
    assert np.concatenate(steps).std() == pytest.approx(habits.step_px, rel=0.1)
    assert 0.4 * habits.drift_px < np.std(drifts) < 1.8 * habits.drift_px
    assert (np.concatenate(near) < 0.6).mean() < 0.08
    shape = movie[0].detections.shape
    assert shape[0] == pytest.approx(habits.spacing_px * 600**0.5, abs=1)


def test_daughters_are_alike_half_as_large_and_lie_beside_each_other(movies: dict[str, list[CrowdFrame]]):
    shares, ratios, apart, off, before_that = [], [], [], [], []
    for number, (before, now) in enumerate(pairwise(movies["easy"])):
        for mother, *daughters in now.born.tolist():
            rows = [np.flatnonzero(now.identity == daughter) for daughter in daughters]
            was = np.flatnonzero(before.identity == mother)
            if not (len(was) and all(map(len, rows))):
                continue
            one, other = (int(row[0]) for row in rows)
            area, yx = now.detections.area, now.detections.yx
            larger, smaller = max(area[one], area[other]), min(area[one], area[other])
            shares.append(larger / before.detections.area[was[0]])
            ratios.append(smaller / larger)
            apart.append(np.hypot(*(yx[one] - yx[other])) / np.sqrt((larger + smaller) / 2 / np.pi))
            off.append(np.hypot(*((yx[one] + yx[other]) / 2 - before.detections.yx[was[0]])))
            earlier = movies["easy"][max(number - 8, 0)]
            then = np.flatnonzero(earlier.identity == mother)
            if len(then):
                before_that.append(before.detections.area[was[0]] / earlier.detections.area[then[0]])
    assert len(shares) > 100
    assert 0.45 < np.median(shares) < 0.65
    assert 0.85 < np.median(ratios) < 0.95
    assert 1.9 < np.median(apart) < 2.5
    assert 2 < np.median(off) < 8
    assert np.median(before_that) < 0.95  # she rounds up, although she has grown


def test_measurements_fit_each_other(movies: dict[str, list[CrowdFrame]]):
    for frame in movies["hard"][:3]:
        found = frame.detections
        assert np.all(np.diff(found.bbox[:, 0]) >= 0)
        assert np.all((found.bbox[:, :2] <= found.yx) & (found.yx <= found.bbox[:, 2:]))
        product = found.moments[:, 0] * found.moments[:, 1] - found.moments[:, 2] ** 2
        assert np.allclose(4 * np.pi * np.sqrt(product), found.area)
        assert found.mean.shape == found.maximum.shape == (len(found), 1)
        assert len(np.unique(frame.identity[frame.identity > 0])) == (frame.identity > 0).sum()


def memory_after(frames: Iterator[CrowdFrame], count: int) -> int:
    for _ in islice(frames, count):
        pass
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_a_crowd_takes_no_more_memory_the_longer_it_is_looked_at():
    frames = crowd(50, "easy")
    tracemalloc.start()
    try:
        early, late = (memory_after(frames, count) for count in (200, 600))
    finally:
        tracemalloc.stop()
    assert late < early + 100_000


@pytest.mark.parametrize(("objects", "density"), [(0, "easy"), (10, "dense")])
def test_a_crowd_that_cannot_be_is_refused(objects: int, density: str):
    with pytest.raises(CytoloopError):
        next(crowd(objects, density))


def test_habits_may_be_others():
    habits = replace(CROWDS["easy"], missed=0.0, false=0.0, divisions=1e-6, deaths=0.0, drift_px=0.0)
    movie = movie_of(20, "easy", 10, habits=habits)
    assert sum(len(frame.born) for frame in movie) == 0
    assert all((frame.identity > 0).all() for frame in movie)
    assert missed_share(movie) < 0.02  # cells at the border come and go


KEYS = {"tracker", "objects", "density", "ms", "edge_f1", "division_f1", "id_switches", "ece"}


def test_the_command_measures_every_tracker_and_prints_one_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(track, "known_names", lambda group: ["nearest", "overlap"])
    with pytest.raises(SystemExit) as left:
        main(
            [
                "bench",
                "track",
                "--objects",
                "40",
                "--density",
                "hard",
                "--frames",
                "8",
                "--no-peers",
                "--json",
            ]
        )
    assert left.value.code == 0
    told = json.loads(capsys.readouterr().out)
    (row,) = told["rows"]
    assert row.keys() >= KEYS | {"frames", "frames_not_timed", "edge_f1_at_once", "division_f1_at_once"}
    assert (row["tracker"], row["objects"], row["density"], row["frames"]) == ("nearest", 40, "hard", 8)
    assert 0 < row["ms"]["p50"] <= row["ms"]["p95"] <= row["ms"]["max"]
    assert row["ms"]["cpu"] > 0
    assert 0 < row["edge_f1"] < 1
    assert 0 < row["ece"] < 1
    assert "edges_by_frame" not in row
    assert told["skipped"] == told["ratio"] == []
    assert told["ok"] is True


def test_a_result_fits_into_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as left:
        main(["bench", "track", "--objects", "30", "--frames", "6", "--tracker", "nearest"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert "nearest" in printed
    assert "30 easy" in printed


def test_a_peer_that_is_not_installed_or_breaks_is_told_and_the_rest_stands(monkeypatch: pytest.MonkeyPatch):
    class Broken:
        needs_masks = False

        def update(self, detections: object) -> None:
            raise ValueError("no such cell")

    monkeypatch.setattr(
        "cytoloop.realtime.bench.track_worker.find_class",
        lambda group, name: Broken,
    )
    answers = list(work(Job("broken", tuple(pickled_movies(monkeypatch)))))
    assert [answer["reason"] for answer in answers] == ["ValueError: no such cell"] * 2
    skipped: list[dict[str, str]] = []
    monkeypatch.setattr(track, "_answers", lambda job: iter(answers))
    assert track._rows(Job("broken", (("a", 1, "easy"), ("b", 1, "hard"))), skipped, silent) == []
    assert skipped == [{"tracker": "broken", "reason": "ValueError: no such cell"}]


def pickled_movies(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, str]]:
    monkeypatch.setattr(
        "cytoloop.realtime.bench.track_worker.pickle.loads", lambda data: movie_of(10, "easy", 5)
    )
    return [(__file__, 10, density) for density in DENSITIES]


def test_a_tracker_that_takes_whole_movies_gets_through_as_much_as_fits(monkeypatch: pytest.MonkeyPatch):
    lengths: list[int] = []

    class Whole:
        def track(self, movie: list[object]) -> list[object]:
            lengths.append(len(movie))
            nearest = build_tracker("nearest", CROWDS["easy"])
            return [nearest.update(detections) for detections in movie]

    monkeypatch.setitem(PEERS, "whole", lambda habits: Whole())
    rows = list(work(Job("whole", tuple(pickled_movies(monkeypatch)), budget_s=60.0)))
    assert [row["frames"] for row in rows] == [4, 4]  # 5 frames are not twice as many
    assert all(row["online"] is False and row["frames_not_timed"] == 0 for row in rows)
    assert all(row["ms"]["p50"] == row["ms"]["p95"] == row["ms"]["mean"] for row in rows)


def test_ours_is_compared_with_the_fastest_peer_that_links_as_well():
    def row(tracker: str, ms: float, right: int, wrong: int, frames: int = 2) -> dict[str, object]:
        edges = [[right] * frames, [wrong] * frames, [0] * frames]
        return {
            "tracker": tracker,
            "objects": 10,
            "density": "easy",
            "ms": {"mean": ms, "cpu": 2 * ms},
            "frames": frames,
            "edge_f1": 2 * right / (2 * right + wrong),
            "edges_by_frame": edges,
        }

    ours, slow, fast, poor = (
        row("lap", 1.0, 9, 1),
        row("btrack", 30.0, 10, 0),
        row("trackpy", 20.0, 9, 1),
        row("laptrack", 2.0, 8, 2),
    )
    (ratio,) = track._ratios([ours, slow, fast, poor])
    assert (ratio["peer"], ratio["as_good"], ratio["times_as_fast"]) == ("trackpy", True, 20.0)
    assert (ratio["best_peer"], ratio["times_as_fast_as_best"]) == ("btrack", 30.0)
    (ratio,) = track._ratios([ours, poor])
    assert (ratio["peer"], ratio["as_good"], ratio["times_as_fast_cpu"]) == ("laptrack", False, 2.0)
    assert track._ratios([ours]) == []


def test_a_long_run_says_what_memory_and_time_were_at_its_ends():
    told = track.run(silent, long=40, objects=(12,), tracker=("nearest",))
    assert told["rows"] == []
    long = told["long"]
    assert (long["tracker"], long["frames"], long["objects"]) == ("nearest", 40, 12)
    for key in ("rss_mb", "ms", "ms_p95", "cpu_ms"):
        assert set(long[key]) == {"first", "last"}
        assert all(value > 0 for value in long[key].values()), key


def test_a_process_that_dies_is_a_reason():
    skipped: list[dict[str, str]] = []
    rows = track._rows(Job("nearest", (("no-such-file", 10, "easy"),)), skipped, silent)
    assert rows == []
    assert skipped[0]["tracker"] == "nearest"
    assert "ended with code 1" in skipped[0]["reason"]
    assert "no-such-file" in skipped[0]["reason"]


@pytest.mark.parametrize(
    "args",
    [
        ("--objects", "0"),
        ("--frames", "1"),
        ("--density", "dense"),
        ("--tracker", "nearst"),
        ("--budget", "0"),
    ],
)
def test_what_cannot_be_measured_is_wrong_usage(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main(["bench", "track", *args])
    assert left.value.code == 2
    assert capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")  # of the peers
@pytest.mark.parametrize("name", sorted(PEERS))
def test_a_peer_follows_cells_that_lie_far_apart_or_says_what_is_missing(name: str):
    habits = replace(CROWDS["easy"], spacing_px=80.0, missed=0.0, false=0.0, divisions=1e-6, deaths=0.0)
    movie = movie_of(12, "easy", 6, habits=habits)
    try:
        tracker = build_tracker(name, habits)
    except CytoloopError as error:
        assert any(word in str(error) for word in (f"cytoloop[{EXTRA}]", "does not load"))
        pytest.skip(str(error))
    detections = [frame.detections for frame in movie]
    said = (
        [tracker.update(each) for each in detections]
        if hasattr(tracker, "update")
        else tracker.track(detections)
    )
    for frame, tracks in zip(movie, said, strict=True):
        assert len(tracks) == len(frame.identity)
        assert (tracks.track > 0).all()
    same = [
        tracks.track[list(frame.identity).index(identity)]
        for frame, tracks in zip(movie, said, strict=True)
        for identity in frame.identity[:1]
        if identity == movie[0].identity[0]
    ]
    assert len(set(same)) == 1
