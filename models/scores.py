"""Scores of instance masks against true ones: average precision, F1, panoptic quality and SEG.

True and found cells are matched one to one at each threshold: among all matchings of pairs whose intersection
over union (IoU) reaches the threshold, one with the most pairs, and of those the largest sum of IoU, as StarDist
does [1]_. Above 0.5 no cell has two partners and nothing is to choose.

.. [1] Schmidt et al. 2018, doi 10.1007/978-3-030-00934-2_30; the ``matching`` of the package ``stardist``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ..acquire.errors import FrameError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
_LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """True and found cells that are matched, ``k`` of them.

    Attributes
    ----------
    truth, found
        (k,) numbers of the cells, as in the masks.
    iou
        (k,) intersection over union of each pair.
    """

    truth: Ints
    found: Ints
    iou: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """How the cells of two masks of one image overlap.

    Attributes
    ----------
    truth, found
        (n,) and (m,) numbers of the cells, rising.
    truth_area, found_area
        (n,) and (m,) their areas in px.
    row, column
        (k,) positions in ``truth`` and ``found`` of the cells that share px.
    shared
        (k,) how many px they share.
    iou
        (k,) intersection over union, above 0 to 1.
    """

    truth: Ints
    found: Ints
    truth_area: Ints
    found_area: Ints
    row: Ints
    column: Ints
    shared: Ints
    iou: Floats

    def at(self, threshold: float) -> Pairs:
        """Return the one-to-one matching of pairs with an IoU of at least ``threshold`` (above 0)."""
        good = np.flatnonzero(self.iou >= threshold)
        rows, row = np.unique(self.row[good], return_inverse=True)
        columns, column = np.unique(self.column[good], return_inverse=True)
        if not len(good) == len(rows) == len(columns):
            gain = np.zeros((len(rows), len(columns)))
            # One more pair always outweighs any sum of IoU.
            gain[row, column] = 1 + self.iou[good] / (2 * min(gain.shape))
            chosen = np.zeros(gain.shape, bool)
            chosen[linear_sum_assignment(gain, maximize=True)] = True
            good = good[chosen[row, column]]
        return Pairs(self.truth[self.row[good]], self.found[self.column[good]], self.iou[good])


def overlaps(truth: NDArray[np.integer], found: NDArray[np.integer]) -> tuple[Ints, Ints]:
    """Return which numbers of two masks meet, and on how many px.

    Parameters
    ----------
    truth, found
        (y, x) integer masks of the same shape; 0 is background, other numbers need not be consecutive.

    Returns
    -------
    pairs
        (k, 2) numbers in truth and found, in rising order; 0 included.
    counts
        (k,) px of each pair, at least 1.

    Raises
    ------
    FrameError
        If the shapes differ, or a mask holds anything but integers from 0 to 2^31 - 1.
    """
    if truth.shape != found.shape:
        raise FrameError(f"masks of shapes {truth.shape} and {found.shape} cannot be compared")
    for name, mask in (("true", truth), ("found", found)):
        if mask.dtype.kind not in "iu":
            raise FrameError(f"the {name} mask must hold integers, got {mask.dtype}")
        if mask.size and not 0 <= mask.min() <= mask.max() <= _LARGEST:
            raise FrameError(
                f"the {name} mask holds numbers from {mask.min()} to {mask.max()}; 0 to {_LARGEST} are allowed"
            )
    both = (truth.astype(np.int64) << 32 | found.astype(np.int64)).reshape(-1)
    # Runs of equal pairs are far fewer than px, and only they need sorting.
    starts = np.flatnonzero(np.diff(both, prepend=-1))
    keys, run = np.unique(both[starts], return_inverse=True)
    counts = np.bincount(run, np.diff(starts, append=both.size), len(keys)).astype(np.int64)
    return np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1), counts


def match(truth: NDArray[np.integer], found: NDArray[np.integer]) -> Matches:
    """Return how the cells of two masks overlap; parameters and errors are those of :func:`overlaps`."""
    pairs, counts = overlaps(truth, found)
    truths, row = np.unique(pairs[:, 0], return_inverse=True)
    founds, column = np.unique(pairs[:, 1], return_inverse=True)
    truth_area = np.bincount(row, counts, len(truths)).astype(np.int64)
    found_area = np.bincount(column, counts, len(founds)).astype(np.int64)
    cells = (pairs > 0).all(axis=1)
    row, column, shared = row[cells], column[cells], counts[cells]
    iou = shared / (truth_area[row] + found_area[column] - shared)
    no_truth, no_found = int(np.sum(truths == 0)), int(np.sum(founds == 0))
    return Matches(
        truths[no_truth:],
        founds[no_found:],
        truth_area[no_truth:],
        found_area[no_found:],
        row - no_truth,
        column - no_found,
        shared,
        iou,
    )


@dataclass(frozen=True, slots=True, eq=False)
class ImageScores:
    """Counts of one image, or of several pooled (``+``), and the scores that follow from them.

    A score is NaN where there is nothing to judge.

    Attributes
    ----------
    thresholds
        IoU from which a pair counts.
    cells_true, cells_found
        How many cells there are, and how many were found.
    matched
        One for each threshold: pairs, or true positives.
    matched_iou
        One for each threshold: the sum of the IoU of these pairs.
    covered
        Sum over the true cells of the IoU with the found cell that covers more than half of each, for SEG.
    """

    thresholds: tuple[float, ...]
    cells_true: int
    cells_found: int
    matched: Ints
    matched_iou: Floats
    covered: float

    def __add__(self, other: ImageScores) -> ImageScores:
        if self.thresholds != other.thresholds:
            raise ValueError(f"scores at {self.thresholds} cannot be added to scores at {other.thresholds}")
        return ImageScores(
            self.thresholds,
            self.cells_true + other.cells_true,
            self.cells_found + other.cells_found,
            self.matched + other.matched,
            self.matched_iou + other.matched_iou,
            self.covered + other.covered,
        )

    @property
    def ap(self) -> dict[float, float]:
        """Average precision as in DSB2018 and StarDist, by threshold: TP / (TP + FP + FN)."""
        return self._by_threshold(self.matched, self.cells_true + self.cells_found - self.matched)

    @property
    def f1(self) -> dict[float, float]:
        """F1 by threshold: TP / (TP + FP / 2 + FN / 2)."""
        return self._by_threshold(self.matched, self._either_half)

    @property
    def precision(self) -> dict[float, float]:
        """By threshold: the share of the found cells that are true."""
        return self._by_threshold(self.matched, self.cells_found)

    @property
    def recall(self) -> dict[float, float]:
        """By threshold: the share of the true cells that were found."""
        return self._by_threshold(self.matched, self.cells_true)

    @property
    def pq(self) -> dict[float, float]:
        """Panoptic quality by threshold; the usual one is that at 0.5 (Kirillov et al. 2019)."""
        return self._by_threshold(self.matched_iou, self._either_half)

    @property
    def mean_iou(self) -> dict[float, float]:
        """By threshold: the mean IoU of the matched pairs."""
        return self._by_threshold(self.matched_iou, self.matched)

    @property
    def seg(self) -> float:
        """SEG of the Cell Tracking Challenge: over the true cells, the mean IoU with what covers most of each."""
        return self.covered / self.cells_true if self.cells_true else float("nan")

    @property
    def _either_half(self) -> float:
        return (self.cells_true + self.cells_found) / 2

    def _by_threshold(self, part: Ints | Floats, whole: Ints | float) -> dict[float, float]:
        shares = np.full(len(self.thresholds), np.nan)
        np.divide(part, whole, out=shares, where=np.asarray(whole) > 0)
        return dict(zip(self.thresholds, shares.tolist(), strict=True))


def score(
    truth: NDArray[np.integer], found: NDArray[np.integer], thresholds: Sequence[float] = THRESHOLDS
) -> ImageScores:
    """Return the scores of one image; parameters and errors are those of :func:`overlaps`."""
    matches = match(truth, found)
    at = [matches.at(threshold) for threshold in thresholds]
    covers = 2 * matches.shared > matches.truth_area[matches.row]
    return ImageScores(
        tuple(thresholds),
        len(matches.truth),
        len(matches.found),
        np.array([len(pairs.iou) for pairs in at], np.int64),
        np.array([pairs.iou.sum() for pairs in at]),
        float(matches.iou[covers].sum()),
    )


def pool(scores: Iterable[ImageScores]) -> ImageScores:
    """Return the scores of all images as if they were one large image, as StarDist's ``matching_dataset`` does.

    Raises
    ------
    ValueError
        If there is none.
    """
    listed = list(scores)
    if not listed:
        raise ValueError("there are no scores to pool")
    return reduce(ImageScores.__add__, listed)
