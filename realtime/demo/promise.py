"""What the demo promises: checked against the ground truth, and named where it is not kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..service.outcome_log import read_outcomes
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


def late_ones_counted(take: Take, carried_out: int | None = None) -> Promise:
    """Promise that a decision that comes too late is dropped and counted, and does nothing in silence.

    How many come too late depends on the computer, and is not promised.

    Parameters
    ----------
    take
        How the act was played.
    carried_out
        What the simulated microscope itself has seen of decisions, where it sees each; None where it does not.
    """
    decided = Counter(
        (decision.sequence, decision.rule, decision.track)
        for reply in take.replies
        for decision in reply.decisions
        if not decision.refused
    )
    told = Counter((each.sequence, each.rule, each.track) for each in read_outcomes(take.out))
    figures = take.results.outcomes
    on_time, late = (figures.on_time, figures.late) if figures else (0, 0)
    kept = told <= decided and carried_out in (None, on_time)
    return Promise(
        "decisions that come too late are dropped and counted", f"{on_time} in time, {late} late", kept
    )
