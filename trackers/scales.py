"""What a tracker learns from the movie itself: how far cells step, how much they change, how often they come and go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .alive import Alive
from .motion import Motion
from .neighbours import nearest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ENOUGH = 200.0
"""Links after which one frame's worth of them replaces what was assumed."""
_SLOWEST = 0.02
"""Least share of a frame in what is learned: a movie may change."""


@dataclass(frozen=True, slots=True)
class Scales:
    """What has been learned so far.

    Attributes
    ----------
    step_px
        Standard deviation along one axis of where a cell is found about where it is expected, in px.
    growth, area
        Median and spread (standard deviation, robust) of the change of log area from frame to frame.
    area_of_light, brightness
        The same of log mean intensity.
    shape
        Spread of the change of each component of ``Alive.shape``.
    likeness
        Usual distance (1 minus the cosine) of a cell's appearance vectors in two frames.
    overlap
        Usual overlap (intersection over union) of a cell's masks in two frames.
    velocity
        By how much, in the log likelihood per step, velocities foretell places better than last places do.
    ended, came
        Share of tracks that end, and of detections that are new, per frame.
    links
        How many links this rests on, counted to a bound.
    """

    step_px: float
    growth: float = 0.0
    area: float = 0.15
    area_of_light: float = 0.0
    brightness: float = 0.15
    shape: float = 0.15
    likeness: float = 0.1
    overlap: float = 0.7
    velocity: float = 0.0
    ended: float = 0.02
    came: float = 0.02
    links: int = 10

    def state(self) -> dict[str, Any]:
        """Return the numbers by name."""
        return asdict(self)

    @staticmethod
    def of_state(state: Mapping[str, Any]) -> Scales:
        """Return what :meth:`state` was taken of.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is something else.
        """
        numbers = {each.name: float(state[each.name]) for each in fields(Scales) if each.name != "links"}
        if not np.isfinite(list(numbers.values())).all():
            raise ValueError(f"scales are not finite: {numbers}")
        return Scales(links=int(state["links"]), **numbers)


def first_scales(alive: Alive, found: Alive) -> Scales:
    """Return scales before any link is known: steps from mutual nearest neighbours, bounded by the cells' size."""
    cells = found if len(found) else alive
    radius = float(np.median(cells.radius)) if len(cells) else 5.0
    if len(alive) < 3 or len(found) < 3:
        return Scales(step_px=max(0.5 * radius, 1.0))
    distance, there = nearest(found.place, alive.place)
    _, back = nearest(alive.place, found.place)
    mutual = back[there] == np.arange(len(alive))
    step = float(np.median(distance[mutual])) / 1.177 if mutual.any() else radius
    return Scales(step_px=float(np.clip(step, 0.15 * radius, 2 * radius)))


def learned(
    scales: Scales,
    alive: Alive,
    found: Alive,
    linked: Ints,
    columns: Ints,
    motion: Motion,
    unlike: Floats,
    overlap: Floats,
    ended: int,
    came: int,
) -> Scales:
    """Return the scales after one more frame: robust spreads, slower to change as links add up.

    Parameters
    ----------
    scales
        What was known.
    alive, found
        The n tracks and m detections of the frame.
    linked, columns
        (k,) rows of tracks and of the detections that they were linked to.
    motion
        What the frame says of their motion.
    unlike, overlap
        (k,) distance of their appearance vectors, and overlap of their masks; NaN where nothing is known.
    ended, came
        How many tracks ended and how many detections are new.
    """
    links = scales.links + len(linked)
    rate = max(len(linked) / links, min(1.0, len(linked) / _ENOUGH), _SLOWEST)
    slow = max(len(linked) / (len(linked) + 20 * _ENOUGH), 0.2 * rate)
    size = found.area[columns] - alive.area[linked]
    light = found.brightness[columns] - alive.brightness[linked]
    turn = np.abs(found.shape[columns] - alive.shape[linked])
    growth, gain = float(np.median(size)), float(np.median(light))
    return Scales(
        step_px=_toward(scales.step_px, max(float(np.median(motion.surprise)) / 1.177, 0.3), rate),
        growth=scales.growth + rate * (float(np.clip(growth, -0.2, 0.2)) - scales.growth),
        area=_toward(scales.area, max(float(np.median(np.abs(size - growth))) / 0.674, 0.03), rate),
        area_of_light=scales.area_of_light + rate * (float(np.clip(gain, -0.2, 0.2)) - scales.area_of_light),
        brightness=_toward(
            scales.brightness, max(float(np.median(np.abs(light - gain))) / 0.674, 0.03), rate
        ),
        shape=_toward(scales.shape, max(float(np.median(turn)) / 0.674, 0.02), rate),
        likeness=_toward_known(scales.likeness, unlike, rate),
        overlap=_toward_known(scales.overlap, overlap, rate),
        velocity=scales.velocity + rate * (motion.foretold - scales.velocity),
        ended=scales.ended + slow * (float(np.clip(ended / max(len(alive), 1), 0.002, 0.2)) - scales.ended),
        came=scales.came + slow * (float(np.clip(came / max(len(found), 1), 0.002, 0.3)) - scales.came),
        links=min(links, 1000),
    )


def _toward(old: float, new: float, rate: float) -> float:
    return float(np.exp((1 - rate) * np.log(old) + rate * np.log(new)))


def _toward_known(old: float, now: Floats, rate: float) -> float:
    known = now[~np.isnan(now)]
    return _toward(old, max(float(np.median(known)), 0.01), rate) if len(known) else old
