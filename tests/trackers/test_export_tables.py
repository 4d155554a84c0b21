"""CSV and Parquet by pandas and pyarrow; tracks for napari by the layer's own rules, and by napari if it is here."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from cytoloop.trackers.export import write_csv, write_napari, write_parquet
from cytoloop.trackers.graph import GraphBuilder

pandas = pytest.importorskip("pandas", reason="pandas is not installed")


def wanted_table(graph):
    frames = graph.frames
    return {
        "track": graph.track,
        "parent": graph.parent,
        "frame": graph.number,
        "sequence": frames.sequence[graph.frame],
        "time_s": frames.time_s[graph.frame],
        "stage_x_um": frames.stage_um[graph.frame, 0],
        "stage_y_um": frames.stage_um[graph.frame, 1],
        "x_px": graph.x_px,
        "y_px": graph.y_px,
        **{name.replace(" ", "_").replace("/", "_"): column for name, column in graph.columns.items()},
    }


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        column = found[name].to_numpy()
        assert np.array_equal(column.astype(values.dtype), values, equal_nan=values.dtype.kind == "f"), name


def test_pandas_reads_every_number_of_the_csv_back(tmp_path, busy_graph):
    write_csv(busy_graph, tmp_path / "a.csv")
    assert_same(pandas.read_csv(tmp_path / "a.csv"), wanted_table(busy_graph))
    assert "nan" not in (tmp_path / "a.csv").read_text()


def test_links_can_be_made_from_the_table_alone(tmp_path, busy_graph):
    write_csv(busy_graph, tmp_path / "a.csv")
    table = pandas.read_csv(tmp_path / "a.csv")
    links = set()
    for track, rows in table.groupby("track"):
        nodes = rows.sort_values("frame").index.tolist()
        links |= set(pairwise(nodes))
        if parent := rows["parent"].iloc[0]:
            links.add((table[table["track"] == parent]["frame"].idxmax(), nodes[0]))
        assert rows["parent"].nunique() == 1, track
    assert links == set(map(tuple, busy_graph.edges.tolist()))


def test_pyarrow_and_pandas_read_the_parquet_back_with_its_types(tmp_path, busy_graph):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs cytoloop[formats]")
    write_parquet(busy_graph, tmp_path / "a.parquet")
    wanted = wanted_table(busy_graph)
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.schema.metadata[b"pixel_size_um"] == b"0.25"
    for name, values in wanted.items():
        column = table[name].to_numpy()
        assert column.dtype == values.dtype
        assert np.array_equal(column, values, equal_nan=values.dtype.kind == "f")
    assert_same(pandas.read_parquet(tmp_path / "a.parquet"), wanted)


def read_napari(folder):
    table = pandas.read_csv(folder / "tracks.csv")
    graph = json.loads((folder / "graph.json").read_text())
    return table, {int(child): parents for child, parents in graph.items()}


def test_rows_for_napari_follow_the_rules_of_its_layer(tmp_path, busy_run, busy_graph):
    write_napari(busy_graph, tmp_path / "tracks")
    table, graph = read_napari(tmp_path / "tracks")
    assert list(table)[:4] == ["track_id", "t", "y", "x"]
    assert table["track_id"].dtype == table["t"].dtype == np.int64
    assert (table["t"] >= 0).all()
    order = np.lexsort((table["t"], table["track_id"]))
    assert order.tolist() == list(range(len(table)))
    assert graph == {child: [parent] for child, parent in busy_run.parents.items()}
    assert {*graph, *(parent for parents in graph.values() for parent in parents)} <= set(table["track_id"])


@pytest.mark.filterwarnings("ignore")  # napari itself uses what is deprecated
def test_napari_takes_the_rows_and_the_graph_as_they_are(tmp_path, busy_run, busy_graph):
    layers = pytest.importorskip("napari.layers", reason="napari is not installed")
    write_napari(busy_graph, tmp_path / "tracks")
    table, graph = read_napari(tmp_path / "tracks")
    layer = layers.Tracks(table[["track_id", "t", "y", "x"]], features=table, graph=graph)
    rows = np.lexsort((busy_graph.frame, busy_graph.track))
    wanted = [busy_graph.track, busy_graph.number, busy_graph.y_px, busy_graph.x_px]
    assert np.array_equal(np.float32(layer.data), np.stack([v[rows] for v in wanted], axis=1).astype("f4"))
    assert {int(k): list(v) for k, v in layer.graph.items()} == {c: [p] for c, p in busy_run.parents.items()}
    assert np.array_equal(np.float32(layer.features["area_px"]), busy_graph.columns["area_px"][rows])


def test_cells_of_a_stack_have_a_height_in_every_table(tmp_path, busy_run):
    builder = GraphBuilder()
    cells = busy_run.cells(0)
    builder.add(0, cells, time_s=0, z_px=np.arange(len(cells)) / 2)
    graph = builder.build()
    write_csv(graph, tmp_path / "a.csv")
    write_napari(graph, tmp_path / "napari")
    assert pandas.read_csv(tmp_path / "a.csv")["z_px"].tolist() == [0, 0.5, 1, 1.5, 2]
    assert list(read_napari(tmp_path / "napari")[0])[:5] == ["track_id", "t", "z", "y", "x"]


def test_a_run_without_cells_is_a_table_without_rows(tmp_path):
    graph = GraphBuilder().build()
    write_csv(graph, tmp_path / "a.csv")
    write_napari(graph, tmp_path / "napari")
    assert len(pandas.read_csv(tmp_path / "a.csv")) == 0
    table, parents = read_napari(tmp_path / "napari")
    assert (len(table), parents) == (0, {})
