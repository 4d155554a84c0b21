"""OnDivision: act on the daughters of every cell that divides."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from ...acquire.commands import Command, Stimulate
from ...acquire.explanation import Clause, Explanation
from ...acquire.reply import Decision
from ...trackers.tracks import Tracks
from .motion import Expiry, Motion, covariance_px2
from .rule import Moment, Verdict


@dataclass(slots=True)
class _Birth:
    """A daughter that waits for its action."""

    reason: str
    index: int
    motion: Motion = field(default_factory=Motion)


class OnDivision:
    """Stimulates each daughter of every division once, where it will be in the next frame.

    Divisions of which a daughter is cut by the edge of the image are left alone, with a message: half a cell
    that comes into view, or falls in two pieces there, looks like one.

    Parameters
    ----------
    action
        What is done: ``"stimulate"``.
    within_frames
        A daughter that could not be acted on so many frames after the division (it was not seen) is left alone,
        and a message says so.
    delay_frames
        Frames to wait after the division; the daughter's motion is known better then. At most
        ``within_frames``.
    duration_ms, power, radius_px
        Of the stimulation: length in ms, fraction of the device's maximum (0 to 1), radius of the spot in px.
    expires_after_s
        Seconds of frame time for which a decision is good; default three frame intervals, at least 1 s.
    name
        Name of the rule.

    Raises
    ------
    ValueError
        If an option is out of its range.
    """

    def __init__(
        self,
        action: Literal["stimulate"] = "stimulate",
        within_frames: int = 3,
        delay_frames: int = 0,
        duration_ms: float = 100.0,
        power: float = 1.0,
        radius_px: float = 5.0,
        expires_after_s: float | None = None,
        name: str = "on_division",
    ) -> None:
        if within_frames < 0:
            raise ValueError(f"within_frames must be >= 0, got {within_frames}")
        if not 0 <= delay_frames <= within_frames:
            raise ValueError(f"delay_frames must be from 0 to {within_frames}, got {delay_frames}")
        if not 0 < duration_ms < math.inf:
            raise ValueError(f"duration_ms must be > 0, got {duration_ms}")
        if not 0 <= power <= 1:
            raise ValueError(f"power must be from 0 to 1, got {power}")
        if not 0 < radius_px < math.inf:
            raise ValueError(f"radius_px must be > 0, got {radius_px}")
        self.name = name
        self._within, self._delay = within_frames, delay_frames
        self._duration_ms, self._power, self._radius_px = duration_ms, power, radius_px
        self._expiry = Expiry(expires_after_s)
        self._index = -1
        self._waiting: dict[int, _Birth] = {}
        self._done: set[int] = set()
        self._acted: dict[int, int] = {}  # in this frame: frames since the division

    def examples(self) -> tuple[Command, ...]:
        """Return the stimulation, without its place."""
        return (self._stimulate(()),)

    def decide(self, moment: Moment) -> Verdict:
        """Return one stimulation for each daughter whose time has come."""
        self._index += 1
        self._expiry.see(moment.frame.time_s)
        self._done.difference_update(each.track for each in moment.tracks.ended)
        decisions: list[Decision] = []
        self._acted = {}
        messages = self._note_births(moment)
        for track, birth in list(self._waiting.items()):
            row = moment.tracks.row(track)
            age = self._index - birth.index
            if row is not None:
                birth.motion.see(moment, row, self._index)
            if row is not None and age >= self._delay:
                decisions.append(self._decision(moment, track, row, birth))
                self._acted[track] = age
            elif age >= self._within:
                messages.append(f"{birth.reason}; daughter {track} was not seen in time and is left alone")
            else:
                continue
            del self._waiting[track]
            self._done.add(track)
        return Verdict(tuple(decisions), tuple(messages))

    def explain(self, moment: Moment, row: int) -> Explanation:
        """Return whether the cell was born by division, and whether its time has come."""
        track, mother = int(moment.tracks.track[row]), int(moment.tracks.parent[row])
        fired, waiting = track in self._acted, self._waiting.get(track)
        born = mother > 0 or fired or waiting is not None or track in self._done
        age = self._acted.get(track) if waiting is None else self._index - waiting.index
        clauses = (
            Clause(f"born of cell {mother}" if mother else "born by division", holds=born),
            Clause("frames after the division", age, self._delay, "frames", fired),
        )
        if fired:
            verdict = f"yes: it was born by division {age} frame(s) ago."
        elif waiting is not None:
            verdict = f"not yet: {waiting.reason}, {age} frame(s) ago; the rule waits for {self._delay}."
        elif track in self._done:
            verdict = "no: it was acted on before."
        elif born:
            verdict = f"no: its division was left alone, at the edge of the image or not within {self._within} frames."
        else:
            verdict = "no: it was not seen to be born by division."
        return Explanation(self.name, track, moment.frame.sequence, fired, verdict, clauses)

    def _note_births(self, moment: Moment) -> list[str]:
        """Note whose action is due; return a message for each division that is left alone."""
        messages: list[str] = []
        for division in moment.tracks.divisions:
            first, second = division.daughters
            if _is_cut(moment.tracks, first) or _is_cut(moment.tracks, second):
                messages.append(f"cell {division.mother} divided at the edge of the image and is left alone")
                continue
            for daughter in division.daughters:
                # Some trackers report a division again when they correct it.
                if daughter not in self._done and daughter not in self._waiting:
                    reason = f"cell {division.mother} divided into {first} and {second}"
                    self._waiting[daughter] = _Birth(reason, self._index)
        return messages

    def _decision(self, moment: Moment, track: int, row: int, birth: _Birth) -> Decision:
        at_px = birth.motion.ahead_px(moment, self._index + 1)
        time_s = moment.frame.time_s
        age = self._index - birth.index
        return Decision(
            rule=self.name,
            command=self._stimulate((at_px,)),
            sequence=moment.frame.sequence,
            time_s=time_s,
            expires_s=self._expiry.after(time_s),
            track=track,
            at_px=at_px,
            covariance_px2=covariance_px2(moment.tracks, row),
            stage_um=moment.frame.stage_um,
            reasons=(
                birth.reason,
                f"{age} frame(s) after the division, allowed {self._delay} to {self._within}",
                f"link confidence {float(moment.tracks.confidence[row]):.2f}",
            ),
        )

    def _stimulate(self, points_px: tuple[tuple[float, float], ...]) -> Stimulate:
        return Stimulate(
            points_px=points_px,
            radius_px=self._radius_px,
            duration_ms=self._duration_ms,
            power=self._power,
        )


def _is_cut(tracks: Tracks, track: int) -> bool:
    """Return whether a cell touches the edge of the image."""
    row = tracks.row(track)
    if row is None:
        return False
    y0, x0, y1, x1 = tracks.detections.bbox[row].tolist()
    height, width = tracks.detections.shape
    return y0 <= 0 or x0 <= 0 or y1 >= height or x1 >= width
