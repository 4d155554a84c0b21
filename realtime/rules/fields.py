"""The rules of a stream, for one field of view after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from .rule import Rule


@runtime_checkable
class Sharing(Protocol):
    """A rule of which something counts over all fields of view, such as a quota of the run; optional.

    ``for_field`` is called for each further field of view, and returns the rule for it, which has seen no frame.
    """

    def for_field(self) -> Rule:
        """Return this rule for another field of view of the same run."""
        ...


class Choice(Protocol):
    """What builds a rule, see :class:`~cytoloop.realtime.experiment.stream.PluginChoice`."""

    def build(self, group: str) -> Any:
        """Return a rule that has seen no frame."""
        ...


class FieldRules:
    """Builds the rules of each field of view; what cannot be built fails at once.

    Parameters
    ----------
    choices
        The rules, in their order.

    Raises
    ------
    PluginError
        If one cannot be constructed.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._choices = tuple(choices)
        self._first: tuple[Rule, ...] = tuple(choice.build("rules") for choice in choices)

    def build(self) -> tuple[Rule, ...]:
        """Return the rules of one more field of view."""
        return tuple(
            first.for_field() if isinstance(first, Sharing) else choice.build("rules")
            for first, choice in zip(self._first, self._choices, strict=True)
        )
