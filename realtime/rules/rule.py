"""The protocol of a rule: tracks -> verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from numpy.typing import NDArray

from ...acquire.commands import Command
from ...acquire.coordinates import Affine
from ...acquire.explanation import Explanation
from ...acquire.frame import Frame
from ...acquire.reply import Decision
from ...trackers.history import Descent, History
from ...trackers.tracks import Tracks
from .known import Known


@dataclass(frozen=True, slots=True)
class Moment:
    """All that a rule may look at for one frame.

    Attributes
    ----------
    frame
        The image and its place; rules read positions and times from it.
    tracks
        The cells of the frame.
    affine
        Pixel to stage map, or None if neither the frame nor the configuration gives one.
    channel
        The segmented channel: its column in ``tracks.detections.mean``.
    history, descent
        What was measured of the cells before (:meth:`~cytoloop.trackers.history.History.past`), and where they come
        from; None where nobody keeps it.
    measured
        (n,) each, what is measured of the cells, by the names that ``history`` keeps.
    memo
        What rules have worked out of this moment so far, so that it is worked out once
        (:func:`~cytoloop.realtime.rules.language.sight.quantity`).
    uncalibrated
        Why there is no map although a calibration is named (it is stale, or of another objective): the stage must not
        be moved. ``""`` otherwise.
    """

    frame: Frame
    tracks: Tracks
    affine: Affine | None
    channel: int = 0
    history: History | None = None
    descent: Descent | None = None
    measured: Mapping[str, NDArray[Any]] = field(default_factory=dict[str, "NDArray[Any]"])
    memo: dict[str, Any] = field(default_factory=dict[str, Any])
    uncalibrated: str = ""


class Verdict(NamedTuple):
    """What a rule says of one frame.

    Attributes
    ----------
    decisions
        What shall be done, none or more.
    messages
        What a person should read, such as why the rule cannot act; they travel in ``Reply.messages``.
    """

    decisions: tuple[Decision, ...] = ()
    messages: tuple[str, ...] = ()


@runtime_checkable
class Rule(Protocol):
    """Decides, for one field of view, what shall be done.

    ``decide`` is called once for every segmented frame, in order, by one thread, and must return at once. It
    reads no clock and, of the frame, no pixels: dwell and cooldown count frames or frame time, and the size
    of the image is ``tracks.detections.shape``, so that recorded detections can repeat it. Positions are
    extrapolated by the rule itself, to the next frame. What it returns is checked by the limits afterwards. A rule that
    looks at ``tracks.detections.mask`` says so with a true attribute ``needs_masks``; then the log keeps masks.
    ``examples`` is called once, while the experiment file is checked.
    """

    name: str

    def examples(self) -> tuple[Command, ...]:
        """Return commands as strong as the rule may give, any positions left out.

        They are checked against the limits before anything starts, so that a rule that could never act is
        refused at once.
        """
        ...

    def decide(self, moment: Moment) -> Verdict:
        """Return the decisions of this frame, and what a person should know."""
        ...


@runtime_checkable
class Settling(Protocol):
    """A rule that counts what it did, and not what the limits refused; optional.

    ``settled`` is called once after each ``decide``, in the same thread, before anything else is asked of the rule.
    """

    def settled(self, decisions: tuple[Decision, ...]) -> None:
        """Take in the rule's own decisions of this frame, the refused ones with ``refused`` filled."""
        ...


@runtime_checkable
class Explaining(Protocol):
    """A rule that says why it did or did not decide something about a cell; optional.

    ``explain`` is called after ``decide`` of the same moment, in the same thread, for any of its cells, and any
    number of times; it changes nothing.
    """

    def explain(self, moment: Moment, row: int) -> Explanation:
        """Return what the rule says of the cell in this row of ``moment.tracks``."""
        ...


@runtime_checkable
class Checking(Protocol):
    """A rule whose options can be wrong for the frames to come (a channel that is not taken, a unit); optional.

    ``check`` is called once, while a file is checked, before ``decide``.
    """

    def check(self, known: Known) -> Iterable[tuple[str, str, str]]:
        """Yield (key, reason, nearest known name or ``""``) for each mistake; nested keys are joined by dots."""
        ...
