"""Nearest neighbours between two sets of points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree


def nearest(
    points: NDArray[np.float64], queries: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return for each of the (q, d) queries the distance to, and the row of, the nearest of the (n, d) points."""
    distance, row = KDTree(points).query(queries)
    return np.asarray(distance, np.float64), np.asarray(row, np.int64)
