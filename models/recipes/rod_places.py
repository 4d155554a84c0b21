"""Where rods lie: grown colonies, crowded layers, loose fields, stacks side by side and chains end to end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import rod_kernels as kernels
from .optics import Random, Shape, log_uniform

Floats = NDArray[np.float64]

MOST = 420
"""Rods in one image at most: what their growth may cost."""
CROWD = 40
"""Rods from which on they press on each other less: nobody could tell them apart."""


@dataclass(frozen=True, slots=True)
class Habit:
    """What the rods of one image share.

    Attributes
    ----------
    width
        Full width in px.
    added
        Length from birth to division in widths; also the mean length at birth.
    gap
        Px that stay free between neighbours; less than 0 where they press on each other.
    """

    width: float
    added: float
    gap: float


def drawn_habit(rng: Random) -> Habit:
    """Draw what the rods of one image share."""
    width = log_uniform(rng, 7.5, 25)
    gap = rng.choice(
        (rng.uniform(-0.35, -0.02), rng.uniform(-0.05, 0.05), rng.uniform(0, 0.2)), p=(0.7, 0.2, 0.1)
    )
    return Habit(width, log_uniform(rng, 1.1, 4.2), width * gap)


def placed(rng: Random, habit: Habit, shape: Shape) -> Floats:
    """Return (n, PLACED) rods in an arrangement drawn at random; none in a few fields."""
    arrange = rng.choice(
        np.array([_colonies, _layer, _loose, _stacks, _chains, _nothing], object),
        p=[0.47, 0.1, 0.09, 0.23, 0.08, 0.03],
    )
    return arrange(rng, habit, shape)


def _fill(habit: Habit, shape: Shape) -> float:
    """Return how many rods fill the image."""
    return shape[0] * shape[1] / (habit.width * habit.width * habit.added * 1.5)


def _newborn(rng: Random, habit: Habit, n: int) -> Floats:
    rods = np.zeros((n, kernels.PLACED))
    birth = habit.added * habit.width * np.clip(rng.normal(1, 0.15, n), 0.6, 1.5)
    rods[:, kernels.LENGTH] = birth * 2 ** rng.uniform(0, 1, n)
    rods[:, kernels.DIVIDE_AT] = birth + habit.added * habit.width
    rods[:, kernels.ANGLE] = rng.uniform(0, 2 * np.pi, n)
    return rods


def _grown(rng: Random, habit: Habit, founders: Floats, target: int) -> Floats:
    target = max(target, len(founders))
    rods = np.zeros((target, kernels.PLACED))
    rods[: len(founders)] = founders
    fold, kick = rng.uniform(0, 0.9), log_uniform(rng, 0.01, 0.2)
    pull = rng.choice((0.0, rng.uniform(0.002, 0.03)), p=(0.25, 0.75))
    gap = habit.gap if target < CROWD else max(habit.gap, -0.1 * habit.width)
    n = kernels.grow(rods, len(founders), target, habit.width, habit.added, fold, kick, pull, gap, rng)
    return rods[:n]


def _colonies(rng: Random, habit: Habit, shape: Shape) -> Floats:
    """A few colonies at any age, seen whole or in part."""
    count = int(rng.choice((1, 1, 1, 2, 3, 4)))
    founders = _newborn(rng, habit, count)
    founders[:, [kernels.X, kernels.Y]] = rng.uniform(0.1, 0.9, (count, 2)) * (shape[1], shape[0])
    most = max(2.0, min(MOST, 0.8 * _fill(habit, shape)))
    rods = _grown(rng, habit, founders, int(log_uniform(rng, 1, most)))
    middle = rods[:, [kernels.X, kernels.Y]].mean(axis=0)
    if count == 1:
        rods[:, [kernels.X, kernels.Y]] += rng.uniform(0.25, 0.75, 2) * (shape[1], shape[0]) - middle
    return rods


def _layer(rng: Random, habit: Habit, shape: Shape) -> Floats:
    """A layer that fills the image, or the edge of one."""
    count = int(rng.integers(1, 12))
    founders = _newborn(rng, habit, count)
    founders[:, [kernels.X, kernels.Y]] = rng.uniform(0.3, 0.7, (count, 2)) * (shape[1], shape[0])
    rods = _grown(rng, habit, founders, int(min(MOST, 1.3 * _fill(habit, shape))))
    rods[:, [kernels.X, kernels.Y]] += rng.normal(0, 0.25, 2) * (shape[1], shape[0])
    return rods


def _loose(rng: Random, habit: Habit, shape: Shape) -> Floats:
    """Single cells, from few to many."""
    count = int(log_uniform(rng, 1, max(2.0, min(MOST, 0.7 * _fill(habit, shape)))))
    rods = _newborn(rng, habit, count)
    rods[:, [kernels.X, kernels.Y]] = rng.uniform(-0.05, 1.05, (count, 2)) * (shape[1], shape[0])
    if rng.random() < 0.3:  # flow and swimming align them
        rods[:, kernels.ANGLE] = rng.uniform(0, np.pi) + rng.normal(0, 0.3, count)
    kernels.push_apart(rods, count, habit.width + habit.gap, 25)
    return rods


def _stacks(rng: Random, habit: Habit, shape: Shape) -> Floats:
    """Rows of rods side by side, the neighbours shifted a little and some of them end to end."""
    rows = []
    for _ in range(int(rng.integers(1, 5))):
        count, step = int(rng.integers(2, 10)), habit.width + habit.gap
        stack = _newborn(rng, habit, count)
        angle = rng.uniform(0, 2 * np.pi)
        length = stack[:, kernels.LENGTH].mean()
        along = np.cumsum(rng.normal(0, rng.uniform(0, 0.35) * length, count))
        across = (np.arange(count) - count / 2) * step
        file = rng.integers(0, int(rng.integers(1, 4)), count)  # several stacks end to end
        along += file * 1.9 * length
        stack[:, kernels.X] = along * np.cos(angle) - across * np.sin(angle)
        stack[:, kernels.Y] = along * np.sin(angle) + across * np.cos(angle)
        stack[:, [kernels.X, kernels.Y]] += rng.uniform(0.15, 0.85, 2) * (shape[1], shape[0])
        stack[:, kernels.ANGLE] = angle + rng.normal(0, 0.03, count)
        rows.append(stack)
    rods = np.concatenate(rows)
    kernels.push_apart(rods, len(rods), habit.width + habit.gap, 40)
    return rods


def _chains(rng: Random, habit: Habit, shape: Shape) -> Floats:
    """Rods that stay end to end after division."""
    rows = []
    for _ in range(int(rng.integers(1, 6))):
        chain = _newborn(rng, habit, int(rng.integers(2, 14)))
        turn = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, rng.uniform(0.02, 0.35), len(chain)))
        at = rng.uniform(0.05, 0.95, 2) * (shape[1], shape[0])
        for row, angle in zip(chain, turn, strict=True):
            half = (row[kernels.LENGTH] + habit.gap * 0.5) / 2
            way = np.array([np.cos(angle), np.sin(angle)])
            row[[kernels.X, kernels.Y]], row[kernels.ANGLE] = at + half * way, angle
            at = at + 2 * half * way
        rows.append(chain)
    rods = np.concatenate(rows)
    kernels.push_apart(rods, len(rods), habit.width + habit.gap, 25)
    return rods


def _nothing(rng: Random, habit: Habit, shape: Shape) -> Floats:
    """An empty field."""
    return np.zeros((0, kernels.PLACED))
