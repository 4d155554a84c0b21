"""Which images are held out.

Neighbours in a series (a movie, a stack) show the same cells again. So runs of neighbours are held out together,
and each series of a folder gives its share.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np


def hold_out(names: Sequence[str], share: float, seed: int) -> list[int]:
    """Return the positions of the images to hold out, rising.

    Parameters
    ----------
    names
        Of all images, in natural order. Names that differ only in the number at their end are a series.
    share
        How much of each series to hold out, above 0 and below 1; short series count as one.
    seed
        Chooses the runs.
    """
    series: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        series.setdefault(re.sub(r"\d+$", "", name), []).append(position)
    short = [p for group in series.values() if round(share * len(group)) < 1 for p in group]
    groups = [group for group in series.values() if round(share * len(group)) >= 1] + (
        [sorted(short)] if short else []
    )
    random = np.random.default_rng(seed)
    held: list[int] = []
    for group in groups:
        count = round(share * len(group))
        start = int(random.integers(len(group) - count + 1))
        held += group[start : start + count]
    held = sorted(held) or [int(random.integers(len(names)))]
    return held[: len(names) - 1]


def folds(count: int, parts: int) -> list[list[int]]:
    """Return so many runs of neighbours, which together are all positions below ``count``."""
    return [list(map(int, part)) for part in np.array_split(np.arange(count), min(parts, count))]
