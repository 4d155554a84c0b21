"""Measuring cells with their nuclei: whole cell, nucleus, and the cytoplasm between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..acquire.errors import FrameError
from ..acquire.frame import PIXEL_TYPES, Frame, Pixels
from .detections import Compartments, Detections
from .kernels import frozen
from .labels import Labels, Nuclei
from .measure import measure


def measure_cells(frame: Frame, labels: Labels) -> Detections:
    """Measure every cell of a mask on every channel of its frame, and nucleus and cytoplasm where there are any.

    The cytoplasm is what is left of a cell without its nucleus.

    Parameters
    ----------
    frame
        The frame, (y, x) or (c, y, x).
    labels
        Its instance mask; row i of the result is label i + 1.

    Raises
    ------
    FrameError
        If the mask does not fit the frame or its own count, or a nucleus does not lie within its cell.
    """
    found = replace(measure(frame, labels), channels=frame.channels)
    if labels.nuclei is None:
        return found
    return replace(found, compartments=_compartments(frame, labels, labels.nuclei, found))


def warm_up() -> None:
    """Compile the kernels for frames of all types, or load them if they were compiled before."""
    one = np.ones((1, 1), np.int32)
    for dtype in PIXEL_TYPES:
        cell = Labels(one, 1, nuclei=Nuclei(one, np.ones(1, np.int32)))
        measure_cells(Frame(np.ones((1, 1), dtype)), cell)


def _compartments(frame: Frame, labels: Labels, nuclei: Nuclei, found: Detections) -> Compartments:
    if nuclei.image.shape != labels.image.shape or len(nuclei.per_cell) != labels.count:
        raise FrameError(
            f"nuclei of {nuclei.image.shape} px and {len(nuclei.per_cell)} cells"
            f" for a mask of {labels.image.shape} px and {labels.count} cells"
        )
    pixels = frame.pixels if frame.pixels.ndim == 3 else frame.pixels[np.newaxis]
    area = np.zeros(labels.count, np.int64)
    total = np.zeros((labels.count, len(pixels)), np.int64)
    if not _add_up(
        frozen(nuclei.image, np.int32), frozen(labels.image, np.int32), frozen(pixels), area, total
    ):
        raise FrameError("a nucleus does not lie within its cell")
    whole = np.rint(found.mean * found.area[:, np.newaxis]).astype(np.int64)  # sums of integers: exact again
    rest = found.area.astype(np.int64) - area
    return Compartments(
        nuclei=nuclei.per_cell,
        nuclear_area=area.astype(np.float64),
        cytoplasm_area=rest.astype(np.float64),
        nuclear_mean=_mean(total, area),
        cytoplasm_mean=_mean(whole - total, rest),
    )


def _mean(total: NDArray[np.int64], area: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n, channels) means, NaN where there is no area."""
    mean = np.full(total.shape, np.nan)
    np.divide(total, area[:, np.newaxis], out=mean, where=area[:, np.newaxis] > 0)
    return mean


@njit(cache=True, nogil=True)
def _add_up(
    nuclei: NDArray[np.int32],
    cells: NDArray[np.int32],
    pixels: Pixels,
    area: NDArray[np.int64],
    total: NDArray[np.int64],
) -> bool:
    """Add px and counts of each nucleus to the row of its cell; return False at one that lies outside it."""
    for y in range(nuclei.shape[0]):
        for x in range(nuclei.shape[1]):
            cell = nuclei[y, x]
            if cell == 0:
                continue
            if cell != cells[y, x]:
                return False
            area[cell - 1] += 1
            for channel in range(pixels.shape[0]):
                total[cell - 1, channel] += pixels[channel, y, x]
    return True
