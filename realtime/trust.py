"""Trust: when what is seen is no longer what the decisions rest on, they are disarmed, with a message.

One gate watches one field of view. It looks at what was measured of every frame and reads no clock, so that the same
frames disarm at the same one again. It never arms: that is a person's business.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import Annotated, TypeAlias

import msgspec
import numpy as np

from ..acquire.commands import Disarm
from ..acquire.errors import ConfigurationError, Problem
from ..acquire.frame import Frame
from ..acquire.reply import Decision
from ..models.detections import Detections
from ..trackers.tracks import Tracks
from .experiment.choice import PluginChoice
from .rules.rule import Verdict

RULE = "trust"
"""Name of the rule that its decisions are of."""

PAST_FRAMES = 101
"""Frames that a running median is of; those that a check objects to are left out."""
ENOUGH_FRAMES = 5
"""Frames of a past before anything is compared with it."""
ENOUGH_CELLS = 8
"""Fewer cells that are followed say little of a drift or of how well cells are followed."""
MANY_CELLS = 20
"""With fewer cells a net's novelty is that of the empty part of the image; then only its rise counts."""
STEADY_SHARE = 0.9
"""Where fewer frames than that had cells, their coming and going changes the figure of focus: it is not compared."""
NOVELTY_RISE = 2.0
"""Times the running median of its own past."""
_STILL_UM = 0.1
_LASTS_S = 3600.0  # a decision to disarm is never stale, but every decision needs an end

Share = Annotated[float, msgspec.Meta(ge=0, lt=1)] | bool
Positive = Annotated[float, msgspec.Meta(ge=0)] | bool
Frames: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=10_000)]


class Trust(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What must hold for decisions to be trusted; a threshold of ``false`` or 0 switches its check off.

    Attributes
    ----------
    focus, focus_frames
        The share of its own running median that the figure of focus may fall to, and frames in a row that must lie
        below. Default 0.6 and 5.
    novelty, novelty_frames
        The highest novelty of the images, and frames in a row that must lie above. Default 1 and 5.
    confidence, confidence_frames
        The share of its own running median that the confidence of links may fall to, and frames in a row that must lie
        below. Default 0.5 and 5.
    stage_um
        Distance in um by which the field may move beyond what the stage says. Default 10.
    reference, reference_every, reference_f1
        A segmenter that segments every so many frames again, and the lowest F1 (of cells with an IoU of 0.5) that the
        stream's segmenter may have against it. Default none, 100 and 0.5.

    Raises
    ------
    ConfigurationError
        If a threshold is ``true``.
    """

    focus: Share = 0.6
    focus_frames: Frames = 5
    novelty: Positive = 1.0
    novelty_frames: Frames = 5
    confidence: Share = 0.5
    confidence_frames: Frames = 5
    stage_um: Positive = 10.0
    reference: PluginChoice | None = None
    reference_every: Frames = 100
    reference_f1: Share = 0.5

    def __post_init__(self) -> None:
        keys = ("focus", "novelty", "confidence", "stage_um", "reference_f1")
        wrong = [key for key in keys if getattr(self, key) is True]
        if wrong:
            reason = "true: expected a number, or false to switch this check off."
            raise ConfigurationError(Problem("", 0, key, reason) for key in wrong)


class _Watch:
    """One check: it trips after some bad frames in a row, and recovers after some good ones."""

    def __init__(self, what: str, frames: int, good_frames: int | None = None) -> None:
        self.what, self.frames = what, frames
        self._good_frames = good_frames or frames
        self.tripped = False
        self._row = 0

    def see(self, bad: bool | None) -> bool:
        """Take in a frame (None: it says nothing); return whether the check has tripped or recovered with it."""
        if bad is None:
            return False
        self._row = self._row + 1 if bad != self.tripped else 0
        if self._row < (self._good_frames if self.tripped else self.frames):
            return False
        self.tripped, self._row = bad, 0
        return True


class _Past:
    """The running median of a number, and where the stage stood when it was last learned."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=PAST_FRAMES)
        self._at_um: tuple[float, float] | None = None

    @property
    def usual(self) -> float | None:
        """Its median, None while too little is known."""
        return median(self._values) if len(self._values) >= ENOUGH_FRAMES else None

    def add(self, value: float, at_um: tuple[float, float] | None = None) -> None:
        self._values.append(value)
        self._at_um = at_um

    def elsewhere(self, at_um: tuple[float, float] | None) -> bool:
        """Return whether the stage has moved since."""
        if self._at_um is None or at_um is None:
            return False
        return math.dist(self._at_um, at_um) > _STILL_UM


class TrustGate:
    """Watches one field of view; :meth:`look` is called for each of its segmented frames, in order.

    Parameters
    ----------
    trust
        What must hold.
    """

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._focus, self._novelty, self._links = _Past(), _Past(), _Past()
        self._peopled: deque[bool] = deque(maxlen=PAST_FRAMES)
        self._blank = 0  # frames without cells since the figure of focus fell
        self._flow = _Past(), _Past()
        self._stage_um: tuple[float, float] | None = None
        self._last_s = 0.0
        self._watches = {
            "focus": _Watch("focus is lost", trust.focus_frames),
            "novelty": _Watch("the images are unlike what the net knows", trust.novelty_frames),
            "confidence": _Watch("cells are no longer followed well", trust.confidence_frames),
            "stage": _Watch("the stage disagrees with the measured drift", 1, ENOUGH_FRAMES),
            "reference": _Watch("the segmenter disagrees with its reference", 1),
        }

    def look(self, frame: Frame, tracks: Tracks) -> Verdict:
        """Return a decision to disarm for each check that trips with this frame, and what a person should read.

        Parameters
        ----------
        frame
            The frame; its pixels are not read.
        tracks
            Its cells.
        """
        if math.isfinite(frame.time_s):
            self._last_s = frame.time_s
        found = tracks.detections
        seen = {
            "focus": self._blurred(found),
            "novelty": self._is_novel(found),
            "confidence": self._links_fell(tracks),
            "stage": self._moved_otherwise(tracks),
            "reference": self._disagrees(found),
        }
        decisions: list[Decision] = []
        messages: list[str] = []
        for name, (bad, figures) in seen.items():
            watch = self._watches[name]
            if not watch.see(bad):
                continue
            if watch.tripped:
                row = f"for {watch.frames} frames in a row" if watch.frames > 1 else "in one frame"
                decisions.append(self._disarm(frame, f"{watch.what}: {figures}", (figures, row)))
                messages.append(f"{RULE}: disarmed, {watch.what}: {figures}, {row}")
            else:
                messages.append(f"{RULE}: recovered from: {watch.what} ({figures}); only a person arms again")
        return Verdict(tuple(decisions), tuple(messages))

    def _disarm(self, frame: Frame, reason: str, reasons: tuple[str, ...]) -> Decision:
        return Decision(
            rule=RULE,
            command=Disarm(reason),
            sequence=frame.sequence,
            time_s=self._last_s,
            expires_s=self._last_s + _LASTS_S,
            reasons=reasons,
        )

    def _blurred(self, found: Detections) -> tuple[bool | None, str]:
        if found.focus is None or (not len(found) and self._focus.elsewhere(found.stage_um)):
            return None, ""  # the stage has left the cells: there is nothing to be sharp
        share, at_um = self._trust.focus, found.stage_um
        steady = not self._peopled or sum(self._peopled) >= STEADY_SHARE * len(self._peopled)
        bad, figures = self._fell("the figure of focus", found.focus, self._focus, share, at_um)
        if bad:
            self._blank += not len(found)
        else:  # focus that is there without anybody's doing was never lost: those frames were only empty
            self._peopled.extend((False,) * min(self._blank, PAST_FRAMES))
            self._peopled.append(len(found) > 0)
            self._blank = 0
        return (bad, figures) if steady else (None, "")

    def _fell(
        self, what: str, value: float, past: _Past, share: float, at_um: tuple[float, float] | None = None
    ) -> tuple[bool | None, str]:
        """Return whether a number is below a share of its own past, and the figures."""
        if not share:
            return None, ""
        usual = past.usual
        bad = usual is not None and value < share * usual
        if not bad:
            past.add(value, at_um)
        if usual is None:
            return None, ""
        return bad, f"{what} is {value:.3g}, {share:g} x its usual {usual:.3g} is the lowest allowed"

    def _is_novel(self, found: Detections) -> tuple[bool | None, str]:
        value, most = found.novelty, self._trust.novelty
        few = len(found) < MANY_CELLS
        if not most or value is None or (few and self._novelty.elsewhere(found.stage_um)):
            return None, ""
        usual = self._novelty.usual
        limit = None if few else most
        if usual is not None:
            risen = max(most, NOVELTY_RISE * usual)
            limit = risen if limit is None else min(limit, risen)
        bad = limit is not None and value > limit
        if not bad:
            self._novelty.add(value, found.stage_um)
        if limit is None:
            return None, ""
        return bad, f"novelty is {value:.3g}, {limit:.3g} is the most allowed"

    def _links_fell(self, tracks: Tracks) -> tuple[bool | None, str]:
        followed = tracks.age > 0
        if not self._trust.confidence or followed.sum() < ENOUGH_CELLS:
            return None, ""
        value = float(np.median(tracks.confidence[followed]))
        return self._fell("the median confidence of links", value, self._links, self._trust.confidence)

    def _moved_otherwise(self, tracks: Tracks) -> tuple[bool | None, str]:
        """Return whether the field has moved beyond what the stage says, and beyond its steady flow."""
        found, most = tracks.detections, self._trust.stage_um
        before, now = self._stage_um, found.stage_um
        self._stage_um = now
        if not most or before is None or now is None or not found.pixel_size_um or tracks.drift_px is None:
            return None, ""
        moved = math.dist(before, now)
        shown = min(found.shape) * found.pixel_size_um / 2
        if not moved <= shown or (tracks.age > 0).sum() < ENOUGH_CELLS:
            return None, ""  # other cells than before
        drift = [found.pixel_size_um * axis for axis in tracks.drift_px]
        usual = [past.usual for past in self._flow]
        still = moved < _STILL_UM
        if still and None in usual:  # a flow would be taken for a jump
            self._learn(drift)
            return None, ""
        beyond = math.hypot(*(axis - (flow or 0.0) for axis, flow in zip(drift, usual, strict=True)))
        if still and beyond <= most:
            self._learn(drift)
        figures = f"the field moved {beyond:.1f} um beyond the {moved:.1f} um that the stage says"
        return beyond > most, f"{figures}, {most:g} um is the most allowed"

    def _learn(self, drift: list[float]) -> None:
        for past, axis in zip(self._flow, drift, strict=True):
            past.add(axis)

    def _disagrees(self, found: Detections) -> tuple[bool | None, str]:
        least, f1 = self._trust.reference_f1, found.agreement
        if not least or f1 is None:
            return None, ""
        return f1 < least, f"F1 at IoU 0.5 is {f1:.2f}, {least:g} is the lowest allowed"
