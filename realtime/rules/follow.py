"""Follow: keep one cell in the centre of the image by moving the stage."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from ...acquire.commands import Command, MoveStage
from ...acquire.explanation import Clause, Explanation
from ...acquire.reply import Decision
from ...trackers.tracks import Tracks
from .motion import Expiry, Motion, covariance_px2, position_px, stage_map
from .rule import Moment, Verdict


class Follow:
    """Follows one cell with the stage.

    A cell is picked in the first frame in which that is possible and kept by its identity: through frames in
    which it is not seen, and through divisions, with the daughter that is nearer to where the mother was going.
    When its track ends, the rule says so and leaves the stage where it is. The stage goes to where the cell
    will be in the next frame, extrapolated in um of the stage, so that the stage's own motion does not count.

    Parameters
    ----------
    which
        ``"centre"`` (nearest to the centre of the image), ``"brightest"``, ``"largest"``, or the identity of a
        track.
    deadband_um
        The stage rests while the cell is expected within this distance of the centre, in um.
    expires_after_s
        Seconds of frame time for which a move is good; default three frame intervals, at least 1 s.
    name
        Name of the rule.

    Raises
    ------
    ValueError
        If an option is out of its range.
    """

    def __init__(
        self,
        which: Literal["centre", "brightest", "largest"] | int = "centre",
        deadband_um: float = 2.0,
        expires_after_s: float | None = None,
        name: str = "follow",
    ) -> None:
        if isinstance(which, int) and which < 1:
            raise ValueError(f"which must be the identity of a track (1 or more), got {which}")
        if not 0 <= deadband_um < math.inf:
            raise ValueError(f"deadband_um must be >= 0, got {deadband_um}")
        self.name = name
        self._which = which
        self._deadband_um = deadband_um
        self._expiry = Expiry(expires_after_s)
        self._motion = Motion()
        self._index = -1
        self._track = 0
        self._seen = True
        self._said_why_not = False
        self._ended = False

    def examples(self) -> tuple[Command, ...]:
        """Return a move of the stage."""
        return (MoveStage(0.0, 0.0),)

    def decide(self, moment: Moment) -> Verdict:
        """Return at most one move."""
        self._index += 1
        self._expiry.see(moment.frame.time_s)
        if self._ended:
            return Verdict()
        if stage_map(moment) is None:
            return Verdict(messages=self._why_not(moment))
        said = self._pick(moment) if self._track == 0 else self._keep(moment)
        row = moment.tracks.row(self._track)
        if row is None:
            return Verdict(messages=said + self._unseen())
        self._seen = True
        self._motion.see(moment, row, self._index)
        return Verdict(self._move(moment, row), said)

    def explain(self, moment: Moment, row: int) -> Explanation:
        """Return whether this cell is the one that is followed, and how far from the centre it will be."""
        track = int(moment.tracks.track[row])
        known = stage_map(moment)
        followed = track == self._track and not self._ended
        clauses = [Clause(f"the cell that is followed ({self._which})", holds=followed)]
        if not followed:
            other = f"cell {self._track} is followed" if self._track else "no cell is followed yet"
            verdict = f"no: {'its track has ended' if self._ended else other}."
            return Explanation(self.name, track, moment.frame.sequence, False, verdict, tuple(clauses))
        if known is None:
            verdict = "no: the stage cannot be moved without its place and the size of a pixel."
            return Explanation(self.name, track, moment.frame.sequence, False, verdict, tuple(clauses))
        distance = math.dist(self._motion.ahead(self._index + 1), known[1])
        fired = distance > self._deadband_um
        clauses.append(Clause("distance from the centre, expected", distance, self._deadband_um, "um", fired))
        words = f"it will be {distance:.2f} um from the centre, deadband {self._deadband_um:g} um."
        verdict = f"yes: {words}" if fired else f"no: {words}"
        return Explanation(self.name, track, moment.frame.sequence, fired, verdict, tuple(clauses))

    def _why_not(self, moment: Moment) -> tuple[str, ...]:
        said = self._keep(moment) if self._track else ()
        if self._said_why_not:
            return said
        self._said_why_not = True
        if moment.uncalibrated:
            return (*said, f"cannot move the stage: {moment.uncalibrated}")
        if moment.affine is None:
            return (
                *said,
                "cannot move the stage: neither the frames nor the configuration give a pixel size",
            )
        return (*said, "cannot move the stage: the frames do not say where it is")

    def _pick(self, moment: Moment) -> tuple[str, ...]:
        tracks = moment.tracks
        if not len(tracks):
            return ()
        found = tracks.detections
        if isinstance(self._which, int):
            if tracks.row(self._which) is None:
                return ()
            self._track = self._which
        else:
            centre = (np.array(found.shape) - 1) / 2
            score = {
                "centre": lambda: -np.hypot(*(found.yx - centre).T),
                "brightest": lambda: found.mean[:, moment.channel],
                "largest": lambda: found.area,
            }[self._which]()
            self._track = int(tracks.track[int(np.argmax(score))])
        return (f"following cell {self._track}",)

    def _keep(self, moment: Moment) -> tuple[str, ...]:
        """Go on with a daughter if the cell has divided; notice if its track has ended."""
        for correction in moment.tracks.corrections:
            if correction.old == self._track != correction.new:
                self._track = correction.new
                return (f"cell {correction.old} is cell {correction.new}: {correction.reason}",)
        mother = self._track
        for division in moment.tracks.divisions:
            if division.mother == mother:
                self._track = self._nearer(moment, division.daughters)
                self._motion = Motion()
                return (f"cell {mother} divided; following its daughter {self._track}",)
        if any(each.track == mother for each in moment.tracks.ended):
            self._ended = True
            return (f"cell {mother} is lost; the stage stays where it is",)
        return ()

    def _nearer(self, moment: Moment, daughters: tuple[int, int]) -> int:
        """Return the daughter nearer to where the mother was going; one that is seen before one that is not."""
        tracks = moment.tracks
        height, width = tracks.detections.shape
        expected = ((width - 1) / 2, (height - 1) / 2)
        if self._motion.knows(moment):
            expected = self._motion.ahead_px(moment, self._index)
        distances = [_distance(tracks, daughter, expected) for daughter in daughters]
        return daughters[int(np.argmin(distances))]

    def _unseen(self) -> tuple[str, ...]:
        if self._ended or not self._seen or not self._track:
            return ()
        self._seen = False
        return (f"cell {self._track} is not seen; the stage waits",)

    def _move(self, moment: Moment, row: int) -> tuple[Decision, ...]:
        known = stage_map(moment)
        if known is None:
            return ()
        _, stage = known
        x_um, y_um = self._motion.ahead(self._index + 1)
        distance = math.hypot(x_um - stage[0], y_um - stage[1])
        if distance <= self._deadband_um:
            return ()
        vx, vy = self._motion.velocity()
        time_s = moment.frame.time_s
        return (
            Decision(
                rule=self.name,
                command=MoveStage(x_um, y_um),
                sequence=moment.frame.sequence,
                time_s=time_s,
                expires_s=self._expiry.after(time_s),
                track=self._track,
                at_px=self._motion.ahead_px(moment, self._index + 1),
                covariance_px2=covariance_px2(moment.tracks, row),
                stage_um=stage,
                reasons=(
                    f"cell {self._track} will be {distance:.2f} um from the centre, deadband {self._deadband_um:g} um",
                    f"velocity ({vx:.2f}, {vy:.2f}) um per frame",
                ),
            ),
        )


def _distance(tracks: Tracks, track: int, expected: tuple[float, float]) -> float:
    row = tracks.row(track)
    return math.inf if row is None else math.dist(position_px(tracks, row), expected)
