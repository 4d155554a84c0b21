"""Scores of results whose faults are known."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import SourceError
from cytoloop.trackers.scores import score_sequence

pytest.importorskip("ctc_metrics", reason="needs cytoloop[scores]")
pytest.importorskip("traccuracy", reason="needs cytoloop[scores]")

FRAMES = 8
# label, begin, end, parent: cell 2 divides after frame 3.
TRACKS = [(1, 0, 7, 0), (2, 0, 3, 0), (3, 4, 7, 2), (4, 4, 7, 2)]
PLACES = {1: (10, 10), 2: (40, 30), 3: (40, 20), 4: (40, 42)}


def write(folder, stem, table, tracks, places=PLACES, frames=FRAMES):
    folder.mkdir(parents=True, exist_ok=True)
    for frame in range(frames):
        mask = np.zeros((64, 64), np.uint16)
        for label, begin, end, _ in tracks:
            if begin <= frame <= end:
                y, x = places[label]
                mask[y + frame : y + frame + 8, x : x + 8] = label
        tifffile.imwrite(folder / f"{stem}{frame:03d}.tif", mask)
    (folder / table).write_text("".join("{} {} {} {}\n".format(*track) for track in tracks))


@pytest.fixture
def truth(tmp_path):
    folder = tmp_path / "01_GT"
    write(folder / "TRA", "man_track", "man_track.txt", TRACKS)
    write(folder / "SEG", "man_seg", "unused.txt", TRACKS)
    return folder


@pytest.fixture
def result(tmp_path):
    """Return a function that writes a result and gives its folder."""

    def make(tracks=TRACKS, places=PLACES, frames=FRAMES):
        write(tmp_path / "01_RES", "mask", "res_track.txt", tracks, places, frames)
        return tmp_path / "01_RES"

    return make


def test_a_perfect_result_scores_one_in_everything(truth, result):
    scores = score_sequence(result(), truth)
    assert set(scores) == {"SEG", "DET", "TRA", "LNK", "BIO", "edge_f1", "division_f1"}
    assert all(value == pytest.approx(1.0) for value in scores.values())


def test_one_dropped_link_costs_its_share_of_the_links_and_nothing_else(truth, result):
    # Cell 1 is cut after frame 3: 1 of 18 links is missing.
    cut = [(1, 0, 3, 0), (5, 4, 7, 0), *TRACKS[1:]]
    scores = score_sequence(result(cut, PLACES | {5: PLACES[1]}), truth)
    assert (scores["SEG"], scores["DET"], scores["division_f1"]) == (1, 1, 1)
    assert scores["LNK"] == pytest.approx(1 - 1.5 / (1.5 * 18))
    assert scores["edge_f1"] == pytest.approx(2 * 17 / (17 + 18))
    assert 0.98 < scores["TRA"] < 1


def test_a_missed_division_costs_the_division_score(truth, result):
    missed = [(1, 0, 7, 0), (2, 0, 7, 0), (4, 4, 7, 0)]
    # Label 2 stays where daughter 3 is.
    folder = result(missed)
    for frame in range(4, FRAMES):
        mask = tifffile.imread(truth / "TRA" / f"man_track{frame:03d}.tif")
        mask[mask == 3] = 2
        tifffile.imwrite(folder / f"mask{frame:03d}.tif", mask)
    scores = score_sequence(folder, truth)
    assert scores["division_f1"] == 0
    assert scores["SEG"] == 1
    assert scores["BIO"] < 0.9


def test_truth_without_segmentation_leaves_seg_undefined_and_sparse_truth_does_not(truth, result):
    folder = result()
    for frame in (0, 2, 3, 5, 6):
        (truth / "SEG" / f"man_seg{frame:03d}.tif").unlink()
    assert score_sequence(folder, truth)["SEG"] == 1
    shutil.rmtree(truth / "SEG")
    scores = score_sequence(folder, truth)
    assert math.isnan(scores.pop("SEG"))
    assert all(value == pytest.approx(1.0) for value in scores.values())


def test_truth_without_divisions_leaves_the_division_score_undefined(tmp_path):
    single = [(1, 0, 7, 0)]
    write(tmp_path / "GT" / "TRA", "man_track", "man_track.txt", single)
    write(tmp_path / "RES", "mask", "res_track.txt", single)
    scores = score_sequence(tmp_path / "RES", tmp_path / "GT")
    assert math.isnan(scores["division_f1"])
    assert scores["LNK"] == scores["edge_f1"] == 1


def test_nothing_is_printed(truth, result, capfd):
    score_sequence(result(), truth)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda truth, _: shutil.rmtree(truth / "TRA"), "TRA"),
        (lambda truth, _: (truth / "TRA" / "man_track.txt").unlink(), "man_track.txt"),
        (lambda _, result: (result / "res_track.txt").unlink(), "res_track.txt"),
        (lambda _, result: (result / "mask004.tif").unlink(), "frame 4"),
        (lambda truth, _: (truth / "TRA" / "man_track007.tif").unlink(), "frame 7"),
        (lambda _, result: (result / "res_track.txt").write_text(""), "no track"),
        (lambda _, result: (result / "res_track.txt").write_text("1 0 7 0\n"), "not a valid result"),
        (lambda _, result: (result / "res_track.txt").write_text("1 0 7 9\n"), "not a valid result"),
    ],
)
def test_what_cannot_be_scored_is_refused_and_says_what_is_wrong(truth, result, spoil, reason):
    folder = result()
    spoil(truth, folder)
    with pytest.raises(SourceError, match=reason):
        score_sequence(folder, truth)
