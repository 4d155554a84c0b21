"""Detections and a run made by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from cytoloop.acquire.reply import Cells, Correction, Division, Merge
from cytoloop.models.detections import Detections
from cytoloop.trackers.graph import GraphBuilder


def _detections(yx, sequence=0, *, area=100.0, mean=50.0, moments=None, shape=(500, 500), **more):
    yx = np.asarray(yx, float).reshape(-1, 2)
    n = len(yx)
    area = np.broadcast_to(np.asarray(area, float), (n,)).copy()
    mean = np.broadcast_to(np.asarray(mean, float), (n,)).copy()[:, np.newaxis]
    if moments is None:  # discs
        moments = np.stack([area / (4 * np.pi), area / (4 * np.pi), 0 * area], axis=1)
    return Detections(
        sequence=sequence,
        time_s=float(sequence),
        shape=shape,
        yx=yx,
        area=area,
        bbox=np.zeros((n, 4), np.int32),
        mean=mean,
        maximum=mean.copy(),
        moments=np.asarray(moments, float).reshape(n, 3),
        **more,
    )


@pytest.fixture
def detections():
    """Return a function (positions, sequence, *, area, mean, moments, ...) -> Detections."""
    return _detections


SAID = [  # the identities of each frame as a tracker said them, before it knew better
    [1, 4, 5, 6, 9],
    [9, 6, 5, 4, 1],
    [1, 5, 6, 9],
    [1, 4, 5, 7, 8, 9],
    [2, 3, 4, 5, 7, 8, 9, 10],
    [10, 9, 8, 6, 5, 4, 3, 2],
    [2, 3, 4, 5, 6, 8, 10, 11],
    [11, 10, 8, 6, 5, 4, 3, 2],
]
DIVISIONS = {3: (Division(6, (7, 8)),), 4: (Division(1, (2, 3)),)}
MERGES = {2: (Merge(5, (4,)),)}
FIRST, STEP = 100, 3  # sequence numbers: other fields of view lie between those of this one


def _correction(since, old, new, parent):
    return Correction(FIRST + STEP * since, old, new, parent, "seen better since")


CORRECTIONS = {
    5: (_correction(3, 7, 6, 0), _correction(3, 8, 8, 0)),  # 6 did not divide
    6: (_correction(4, 9, 11, 9), _correction(4, 10, 10, 9)),  # 9 did, two frames earlier
}
HOLDS = {  # the frames of each track in the end
    1: [0, 1, 2, 3],
    2: [4, 5, 6, 7],
    3: [4, 5, 6, 7],
    4: [0, 1, 3, 4, 5, 6, 7],
    5: [0, 1, 2, 3, 4, 5, 6, 7],
    6: [0, 1, 2, 3, 4, 5, 6, 7],
    8: [3, 4, 5, 6, 7],
    9: [0, 1, 2, 3],
    10: [4, 5, 6, 7],
    11: [4, 5, 6, 7],
}
PARENTS = {2: 1, 3: 1, 10: 9, 11: 9}


def _cells(frame):
    """Return cells of two channels that can be told apart by any of their values."""
    said = np.array(SAID[frame], np.int64)
    value = (said * 10 + frame).astype(np.float32)
    dapi = np.full(len(said), np.nan) if frame % 2 else value / 7
    columns = {
        "area_px": value + 30,
        "mean": value / 3,
        "parent": value * 0,
        "age": value * 0,
        "confidence": 1 / value,
        "mean_GFP": value / 3,
        "mean_far red/2": dapi,
    }
    return Cells(
        said, value + 0.1, 2 * value + 0.7, {name: np.float32(column) for name, column in columns.items()}
    )


@pytest.fixture
def busy_run():
    """A run with divisions, a gap by a merge, a revoked and a late division; what is said and what holds."""
    return SimpleNamespace(
        said=SAID,
        divisions=DIVISIONS,
        merges=MERGES,
        corrections=CORRECTIONS,
        holds=HOLDS,
        parents=PARENTS,
        cells=_cells,
        first=FIRST,
        step=STEP,
    )


@pytest.fixture
def busy_graph(busy_run):
    """The graph of that run, with stage and pixel size."""
    builder = GraphBuilder()
    for frame in range(len(SAID)):
        builder.add(
            FIRST + STEP * frame,
            _cells(frame),
            time_s=0.5 * frame,
            divisions=DIVISIONS.get(frame, ()),
            merges=MERGES.get(frame, ()),
            corrections=CORRECTIONS.get(frame, ()),
            stage_um=(1000.0 + frame, -5.0),
            pixel_size_um=0.25,
            shape=(64, 96),
        )
    return builder.build()
