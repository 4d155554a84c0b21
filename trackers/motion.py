"""Where a cell is expected: two filters for each track, and how far each is to be trusted.

A cell that wanders is best expected where it was last seen (Brownian motion), one that travels where its velocity
takes it (constant velocity). Both are steady-state Kalman filters; which of the two foretells a track better is kept
as the log of an odds ratio, which forgets, and begins with what the movie has taught (two interacting models, Blom
and Bar-Shalom 1988, doi 10.1109/9.1299, with the mixing reduced to a sum).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .alive import Alive, squared

if TYPE_CHECKING:
    from .scales import Scales

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

VELOCITY_GAIN, VELOCITY_DECAY = 0.3, 0.95
"""Share of a surprise that becomes velocity, and of a velocity that lasts to the next frame."""
MEMORY_FRAMES = 8.0
"""How long a track's own unrest is remembered."""
_FORGETS = 0.85
_MOST = 5.0
_AT_ONCE = 2.0
"""Most that one step can say for or against a velocity."""


MODELS = ("auto", "brownian", "velocity")
"""Which of both filters is believed: each track's own better one, or always the same."""


def expected(alive: Alive, model: str = "auto", frames: float = 1.0) -> Alive:
    """Return the tracks where they are expected, before any shift of the field.

    Parameters
    ----------
    alive
        Tracks where they were last seen.
    model
        One of ``MODELS``.
    frames
        How many frames on; more than 1 where frames are missing.
    """
    unrest = alive.unrest * frames if frames > 1 else alive.unrest
    if model == "brownian":
        return replace(alive, unrest=unrest)
    trust = 1 / (1 + np.exp(-alive.steadiness)) if model == "auto" else np.ones(len(alive))
    return replace(alive, place=alive.place + frames * trust[:, np.newaxis] * alive.velocity, unrest=unrest)


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """What a frame says of the motion of k tracks that were found in it.

    Attributes
    ----------
    velocity, steadiness, unrest
        (k, d), (k,), (k,) as in :class:`~cytoloop.trackers.alive.Alive`.
    surprise
        (k,) px between expected and found, as if in two dimensions.
    foretold
        By how much, on average, velocities foretold better than last places.
    """

    velocity: Floats
    steadiness: Floats
    unrest: Floats
    surprise: Floats
    foretold: float


def moved(alive: Alive, rows: Ints, places: Floats, seen: Floats, scales: Scales) -> Motion:
    """Return what a frame says of the motion of tracks that were found in it.

    Parameters
    ----------
    alive, rows
        The tracks as they were, before :func:`expected`, but with any shift of the field taken out; and k of them.
    places, seen
        (k, d) where they were expected and where they were found, in px.
    scales
        What the movie has taught.
    """
    d = places.shape[1]
    before, unrest = alive.velocity[rows], alive.unrest[rows]
    step = seen - alive.place[rows]
    past = step - before
    variance = scales.step_px**2 * unrest
    says = np.einsum("ij,ij->i", step + past, before) / (2 * variance)  # the difference of both squares
    says = np.clip(says, -_AT_ONCE, _AT_ONCE)
    steadiness = np.clip(_FORGETS * alive.steadiness[rows] + says, -_MOST, _MOST)
    velocity = VELOCITY_DECAY * (before + VELOCITY_GAIN * past)
    square = squared(seen - places)
    often = np.minimum(square / d / scales.step_px**2, 9 * unrest)
    unrest = np.clip(unrest + (often - unrest) / MEMORY_FRAMES, 0.25, 9.0)
    moving = squared(before) > 0
    foretold = float(says[moving].mean()) if moving.any() else 0.0
    return Motion(velocity, steadiness, unrest, np.sqrt(square * 2 / d), foretold)


def first_steadiness(scales: Scales) -> float:
    """Return the log of the odds with which a new track starts."""
    return float(np.clip(10 * scales.velocity - 0.5, -4.0, 2.0))
