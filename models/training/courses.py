"""Courses: how long and how fast a net is trained on images of one's own."""

from __future__ import annotations

from dataclasses import dataclass

from .loop import Schedule
from .net import WORKING_RANGE, Architecture

FINE_STEPS, FROM_SCRATCH_STEPS = 300, 4000
FINE_CROPS = 8
PERSISTENCES = (None, 1.6, 3.6, 5.0)
"""How deep a valley parts two cells for the decoder, in logits; None is as before. A net that was fitted is surer of
what it says, and its ripples are higher."""


@dataclass(frozen=True, slots=True)
class Course:
    """How one net is trained.

    Attributes
    ----------
    size_px, count
        Edge of the crops, and how many one step sees.
    diameter_range
        Breadths in input px at which cells are shown.
    schedule
        Steps and rate.
    """

    size_px: int
    count: int
    diameter_range: tuple[float, float]
    schedule: Schedule


def fine_course(
    architecture: Architecture, *, steps: int = FINE_STEPS, threads: int = 2, device: str = "cpu"
) -> Course:
    """Return how a trained net is fitted to the images of a day.

    The rate is a tenth of that of a training from scratch, and the steps are few: what the net knows stays. Cells
    are shown at those breadths at which the segmenter will show them.
    """
    every = max(1, steps // 12)
    return Course(
        192 if architecture.fold == 4 else 128,
        FINE_CROPS,
        (WORKING_RANGE[0] * architecture.diameter_px, WORKING_RANGE[1] * architecture.diameter_px),
        Schedule(
            steps,
            rate=3e-4,
            warm=min(20, steps),
            check_every=every,
            patience=5,
            threads=threads,
            device=device,
        ),
    )


def full_course(
    architecture: Architecture, *, steps: int = FROM_SCRATCH_STEPS, threads: int = 2, device: str = "cpu"
) -> Course:
    """Return how a net learns from scratch."""
    every = max(1, steps // 20)
    warm = min(200, max(1, steps // 10))
    size_px, count = _crops(architecture)
    schedule = Schedule(
        steps, warm=warm, decay=0.02, check_every=every, patience=8, threads=threads, device=device
    )
    return Course(size_px, count, architecture.diameter_range, schedule)


def _crops(architecture: Architecture) -> tuple[int, int]:
    """Return edge in px and number, such that a step takes about as long for each net."""
    if architecture.fold > 1:
        return (256 if architecture.diameter_px > 20 else 160), 16
    return 160, 8
