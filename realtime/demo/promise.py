"""What the demo promises: checked against the ground truth, and named where it is not kept."""

from __future__ import annotations

from dataclasses import dataclass

from .record import Take

F1_AT_LEAST = 0.95


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise and what was found.

    Attributes
    ----------
    text, found
        In words and numbers.
    kept
        Whether it was kept.
    """

    text: str
    found: str
    kept: bool


def every_frame(take: Take) -> Promise:
    """Promise that no frame is lost, doubled or out of order."""
    found = f"{take.acquired} kept, {take.decided} decided of {take.expected}"
    return Promise("every frame kept, and decided once and in order", found, take.is_whole)


def cells_found(take: Take) -> Promise:
    """Promise that the cells are found."""
    return Promise(f"detection F1 at least {F1_AT_LEAST}", f"{take.f1:.3f}", take.f1 >= F1_AT_LEAST)
