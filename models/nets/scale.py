"""How broad the cells are: asked of the net itself on the first frames that show cells, and kept.

At each px of a cell the net says how broad that cell is against its reference. It is asked at several
reductions of the frame; the answer counts where it agrees with the scale that it was asked at, and where the net
is sure of what it sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]

STEPS_PER_OCTAVE = 2
"""Frames are scaled by powers of 2^(1/2), so that small errors of the breadth change nothing."""
FINEST = 2.0
LARGEST_PX = 2048 * 2048
"""No more px than this are looked at to find the scale: a part of the frame is enough."""
FEWEST = 40
"""Sure px of a map below which there is nothing to judge by."""


def estimate(ask: Callable[[float], Map], shape: tuple[int, int], diameter_px: float) -> float | None:
    """Return the breadth of the cells in frame px, or None if the net sees none.

    Parameters
    ----------
    ask
        Returns what the net says of the frame scaled by a factor: (3, y, x) logits and breadth.
    shape
        (height, width) of the frame in px.
    diameter_px
        The net's reference breadth.
    """
    best: tuple[float, float] | None = None
    scale = FINEST
    while shape[0] * shape[1] * scale * scale > LARGEST_PX:
        scale /= 2
    while min(shape) * scale >= 32 and scale >= 1 / 16:
        octaves, sure = read(ask(scale))
        if octaves is not None:
            cost = abs(octaves) + 1 - sure
            if best is None or cost < best[0]:
                best = cost, diameter_px * 2**octaves / scale
        scale /= 2
    if best is None:
        return None
    octaves, _ = read(ask(scale_for(best[1], diameter_px)))
    return best[1] if octaves is None else diameter_px * 2**octaves / scale_for(best[1], diameter_px)


def scale_for(breadth_px: float, diameter_px: float) -> float:
    """Return the factor by which frames are scaled for a net: 1 if it can, else a power of 2^(1/2), at most 2.

    Cells from 0.6 to 1.8 times the reference are taken as they are: nothing is lost by resampling. Smaller ones
    are enlarged to about the reference; larger ones are reduced to 1.4 times it, since outlines get coarser with
    each reduction.
    """
    if 0.6 * diameter_px <= breadth_px <= 1.8 * diameter_px:
        return 1.0
    wanted = diameter_px if breadth_px < diameter_px else 1.4 * diameter_px
    steps = round(STEPS_PER_OCTAVE * math.log2(wanted / breadth_px))
    return min(2.0 ** (steps / STEPS_PER_OCTAVE), FINEST)


def read(maps: Map) -> tuple[float | None, float]:
    """Return the median breadth in octaves above the reference, and how sure the net is: 0 to 1.

    Px count by their foreground and core probabilities: the middles of cells say most.
    """
    inside = maps[0] > 0
    if np.count_nonzero(inside) < FEWEST:
        return None, 0.0
    octaves = maps[2][inside]
    core = 1 / (1 + np.exp(-maps[1][inside]))
    order = np.argsort(octaves, kind="stable")
    share = np.cumsum(core[order], dtype=np.float64)
    if share[-1] < FEWEST / 4:
        return None, 0.0
    return float(octaves[order[np.searchsorted(share, share[-1] / 2)]]), float(share[-1] / len(core))
