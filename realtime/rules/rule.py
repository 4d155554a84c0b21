"""The protocol of a rule: tracks -> decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ...acquire.coordinates import Affine
from ...acquire.frame import Frame
from ...acquire.reply import Decision
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
    """

    frame: Frame
    tracks: Tracks
    affine: Affine | None


@runtime_checkable
class Rule(Protocol):
    """Decides, for one field of view, what shall be done.

    ``decide`` is called once for every segmented frame, in order, by one thread, and must return at once. It
    reads no clock: dwell and cooldown count frames or frame time. Positions are extrapolated by the rule
    itself, to the next frame. What it returns is checked by the limits afterwards.
    """

    name: str

    def decide(self, moment: Moment) -> list[Decision]:
        """Return the decisions of this frame, none or more."""
        ...
