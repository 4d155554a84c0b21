"""Shadow rules: candidates that see what the armed rules see, and whose decisions have no effect."""

from __future__ import annotations

from typing import TypeAlias

from ..acquire.governor.limits import Limits
from ..acquire.link.messages import can_travel
from ..acquire.reply import Decision
from .asking import ask, settle
from .experiment.stream import RuleSet
from .limiter import Limiter
from .rules.fields import FieldRules
from .rules.rule import Moment, Rule

Built: TypeAlias = dict[str, tuple[Rule, ...]]
"""The shadow rules of one field of view, by the name of their file."""


class Shadows:
    """All shadow rules of one stream; each file has limits of its own, over all fields of view.

    Parameters
    ----------
    sets
        The files.
    limits
        Those of the stream, for files that have none.

    Raises
    ------
    PluginError
        If a rule cannot be constructed.
    """

    def __init__(self, sets: tuple[RuleSet, ...], limits: Limits) -> None:
        self._rules = {each.name: FieldRules(each.rules) for each in sets}
        self._limiters = {each.name: Limiter(each.limits or limits) for each in sets}

    def build(self) -> Built:
        """Return the rules of one more field of view."""
        return {name: rules.build() for name, rules in self._rules.items()}

    def judge(
        self, built: Built, moment: Moment, origin_um: tuple[float, float] | None
    ) -> tuple[dict[str, tuple[Decision, ...]], tuple[str, ...]]:
        """Return what the shadow rules of a field of view would have decided, by file, and what they say.

        Parameters
        ----------
        built
            Of :meth:`build`.
        moment
            The frame.
        origin_um
            (x, y) of the stage in um in the first frame of this field of view, or None if unknown.
        """
        decisions: dict[str, tuple[Decision, ...]] = {}
        messages: list[str] = []
        for name, rules in built.items():
            asked, said = ask(rules, moment)
            verdict = self._limiters[name].check(moment, asked, origin_um)
            said += settle(rules, verdict.decisions)
            decisions[name] = tuple(filter(can_travel, verdict.decisions))
            messages += [f"shadow {name}: {message}" for message in (*said, *verdict.messages)]
        return decisions, tuple(messages)
