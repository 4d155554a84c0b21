"""TrackMate XML, read back by pycellin and by GEFF's converter, neither of which is ours."""

from __future__ import annotations

import gc
import warnings
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from cytoloop.acquire.reply import Cells
from cytoloop.trackers.export import write_trackmate
from cytoloop.trackers.graph import GraphBuilder


@pytest.fixture
def written(tmp_path, busy_graph):
    write_trackmate(busy_graph, tmp_path / "run.xml")
    return tmp_path / "run.xml"


def load(path):
    loader = pytest.importorskip("pycellin.io.trackmate.loader", reason="pycellin is not installed")
    with warnings.catch_warnings():  # pycellin 0.5 leaves the file open
        warnings.simplefilter("ignore", ResourceWarning)
        model = loader.load_TrackMate_XML(path, keep_all_spots=True, keep_all_tracks=True)
        gc.collect()
    return model


def test_pycellin_finds_every_spot_with_its_features_and_every_link(written, busy_graph):
    lineages = load(written).get_cell_lineages()
    spots = {node: data for lineage in lineages for node, data in lineage.nodes(data=True)}
    assert sorted(spots) == list(range(len(busy_graph)))
    edges = sorted(edge for lineage in lineages for edge in lineage.edges)
    assert edges == sorted(map(tuple, busy_graph.edges.tolist()))
    wanted = {
        "cell_x": busy_graph.x_px * 0.25,
        "cell_y": busy_graph.y_px * 0.25,
        "cell_z": np.zeros(len(busy_graph)),
        "POSITION_T": busy_graph.frames.time_s[busy_graph.frame],
        "frame": busy_graph.number,
        "RADIUS": np.sqrt(busy_graph.columns["area_px"].astype(float) / np.pi) * 0.25,
        "CELL_TRACK": busy_graph.track,
        "CELL_PARENT": busy_graph.parent,
        "AREA_PX": busy_graph.columns["area_px"],
        "MEAN": busy_graph.columns["mean"],
        "MEAN_GFP": busy_graph.columns["mean_GFP"],
        "MEAN_FAR_RED_2": busy_graph.columns["mean_far red/2"],
        "CONFIDENCE": busy_graph.columns["confidence"],
        "AGE": busy_graph.columns["age"],
        "HIDDEN": busy_graph.columns["hidden"],
    }
    for name, values in wanted.items():
        key = name if name in spots[0] else name.upper()
        found = np.array([spots[node][key] for node in range(len(busy_graph))])
        assert np.array_equal(found.astype(values.dtype), values, equal_nan=values.dtype.kind == "f"), name


def test_pycellin_finds_divisions_units_and_sizes(written):
    model = load(written)
    lineages = model.get_cell_lineages()
    assert sorted(len(lineage.get_divisions()) for lineage in lineages) == [0, 0, 0, 0, 1, 1]
    about = model.model_metadata
    assert (about.space_unit, about.time_unit) == ("micron", "sec")
    assert (about.pixel_width, about.time_step) == (0.25, 0.5)
    numbers = sorted((each.graph["NUMBER_SPOTS"], each.graph["NUMBER_GAPS"]) for each in lineages)
    assert numbers == [(5, 0), (7, 1), (8, 0), (8, 0), (12, 0), (12, 0)]


def test_the_converter_of_geff_finds_the_same_graph(written, tmp_path, busy_graph):
    geff = pytest.importorskip("geff", reason="needs cytoloop[formats]")
    from geff.convert import from_trackmate_xml_to_geff

    with warnings.catch_warnings():
        # It looks for the image, of which the file says nothing; nothing else may be missed.
        warnings.filterwarnings("ignore", "No image path found")
        warnings.filterwarnings("ignore", "Spatial unit micron|Temporal unit sec")
        from_trackmate_xml_to_geff(written, tmp_path / "back.geff")
        graph, _ = geff.read(tmp_path / "back.geff", backend="networkx")
    assert sorted(graph.edges) == sorted(map(tuple, busy_graph.edges.tolist()))
    assert [graph.nodes[node]["CELL_TRACK"] for node in sorted(graph)] == busy_graph.track.tolist()
    assert [graph.nodes[node]["POSITION_X"] for node in sorted(graph)] == (busy_graph.x_px * 0.25).tolist()


def test_what_trackmate_asks_for_before_it_opens_a_file_is_there(written):
    root = ET.parse(written).getroot()
    assert root.tag == "TrackMate"
    assert [child.tag for child in root] == ["Log", "Model", "Settings", "GUIState", "DisplaySettings"]
    settings = root.find("Settings")
    needed = "ImageData BasicSettings DetectorSettings InitialSpotFilter SpotFilterCollection"
    needed += " TrackerSettings TrackFilterCollection AnalyzerCollection"
    assert [child.tag for child in settings] == needed.split()
    image = settings.find("ImageData").attrib
    assert (image["width"], image["height"], image["nframes"]) == ("96", "64", "8")
    model = root.find("Model")
    declared = {each.get("feature") for each in model.findall("FeatureDeclarations/SpotFeatures/Feature")}
    for spot in model.iter("Spot"):
        assert set(spot.attrib) - {"ID", "name"} == declared
        assert all(np.isfinite(float(v)) or v == "NaN" for k, v in spot.attrib.items() if k != "name")
    kept = [each.get("TRACK_ID") for each in model.findall("FilteredTracks/TrackID")]
    assert kept == [each.get("TRACK_ID") for each in model.findall("AllTracks/Track")]


def test_names_of_channels_may_hold_anything(tmp_path):
    builder = GraphBuilder()
    place = np.float32([1])
    odd = {'mean_<"&\x01>': place, "mean_a b": place + 1, "mean_a-b": place + 2, "2nd": place + 3}
    builder.add(0, Cells(np.array([1]), place, place, odd), time_s=0)
    write_trackmate(builder.build(), tmp_path / "odd.xml")
    spot = next(ET.parse(tmp_path / "odd.xml").iter("Spot")).attrib
    assert (spot["MEAN_A_B"], spot["MEAN_A_B_2"], spot["_2ND"]) == ("2.0", "3.0", "4.0")
    assert len(load(tmp_path / "odd.xml").get_cell_lineages()) == 1


def test_a_run_without_cells_is_a_whole_file(tmp_path):
    write_trackmate(GraphBuilder().build(), tmp_path / "empty.xml")
    root = ET.parse(tmp_path / "empty.xml").getroot()
    assert root.find("Model/AllSpots").get("nspots") == "0"
    assert len(root.find("Model/AllTracks")) == len(root.find("Model/FilteredTracks")) == 0


def test_a_run_without_a_size_of_pixels_is_in_pixels(tmp_path, busy_run):
    builder = GraphBuilder()
    for frame in range(2):
        builder.add(frame, busy_run.cells(frame), time_s=frame)
    write_trackmate(builder.build(), tmp_path / "run.xml")
    model = load(tmp_path / "run.xml")
    assert (model.model_metadata.space_unit, model.model_metadata.pixel_width) == ("pixel", 1.0)
