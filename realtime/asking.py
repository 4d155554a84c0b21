"""Asking rules: what they decide in a frame, and why they did or did not decide something about a cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from ..acquire.explanation import Clause, Explanation
from ..acquire.reply import Decision
from .rules.rule import Explaining, Moment, Rule, Settling


def ask(rules: Iterable[Rule], moment: Moment) -> tuple[tuple[Decision, ...], tuple[str, ...]]:
    """Return the decisions of all rules, and what a person should know; one that fails does not stop the others."""
    decisions: list[Decision] = []
    messages: list[str] = []
    for rule in rules:
        try:
            verdict = rule.decide(moment)
            decisions.extend(verdict.decisions)
            messages.extend(f"{rule.name}: {message}" for message in verdict.messages)
        except Exception as error:  # the other rules go on
            messages.append(f"rule {rule.name!r} failed: {type(error).__name__}: {error}")
    return tuple(decisions), tuple(messages)


def settle(rules: Iterable[Rule], decisions: Iterable[Decision]) -> tuple[str, ...]:
    """Tell each rule what came of its decisions, with what the limits said; return a message for one that fails."""
    decisions = tuple(decisions)
    messages: list[str] = []
    for rule in rules:
        if isinstance(rule, Settling):
            try:
                rule.settled(tuple(each for each in decisions if each.rule == rule.name))
            except Exception as error:  # a rule is anyone's code
                messages.append(f"rule {rule.name!r} failed: {type(error).__name__}: {error}")
    return tuple(messages)


class Judged(NamedTuple):
    """A frame that was judged, with the rules as they stand after it.

    Attributes
    ----------
    moment
        The frame.
    rules, decisions
        The rules and what they decided, with what the limits said: those that are armed under ``""``, shadow rules
        under the name of their file.
    """

    moment: Moment
    rules: Mapping[str, tuple[Rule, ...]]
    decisions: Mapping[str, tuple[Decision, ...]]

    def explain(self, track: int, file: str = "") -> tuple[Explanation, ...]:
        """Return why each rule did or did not decide something about a cell; see :func:`explain`.

        To be called before the next frame is judged.

        Raises
        ------
        KeyError
            If there are no rules of this name.
        """
        return explain(self.rules[file], self.moment, self.decisions[file], track)


def explain(
    rules: Iterable[Rule], moment: Moment, decisions: Iterable[Decision], track: int
) -> tuple[Explanation, ...]:
    """Return what each rule says of a cell, after it has decided.

    Parameters
    ----------
    rules
        The rules, right after ``decide(moment)``.
    moment
        The frame.
    decisions
        What came of it, with what the limits said.
    track
        The cell; 0 asks about the frame as a whole.
    """
    decisions = tuple(decisions)
    found: list[Explanation] = []
    for rule in rules:
        own = [each for each in decisions if each.rule == rule.name]
        about = [each for each in own if each.track == track] or [each for each in own if not each.track]
        found.append(_refused(_explained(rule, moment, about, track), about))
    return tuple(found)


def _explained(rule: Rule, moment: Moment, decided: list[Decision], track: int) -> Explanation:
    row = moment.tracks.row(track) if track else None
    if row is not None and isinstance(rule, Explaining):
        try:
            return rule.explain(moment, row)
        except Exception as error:  # a rule is anyone's code
            why = f"the rule failed to explain itself: {type(error).__name__}: {error}"
            return _plain(rule, moment, decided, track, why)
    what = f"cell {track}" if track else "the frame"
    if decided:
        why = f"it decided about {what}" + ("" if decided[0].track == track else ", as about the whole frame")
    elif track and row is None:
        why = f"it decided nothing about cell {track}, which was not seen in this frame"
    else:
        why = f"it decided nothing about {what}; a rule of this kind does not say why not"
    return _plain(rule, moment, decided, track, why)


def _plain(rule: Rule, moment: Moment, decided: list[Decision], track: int, why: str) -> Explanation:
    """Return what can be told without the rule's help: the reasons that it gave for what it decided."""
    clauses = tuple(Clause(reason, holds=True) for each in decided for reason in each.reasons)
    return Explanation(rule.name, track, moment.frame.sequence, bool(decided), f"{why}.", clauses)


def _refused(explanation: Explanation, decided: list[Decision]) -> Explanation:
    reason = next((each.refused for each in decided if each.refused), "")
    if not reason:
        return explanation
    return replace(explanation, verdict=f"{explanation.verdict} The limits refused it: {reason}.")
