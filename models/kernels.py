"""What every compiled kernel is given: arrays of one kind, so that each is compiled once, and before the first frame.

A kernel is compiled for each type of its arguments, and to numba an array that is read-only has another type than
one that is not. Frames from shared memory, and detections from a journal, are read-only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def frozen(array: NDArray[Any], dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Return the same values C-contiguous and read-only; nothing is copied where that can be helped.

    Parameters
    ----------
    array
        Any.
    dtype
        The type wanted; by default that of the array.
    """
    view = np.ascontiguousarray(array, dtype).view()
    view.flags.writeable = False
    return view
