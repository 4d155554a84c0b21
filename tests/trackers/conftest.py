"""Detections made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.models.detections import Detections


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
