"""How broad the cells are: asked of the net itself on the first frames that show cells, and kept.

At each px of a cell the net says how broad that cell is against its reference. Within the range that it was
trained on it is right at any scale; cells that are shown too large come out at the top of its range, and in pieces.
So it is asked at finer to coarser scales, and the first answer well below the top counts, unless hardly anything is
seen there any more.
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
HIGHEST_OCTAVES = 0.58
"""An answer of more than this above the reference may be cut off by the net's range: cells shown too large come out
smaller than they are, or in pieces."""
STILL_SEEN = 0.65
"""A coarser scale is not taken if it leaves less than this share of what was seen: thin cells would be lost."""
SHARE = 0.02
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
    scale, answer = seen[0]
    for coarser, next_answer in seen[1:]:
        if answer.octaves <= HIGHEST_OCTAVES or next_answer.weight < STILL_SEEN * answer.weight:
            break
        scale, answer = coarser, next_answer
    return diameter_px * 2**answer.octaves / scale


def scale_for(breadth_px: float, shown_px: float) -> float:
    """Return the factor by which frames are scaled for a net: a power of 2^(1/2), at most 2.

    Parameters
    ----------
    breadth_px
        Of the cells, in px of the frame.
    shown_px
        Breadth at which the net shall see them.
    """
    steps = round(STEPS_PER_OCTAVE * math.log2(shown_px / breadth_px))
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
