"""How broad the cells are: asked of the net itself on the first frames that show cells, and kept.

At each px of a cell the net says how broad that cell is against its reference. Within the range that it was
trained on it is right at any scale; cells that are shown too large come out at the top of its range. So it is asked
at finer to coarser scales, and the first answer well below the top counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]

STEPS_PER_OCTAVE = 2
"""Frames are scaled by powers of 2^(1/2), so that small errors of the breadth change nothing."""
FINEST = 2.0
LARGEST_PX = 2 * 2048 * 2048
"""No frame is enlarged to more px than this to find the scale."""
HIGHEST_OCTAVES = 0.75
"""An answer of more than this above the reference may be cut off by the net's range."""
SHARE = 0.05
"""An answer counts only if the net sees cells in this share of the area, and as surely, as at the best scale."""
FEWEST_PX = 40
"""Px of a map inside cells below which there is nothing to judge by."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the net says at one scale.

    Attributes
    ----------
    octaves
        log2 of the median breadth over the net's reference, in px of the scaled frame.
    weight
        Share of the frame that is inside cells, times how decided the net is of that.
    """

    octaves: float
    weight: float


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
    answers: list[tuple[float, Answer]] = []
    scale = FINEST
    while shape[0] * shape[1] * scale * scale > LARGEST_PX:
        scale /= 2
    while min(shape) * scale >= 32 and scale >= 1 / 16:
        answer = read(ask(scale))
        if answer is not None:
            answers.append((scale, answer))
        scale /= 2
    if not answers:
        return None
    least = SHARE * max(answer.weight for _, answer in answers)
    seen = [(scale, answer) for scale, answer in answers if answer.weight >= least]
    scale, answer = next((each for each in seen if each[1].octaves <= HIGHEST_OCTAVES), seen[-1])
    return diameter_px * 2**answer.octaves / scale


def scale_for(breadth_px: float, diameter_px: float) -> float:
    """Return the factor by which frames are scaled for a net: 1 if it can, else a power of 2^(1/2), at most 2.

    Cells from 0.6 to 1.8 times the reference are taken as they are: nothing is lost by resampling. Smaller ones
    are enlarged to about the reference; larger ones are reduced to 1.4 times it, since outlines get coarser with
    each reduction.
    """
    if 0.9 * diameter_px <= breadth_px <= 1.8 * diameter_px:
        return 1.0
    wanted = diameter_px if breadth_px < diameter_px else 1.4 * diameter_px
    steps = round(STEPS_PER_OCTAVE * math.log2(wanted / breadth_px))
    return min(2.0 ** (steps / STEPS_PER_OCTAVE), FINEST)


def read(maps: Map) -> Answer | None:
    """Return what the net says at one scale, or None if it sees hardly any cells.

    Px count by their core probability: the middles of cells say most.

    Parameters
    ----------
    maps
        (3, y, x) logits of foreground and core, and octaves of the breadth.
    """
    inside = maps[0] > 0
    if np.count_nonzero(inside) < FEWEST_PX:
        return None
    octaves = maps[2][inside]
    core = 1 / (1 + np.exp(-maps[1][inside]))
    order = np.argsort(octaves, kind="stable")
    share = np.cumsum(core[order], dtype=np.float64)
    decided = float(np.tanh(maps[0][inside] / 2).sum())
    return Answer(float(octaves[order[np.searchsorted(share, share[-1] / 2)]]), decided / inside.size)
