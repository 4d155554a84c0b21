"""How unlike the images that a net was trained on a frame looks, from what the net says of it.

A net that knows what it sees is undecided only along outlines. The share of undecided px, against the perimeter
that so many sure px would have, is about 1 at most on held-out images of the training kinds and rises on others.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def doubt(maps: NDArray[np.float32]) -> float:
    """Return the doubt in a map: summed 4 p (1 - p) of foreground and core over the summed foreground.

    Parameters
    ----------
    maps
        (1, 3, y, x) float32, see :mod:`cytoloop.models.decoders.core`. Every second px is looked at.
    """
    foreground, core = (1 / (1 + np.exp(-maps[0, k, ::2, ::2])) for k in (0, 1))
    undecided = float((4 * foreground * (1 - foreground)).mean())
    inside = float((foreground * core).mean())
    return undecided / (inside + 0.01)


def of(maps: NDArray[np.float32], known: Mapping[str, float] | None) -> float | None:
    """Return the novelty of a frame: its doubt over the 95th percentile of that on familiar images."""
    return doubt(maps) / known["doubt_p95"] if known and "doubt_p95" in known else None
