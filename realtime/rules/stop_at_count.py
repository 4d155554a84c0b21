"""StopAtCount: end the acquisition when there are enough cells."""

from __future__ import annotations

from ...acquire.commands import Command, Stop
from ...acquire.explanation import Clause, Explanation
from ...acquire.reply import Decision
from .motion import Expiry
from .rule import Moment, Verdict


class StopAtCount:
    """Stops when a field of view has held enough cells for some frames in a row.

    The stop is asked for again in every frame in which that is so, in case one is lost or comes too late.

    Parameters
    ----------
    count
        Cells that are enough.
    dwell_frames
        Frames in a row that must hold them; one wrongly cut cell does not end an experiment.
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
        count: int,
        dwell_frames: int = 3,
        expires_after_s: float | None = None,
        name: str = "stop_at_count",
    ) -> None:
        if count < 1:
            raise ValueError(f"count must be >= 1, got {count}")
        if dwell_frames < 1:
            raise ValueError(f"dwell_frames must be >= 1, got {dwell_frames}")
        self.name = name
        self._count, self._dwell_frames = count, dwell_frames
        self._expiry = Expiry(expires_after_s)
        self._held = 0
        self._since_s: float | None = None

    def examples(self) -> tuple[Command, ...]:
        """Return the stop."""
        return (Stop(""),)

    def decide(self, moment: Moment) -> Verdict:
        """Return a stop once the count has been held for long enough."""
        self._expiry.see(moment.frame.time_s)
        cells = len(moment.tracks)
        holds = cells >= self._count
        if self._since_s is None or holds != (self._held > 0):
            self._since_s = moment.frame.time_s
        self._held = self._held + 1 if holds else 0
        if self._held < self._dwell_frames:
            return Verdict()
        time_s = moment.frame.time_s
        reasons = (
            f"{cells} cells, enough are {self._count}",
            f"held for {self._held} frames, needed {self._dwell_frames}",
        )
        decision = Decision(
            rule=self.name,
            command=Stop("; ".join(reasons)),
            sequence=moment.frame.sequence,
            time_s=time_s,
            expires_s=self._expiry.after(time_s),
            reasons=reasons,
        )
        return Verdict((decision,))

    def explain(self, moment: Moment, row: int) -> Explanation:
        """Return how many cells there are and for how long; the same for every cell."""
        cells, fired = len(moment.tracks), self._held >= self._dwell_frames
        enough = Clause("enough cells", cells, self._count, "cells", self._held > 0, self._since_s)
        dwell = Clause("for long enough", self._held, self._dwell_frames, "frames", fired)
        verdict = f"{cells} cells of {self._count}, for {self._held} frames of {self._dwell_frames}."
        verdict = f"yes: {verdict}" if fired else f"no: {verdict}"
        return Explanation(self.name, 0, moment.frame.sequence, fired, verdict, (enough, dwell))
