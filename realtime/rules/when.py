"""When: a rule as data: what shall be done, for which cells, and when, written in the experiment file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...acquire.commands import Command, Trigger
from ...acquire.errors import nearest_name
from ...acquire.explanation import Explanation
from ...acquire.plugins import Gathered, OptionError, build
from ...acquire.reply import Decision
from . import episodes, quotas
from .actions import ACTIONS, Action, Aim
from .episodes import Episodes, State, Terms
from .known import Known
from .language import nearby, windows
from .language.conditions import Condition, read_condition
from .language.durations import Duration, read_duration
from .language.sight import Sight, missing, sight_of
from .language.syntax import ExpressionError
from .language.terms import Term, number_term
from .motion import Expiry, covariance_px2
from .quotas import MOST_PER_FRAME, Family, RunQuota, best, first_of_each
from .rule import Moment, Verdict
from .when_reasons import Standing, explained, reasons_of

_EVERY_CELL = "age >= 0 frames"
_UNLIMITED = 1 << 60
_WITH_KERNELS = (episodes, quotas, windows, nearby)
_WAITING, _READY = int(State.WAITING), int(State.READY)  # numpy compares with plain numbers faster
_QUOTAS = ("per_cell", "per_frame", "per_run")


class When:
    """Acts on the cells for which a condition holds.

    A cell is acted on once in each episode: when the condition has held for as long as ``for`` says, and again only
    after it has ceased to hold, or, with ``cooldown``, again and again in that distance while it holds. A decision that
    the limits refuse counts for nothing: it is tried again in the next frame.

    Parameters
    ----------
    action
        ``do`` says what is done (:data:`~.actions.ACTIONS`), the other keys are its options.
    condition
        What must hold, see the page on rules; of cells, or of the frame alone. Default: of every cell.
    until
        Hysteresis: once the condition has held, an episode goes on until this holds.
    for_
        How long the condition must hold first: ``"5 frames"`` (in which the cell is seen) or ``"10 min"``.
    cooldown
        How long after an action the same cell may be acted on again; ``"0 s"``: in every frame.
    quota
        ``per_cell``, ``per_frame`` (default 64), ``per_run`` (over all fields of view): how often it may act.
    rank
        An expression: cells with more of it come first.
    most
        Of the cells for which the condition holds, only so many with the highest rank are meant: "the 3 brightest".
    once_per
        ``"cell"``, ``"mother"`` (one of both daughters) or ``"lineage"``: act on one of them, once.
    expires_after_s
        Seconds of frame time for which a decision is good; default three frame intervals, at least 1 s.
    name
        Name of the rule.

    Raises
    ------
    OptionError
        Names the option, where in it something is wrong, what is allowed and the nearest known name.
    """

    def __init__(
        self,
        action: dict[str, Any],
        condition: str = _EVERY_CELL,
        until: str = "",
        for_: str = "1 frame",
        cooldown: str = "",
        quota: dict[str, int] | None = None,
        rank: str = "",
        most: int | None = None,
        once_per: Family | None = None,
        expires_after_s: float | None = None,
        name: str = "when",
    ) -> None:
        self.name = name
        self._texts = {"condition": condition, "until": until, "rank": rank}
        wrong, held, cooling, quotas = Gathered(), Duration(), Duration(), dict[str, int]()
        with wrong.one():
            self._condition, self._until, self._rank = self._read(None)
        with wrong.one():
            self._action = _read_action(action)
        with wrong.one():
            held = _read_duration("for", for_)
        with wrong.one():
            cooling = _read_duration("cooldown", cooldown)
        with wrong.one():
            quotas = _read_quota(quota or {})
        wrong.tell()
        self.needs_masks = bool(getattr(self._action, "needs_masks", False))
        if most is not None and (most < 1 or not rank):
            raise OptionError("most", "1 or more, and 'rank' must say of what." if rank else "needs 'rank'.")
        if self._until is not None and self._until.per_cell != self._condition.per_cell:
            raise OptionError(
                "until", "must be about cells if 'condition' is, and about the frame if that is."
            )
        if not self._condition.per_cell and (rank or once_per):
            raise OptionError("rank" if rank else "once_per", "the condition says nothing of cells.")
        if not self._condition.per_cell and self._action.per_cell:
            raise OptionError(
                "condition",
                f"says nothing of cells, and the action {action['do']!r} needs some: add one on cells.",
            )
        self._most, self._once_per = most, once_per
        self._per_frame = quotas.get("per_frame", MOST_PER_FRAME)
        per_cell = 1 if once_per == "cell" else quotas.get("per_cell", _UNLIMITED)
        self._held, self._cooling = held, cooling
        self._terms = Terms(
            held_frames=held.frames,
            held_s=held.seconds,
            cooldown_frames=cooling.frames if cooling.text else -1,
            cooldown_s=cooling.seconds,
            per_cell=per_cell,
            has_until=bool(until),
        )
        self._expires_after_s = expires_after_s
        self._run = RunQuota(quotas.get("per_run"))
        self._begin()
        for each in _WITH_KERNELS:
            each.warm_up()

    def _begin(self) -> None:
        self._expiry = Expiry(self._expires_after_s)
        self._episodes = Episodes(len(self._condition.clauses), self._terms)
        self._families: set[int] = set()
        self._told: set[str] = set()
        self._standing: Standing | None = None

    def for_field(self) -> When:
        """Return this rule for another field of view: of the same run, so that quotas of the run are shared."""
        other = object.__new__(When)
        other.__dict__.update(self.__dict__)
        other._begin()
        return other

    def examples(self) -> tuple[Command, ...]:
        """Return what the action would ask for, places left out."""
        return self._action.examples()

    def check(self, known: Known) -> Iterable[tuple[str, str, str]]:
        """Return (option, reason, nearest known name) of each expression that does not fit the stream."""
        for option, text in self._texts.items():
            try:
                if text:
                    _ = number_term(text, known) if option == "rank" else read_condition(text, known)
            except ExpressionError as error:
                yield option, f"{error}.", error.did_you_mean

    def decide(self, moment: Moment) -> Verdict:
        """Return one decision for each cell whose time has come."""
        self._expiry.see(moment.frame.time_s)
        sight = sight_of(moment)
        with np.errstate(all="ignore"):
            holds, states = self._states(sight)
            rank = None if self._rank is None else np.asarray(sight.value(self._rank), np.float64)
            chosen, self._standing = self._choose(moment, holds, states, rank)
            messages = self._missing(moment)
            if not len(chosen):
                return Verdict((), messages)
            decisions, why_not = self._decisions(moment, sight, holds, chosen)
        return Verdict(decisions, messages + why_not)

    def settled(self, decisions: tuple[Decision, ...]) -> None:
        """Count what the limits let pass; called after :meth:`decide` with its decisions."""
        standing = self._standing
        passed = {each.track for each in decisions if not each.refused}
        if standing is None or not passed:
            return
        tracks = standing.moment.tracks.track
        if not self._condition.per_cell:
            rows = [0]
        elif not self._action.per_cell:
            rows = (np.flatnonzero(standing.ready) if standing.free is None else standing.free).tolist()
        else:
            rows = [row for row in standing.chosen.tolist() if int(tracks[row]) in passed]
        for row in rows:
            self._episodes.acted(row, standing.moment.frame.time_s)
            if standing.families is not None and standing.families[row]:
                self._families.add(int(standing.families[row]))
        self._run.used += len(passed)

    def explain(self, moment: Moment, row: int) -> Explanation:
        """Return each clause for one cell of the last frame, with value, threshold and since when, and the verdict."""
        return explained(self.name, self._condition, self._episodes, self._standing, moment, row)

    # --- inside -----------------------------------------------------------------------------------------------

    def _read(self, known: Known | None) -> tuple[Condition, Condition | None, Term | None]:
        found: dict[str, Any] = {}
        wrong = Gathered()
        for option, text in self._texts.items():
            with wrong.one():
                try:
                    found[option] = (
                        None
                        if not text
                        else number_term(text, known)
                        if option == "rank"
                        else read_condition(text, known)
                    )
                except ExpressionError as error:
                    raise OptionError(option, f"{text!r}, {error}.", error.did_you_mean) from None
        wrong.tell()
        if found["condition"] is None:
            found["condition"] = read_condition(_EVERY_CELL)
        if found["rank"] is not None and not found["rank"].per_cell:
            raise OptionError("rank", f"{self._texts['rank']!r} is one number, not one of each cell.")
        return found["condition"], found["until"], found["rank"]

    def _states(self, sight: Sight) -> tuple[NDArray[np.bool_], NDArray[np.int8]]:
        """Return where each clause holds, (k, n), and how all cells stand, (n,)."""
        condition = self._condition
        holds = condition.each(sight)
        whole = condition.whole(holds)
        until = whole if self._until is None else self._until.whole(self._until.each(sight))
        history = sight.moment.history if condition.per_cell else None
        if condition.per_cell and history is None:
            raise ValueError("this moment has no history of its cells")
        return holds, self._episodes.see(history, holds, whole, until, sight.time_s)

    def _choose(
        self,
        moment: Moment,
        holds: NDArray[np.bool_],
        states: NDArray[np.int8],
        rank: NDArray[np.float64] | None,
    ) -> tuple[NDArray[np.int64], Standing]:
        """Return the rows to act on, first served first, and how all cells stand."""
        ready, meant, free = states == _READY, None, None
        if self._most is not None:
            meant = best(rank, states > _WAITING, self._most)
            ready &= _only(meant, len(states))
        families = self._families_of(moment)
        most = 1 if not self._action.per_cell else min(self._per_frame, self._run.left)
        if families is None:
            chosen = best(rank, ready, most)
        else:  # of each family one is served, so that more than `most` may have to be looked at
            free = first_of_each(families, best(rank, ready), self._families)
            chosen = free[:most]
        standing = Standing(
            moment, holds, states, rank, meant, ready, free, chosen, self._most, families, self._terms, self._held,
            self._cooling, self._run, self._once_per or "",
        )  # fmt: skip
        return chosen, standing

    def _families_of(self, moment: Moment) -> NDArray[np.int64] | None:
        if self._once_per == "lineage" and moment.descent is not None:
            return moment.descent.founder
        return moment.tracks.parent if self._once_per == "mother" else None

    def _decisions(
        self, moment: Moment, sight: Sight, holds: NDArray[np.bool_], chosen: NDArray[np.int64]
    ) -> tuple[tuple[Decision, ...], tuple[str, ...]]:
        tracks, frame = moment.tracks, moment.frame
        interval, expires_s = self._expiry.interval_s(), self._expiry.after(frame.time_s)
        per_cell = self._condition.per_cell
        rows = chosen if per_cell else chosen[:0]
        velocity = tracks.velocity[rows]
        if not np.isfinite(velocity).all():
            velocity = np.nan_to_num(velocity)
        ahead = tracks.detections.yx[rows] + velocity
        aim = Aim(ahead[:, ::-1], frame.time_s + interval)
        decisions: list[Decision] = []
        why_not: list[str] = []
        at_of = {row: place for place, row in enumerate(rows.tolist())}
        for row, command in self._action.commands(moment, rows, aim):
            cell = int(chosen[0]) if row < 0 else int(row)
            track = int(tracks.track[cell]) if per_cell else 0
            if isinstance(command, str):
                if command not in self._told:  # once for all cells: the reason is rarely the cell's own
                    self._told.add(command)
                    why_not.append(f"cell {track}: {command} (said once)" if track else command)
                continue
            reasons = reasons_of(self._condition, self._episodes, sight, holds, cell)
            place: Mapping[str, Any] = {}
            if per_cell:
                place = _place(moment, cell, ahead[at_of[cell]], velocity[at_of[cell]], interval)
            decisions.append(
                Decision(
                    rule=self.name,
                    command=command,
                    sequence=frame.sequence,
                    time_s=frame.time_s,
                    expires_s=max(expires_s, command.at_s) if isinstance(command, Trigger) else expires_s,
                    track=track,
                    stage_um=frame.stage_um,
                    reasons=reasons,
                    **place,
                )
            )
        return tuple(decisions), tuple(why_not)

    def _missing(self, moment: Moment) -> tuple[str, ...]:
        new = sorted(missing(moment) - self._told)
        self._told.update(new)
        return tuple(
            f"{each!r} is not measured in these frames; what asks for it does not hold" for each in new
        )


def _place(
    moment: Moment, row: int, ahead: NDArray[np.float64], velocity: NDArray[np.float64], interval: float
) -> dict[str, Any]:
    """Return what a decision says of where the cell will be."""
    (y, x), (vy, vx) = ahead.tolist(), velocity.tolist()
    time_s = moment.frame.time_s
    return {
        "at_px": (x, y),
        "covariance_px2": covariance_px2(moment.tracks, row),
        "at_s": time_s + interval if math.isfinite(time_s) else None,
        "velocity_px_s": (vx / interval, vy / interval) if interval > 0 else None,
    }


def _only(rows: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    found = np.zeros(n, np.bool_)
    found[rows] = True
    return found


def _read_action(options: Mapping[str, Any]) -> Action:
    kind = options.get("do")
    if kind not in ACTIONS:
        known = ", ".join(ACTIONS)
        near = nearest_name(kind, ACTIONS) if isinstance(kind, str) else ""
        said = "is needed" if kind is None else f"{kind!r} is no action"
        raise OptionError("action.do", f"{said}; known: {known}.", near)
    try:
        return build(ACTIONS[kind], {key: value for key, value in options.items() if key != "do"})
    except OptionError as error:
        raise error.within("action") from None


def _read_duration(option: str, text: str) -> Duration:
    try:
        return read_duration(text) if text else Duration()
    except ExpressionError as error:
        raise OptionError(option, f"{text!r}, {error}.", error.did_you_mean) from None


def _read_quota(quota: Mapping[str, int]) -> dict[str, int]:
    wrong = Gathered()
    for key, value in quota.items():
        with wrong.one():
            if key not in _QUOTAS:
                allowed = f"unknown key; allowed: {', '.join(_QUOTAS)}."
                raise OptionError(f"quota.{key}", allowed, nearest_name(key, _QUOTAS))
            if value < 1:
                raise OptionError(f"quota.{key}", f"must be 1 or more, got {value}.")
    wrong.tell()
    return dict(quota)
