"""What is measured on: simulated nuclei, as crowded at every size, with their true masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...acquire.frame import Frame
from ...acquire.simulated.nuclei import NucleiHabits
from ...acquire.simulated.presets import nuclei
from ...models.labels import numbered

SMALLEST_PX = 64
"""No scene is smaller."""
_CELLS_PER_PX = 1820 / 2048**2
"""With those that the border cuts about 125, 500 and 2000 on frames of 512, 1024 and 2048 px."""
_MARGIN_UM = 30.0
_DISTINCT = 3
"""Frames that take turns."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Frames of one size, their true masks (numbers 1..count), and the mean number of cells."""

    size: int
    frames: Sequence[Frame]
    truth: list[NDArray[np.int32]]
    cells: int


def simulated(size: int) -> Scene:
    """Return nuclei on frames with so many px along each edge."""
    field_um = size * 0.6
    width_um = field_um + 2 * _MARGIN_UM
    count = max(round(_CELLS_PER_PX * size**2 * (width_um / field_um) ** 2), 1)
    microscope = nuclei(0, size_px=size, habits=NucleiHabits(count=count, width_um=width_um))
    frames = [Frame(microscope.snap(), number) for number in range(_DISTINCT)]
    truth = [numbered(microscope.truth(number).mask)[0] for number in range(_DISTINCT)]
    return Scene(size, frames, truth, round(float(np.mean([mask.max() for mask in truth]))))
