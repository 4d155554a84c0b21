"""Labels: which pixel belongs to which cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """An instance mask.

    Attributes
    ----------
    image
        (y, x) int32; 0 is background, 1..count are cells, every number used.
    count
        Number of cells.
    """

    image: NDArray[np.int32]
    count: int
