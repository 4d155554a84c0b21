"""Cells from the embeddings of InstanSeg: px whose embeddings lie together, around seeds.

Each px gives a place in the space of embeddings, near the middle of its cell, and how far its like spread. Seeds are
peaks of a third map. A small net, the pixel classifier, says from the difference between the embeddings of a px and
of a seed, and from the spread at the px, how likely it is that they are one cell. A cell grows from its seed
over neighbours that are likely enough, within a window; a px that several claim goes to the one that is
likeliest, and seeds whose cells share most of their px are one cell [1]_.

.. [1] Goldsborough et al. 2024, arXiv 2408.15954.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .components import find

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

UNITS_PER_PX = 64 / 256
"""Of the space of embeddings."""
OFFSET_RANGE = 8.0
"""Offsets lie within half of it to either side, in these units."""
SEED_RANGE = 15.0
"""Values of the seed map are spread so far over 0 to 1."""
MOST_CLAIMS = 8
"""Of more cells that claim one px, the later ones do not count when cells are compared."""


class Classifier(NamedTuple):
    """Weights (outputs, inputs) and biases (outputs,) of the three layers of the pixel classifier, float32."""

    first: Floats
    first_bias: Floats
    second: Floats
    second_bias: Floats
    third: Floats
    third_bias: Floats


@njit(cache=True, nogil=True)
def cells_of_embeddings(
    maps: Floats,
    classifier: Classifier,
    least: float,
    least_seed: float,
    apart: int,
    share: float,
    window: int,
) -> tuple[Ints, Floats, int]:
    """Return cells, how likely each px is part of its own, and the largest number.

    Parameters
    ----------
    maps
        (2 + spreads + 1, y, x) float32: offsets x and y before their activation, spreads, seeds.
    classifier
        The net; its first layer takes two differences and the spreads.
    least
        Probability from which on a px is part of a cell.
    least_seed
        Value of the seed map, 0 to 1, above which a peak is a seed.
    apart
        Seeds are the highest within so many px along both axes.
    share
        Intersection over union above which two cells are one.
    window
        A cell lies within so many px of its seed along both axes.
    """
    height, width = maps.shape[1:]
    seeds = _seeds(maps[-1], (least_seed - 0.5) * SEED_RANGE, apart)
    place = _places(maps)
    best = np.full((height, width), np.float32(0))
    owner = np.zeros((height, width), np.int32)
    root = np.arange(len(seeds) + 1).astype(np.int32)
    size = np.zeros(len(seeds) + 1, np.int64)
    # The cells that claim each px, as a chain of (cell, next claim), and how many they are.
    claims, used = np.empty((4096, 2), np.int64), 0
    head = np.full((height, width), -1, np.int64)
    claimed = np.zeros((height, width), np.int8)
    shared = np.zeros(len(seeds) + 1, np.int64)
    limit = np.float32(math.log(least / (1 - least)))
    stack, odds = np.empty((4 * window * window, 2), np.int32), np.empty(4 * window * window, np.float32)
    seen = np.zeros((height, width), np.int32)
    for seed in range(1, len(seeds) + 1):
        top = min(max(seeds[seed - 1, 0], window), max(height - window, window)) - window
        left = min(max(seeds[seed - 1, 1], window), max(width - window, window)) - window
        box = (top, min(top + 2 * window, height), left, min(left + 2 * window, width))
        filled = _claim(maps, place, classifier, seeds[seed - 1], seed, box, limit, stack, odds, seen)
        size[seed] = filled
        if used + filled > len(claims):
            longer = np.empty((2 * (used + filled), 2), np.int64)
            longer[:used] = claims[:used]
            claims = longer
        for k in range(filled):
            y, x = stack[k]
            chance = np.float32(1 / (1 + math.exp(-odds[k])))
            if chance > best[y, x]:
                best[y, x], owner[y, x] = chance, seed
            claim = head[y, x]
            while claim >= 0:
                shared[claims[claim, 0]] += 1
                claim = claims[claim, 1]
        for k in range(filled):
            y, x = stack[k]
            claim = head[y, x]
            while claim >= 0:
                other = int(claims[claim, 0])
                if shared[other] > share * (size[other] + filled - shared[other]):
                    one, two = find(root, other), find(root, seed)
                    root[max(one, two)] = min(one, two)
                shared[other] = 0
                claim = claims[claim, 1]
        for k in range(filled):
            y, x = stack[k]
            if claimed[y, x] < MOST_CLAIMS:
                claims[used, 0], claims[used, 1] = seed, head[y, x]
                head[y, x], used = used, used + 1
                claimed[y, x] += 1
    for y in range(height):
        for x in range(width):
            if owner[y, x]:
                owner[y, x] = find(root, owner[y, x])
    return owner, best, len(seeds)


@njit(cache=True, nogil=True)
def _seeds(values: Floats, least: float, apart: int) -> Ints:
    """Return (n, 2) px that are above a value and the highest around; of equals, the first."""
    height, width = values.shape
    seeds = np.empty((values.size // (apart + 1) + 1, 2), np.int32)
    count = 0
    for y in range(height):
        for x in range(width):
            own = values[y, x]
            if not own > least:
                continue
            highest = True
            for reach in (1, apart):  # nearly all fail among the nearest
                for i in range(max(y - reach, 0), min(y + reach + 1, height)):
                    for j in range(max(x - reach, 0), min(x + reach + 1, width)):
                        before = i < y or (i == y and j < x)
                        highest &= not (values[i, j] > own or (before and values[i, j] == own))
                    if not highest:
                        break
                if not highest:
                    break
            if highest:
                if count == len(seeds):
                    longer = np.empty((2 * count, 2), np.int32)
                    longer[:count] = seeds
                    seeds = longer
                seeds[count, 0], seeds[count, 1] = y, x
                count += 1
    return seeds[:count]


@njit(cache=True, nogil=True)
def _places(maps: Floats) -> Floats:
    """Return (y, x, 2) places x and y in the space of embeddings, laid from end to end as in InstanSeg."""
    height, width = maps.shape[1:]
    place = np.empty((height, width, 2), np.float32)
    per_row = UNITS_PER_PX * height / max(height - 1, 1)
    per_column = UNITS_PER_PX * width / max(width - 1, 1)
    for y in range(height):
        for x in range(width):
            place[y, x, 0] = (1 / (1 + math.exp(-maps[0, y, x])) - 0.5) * OFFSET_RANGE + x * per_column
            place[y, x, 1] = (1 / (1 + math.exp(-maps[1, y, x])) - 0.5) * OFFSET_RANGE + y * per_row
    return place


@njit(cache=True, nogil=True)
def _claim(
    maps: Floats,
    place: Floats,
    classifier: Classifier,
    at: Ints,
    seed: int,
    box: tuple[int, int, int, int],
    limit: np.float32,
    stack: Ints,
    odds: Floats,
    seen: Ints,
) -> int:
    """Write the px that are connected with a seed and likely enough, and how likely (logits); return their number."""
    top, bottom, left, right = box
    hidden = np.empty(classifier.first_bias.size, np.float32)
    further = np.empty(classifier.second_bias.size, np.float32)
    inputs = np.empty(classifier.first.shape[1], np.float32)
    centre_x, centre_y = place[at[0], at[1], 0], place[at[0], at[1], 1]
    filled, done = 0, -1
    y, x = at[0], at[1]
    while done < filled:
        around = 0 if done < 0 else 1
        for i in range(max(y - around, top), min(y + around + 1, bottom)):
            for j in range(max(x - around, left), min(x + around + 1, right)):
                if seen[i, j] == seed:
                    continue
                seen[i, j] = seed
                inputs[0], inputs[1] = place[i, j, 0] - centre_x, place[i, j, 1] - centre_y
                for k in range(2, inputs.size):
                    inputs[k] = maps[k, i, j]
                logit = _classify(classifier, inputs, hidden, further)
                if logit >= limit:
                    stack[filled, 0], stack[filled, 1], odds[filled] = i, j, logit
                    filled += 1
        done += 1
        if done < filled:
            y, x = stack[done]
    return filled


@njit(cache=True, nogil=True)
def _classify(classifier: Classifier, inputs: Floats, hidden: Floats, further: Floats) -> np.float32:
    """Return the logit of the pixel classifier."""
    for i in range(hidden.size):
        total = classifier.first_bias[i]
        for k in range(inputs.size):
            total += classifier.first[i, k] * inputs[k]
        hidden[i] = max(total, np.float32(0))
    for i in range(further.size):
        total = classifier.second_bias[i]
        for k in range(hidden.size):
            total += classifier.second[i, k] * hidden[k]
        further[i] = max(total, np.float32(0))
    logit = classifier.third_bias[0]
    for k in range(further.size):
        logit += classifier.third[0, k] * further[k]
    return logit
