"""Results in the challenge's layout, judged by the challenge's own validator."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.reply import Division
from cytoloop.trackers import export
from cytoloop.trackers.export import CtcWriter


def mask(count):
    """Return (8, 4 count) labels 1..count side by side."""
    return np.repeat(np.repeat(np.arange(1, count + 1, dtype=np.int32)[np.newaxis], 8, axis=0), 4, axis=1)


def write(folder, frames):
    """Write frames of (tracks, divisions) and return the table of tracks."""
    writer = CtcWriter(folder)
    for tracks, divisions in frames:
        writer.add(mask(len(tracks)), np.array(tracks, np.int64), divisions)
    writer.close()
    return np.loadtxt(folder / "res_track.txt", dtype=int, ndmin=2).tolist()


def is_valid(folder):
    validate = pytest.importorskip("ctc_metrics.scripts.validate", reason="needs cytoloop[scores]")
    return validate.validate_sequence(str(folder), threads=1)["Valid"] == 1


def test_a_division_is_two_tracks_with_one_parent(tmp_path):
    divided = (Division(7, (8, 9)),)
    table = write(tmp_path, [((7, 5), ()), ((7, 5), ()), ((8, 5, 9), divided), ((5, 9, 8), ())])
    assert table == [[1, 0, 1, 0], [2, 0, 3, 0], [3, 2, 3, 1], [4, 2, 3, 1]]
    assert np.unique(tifffile.imread(tmp_path / "mask003.tif")).tolist() == [2, 3, 4]
    assert is_valid(tmp_path)


def test_a_gap_becomes_a_new_label_whose_parent_is_the_earlier_piece(tmp_path):
    table = write(tmp_path, [((1, 2), ()), ((2,), ()), ((1, 2), ()), ((2, 1), ())])
    assert table == [[1, 0, 0, 0], [2, 0, 3, 0], [3, 2, 3, 1]]
    assert is_valid(tmp_path)


def test_a_mother_that_was_missed_before_she_divided_is_still_the_parent(tmp_path):
    divided = (Division(1, (3, 4)),)
    table = write(tmp_path, [((1, 2), ()), ((2,), ()), ((2, 3, 4), divided)])
    assert [row[3] for row in table] == [0, 0, 1, 1]
    assert is_valid(tmp_path)


def test_names_sort_in_time_however_many_frames_there_are(tmp_path):
    write(tmp_path, [((1,), ())] * 1002)
    names = sorted(file.name for file in tmp_path.glob("mask*.tif"))
    assert (names[0], names[-1], len(names)) == ("mask0000.tif", "mask1001.tif", 1002)


def test_more_labels_than_16_bits_hold_stop_the_masks_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "MOST_LABELS", 3)
    writer = CtcWriter(tmp_path)
    for tracks in ((1, 2), (1, 3), (1, 4), (1, 3)):
        writer.add(mask(2), np.array(tracks, np.int64))
    writer.close()
    assert not writer.complete
    assert [file.name for file in sorted(tmp_path.glob("*.tif"))] == ["mask000.tif", "mask001.tif"]
    assert is_valid(tmp_path)


def test_results_of_an_earlier_run_are_removed(tmp_path):
    write(tmp_path, [((1,), ())] * 3)
    write(tmp_path, [((1,), ())])
    assert len(list(tmp_path.glob("*.tif"))) == 1
