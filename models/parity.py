"""Whether two ways of finding cells agree: instance by instance, px by px, and where the cells are.

This is no score of quality: the reference is what the same net says in fp32, right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from .scores import ImageScores, Matches, Pairs, match, score

Mask = NDArray[np.integer]
THRESHOLDS = (0.5, 0.75, 0.9)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What is demanded of a way that is to stand in for the reference.

    Attributes
    ----------
    f1
        Lowest instance F1, by IoU.
    disagreement
        Largest share of the px that lie in another cell, or in one where the reference sees none.
    shift_px
        Largest shift between the centroids of the same cell, at the 99th percentile.
    """

    f1: tuple[tuple[float, float], ...] = ((0.75, 0.99), (0.9, 0.97))
    disagreement: float = 0.005
    shift_px: float = 0.5

    def __str__(self) -> str:
        demands = [f"F1@{iou:g} >= {lowest:g}" for iou, lowest in self.f1]
        demands += [
            f"px disagreement <= {self.disagreement:.1%}",
            f"centroid shift p99 <= {self.shift_px:g} px",
        ]
        return ", ".join(demands)


@dataclass(frozen=True, slots=True, eq=False)
class Parity:
    """How far two ways agree on one frame, or on several (``+``).

    Attributes
    ----------
    scores
        Instance F1 and its kin at IoU 0.5, 0.75 and 0.9, the reference taken as true.
    px, px_apart
        Px looked at, and how many of them the two ways give to different cells, or to a cell and the background.
    shifts_px
        (k,) distance between the centroids of each pair of cells that overlap with an IoU of 0.5 or more.
    """

    scores: ImageScores
    px: int
    px_apart: int
    shifts_px: NDArray[np.float64]

    def __add__(self, other: Parity) -> Parity:
        return Parity(
            self.scores + other.scores,
            self.px + other.px,
            self.px_apart + other.px_apart,
            np.concatenate([self.shifts_px, other.shifts_px]),
        )

    @property
    def f1(self) -> dict[float, float]:
        """Instance F1 by IoU; 1 where neither sees a cell."""
        empty = self.scores.cells_true + self.scores.cells_found == 0
        return {iou: 1.0 if empty else f1 for iou, f1 in self.scores.f1.items()}

    @property
    def disagreement(self) -> float:
        """Share of the px that the two ways give to different cells."""
        return self.px_apart / self.px if self.px else 0.0

    def shift_px(self, percentile: float) -> float:
        """Return a percentile of the shift of the centroids in px; 0 where no cell is matched."""
        return float(np.percentile(self.shifts_px, percentile)) if self.shifts_px.size else 0.0

    def in_words(self) -> str:
        """Return all figures in one line."""
        f1 = ", ".join(f"F1@{iou:g} {value:.4f}" for iou, value in self.f1.items())
        return f"{f1}, px apart {self.disagreement:.3%}, shift p99 {self.shift_px(99):.2f} px"

    def failures(self, demanded: Agreement) -> list[str]:
        """Return what is demanded and not met, in words; empty if the two ways agree."""
        f1 = self.f1
        failed = [f"F1@{iou:g} is {f1[iou]:.4f}, needs {low:g}" for iou, low in demanded.f1 if f1[iou] < low]
        if self.disagreement > demanded.disagreement:
            failed.append(f"{self.disagreement:.2%} of the px disagree, allowed {demanded.disagreement:.2%}")
        if self.shift_px(99) > demanded.shift_px:
            failed.append(
                f"centroids shift by {self.shift_px(99):.2f} px (p99), allowed {demanded.shift_px:g}"
            )
        return failed


def sum_of(parities: Sequence[Parity]) -> Parity:
    """Return what the parities of several frames, at least one, say together."""
    return reduce(Parity.__add__, parities)


def compare(reference: Mask, found: Mask) -> Parity:
    """Compare two instance masks of one frame.

    Parameters
    ----------
    reference, found
        (y, x) integer masks of the same shape; 0 is background.

    Raises
    ------
    FrameError
        If the shapes differ, or a mask does not hold numbers from 0 up.
    """
    matches = match(reference, found)
    same = matches.at(THRESHOLDS[0])
    apart = reference.size - _agreed(matches, same, reference.size)
    shift = _centroids(reference, same.truth) - _centroids(found, same.found)
    scores = score(reference, found, THRESHOLDS)
    return Parity(scores, reference.size, apart, np.hypot(shift[:, 0], shift[:, 1]))


def _agreed(matches: Matches, same: Pairs, size: int) -> int:
    """Return the number of px that both give to the same cell, or to none."""
    both_empty = size - matches.truth_area.sum() - matches.found_area.sum() + matches.shared.sum()
    partner = dict(zip(same.truth.tolist(), same.found.tolist(), strict=True))
    pairs = zip(matches.truth[matches.row].tolist(), matches.found[matches.column].tolist(), strict=True)
    matched = np.fromiter((partner.get(truth) == found for truth, found in pairs), bool, len(matches.row))
    return int(both_empty + matches.shared[matched].sum())


def _centroids(mask: Mask, cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the (y, x) centroids of chosen cells of a mask, (k, 2)."""
    y, x = np.nonzero(mask)
    numbers, cell = np.unique(mask[y, x], return_inverse=True)
    area = np.bincount(cell, minlength=len(numbers))
    sums = [np.bincount(cell, along, len(numbers)) for along in (y, x)]
    chosen = np.searchsorted(numbers, cells)
    return np.stack([along[chosen] / area[chosen] for along in sums], axis=1)
