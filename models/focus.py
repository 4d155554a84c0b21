"""How sharp an image is, as one number that brightness, bleaching, offset and noise do not change.

The mean square difference of px that lie k apart is D(k): twice the noise of the camera, plus what the sample changes
over k px. ``D(2) - D(1)`` is twice Vollath's F4 [1]_, in which noise that differs from px to px cancels; defocus takes
it away first. Over ``D(32) - D(1)``, the contrast of cells with what lies beside them, it depends neither on the offset
nor on the gain of the image. Px of the same row are compared, and only in some of the rows.

.. [1] Vollath 1987, J. Microscopy 147, 279-288, doi 10.1111/j.1365-2818.1987.tb02839.x; among the best autofocus
   functions for fluorescence in Santos et al. 1997, J. Microscopy 188, 264-272.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..acquire.frame import PIXEL_TYPES, Pixels
from .kernels import frozen

FAR_PX = 32
MOST_ROWS = 128
"""Rows that are looked at, evenly spread over the image, however high it is."""
_SURE = 6.0
"""Contrast below so many of its standard errors is noise."""


def focus_of(image: Pixels) -> float:
    """Return how sharp an image is: about 0 without any detail, at most about 1.

    Compare it with that of other images of the same sample only: what is sharp depends on what there is to see.

    Parameters
    ----------
    image
        (y, x) uint8 or uint16, in counts. One without contrast beyond its noise, or less than 4 px wide, is 0.
    """
    height, width = image.shape
    if width < 4:
        return 0.0
    far = min(FAR_PX, width // 2)
    near, after, apart = _differences(frozen(image), -(-height // MOST_ROWS), far)
    contrast = apart - near
    pairs = len(range(0, height, -(-height // MOST_ROWS))) * (width - far)
    if not contrast > _SURE * apart * math.sqrt(
        4 / pairs
    ):  # of squares of normal differences, not all independent
        return 0.0
    return max(0.0, (after - near) / contrast)


def warm_up() -> None:
    """Compile the kernel for images of all types, or load it if it was compiled before."""
    for dtype in PIXEL_TYPES:
        focus_of(np.ones((1, 2 * FAR_PX), dtype))


@njit(cache=True, nogil=True)
def _differences(image: NDArray[Any], every: int, far: int) -> tuple[float, float, float]:
    """Return the mean square differences in counts^2 of px that lie 1, 2 and ``far`` px apart, in every n-th row."""
    height, width = image.shape
    near = after = apart = np.int64(0)
    rows = 0
    for y in range(0, height, every):
        row = image[y]
        rows += 1
        for x in range(width - far):
            here = np.int64(row[x])
            one, two, many = here - row[x + 1], here - row[x + 2], here - row[x + far]
            near += one * one
            after += two * two
            apart += many * many
    pairs = rows * (width - far)
    return near / pairs, after / pairs, apart / pairs
