"""The fields of view of one stream: each has a tracker, rules and a past of its own."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

from ..acquire.frame import Frame
from ..trackers.history import History
from ..trackers.tracker import Tracker
from .experiment.stream import StreamConfig
from .identities import Identities
from .rules.fields import FieldRules
from .rules.rule import Rule
from .shadows import Built, Shadows
from .trust import TrustGate

FieldKey: TypeAlias = tuple[int | str, int | str]

# More fields of view than any plate scan revisits; beyond, the one that was not seen for longest is forgotten.
MOST_FIELDS = 4096


@dataclass(slots=True)
class FieldOfView:
    """One field of view: tracker, rules, its cells' numbers and past, what watches it, where the stage first stood."""

    tracker: Tracker
    rules: tuple[Rule, ...]
    identities: Identities
    history: History
    shadows: Built
    gate: TrustGate
    origin_um: tuple[float, float] | None = None


class FieldsOfView:
    """All of them, made as they are seen.

    Parameters
    ----------
    stream
        A checked configuration.
    shadows
        The stream's shadow rules.

    Raises
    ------
    PluginError
        If a rule cannot be constructed.
    """

    def __init__(self, stream: StreamConfig, shadows: Shadows) -> None:
        self._stream, self._shadows = stream, shadows
        self._rules = FieldRules(stream.rules)
        self._fields: dict[FieldKey, FieldOfView] = {}
        self._numbers = count(1)

    def of(self, frame: Frame) -> tuple[FieldOfView, tuple[str, ...]]:
        """Return the field of view of a frame, and a message if another one had to be forgotten for it."""
        key = (frame.axes.get("position", 0), frame.axes.get("z", 0))
        field = self._fields.pop(key, None) or self.make()
        messages: tuple[str, ...] = ()
        if len(self._fields) >= MOST_FIELDS:
            oldest = next(iter(self._fields))
            del self._fields[oldest]
            messages = (f"more than {MOST_FIELDS} fields of view: the tracks of {oldest} are forgotten",)
        self._fields[key] = field  # last: the most recently seen
        if field.origin_um is None:
            field.origin_um = frame.stage_um
        return field, messages

    def make(self) -> FieldOfView:
        """Return a new one.

        Raises
        ------
        PluginError
            If its tracker or a rule cannot be constructed.
        """
        tracker, gate = self._stream.tracker.build("trackers"), TrustGate(self._stream.trust)
        identities, shadows = Identities(self._numbers), self._shadows.build()
        return FieldOfView(tracker, self._rules.build(), identities, History(), shadows, gate)
