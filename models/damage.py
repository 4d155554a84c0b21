"""Masks made worse on purpose: cells missed, and cells in two pieces, as segmenters do it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def damaged(
    mask: NDArray[np.int32], missed: float, broken: float, random: np.random.Generator
) -> tuple[NDArray[np.int32], dict[int, int]]:
    """Return a mask of which cells are missed or cut in two across their long axis, and whose the new numbers are.

    Parameters
    ----------
    mask
        (y, x), 0 is background; cells have any numbers above it.
    missed, broken
        Share of the cells that are gone, and that are cut in two, each 0 to 1.
    random
        Chooses them.
    """
    worse, name_of = mask.copy(), dict[int, int]()
    for label in np.unique(mask[mask > 0]).tolist():
        chance = random.random()
        if chance < missed:
            worse[mask == label] = 0
        elif chance < missed + broken:
            y, x = np.nonzero(mask == label)
            offset = np.stack([y - y.mean(), x - x.mean()])
            axis = np.linalg.eigh(offset @ offset.T)[1][:, 1]
            side, number = axis @ offset > 0, int(worse.max()) + 1
            if side.any():
                worse[y[side], x[side]], name_of[number] = number, label
    return worse, name_of
