"""Labels: which pixel belongs to which cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST_TABLE = 1 << 24
"""Numbers below this are looked up in a table; sorting the px of a frame takes many times as long."""


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
    classes
        (count,) float32 each, 0 to 1: how likely each cell is of the class with this name, such as ``mitotic`` or
        ``dead``; empty if the segmenter does not say.
    embedding
        (count, d) float32: what each cell looks like, as a vector; cells that look alike have vectors that point
        the same way. None if the segmenter does not say.
    """

    image: NDArray[np.int32]
    count: int
    confidence: NDArray[np.float32] | None = None
    novelty: float | None = None
    nuclei: Nuclei | None = None
    classes: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, "NDArray[np.float32]"])
    embedding: NDArray[np.float32] | None = None


def numbered(mask: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Return a mask whose cells are 1..count in the order of their numbers, and those numbers.

    Parameters
    ----------
    mask
        (y, x) whole numbers, 0 is background; cells have any numbers above it. It may itself be what is returned.
    """
    largest = int(mask.max(initial=0))
    if mask.dtype.kind not in "iu" or largest >= _LARGEST_TABLE:
        numbers = np.unique(mask[mask > 0])
        return np.where(mask > 0, np.searchsorted(numbers, mask) + 1, 0).astype(np.int32), numbers
    table = np.zeros(largest + 1, np.int32)
    table[mask] = 1
    table[0] = 0
    numbers = np.flatnonzero(table)
    if len(numbers) == largest:
        return mask.astype(np.int32, copy=False), numbers
    table[numbers] = np.arange(1, len(numbers) + 1)
    return table[mask], numbers
