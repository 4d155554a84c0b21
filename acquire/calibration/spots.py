"""Finding one spot of light in an image, against an image without it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .registration import Image

_HALF_PX = 7  # of the box that is averaged for the search
_SIGNIFICANT = 8.0  # spreads above the background
_ROUNDS = 20


class Spot(NamedTuple):
    """A spot of light.

    Attributes
    ----------
    x_px, y_px
        Its centre of mass in px.
    contrast
        Height above the background over the background's spread.
    """

    x_px: float
    y_px: float
    contrast: float


def find_spot(lit: Image, dark: Image) -> Spot | None:
    """Return the one spot by which two images differ, or None if there is none that stands out or is whole.

    Parameters
    ----------
    lit, dark
        (y, x) with the light on, and off.
    """
    light = lit.astype(np.float64) - dark.astype(np.float64)
    light -= np.median(light)
    smooth = _boxed(light)
    spread = 1.4826 * float(np.median(np.abs(smooth - np.median(smooth)))) + 1e-9
    row, column = (int(at) for at in np.unravel_index(int(np.argmax(smooth)), smooth.shape))
    contrast = float(smooth[row, column]) / spread
    if contrast < _SIGNIFICANT:
        return None
    height, width = light.shape
    reach = _reach(smooth, row, column)
    y, x = float(row), float(column)
    for _ in range(_ROUNDS):
        y0, y1, x0, x1 = round(y) - reach, round(y) + reach + 1, round(x) - reach, round(x) + reach + 1
        if y0 < 0 or x0 < 0 or y1 > height or x1 > width:
            return None  # cut off: its centre is not the spot's
        part = np.maximum(light[y0:y1, x0:x1] - 0.2 * float(smooth[row, column]), 0)
        if not part.sum() > 0:
            return None
        before = y, x
        y = float((part.sum(axis=1) * np.arange(y0, y1)).sum() / part.sum())
        x = float((part.sum(axis=0) * np.arange(x0, x1)).sum() / part.sum())
        if max(abs(y - before[0]), abs(x - before[1])) < 1e-3:
            break
    return Spot(x, y, contrast)


def _boxed(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over 3 x 3 px."""
    padded = np.pad(image, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9


def _reach(smooth: NDArray[np.float64], row: int, column: int) -> int:
    """Return half the side of a box that holds the spot: twice where it has fallen to a third, at least 7 px."""
    level = smooth[row, column] / 3
    right = next((n for n, value in enumerate(smooth[row, column:]) if value < level), 1)
    below = next((n for n, value in enumerate(smooth[row:, column]) if value < level), 1)
    return max(_HALF_PX, 2 * max(right, below))
