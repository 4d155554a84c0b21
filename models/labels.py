"""Labels: which pixel belongs to which cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Nuclei:
    """The nuclei of the cells of an instance mask.

    Attributes
    ----------
    image
        (y, x) int32: the number of the cell in each px of its nucleus, 0 elsewhere. A nucleus lies within its
        cell.
    per_cell
        (count,) int32: how many nuclei each cell has. 0: none was found. 2 or more: a multinucleate cell, or
        several that were not parted.
    """

    image: NDArray[np.int32]
    per_cell: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """An instance mask.

    Attributes
    ----------
    image
        (y, x) int32; 0 is background, 1..count are cells, every number used.
    count
        Number of cells.
    confidence
        (count,) float32, 0 to 1: how sure the segmenter is of each cell; None if it does not say.
    novelty
        How unlike the images that the segmenter knows the frame looks: about 0 to 1 on familiar images, higher
        on others; None if it does not say.
    nuclei
        The nuclei of the cells; None if the segmenter does not tell nuclei from cells.
    """

    image: NDArray[np.int32]
    count: int
    confidence: NDArray[np.float32] | None = None
    novelty: float | None = None
    nuclei: Nuclei | None = None
