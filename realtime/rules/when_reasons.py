"""Why, and why not: the clauses of a rule for one cell, with value, threshold and since when, in words."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...acquire import explanation
from ...acquire.explanation import Explanation
from .episodes import Episodes, State, Terms
from .language.conditions import Condition
from .language.durations import Duration
from .language.sight import Sight, sight_of
from .quotas import RunQuota
from .rule import Moment


class Standing(NamedTuple):
    """How all cells of a frame stood when a rule decided.

    Attributes
    ----------
    moment
        The frame.
    holds
        (k, n) bool, where each clause holds.
    states
        (n,) of :class:`~.episodes.State`.
    rank
        (n,) what cells are ranked by, or None.
    meant
        The ``most`` rows with the highest rank for which the condition has held for long enough; None: all of them.
    ready
        (n,) bool, those of them that may be acted on.
    free
        Rows of them whose family was not served; None: all of them.
    chosen
        Rows of them that are acted on.
    most, terms, held, cooling, run, once_per, families
        As the rule has them.
    """

    moment: Moment
    holds: NDArray[np.bool_]
    states: NDArray[np.int8]
    rank: NDArray[np.float64] | None
    meant: NDArray[np.int64] | None
    ready: NDArray[np.bool_]
    free: NDArray[np.int64] | None
    chosen: NDArray[np.int64]
    most: int | None
    families: NDArray[np.int64] | None
    terms: Terms
    held: Duration
    cooling: Duration
    run: RunQuota
    once_per: str


def reasons_of(
    condition: Condition, episodes: Episodes, sight: Sight, holds: NDArray[np.bool_], row: int
) -> tuple[str, ...]:
    """Return the clauses that hold for a cell, in words and numbers."""
    frames, _ = episodes.held(row)
    said = tuple(
        _in_words(clause) for clause in _clauses(condition, episodes, sight, holds, row) if clause.holds
    )
    return (*said, f"held for {frames} frame(s)")


def explained(
    rule: str, condition: Condition, episodes: Episodes, standing: Standing | None, moment: Moment, row: int
) -> Explanation:
    """Return what a rule says of one cell of the frame that it decided last.

    Raises
    ------
    ValueError
        If it decided on another frame last.
    """
    if standing is None or standing.moment is not moment:
        raise ValueError("a rule explains the frame that it decided last")
    place = row if condition.per_cell else 0
    with np.errstate(all="ignore"):
        clauses = _clauses(condition, episodes, sight_of(moment), standing.holds, place)
    return Explanation(
        rule=rule,
        track=int(moment.tracks.track[row]) if condition.per_cell else 0,
        sequence=moment.frame.sequence,
        fired=place in standing.chosen,
        verdict=_verdict(standing, episodes, clauses, place),
        clauses=clauses,
    )


def _clauses(
    condition: Condition, episodes: Episodes, sight: Sight, found: NDArray[np.bool_], row: int
) -> tuple[explanation.Clause, ...]:
    said: list[explanation.Clause] = []
    for place, clause in enumerate(condition.clauses):
        value, threshold = clause.sides(sight, row)
        since = episodes.clause_since(row, place)
        said.append(
            explanation.Clause(
                text=clause.text,
                value=_finite(value) if clause.right is not None else None,
                threshold=None if threshold is None else _finite(threshold),
                unit=clause.unit_name,
                holds=bool(found[place, row]),
                since_s=_finite(since),
            )
        )
    return tuple(said)


def _verdict(
    standing: Standing, episodes: Episodes, clauses: tuple[explanation.Clause, ...], row: int
) -> str:
    state = State(int(standing.states[row]))
    frames, began = episodes.held(row)
    fired, last = episodes.fired(row)
    time_s = standing.moment.frame.time_s
    match state:
        case State.OFF:
            return f"no: {'; '.join(_in_words(each) for each in clauses if not each.holds) or 'it does not hold'}"
        case State.WAITING:
            return f"not yet: held for {frames} frame(s), {time_s - began:.3g} s, needed {standing.held.text}"
        case State.DONE:
            return f"no: acted on at {last:.3f} s in this episode; again when it has ceased to hold"
        case State.COOLING:
            return (
                f"no: acted on at {last:.3f} s, {time_s - last:.3g} s ago; cooldown {standing.cooling.text}"
            )
        case State.SPENT:
            return f"no: acted on {fired} time(s), quota.per_cell {standing.terms.per_cell}"
        case State.READY:
            return _why_not_served(standing, row)


def _why_not_served(standing: Standing, row: int) -> str:
    if row in standing.chosen:
        return "yes: the condition holds and nothing is against it"
    if standing.meant is not None and row not in standing.meant:
        if standing.rank is not None and math.isnan(standing.rank[row]):
            return "no: what cells are ranked by is not known of it"
        return f"no: not among the {standing.most} with the highest rank"
    if standing.free is not None and row not in standing.free:
        return f"no: another cell of its {standing.once_per} was acted on"
    if not standing.run.left:
        return f"no: quota.per_run {standing.run.per_run} is used up"
    return "no: others came first in this frame (quota.per_frame, or an action of the whole frame)"


def _in_words(clause: explanation.Clause) -> str:
    unit = f" {clause.unit}" if clause.unit else ""
    if clause.value is None:
        return clause.text if clause.threshold is None else f"{clause.text} (not known)"
    against = "" if clause.threshold is None else f" against {clause.threshold:.4g}{unit}"
    return f"{clause.text} ({clause.value:.4g}{unit}{against})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
