"""Finding divisions: which cell has become which two, and how much that explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Mothers:
    """What is known of the n cells that may divide.

    Attributes
    ----------
    yx
        (n, 2) expected position in px.
    area
        (n,) last area in px.
    moments
        (n, 3) last second central moments yy, xx, yx in px^2.
    prior
        (n,) log probability that the cell divides now.
    """

    yx: Floats
    area: Floats
    moments: Floats
    prior: Floats


def candidate_pairs(
    rows: Ints, columns: Ints, mothers: Mothers, yx: Floats, area: Floats
) -> tuple[Ints, Ints, Ints]:
    """Return (mother, one, other) for every two detections that could be the daughters of one cell.

    Parameters
    ----------
    rows, columns
        Edges from mothers to detections near them.
    mothers
        The mothers.
    yx, area
        (m, 2), (m,) position and area of the detections.
    """
    share = area[columns] / mothers.area[rows]
    reach = np.maximum(1.1 * _half_lengths(mothers), 1.8 * np.sqrt(mothers.area / np.pi))[rows] + 4.0
    offset = yx[columns] - mothers.yx[rows]
    keep = (share > 0.15) & (share < 1.0) & (np.hypot(offset[:, 0], offset[:, 1]) < reach)
    order = np.lexsort((columns[keep], rows[keep]))
    r, c = rows[keep][order], columns[keep][order]
    mother, one, other = [r[:0]], [c[:0]], [c[:0]]
    step = 1
    while True:  # partners 1, 2, ... places further in the same mother's run
        same = np.flatnonzero(r[step:] == r[:-step]) if step < len(r) else r[:0]
        if len(same) == 0:
            break
        mother.append(r[same])
        one.append(c[same])
        other.append(c[same + step])
        step += 1
    return np.concatenate(mother), np.concatenate(one), np.concatenate(other)


def _half_lengths(mothers: Mothers) -> Floats:
    """Return (n,) half of the long axis in px."""
    yy, xx, yx = mothers.moments.T
    return 2 * np.sqrt((yy + xx) / 2 + np.hypot((yy - xx) / 2, yx))


def division_gains(
    mother: Ints,
    one: Ints,
    other: Ints,
    mothers: Mothers,
    yx: Floats,
    area: Floats,
    brightness: Floats,
    *,
    spread_px: float,
    brightness_spread: float,
    new_per_px: float,
    log_area_population: tuple[float, float],
) -> Floats:
    """Return the log-likelihood ratio of each division against an end and two cells from nowhere.

    The parts: the daughters' midpoint lies where the mother was; they lie apart along her long axis by about
    two radii; each has about half her area; they are equally large and equally bright. Widths are set
    to hold for nuclei and for rods alike.

    Parameters
    ----------
    mother, one, other
        (t,) the triples.
    mothers
        The mothers.
    yx, area, brightness
        Position in px, area in px, log mean intensity of the detections.
    spread_px
        Standard deviation of a cell's step in px.
    brightness_spread
        Standard deviation of the change of log mean intensity.
    new_per_px
        Density in 1/px of cells that appear from nowhere.
    log_area_population
        Mean and standard deviation of log area over all cells.
    """
    radius = np.sqrt(mothers.area[mother] / np.pi)
    middle = (yx[one] + yx[other]) / 2 - mothers.yx[mother]
    variance = spread_px**2 + (0.35 * radius) ** 2
    gain = (
        mothers.prior[mother] - np.square(middle).sum(axis=1) / (2 * variance) - np.log(2 * np.pi * variance)
    )
    apart = yx[one] - yx[other]
    length = np.maximum(np.hypot(apart[:, 0], apart[:, 1]), 1e-3)
    gain += _log_normal(np.log(length / (1.95 * radius)), 0.3) - 2 * np.log(length)
    gain += _log_direction(apart / length[:, np.newaxis], mothers.moments[mother])
    gain -= 2 * np.log(new_per_px)
    mean, sd = log_area_population
    for daughter in (one, other):
        log_area = np.log(area[daughter])
        gain += _log_normal(log_area - np.log(mothers.area[mother] / 2), 0.35)
        gain -= np.maximum(_log_normal(log_area - mean, sd), -6.0)
    gain += _log_normal(np.log(area[one] / area[other]), 0.3) - _log_normal(0.0, 0.6)
    contrast = (brightness[one] - brightness[other]) / (2 * brightness_spread + 0.05)
    return gain - np.minimum(contrast**2 / 2, 4.0)


def _log_normal(x: Floats | float, sd: float) -> Floats:
    return -np.square(np.asarray(x) / sd) / 2 - np.log(sd * np.sqrt(2 * np.pi))


def _log_direction(unit: Floats, moments: Floats) -> Floats:
    """Return the log density per radian of a direction, peaked along the long axis of a long mother."""
    yy, xx, yx = moments.T
    half = np.hypot((yy - xx) / 2, yx)
    middle = np.maximum((yy + xx) / 2, 1e-6)
    angle = np.arctan2(2 * yx, xx - yy) / 2  # of the long axis, from x towards y
    along = np.abs(unit[:, 1] * np.cos(angle) + unit[:, 0] * np.sin(angle))
    across = np.arccos(np.clip(along, 0, 1))
    trust = 0.9 * np.minimum(1.0, 2.5 * half / middle)  # a round mother has no axis
    peak = np.exp(-np.square(across / 0.3) / 2) / (0.3 * np.sqrt(2 * np.pi))
    return np.log(trust * peak + (1 - trust) / np.pi)
