"""TrackMate XML, as TrackMate 7 writes and opens it: spots, and tracks that hold all descendants of a cell.

Lengths are in um if the size of a pixel is known, else in pixels; times are in s. The radius of a spot is that of
a disc with the cell's area. Measured columns keep their own units and become features under their own names.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

import numpy as np
from numpy.typing import NDArray

from ..graph import TrackGraph
from .names import plain_names
from .target import new_output

VERSION = "7.11.1"
"""Of TrackMate, whose files look like this."""
_RADIUS_PX = 5.0  # of cells without an area


@dataclass(frozen=True, slots=True)
class _Feature:
    """What the file says of one feature: its key, name, dimension, and whether it is a whole number."""

    key: str
    name: str
    dimension: str = "NONE"
    whole: bool = False

    def attributes(self) -> dict[str, str]:
        name = "".join(sign for sign in self.name if sign.isprintable())  # XML holds no others
        return {
            "feature": self.key,
            "name": name,
            "shortname": name,
            "dimension": self.dimension,
            "isint": "true" if self.whole else "false",
        }


_SPOT = (
    _Feature("QUALITY", "Quality", "QUALITY"),
    _Feature("POSITION_X", "X", "POSITION"),
    _Feature("POSITION_Y", "Y", "POSITION"),
    _Feature("POSITION_Z", "Z", "POSITION"),
    _Feature("POSITION_T", "T", "TIME"),
    _Feature("FRAME", "Frame", whole=True),
    _Feature("RADIUS", "Radius", "LENGTH"),
    _Feature("VISIBILITY", "Visibility", whole=True),
    _Feature("CELL_TRACK", "Cell track", whole=True),
    _Feature("CELL_PARENT", "Cell parent", whole=True),
)
_EDGE = (
    _Feature("SPOT_SOURCE_ID", "Source spot ID", whole=True),
    _Feature("SPOT_TARGET_ID", "Target spot ID", whole=True),
)
_TRACK = (
    _Feature("TRACK_INDEX", "Track index", whole=True),
    _Feature("TRACK_ID", "Track ID", whole=True),
    _Feature("NUMBER_SPOTS", "Number of spots in track", whole=True),
    _Feature("NUMBER_GAPS", "Number of gaps", whole=True),
    _Feature("NUMBER_SPLITS", "Number of split events", whole=True),
    _Feature("TRACK_START", "Track start", "TIME"),
    _Feature("TRACK_STOP", "Track stop", "TIME"),
)
_INTENSITIES = ("mean", "max", "nuclear_mean", "cytoplasm_mean")


def write_trackmate(graph: TrackGraph, path: Path, *, force: bool = False) -> None:
    """Write a graph as TrackMate XML; node i is the spot with the ID i.

    A cell that was seen once is a spot without a track, as in TrackMate.

    Parameters
    ----------
    graph
        The run.
    path
        The file.
    force
        Replace what is there.

    Raises
    ------
    ExportError
        If it exists or cannot be written.
    """
    with new_output(path, force=force) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        page = _Page(file)
        page.xml.startDocument()
        with page.tag("TrackMate", version=VERSION):
            page.leaf("Log")
            units = {"spatialunits": "pixel" if graph.pixel_size_um is None else "micron", "timeunits": "sec"}
            with page.tag("Model", **units):
                _write_model(page, graph)
            _write_settings(page, graph)
            page.leaf("GUIState", state="ConfigureViews")
            page.leaf("DisplaySettings")
        page.xml.endDocument()


class _Page:
    """An XML file that is written from its beginning to its end, so that memory does not grow with it."""

    def __init__(self, file: TextIOWrapper) -> None:
        self.xml = XMLGenerator(file, "utf-8", short_empty_elements=True)
        self._file = file
        self._depth = 0

    @contextmanager
    def tag(self, name: str, /, **attributes: str) -> Generator[None]:
        self._begin_line()
        self.xml.startElement(name, AttributesImpl(attributes))
        self._depth += 1
        yield
        self._depth -= 1
        self._begin_line()
        self.xml.endElement(name)

    def leaf(self, name: str, /, **attributes: str) -> None:
        self._begin_line()
        self.xml.startElement(name, AttributesImpl(attributes))
        self.xml.endElement(name)

    def line(self, text: str) -> None:
        """Write an element whose attributes are plain numbers, which need not be looked at sign by sign."""
        self._begin_line()
        self._file.write(text)

    def _begin_line(self) -> None:
        self.xml.ignorableWhitespace("\n" + "  " * self._depth)


def _write_model(page: _Page, graph: TrackGraph) -> None:
    spots = _spot_values(graph)
    declared = {
        "SpotFeatures": list(spots),
        "EdgeFeatures": _EDGE,
        "TrackFeatures": _TRACK,
    }
    with page.tag("FeatureDeclarations"):
        for group, features in declared.items():
            with page.tag(group):
                for feature in features:
                    page.leaf("Feature", **feature.attributes())
    _write_spots(page, graph, spots)
    families = _families(graph)
    with page.tag("AllTracks"):
        for index, edges in enumerate(families):
            _write_track(page, graph, index, edges)
    with page.tag("FilteredTracks"):
        for index in range(len(families)):
            page.leaf("TrackID", TRACK_ID=str(index))


def _spot_values(graph: TrackGraph) -> dict[_Feature, NDArray[Any]]:
    """Return the values of every feature of a spot, (n,) each."""
    scale = graph.pixel_size_um or 1.0
    columns = graph.columns
    area = columns.get("area_px", np.full(len(graph), np.pi * _RADIUS_PX**2, np.float32))
    flat = np.zeros(len(graph), np.float32)
    own = (
        columns.get("cell_confidence", flat + 1),
        graph.x_px * np.float64(scale),
        graph.y_px * np.float64(scale),
        (flat if graph.z_px is None else graph.z_px) * np.float64(scale),
        graph.frames.time_s[graph.frame],
        graph.number,
        np.sqrt(area.astype(np.float64) / np.pi) * scale,
        np.ones(len(graph), np.int64),
        graph.track,
        graph.parent,
    )
    values: dict[_Feature, NDArray[Any]] = dict(zip(_SPOT, own, strict=True))
    names = plain_names(columns, (feature.key for feature in _SPOT))
    for name, column in columns.items():
        is_intensity = any(name == kind or name.startswith(f"{kind}_") for kind in _INTENSITIES)
        feature = _Feature(names[name].upper(), name, "INTENSITY" if is_intensity else "NONE")
        values[feature] = column
    return values


def _write_spots(page: _Page, graph: TrackGraph, spots: Mapping[_Feature, NDArray[Any]]) -> None:
    first = np.searchsorted(graph.frame, np.arange(len(graph.frames) + 1)).tolist()
    features = " ".join(f'{feature.key}="%s"' for feature in spots)
    spot = f'<Spot ID="%s" name="cell %s" {features}/>'
    with page.tag("AllSpots", nspots=str(len(graph))):
        for row, number in enumerate(graph.frames.number.tolist()):
            begin, end = first[row], first[row + 1]
            if begin == end:
                continue
            texts = [_texts(values[begin:end]) for values in spots.values()]
            nodes, tracks = range(begin, end), graph.track[begin:end].tolist()
            with page.tag("SpotsInFrame", frame=str(number)):
                for values in zip(nodes, tracks, *texts, strict=True):
                    page.line(spot % values)


def _texts(values: NDArray[Any]) -> list[str]:
    """Return numbers as Java reads them."""
    special = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    texts: list[str] = values.astype(str).tolist()
    return [special.get(text, text) for text in texts]


def _families(graph: TrackGraph) -> list[NDArray[np.int64]]:
    """Return the edges of each family that has any, in the order of their first cells."""
    family = graph.family[graph.edges[:, 0]]
    order = np.argsort(family, kind="stable")
    bounds = np.flatnonzero(np.diff(family[order])) + 1
    return [graph.edges[rows] for rows in np.split(order, bounds)] if len(order) else []


def _write_track(page: _Page, graph: TrackGraph, index: int, edges: NDArray[np.int64]) -> None:
    nodes = np.unique(edges)
    frame, time_s = graph.frame[nodes], graph.frames.time_s
    _, children = np.unique(edges[:, 0], return_counts=True)
    values: Iterable[Any] = (
        index,
        index,
        len(nodes),
        int(np.sum(graph.frame[edges[:, 1]] - graph.frame[edges[:, 0]] > 1)),
        int(np.sum(children > 1)),
        float(time_s[frame.min()]),
        float(time_s[frame.max()]),
    )
    features = {feature.key: str(value) for feature, value in zip(_TRACK, values, strict=True)}
    with page.tag("Track", name=f"Track_{index}", **features):
        for source, target in edges.tolist():
            page.line(f'<Edge SPOT_SOURCE_ID="{source}" SPOT_TARGET_ID="{target}"/>')


def _write_settings(page: _Page, graph: TrackGraph) -> None:
    """Write what TrackMate wants to read before it opens a file; the spots were found and linked elsewhere."""
    height, width = graph.shape
    frames = int(graph.frames.number[-1]) + 1 if len(graph.frames) else 0
    pixel = str(graph.pixel_size_um or 1.0)
    image = {
        "filename": "",
        "folder": "",
        "width": str(width),
        "height": str(height),
        "nslices": "1",
        "nframes": str(frames),
        "pixelwidth": pixel,
        "pixelheight": pixel,
        "voxeldepth": pixel,
        "timeinterval": str(graph.frames.interval_s or 1.0),
    }
    ends = {"x": width, "y": height, "z": 1, "t": frames}
    crop = {
        key: str(value)
        for axis, end in ends.items()
        for key, value in ((f"{axis}start", 0), (f"{axis}end", max(end - 1, 0)))
    }
    with page.tag("Settings"):
        page.leaf("ImageData", **image)
        page.leaf("BasicSettings", **crop)
        page.leaf("DetectorSettings", DETECTOR_NAME="MANUAL_DETECTOR", RADIUS=str(_RADIUS_PX * float(pixel)))
        page.leaf("InitialSpotFilter", feature="QUALITY", value="0.0", isabove="true")
        page.leaf("SpotFilterCollection")
        page.leaf("TrackerSettings", TRACKER_NAME="MANUAL_TRACKER")
        page.leaf("TrackFilterCollection")
        with page.tag("AnalyzerCollection"):
            for group in ("SpotAnalyzers", "EdgeAnalyzers", "TrackAnalyzers"):
                page.leaf(group)
