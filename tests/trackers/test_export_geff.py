"""GEFF, read back and checked by the library that owns the format."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from cytoloop.acquire.errors import ExportError
from cytoloop.trackers.export import write_geff
from cytoloop.trackers.graph import GraphBuilder

geff = pytest.importorskip("geff", reason="needs cytoloop[formats]")


def read(path):
    """Return what the library reads, after all its checks."""

    from geff.validate.data import ValidationConfig, validate_data

    geff.validate_structure(path)
    reader = geff.GeffReader(path)
    reader.read_node_props()
    reader.read_edge_props()
    memory = reader.build()
    validate_data(memory, ValidationConfig(graph=True, lineage=True, tracklet=True))
    return memory


def test_nodes_and_edges_come_back_as_they_are_in_the_graph(tmp_path, busy_graph):
    write_geff(busy_graph, tmp_path / "a.geff")
    memory = read(tmp_path / "a.geff")
    assert memory["node_ids"].tolist() == list(range(len(busy_graph)))
    assert memory["edge_ids"].tolist() == busy_graph.edges.tolist()
    props = {name: prop["values"] for name, prop in memory["node_props"].items()}
    wanted = {
        "t": busy_graph.number,
        "y": busy_graph.y_px,
        "x": busy_graph.x_px,
        "track": busy_graph.track,
        "parent": busy_graph.parent,
        "sequence": busy_graph.frames.sequence[busy_graph.frame],
        "time_s": busy_graph.frames.time_s[busy_graph.frame],
        "stage_x_um": busy_graph.frames.stage_um[busy_graph.frame, 0],
        "stage_y_um": busy_graph.frames.stage_um[busy_graph.frame, 1],
        "mean_far_red_2": busy_graph.columns["mean_far red/2"],
        **{name: busy_graph.columns[name] for name in ("area_px", "mean", "mean_GFP", "age", "hidden")},
        "confidence": busy_graph.columns["confidence"],
    }
    assert set(props) == {*wanted, "tracklet", "lineage"}
    for name, values in wanted.items():
        assert np.array_equal(props[name], values, equal_nan=values.dtype.kind == "f"), name
        assert props[name].dtype == values.dtype, name
    edges = {name: prop["values"] for name, prop in memory["edge_props"].items()}
    assert edges["missed"].tolist() == busy_graph.missed.tolist()
    assert edges["division"].tolist() == busy_graph.is_birth.tolist()
    assert np.array_equal(edges["confidence"], busy_graph.columns["confidence"][busy_graph.edges[:, 1]])


def test_axes_say_what_they_count_and_how_large_that_is(tmp_path, busy_graph):
    write_geff(busy_graph, tmp_path / "a.geff")
    metadata = geff.GeffMetadata.read(tmp_path / "a.geff")
    assert metadata.directed
    axes = {axis.name: (axis.type, axis.unit, axis.scale, axis.scaled_unit) for axis in metadata.axes}
    assert axes == {
        "t": ("time", "frame", 0.5, "second"),
        "y": ("space", "pixel", 0.25, "micrometer"),
        "x": ("space", "pixel", 0.25, "micrometer"),
    }
    assert metadata.node_props_metadata["mean_far_red_2"].name == "mean_far red/2"
    assert metadata.node_props_metadata["stage_x_um"].unit == "micrometer"
    assert metadata.extra["cytoloop"] == {"divisions": 2, "shape_px": [64, 96]}


def test_networkx_sees_families_and_divisions(tmp_path, busy_graph):
    write_geff(busy_graph, tmp_path / "a.geff")
    graph, _ = geff.read(tmp_path / "a.geff", backend="networkx")
    families = nx.weakly_connected_components(graph)
    tracks = sorted(sorted({graph.nodes[node]["track"] for node in family}) for family in families)
    assert tracks == [[1, 2, 3], [4], [5], [6], [8], [9, 10, 11]]
    assert sorted(graph.nodes[node]["track"] for node, degree in graph.out_degree if degree == 2) == [1, 9]


def test_an_only_daughter_goes_on_the_chain_of_her_mother(tmp_path, busy_run):
    from cytoloop.acquire.reply import Cells, Division

    builder = GraphBuilder()
    for frame, tracks in enumerate(([1], [1], [2], [2])):
        place = np.float32(tracks)
        divisions = (Division(1, (2, 3)),) if frame == 2 else ()
        builder.add(frame, Cells(np.array(tracks, np.int64), place, place), time_s=frame, divisions=divisions)
    write_geff(builder.build(), tmp_path / "a.geff")
    props = read(tmp_path / "a.geff")["node_props"]
    assert props["tracklet"]["values"].tolist() == [0, 0, 0, 0]
    assert props["track"]["values"].tolist() == [1, 1, 2, 2]


def test_cells_of_a_stack_have_a_third_axis(tmp_path, busy_run):
    builder = GraphBuilder()
    for frame in range(3):
        cells = busy_run.cells(frame)
        builder.add(frame, cells, time_s=frame, z_px=np.arange(len(cells)) / 2)
    graph = builder.build()
    write_geff(graph, tmp_path / "a.geff")
    assert np.array_equal(read(tmp_path / "a.geff")["node_props"]["z"]["values"], graph.z_px)
    assert [axis.name for axis in geff.GeffMetadata.read(tmp_path / "a.geff").axes] == ["t", "z", "y", "x"]


def test_a_run_without_cells_is_a_valid_graph_without_nodes(tmp_path):
    write_geff(GraphBuilder().build(), tmp_path / "a.geff")
    memory = read(tmp_path / "a.geff")
    assert (len(memory["node_ids"]), len(memory["edge_ids"])) == (0, 0)


def test_an_earlier_graph_is_replaced_only_if_asked(tmp_path, busy_graph):
    write_geff(GraphBuilder().build(), tmp_path / "a.geff")
    with pytest.raises(ExportError, match=r"a\.geff: exists already"):
        write_geff(busy_graph, tmp_path / "a.geff")
    write_geff(busy_graph, tmp_path / "a.geff", force=True)
    assert len(read(tmp_path / "a.geff")["node_ids"]) == len(busy_graph)
    assert [path.name for path in tmp_path.iterdir()] == ["a.geff"]
