"""A net between two others that learned one from the other: it keeps what the first knew of other images.

Half way between a trained net and what a few images made of it is better than either on images of the same kind that
had no part in it (Wortsman et al. 2022, robust fine-tuning).
"""

from __future__ import annotations

from copy import deepcopy

from .loop import average
from .net import CellNet


def between(first: CellNet, then: CellNet, keep: float) -> CellNet:
    """Return a net in evaluation mode whose weights are those of ``first`` by ``keep``, else those of ``then``."""
    mixed = deepcopy(first)
    average(mixed, then, keep)
    return mixed.eval()
