"""Results in the challenge's layout, judged by the challenge's own validator."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import ExportError
from cytoloop.trackers.export import CtcWriter, ctc, write_ctc


def mask(count):
    """Return (8, 4 count) labels 1..count side by side."""
    return np.repeat(np.repeat(np.arange(1, count + 1, dtype=np.int32)[np.newaxis], 8, axis=0), 4, axis=1)


def write(folder, frames):
    """Write frames of (tracks, parents) and return the table of tracks."""
    writer = CtcWriter(folder)
    for tracks, parents in frames:
        writer.add(mask(len(tracks)), np.array(tracks, np.int64), parents)
    writer.close()
    return np.loadtxt(folder / "res_track.txt", dtype=int, ndmin=2).tolist()


def is_valid(folder):
    validate = pytest.importorskip("ctc_metrics.scripts.validate", reason="needs cytoloop[scores]")
    return validate.validate_sequence(str(folder), threads=1)["Valid"] == 1


def test_a_division_is_two_tracks_with_one_parent(tmp_path):
    divided = {8: 7, 9: 7}
    table = write(tmp_path, [((7, 5), {}), ((7, 5), {}), ((8, 5, 9), divided), ((5, 9, 8), divided)])
    assert table == [[1, 0, 1, 0], [2, 0, 3, 0], [3, 2, 3, 1], [4, 2, 3, 1]]
    assert np.unique(tifffile.imread(tmp_path / "mask003.tif")).tolist() == [2, 3, 4]
    assert is_valid(tmp_path)


def test_a_gap_becomes_a_new_label_whose_parent_is_the_earlier_piece(tmp_path):
    table = write(tmp_path, [((1, 2), {}), ((2,), {}), ((1, 2), {}), ((2, 1), {})])
    assert table == [[1, 0, 0, 0], [2, 0, 3, 0], [3, 2, 3, 1]]
    assert is_valid(tmp_path)


def test_a_mother_that_was_missed_before_she_divided_is_still_the_parent(tmp_path):
    divided = {3: 1, 4: 1}
    table = write(tmp_path, [((1, 2), {}), ((2,), {}), ((2, 3, 4), divided)])
    assert [row[3] for row in table] == [0, 0, 1, 1]
    assert is_valid(tmp_path)


def test_names_sort_in_time_however_many_frames_there_are(tmp_path):
    write(tmp_path, [((1,), {})] * 1002)
    names = sorted(file.name for file in tmp_path.glob("mask*.tif"))
    assert (names[0], names[-1], len(names)) == ("mask0000.tif", "mask1001.tif", 1002)


def test_more_labels_than_16_bits_hold_stop_the_masks_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(ctc, "MOST_LABELS", 3)
    writer = CtcWriter(tmp_path)
    for tracks in ((1, 2), (1, 3), (1, 4), (1, 3)):
        writer.add(mask(2), np.array(tracks, np.int64))
    writer.close()
    assert not writer.complete
    assert [file.name for file in sorted(tmp_path.glob("*.tif"))] == ["mask000.tif", "mask001.tif"]
    assert is_valid(tmp_path)


@pytest.mark.filterwarnings("ignore:Empty frame")
def test_cells_without_an_identity_are_left_out(tmp_path):
    writer = CtcWriter(tmp_path)
    for tracks in ((1, 2), (), (1, 2)):
        writer.add(mask(2), np.array(tracks, np.int64))
    writer.close()
    assert tifffile.imread(tmp_path / "mask001.tif").max() == 0
    assert is_valid(tmp_path)


def test_results_of_an_earlier_run_are_removed(tmp_path):
    write(tmp_path, [((1,), {})] * 3)
    write(tmp_path, [((1,), {})])
    assert len(list(tmp_path.glob("*.tif"))) == 1


# --- a whole run --------------------------------------------------------------------------------------------


def write_run(graph, folder, **more):
    def whole(row):
        cells = mask(int((graph.frame == row).sum()))
        return np.pad(cells, ((0, 0), (0, 40 - cells.shape[1])))

    write_ctc(graph, folder, whole, **more)


def test_a_corrected_run_is_valid_and_holds_its_tracks_in_pieces(tmp_path, busy_run, busy_graph):
    write_run(busy_graph, tmp_path / "01_RES")
    assert is_valid(tmp_path / "01_RES")
    table = np.loadtxt(tmp_path / "01_RES" / "res_track.txt", dtype=int).tolist()
    spans = {label: (begin, end) for label, begin, end, _ in table}
    whole = [(frames[0], frames[-1]) for track, frames in busy_run.holds.items() if track != 4]
    assert sorted(spans.values()) == sorted([*whole, (0, 1), (3, 7)])
    links = [(spans[parent], spans[label]) for label, _, _, parent in table if parent]
    assert sorted(links) == [((0, 1), (3, 7))] + [((0, 3), (4, 7))] * 4


def test_the_challenges_loader_finds_the_nodes_and_links_of_the_graph(tmp_path, busy_graph):
    loaders = pytest.importorskip("traccuracy.loaders", reason="needs cytoloop[scores]")
    write_run(busy_graph, tmp_path / "01_RES")
    table = str(tmp_path / "01_RES" / "res_track.txt")
    loaded = loaders.load_ctc_data(str(tmp_path / "01_RES"), table, run_checks=True)
    first = np.searchsorted(busy_graph.frame, np.arange(9))
    node_of = {}
    for node, values in loaded.graph.nodes(data=True):
        row, column = values["t"], int(values["x"]) // 4  # cells stand side by side in the mask
        node_of[node] = int(first[row]) + column
    assert sorted(node_of.values()) == list(range(len(busy_graph)))
    edges = sorted((node_of[a], node_of[b]) for a, b in loaded.graph.edges)
    assert edges == sorted(map(tuple, busy_graph.edges.tolist()))


def test_a_run_with_more_tracks_than_the_layout_holds_leaves_nothing(tmp_path, busy_graph, monkeypatch):
    monkeypatch.setattr(ctc, "MOST_LABELS", 5)
    with pytest.raises(ExportError, match="5 tracks at most"):
        write_run(busy_graph, tmp_path / "01_RES")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_result_is_replaced_whole_if_asked_and_other_folders_never(tmp_path, busy_graph):
    folder = tmp_path / "01_RES"
    write_run(busy_graph, folder)
    (folder / "mask099.tif").touch()
    with pytest.raises(ExportError, match="exists already"):
        write_run(busy_graph, folder)
    write_run(busy_graph, folder, force=True)
    assert len(list(folder.iterdir())) == 9
    (folder / "res_track.txt").unlink()
    with pytest.raises(ExportError, match="holds other things"):
        write_run(busy_graph, folder, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["01_RES"]
