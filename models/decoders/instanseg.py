"""The decoder of InstanSeg nets [1]_, in both forms in which they come.

The released TorchScript nets decode by themselves and answer with instance masks as numbers in float32: one map,
or nuclei and cells. The bare backbone answers with embeddings (:mod:`.embeddings`); its pixel classifier, a
few hundred numbers, must then be given. That is faster, and runs in any runtime.

.. [1] Goldsborough et al. 2024, arXiv 2408.15954.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ...acquire.errors import ModelError
from ..kernels import frozen
from ..labels import Labels
from ..pairing import pair, paired
from . import maps, raster
from .decoder import Grid, Tensor
from .embeddings import Classifier, cells_of_embeddings
from .maps import Plane

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

LARGEST = 1 << 24
"""Whole numbers up to this are exact in float32."""


class InstansegDecoder:
    """Makes cells of what InstanSeg nets answer.

    Parameters
    ----------
    target
        Of nets that find both nuclei and cells: ``"cells"`` returns cells with their nuclei, ``"nuclei"`` these alone.
    classifier
        The pixel classifier of a bare backbone: weights and bias of its three layers in turn, each as one list,
        weights row by row (``fc1.weight.flatten()``, ``fc1.bias``, ...). None for nets that decode by themselves.
    mask_threshold
        Probability from which on a px is part of a cell.
    seed_threshold
        Value of the seed map, 0 to 1, above which a peak is a seed.
    peak_distance
        Seeds are the highest within so many px along both axes.
    overlap_threshold
        Intersection over union above which two cells are one.
    window
        A cell lies within so many px of its seed along both axes.
    smallest_px
        What is smaller, in px of the frame, is dropped.

    Raises
    ------
    ValueError
        Names the option and what it may be.
    """

    def __init__(
        self,
        *,
        target: Literal["cells", "nuclei"] = "cells",
        classifier: list[list[float]] | None = None,
        mask_threshold: float = 0.53,
        seed_threshold: float = 0.7,
        peak_distance: int = 5,
        overlap_threshold: float = 0.3,
        window: int = 32,
        smallest_px: float = 10.0,
    ) -> None:
        for name, value in (
            ("mask_threshold", mask_threshold),
            ("seed_threshold", seed_threshold),
            ("overlap_threshold", overlap_threshold),
        ):
            if not 0 < value < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        for name, value in (("peak_distance", peak_distance), ("window", window)):
            if not 1 <= value <= 1000:
                raise ValueError(f"{name} must be 1 to 1000, got {value}")
        if not smallest_px >= 0:
            raise ValueError(f"smallest_px must be 0 or more, got {smallest_px}")
        self._classifier = None if classifier is None else _layers(classifier)
        self._nuclei_only, self._smallest = target == "nuclei", smallest_px
        self._limits = (mask_threshold, seed_threshold, peak_distance, overlap_threshold, window)
        self._warm_up()

    def decode(self, outputs: tuple[Tensor, ...], grid: Grid) -> Labels:
        """Return the cells, with their nuclei if the net finds both.

        The confidence of a cell is how likely its px are part of it, on average. Nets that decode by themselves
        do not say.
        """
        of_one = 1 if self._classifier is None else self._classifier.first.shape[1] + 1
        what = "instance masks" if self._classifier is None else f"{of_one} maps of embeddings"
        needs = (
            f"(1, {of_one} or {2 * of_one}, y, x), {what} of one kind or of nuclei and cells, for InstanSeg"
        )
        planes = maps.planes(outputs[:1], grid, needs)
        if len(planes) not in (of_one, 2 * of_one):
            raise maps.misfit(outputs, needs)
        maps.check_finite(*planes)
        first, second = planes[:of_one], planes[of_one:]
        if not second or self._nuclei_only:
            return self._labels(first, grid)
        nuclei, cells = self._labels(first, grid), self._labels(second, grid)
        pairs = pair(nuclei, cells)
        return Labels(cells.image, cells.count, cells.confidence, nuclei=paired(nuclei, cells, pairs))

    def _labels(self, planes: list[Plane], grid: Grid) -> Labels:
        if self._classifier is None:
            return self._given(planes[0], grid)
        least, least_seed, apart, share, window = self._limits
        cells, chance, count = cells_of_embeddings(
            frozen(np.stack(planes), np.float32), self._classifier, least, least_seed, apart, share, window
        )
        area, mean = raster.areas_and_means(cells, count, chance)
        return raster.finish(cells, area, 2 * mean - 1, chance - np.float32(least), grid, self._smallest)

    def _given(self, plane: Plane, grid: Grid) -> Labels:
        """Return the cells of an instance mask."""
        cells, largest = _whole_numbers(plane)
        if largest < 0:
            raise ModelError(
                f"the net's output holds other values than whole numbers from 0 to {LARGEST}: not the"
                " instance masks of an InstanSeg net that decodes by itself. For a bare backbone set classifier"
            )
        area = np.bincount(cells.reshape(-1), minlength=largest + 1)
        nothing = np.zeros(len(area))
        labels = raster.finish(cells, area, nothing, np.ones(cells.shape, np.float32), grid, self._smallest)
        return Labels(labels.image, labels.count)

    def _warm_up(self) -> None:
        """Compile the kernels, or load them if they were compiled before."""
        channels = 1 if self._classifier is None else self._classifier.first.shape[1] + 1
        values = np.full((1, channels, 4, 4), 1.0, np.float32)
        self.decode((values,), Grid((4, 4), (1.0, 1.0)))


def _layers(lists: list[list[float]]) -> Classifier:
    """Return the layers of the pixel classifier."""
    if len(lists) != 6 or not all(math.isfinite(value) for values in lists for value in values):
        raise ValueError(
            "classifier must be six lists of finite numbers: weights and bias of three layers in turn"
        )
    arrays = [np.array(values, np.float32) for values in lists]
    inputs, shaped = 0, list[Floats]()
    for layer in range(3):
        weights, bias = arrays[2 * layer], arrays[2 * layer + 1]
        if bias.size == 0 or weights.size % bias.size or (inputs and weights.size != inputs * bias.size):
            raise ValueError(
                f"classifier: layer {layer + 1} has {weights.size} weights and {bias.size} biases, which do not"
                " fit each other and the layer before"
            )
        shaped += [weights.reshape(bias.size, -1), bias]
        inputs = bias.size
    if inputs != 1 or shaped[0].shape[1] < 3:
        raise ValueError(
            "classifier must take two differences and one spread or more, and have one output;"
            f" got {shaped[0].shape[1]} inputs and {inputs} outputs"
        )
    return Classifier(*shaped)


@njit(cache=True, nogil=True)
def _whole_numbers(plane: Plane) -> tuple[Ints, int]:
    """Return a map as int32 and its largest number, or -1 if it holds something else than whole numbers."""
    numbers = np.empty(plane.shape, np.int32)
    largest = 0
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            value = plane[y, x]
            if not 0 <= value <= LARGEST or value != np.floor(value):
                return numbers, -1
            numbers[y, x] = int(value)
            largest = max(largest, int(value))
    return numbers, largest
