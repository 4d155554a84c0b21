"""A run as a graph: what was said, what was corrected, and what holds in the end."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from cytoloop.acquire.reply import Cells, Correction, Division
from cytoloop.trackers.graph import GraphBuilder
from cytoloop.trackers.lineage import LineageBuilder
from hypothesis import given
from hypothesis import strategies as st


def cells(*tracks):
    track = np.array(tracks, np.int64)
    place = track.astype(np.float32)
    return Cells(track, place, place)


def lineage_of(said, divisions=None, corrections=None):
    """Return the lineage of frames 0, 1, ... with these identities."""
    builder = LineageBuilder()
    for frame, tracks in enumerate(said):
        of_frame = (divisions or {}).get(frame, ()), (corrections or {}).get(frame, ())
        builder.add(frame, np.array(tracks, np.int64), *of_frame)
    return builder.build()


def correction(since, old, new, parent=0):
    return Correction(since, old, new, parent, "")


def frames_of(lineage):
    return {
        track: [frame for first, last in spans for frame in range(first, last + 1)]
        for track, spans in lineage.spans.items()
    }


def test_every_cell_is_a_node_with_the_identity_that_holds(busy_run, busy_graph):
    nodes = {(int(t), int(f)) for t, f in zip(busy_graph.track, busy_graph.frame, strict=True)}
    assert nodes == {(track, frame) for track, frames in busy_run.holds.items() for frame in frames}
    assert len(busy_graph) == sum(map(len, busy_run.said))
    assert np.all(np.diff(busy_graph.frame) >= 0)
    for frame, said in enumerate(busy_run.said):  # a cell keeps its row, and with it the label of its mask
        rows = busy_graph.frame == frame
        assert busy_graph.x_px[rows].tolist() == busy_run.cells(frame).x_px.tolist()
        assert len(said) == rows.sum()


def test_edges_link_each_track_across_its_gap_and_mothers_to_daughters(busy_run, busy_graph):
    wanted = {
        ((track, a), (track, b)) for track, frames in busy_run.holds.items() for a, b in pairwise(frames)
    }
    wanted |= {
        ((mother, busy_run.holds[mother][-1]), (daughter, busy_run.holds[daughter][0]))
        for daughter, mother in busy_run.parents.items()
    }
    node = list(zip(busy_graph.track.tolist(), busy_graph.frame.tolist(), strict=True))
    edges = [(node[source], node[target]) for source, target in busy_graph.edges.tolist()]
    assert len(edges) == len(set(edges))
    assert set(edges) == wanted
    assert busy_graph.missed.sum() == 1
    assert busy_graph.is_birth.sum() == 4
    assert (busy_graph.parents, busy_graph.divisions) == (busy_run.parents, 2)


def test_mothers_and_ages_are_those_after_corrections(busy_run, busy_graph):
    assert busy_graph.parent.tolist() == [busy_run.parents.get(t, 0) for t in busy_graph.track.tolist()]
    first = {track: frames[0] for track, frames in busy_run.holds.items()}
    ages = [f - first[t] for t, f in zip(busy_graph.track.tolist(), busy_graph.frame.tolist(), strict=True)]
    assert busy_graph.columns["age"].tolist() == ages
    assert "parent" not in busy_graph.columns


def test_measurements_stay_with_their_cells_and_a_merge_is_told(busy_run, busy_graph):
    for name in ("area_px", "mean", "confidence", "mean_GFP", "mean_far red/2"):
        said = np.concatenate([busy_run.cells(f).columns[name] for f in range(len(busy_run.said))])
        assert np.array_equal(busy_graph.columns[name], said, equal_nan=True)
    hidden = np.flatnonzero(busy_graph.columns["hidden"])
    assert [(busy_graph.track[i], busy_graph.frame[i]) for i in hidden] == [(5, 2)]


def test_frames_keep_number_sequence_time_and_stage(busy_graph):
    frames = busy_graph.frames
    assert frames.number.tolist() == list(range(8))
    assert frames.sequence.tolist() == list(range(100, 124, 3))
    assert frames.stage_um[:, 0].tolist() == [1000.0 + i for i in range(8)]
    assert (frames.interval_s, busy_graph.pixel_size_um, busy_graph.shape) == (0.5, 0.25, (64, 96))


def test_families_and_segments_part_at_forks_only(busy_graph):
    families = {}
    for track, family in zip(busy_graph.track.tolist(), busy_graph.family.tolist(), strict=True):
        families.setdefault(family, set()).add(track)
    assert sorted(map(sorted, families.values())) == [[1, 2, 3], [4], [5], [6], [8], [9, 10, 11]]
    segments = set(zip(busy_graph.track.tolist(), busy_graph.segment.tolist(), strict=True))
    assert len(segments) == len({segment for _, segment in segments}) == 10


def test_the_time_points_of_a_run_are_its_numbers_where_they_ascend():
    builder = GraphBuilder()
    for sequence, number in enumerate([2, 4, 4, "late", 9]):
        builder.add(sequence, cells(1), time_s=sequence, number=number)
    assert builder.build().frames.number.tolist() == [2, 4, 5, 6, 9]


def test_columns_that_a_frame_lacks_are_nan_and_heights_too():
    builder = GraphBuilder()
    builder.add(0, cells(1), time_s=0)
    some = Cells(*(getattr(cells(1), n) for n in ("track", "x_px", "y_px")), {"GFP": np.float32([7])})
    builder.add(1, some, time_s=1, z_px=np.array([3.5]))
    graph = builder.build()
    assert np.array_equal(graph.columns["GFP"], np.float32([np.nan, 7]), equal_nan=True)
    assert graph.z_px is not None
    assert np.array_equal(graph.z_px, np.float32([np.nan, 3.5]), equal_nan=True)


def test_a_run_without_cells_is_a_graph_without_nodes():
    assert len(GraphBuilder().build()) == 0
    builder = GraphBuilder()
    builder.add(0, cells(), time_s=0)
    graph = builder.build()
    assert (len(graph), graph.edges.shape, len(graph.frames), graph.family.tolist()) == (0, (0, 2), 1, [])


def test_two_cells_of_one_identity_are_refused_with_their_frame():
    builder = GraphBuilder()
    builder.add(7, cells(3, 3), time_s=0)
    with pytest.raises(ValueError, match="frame 7: two cells are track 3"):
        builder.build()


def test_frames_that_do_not_ascend_are_refused():
    with pytest.raises(ValueError, match="frame 2 does not come after frame 2"):
        builder = LineageBuilder()
        builder.add(2, np.array([1]))
        builder.add(2, np.array([1]))


# --- corrections --------------------------------------------------------------------------------------------


def test_two_tracks_may_change_places():
    swapped = {3: (correction(1, 1, 2), correction(1, 2, 1))}
    lineage = lineage_of([[1, 2]] * 5, corrections=swapped)
    found = [lineage.corrected(frame, np.array([1, 2])).tolist() for frame in range(5)]
    assert found == [[1, 2], [2, 1], [2, 1], [1, 2], [1, 2]]
    assert frames_of(lineage) == {1: [0, 1, 2, 3, 4], 2: [0, 1, 2, 3, 4]}


def test_a_cell_may_be_corrected_twice():
    twice = {2: (correction(1, 1, 5),), 4: (correction(0, 5, 6),)}
    lineage = lineage_of([[1], [1], [5], [5], [6]], corrections=twice)
    assert frames_of(lineage) == {1: [0], 6: [1, 2, 3, 4]}


def test_a_division_that_its_mother_outlives_is_revoked_for_both_daughters():
    divided = {1: (Division(1, (2, 3)),)}
    said = [[1], [2, 3], [1, 3]]
    lineage = lineage_of(said, divided, {2: (correction(1, 2, 1),)})
    assert (lineage.parents, lineage.divisions) == ({}, {})
    assert frames_of(lineage) == {1: [0, 1, 2], 3: [1, 2]}
    assert lineage_of(said, divided).parents == {}  # she came back, and nobody said more


def test_a_late_division_is_counted_in_the_frame_in_which_it_was():
    late = {3: (correction(1, 1, 2, parent=1), correction(1, 3, 3, parent=1))}
    lineage = lineage_of([[1], [1, 3], [1, 3], [2, 3]], corrections=late)
    assert lineage.divisions == {1: (Division(1, (2, 3)),)}
    assert lineage.parents_of(np.array([1, 3, 2])).tolist() == [0, 1, 1]


def test_daughters_go_with_the_cell_that_was_their_mother():
    divided = {3: (Division(1, (4, 5)),)}
    lineage = lineage_of([[1], [1], [1], [4, 5], [4, 5]], divided, {4: (correction(1, 1, 2),)})
    assert lineage.parents == {4: 2, 5: 2}


def test_daughters_of_tracks_that_change_places_change_mothers():
    divided = {2: (Division(1, (3, 4)),), 3: (Division(2, (5, 6)),)}
    swapped = {4: (correction(1, 1, 2), correction(1, 2, 1))}
    said = [[1, 2], [1, 2], [3, 4, 2], [3, 4, 5, 6], [3, 4, 5, 6]]
    assert lineage_of(said, divided, swapped).parents == {3: 2, 4: 2, 5: 1, 6: 1}


def test_a_mother_of_one_daughter_has_her_but_did_not_divide():
    divided = {1: (Division(1, (2, 3)),)}
    lineage = lineage_of([[1], [2, 3], [2, 3]], divided, {2: (correction(1, 3, 3),)})
    assert (lineage.parents, lineage.divisions) == ({2: 1}, {})


def test_a_correction_that_gives_two_cells_one_identity_is_left_out_and_told():
    wrong = (correction(0, 1, 2),)
    lineage = lineage_of([[1, 2], [1, 2], [1, 2]], corrections={2: wrong})
    assert lineage.refused == wrong
    assert frames_of(lineage) == {1: [0, 1, 2], 2: [0, 1, 2]}


def test_what_is_said_after_a_correction_is_not_corrected():
    lineage = lineage_of([[1], [1], [2], [2, 1]], corrections={2: (correction(1, 1, 2),)})
    assert frames_of(lineage) == {1: [0, 3], 2: [1, 2, 3]}


def test_an_unknown_frame_is_named():
    with pytest.raises(KeyError, match="number 9"):
        lineage_of([[1]]).frame_of(9)


identities = st.integers(1, 6)
runs = st.lists(
    st.tuples(
        st.sets(identities),
        st.lists(st.tuples(st.integers(0, 8), identities, identities), max_size=3),
    ),
    max_size=8,
)


@given(runs)
def test_corrections_hold_as_if_each_were_written_into_the_table(run):
    """The plain way: a table of all cells, of which every correction changes the rows since its frame."""
    table, refused = [], 0
    builder = LineageBuilder()
    for frame, (tracks, corrected) in enumerate(run):
        corrections = [correction(*each) for each in corrected]
        builder.add(frame, np.array(sorted(tracks), np.int64), (), corrections)
        changed = []
        for at, row in enumerate(table):
            latest = {}
            for since, old, new in sorted(corrected, key=lambda each: -each[0]):
                if since <= at and old != new:
                    latest.setdefault(old, new)
            changed.append([latest.get(track, track) for track in row])
        if all(len(set(row)) == len(row) for row in changed):
            table = changed
        else:
            refused += len(corrected)
        table.append(sorted(tracks))
    lineage = builder.build()
    found = [lineage.corrected(f, np.array(sorted(t), np.int64)).tolist() for f, (t, _) in enumerate(run)]
    assert found == table
    assert len(lineage.refused) == refused
    frames = {}
    for frame, row in enumerate(table):
        for track in row:
            frames.setdefault(track, []).append(frame)
    assert frames_of(lineage) == frames
