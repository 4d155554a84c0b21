"""What every registered tracker of whole movies must do, and how links of other packages become tracks."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from cytoloop.acquire.errors import MissingExtraError, PluginError
from cytoloop.acquire.plugins import find_class, known_names
from cytoloop.acquire.reply import Division
from cytoloop.trackers.adapters.laptrack import LaptrackTracker
from cytoloop.trackers.adapters.links import tracks_of
from cytoloop.trackers.adapters.trackastra import TrackastraTracker
from cytoloop.trackers.tracker import BatchTracker, Tracker

CLASSES = {name: find_class("trackers", name) for name in known_names("trackers")}
NAMES = [name for name, cls in CLASSES.items() if issubclass(cls, BatchTracker)]


@pytest.fixture
def detections(detections):
    """Return a function like that of all tests; the cells are squares, with a mask."""

    def made(yx, sequence=0, **more):
        found = detections(yx, sequence, **more)
        mask = np.zeros(found.shape, np.int32)
        for number, (y, x) in enumerate(found.yx.astype(int).tolist(), start=1):
            mask[max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5] = number
        return replace(found, mask=mask)

    return made


def untrained_model(folder):
    """Write a small net with random weights in the package's layout."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("trackastra", reason="trackastra is not installed")
    from trackastra.model import TrackingTransformer

    torch.manual_seed(0)
    sizes = dict.fromkeys(("num_encoder_layers", "num_decoder_layers"), 1)
    net = TrackingTransformer(
        coord_dim=2, feat_dim=7, d_model=32, nhead=2, window=4, pos_embed_per_dim=8, **sizes
    )
    torch.save(net.state_dict(), folder / "model.pt")
    lines = [f"{key}: {value}" for key, value in net.config.items()]
    (folder / "config.yaml").write_text("\n".join(lines))
    (folder / "train_config.yaml").write_text("features: wrfeat")
    return str(folder)


@pytest.fixture(params=NAMES)
def make(request, tmp_path):
    """Return a function that makes the tracker; skips where its package is not here or does not run."""

    def made():
        options = {"model": untrained_model(tmp_path)} if request.param == "trackastra" else {}
        try:
            return CLASSES[request.param](**options)
        except (MissingExtraError, PluginError) as error:
            pytest.skip(str(error))

    return made


def walk(detections, frames=10, seed=0):
    """Return a movie of cells that wander and are missed now and then; one frame is empty."""
    random = np.random.default_rng(seed)
    yx, movie = random.uniform(20, 480, (30, 2)), []
    for sequence in range(frames):
        yx = yx + random.normal(0, 1.5, yx.shape)
        seen = yx[random.random(len(yx)) > 0.1] if sequence != 5 else yx[:0]
        movie.append(detections(seen, sequence))
    return movie


def test_it_keeps_the_protocol_of_whole_movies_and_no_other(make):
    tracker = make()
    assert isinstance(tracker, BatchTracker)
    assert not isinstance(tracker, Tracker)


def test_every_row_has_one_identity_and_all_columns_fit(make, detections):
    movie = walk(detections)
    tracks = make().track(movie)
    assert [each.detections for each in tracks] == movie
    over: set[int] = set()
    for each in tracks:
        n = len(each.detections)
        assert (each.track > 0).all()
        assert len(set(each.track.tolist())) == n
        columns = (each.parent, each.age, each.confidence, each.velocity, each.covariance)
        assert [len(column) for column in columns] == [n] * 5
        assert np.isfinite(each.velocity).all()
        assert (each.confidence == 1).all()
        assert not over & set(each.track.tolist())
        over |= {ended.track for ended in each.ended}
        for division in each.divisions:
            assert set(division.daughters) <= set(each.track[each.age == 0].tolist())
            assert all(each.parent[each.row(daughter)] == division.mother for daughter in division.daughters)


def test_the_same_movie_gives_the_same_tracks(make, detections):
    movie = walk(detections)
    one, two = make().track(movie), make().track(movie)
    assert [each.track.tolist() for each in one] == [each.track.tolist() for each in two]


@pytest.mark.parametrize(
    "counts", [(), (0, 0), (3,), (0, 0, 3, 0, 3), (1, 1, 0, 1), (2, 0, 0, 0, 2), (1, 200)]
)
def test_any_number_of_cells_may_follow_any_other(make, detections, counts):
    random = np.random.default_rng(0)
    movie = [detections(random.uniform(10, 490, (count, 2)), at) for at, count in enumerate(counts)]
    assert [len(each) for each in make().track(movie)] == list(counts)


def test_cells_that_barely_move_keep_their_identity_in_whatever_order_they_come(make, detections):
    tracker = make()
    if isinstance(tracker, TrackastraTracker):
        pytest.skip("its net is not trained here")
    random = np.random.default_rng(4)
    yx = np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(-1, 2) * 50.0 + 40
    orders = [random.permutation(len(yx)) for _ in range(6)]
    movie = [detections((yx + random.normal(0, 1, yx.shape))[order], at) for at, order in enumerate(orders)]
    tracks = tracker.track(movie)
    found = [
        dict(zip(o.tolist(), t.track.tolist(), strict=True)) for o, t in zip(orders, tracks, strict=True)
    ]
    assert all(each == found[0] for each in found)


def test_nothing_is_said_on_the_callers_streams(make, detections, capfd):
    tracker = make()
    capfd.readouterr()
    tracker.track(walk(detections))
    assert capfd.readouterr().out == ""


def grid_movie(detections, first_ones):
    """Return a movie in which a grid of cells that barely move comes after the first cells of each frame."""
    random = np.random.default_rng(1)
    others = np.stack(np.meshgrid(np.arange(6), np.arange(6)), -1).reshape(-1, 2) * 60.0 + 30
    frames = [np.concatenate([np.reshape(first, (-1, 2)), others]) for first in first_ones]
    return [detections(yx + random.normal(0, 1, yx.shape), at) for at, yx in enumerate(frames)]


def test_laptrack_sees_a_division_if_cells_may_divide(detections):
    pytest.importorskip("laptrack", reason="laptrack is not installed")
    pairs = [[[430, 430 - apart], [430, 430 + apart]] for apart in (5, 7, 8)]
    movie = grid_movie(detections, [[430, 430], [430, 430], *pairs])
    tracks = LaptrackTracker().track(movie)
    assert [len(each.divisions) for each in tracks] == [0, 0, 1, 0, 0]
    assert tracks[2].divisions[0].mother == tracks[0].track[0]
    assert tracks[4].parent[:2].tolist() == [tracks[0].track[0]] * 2
    assert not any(each.divisions for each in LaptrackTracker(divisions=False).track(movie))


@pytest.mark.parametrize(
    ("max_gap", "missed", "bridged"), [(0, 1, False), (1, 1, True), (1, 2, False), (2, 2, True)]
)
def test_laptrack_bridges_as_many_missed_frames_as_allowed(detections, max_gap, missed, bridged):
    pytest.importorskip("laptrack", reason="laptrack is not installed")
    movie = grid_movie(detections, [[430, 430], *[[]] * missed, [430, 430]])
    tracks = LaptrackTracker(max_gap=max_gap).track(movie)
    assert (tracks[-1].track[0] == tracks[0].track[0]) == bridged


def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "laptrack", None)
    with pytest.raises(MissingExtraError, match=r"laptrack is not installed.*cytoloop\[trackers\]"):
        LaptrackTracker()


def test_a_model_that_is_not_on_this_computer_is_said_and_never_downloaded(monkeypatch, tmp_path):
    directories = ModuleType("platformdirs")
    directories.user_data_dir = lambda name: str(tmp_path / name)
    for name in ("trackastra", "trackastra.model"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "platformdirs", directories)
    with pytest.raises(PluginError, match=r"no model of this name in .*from_pretrained\('general_2d'\)"):
        TrackastraTracker()
    with pytest.raises(PluginError, match=r"lacks model\.pt, config\.yaml, train_config\.yaml"):
        TrackastraTracker(model=str(tmp_path))


@pytest.mark.parametrize("name", ["max_distance_px", "splitting_distance_px"])
def test_a_distance_that_is_not_above_zero_is_refused_by_name(name):
    with pytest.raises(ValueError, match=name):
        LaptrackTracker(**{name: 0.0})


def three_frames(detections):
    """Return a movie of 2, 3 and 3 cells, numbered 0 to 7."""
    return [detections(np.arange(2 * n).reshape(-1, 2) * 30.0 + at, at) for at, n in enumerate((2, 3, 3))]


def test_two_links_into_one_frame_are_a_division(detections):
    tracks = tracks_of(three_frames(detections), [(0, 2), (0, 3), (1, 4), (2, 5), (3, 6), (4, 7)])
    assert [each.track.tolist() for each in tracks] == [[1, 2], [3, 4, 2], [3, 4, 2]]
    assert tracks[1].divisions == (Division(1, (3, 4)),)
    assert [each.parent.tolist() for each in tracks] == [[0, 0], [1, 1, 0], [1, 1, 0]]
    assert [each.age.tolist() for each in tracks] == [[0, 0], [0, 0, 1], [1, 1, 2]]
    assert [[(end.track, end.why) for end in each.ended] for each in tracks] == [[], [(1, "division")], []]


def test_a_link_over_a_gap_is_the_same_cell(detections):
    tracks = tracks_of(three_frames(detections), [(0, 5)])
    assert tracks[2].track[0] == tracks[0].track[0]
    assert tracks[2].age[0] == 2
    assert tracks[2].velocity[0].tolist() == [1, 1]
    assert [[end.track for end in each.ended] for each in tracks] == [[], [2], [3, 4, 5]]


def test_of_links_into_different_frames_the_earliest_goes_on(detections):
    tracks = tracks_of(three_frames(detections), [(0, 6), (0, 3)])
    assert tracks[1].track[1] == tracks[0].track[0]
    assert tracks[2].parent.tolist() == [0, 0, 0]
    assert not any(each.divisions for each in tracks)


@pytest.mark.parametrize("links", [[(0, 2), (1, 2)], [(2, 0)], [(0, 1)]])
def test_links_that_make_no_tracks_are_refused(detections, links):
    with pytest.raises(ValueError, match="cannot follow"):
        tracks_of(three_frames(detections), links)
