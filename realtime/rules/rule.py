"""The protocol of a rule: tracks -> verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from ...acquire.commands import Command
from ...acquire.coordinates import Affine
from ...acquire.frame import Frame
from ...acquire.reply import Decision
from ...trackers.history import Descent, History
from ...trackers.tracks import Tracks


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
    """

    frame: Frame
    tracks: Tracks
    affine: Affine | None
    channel: int = 0
    history: History | None = None
    descent: Descent | None = None


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
    extrapolated by the rule itself, to the next frame. What it returns is checked by the limits afterwards.
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
