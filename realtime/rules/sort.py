"""Sort: open a gate downstream when a cell that is wanted passes it, scheduled ahead."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from ...acquire.commands import Command, Trigger
from ...acquire.explanation import Clause, Explanation
from ...acquire.reply import Decision
from .passage import Passage, Passing, chance_within
from .rule import Moment, Verdict
from .sort_policy import POLICIES, Neighbour, Policy, refusal

_SLOWEST = 3.0
"""A cell is forgotten when it should have passed the gate so many widths ago."""


class Sort:
    """Gives one trigger for each wanted cell, timed for when the cell passes the gate.

    The time of passage is the least-squares line through all places of the cell over frame time. A cell is judged in
    the last frame before it leaves the field, once, when most is known of it and of those beside it; earlier where
    the gate would otherwise open too late. Cells without enough frames by then are left alone, with a message.

    Parameters
    ----------
    axis
        Where cells go: ``"x"``, ``"-x"``, ``"y"`` or ``"-y"``.
    gate_px
        Place of the gate's middle along the axis, in px of the image; it may lie outside.
    measure
        What is measured of each cell, a column of the table of cells; its mean over the cell's frames is compared.
    above, below
        The cell is wanted if the mean is above, and below, these; at least one is needed.
    output
        Name of the output to trigger.
    width_ms
        How long the gate is open; the passage is in the middle.
    policy
        What is done when others may pass in the same opening: ``"purity"`` refuses, ``"yield"`` opens regardless,
        ``"enrich"`` refuses where others are expected to be more than those that are wanted.
    min_frames
        Frames that a cell must be seen in.
    ahead_ms
        Time that link and actuator need before the opening.
    contamination
        Under ``"purity"``, the chance of another cell in the opening that is allowed, 0 to 1.
    name
        Name of the rule.

    Raises
    ------
    ValueError
        Names the option and what it may be.
    """

    def __init__(
        self,
        *,
        gate_px: float,
        output: str = "sort",
        axis: Literal["x", "-x", "y", "-y"] = "x",
        measure: str = "mean",
        above: float | None = None,
        below: float | None = None,
        width_ms: float = 0.5,
        policy: Policy = "purity",
        min_frames: int = 3,
        ahead_ms: float = 1.0,
        contamination: float = 0.1,
        name: str = "sort",
    ) -> None:
        if axis not in ("x", "-x", "y", "-y"):
            raise ValueError(f"axis must be 'x', '-x', 'y' or '-y', got {axis!r}")
        if not math.isfinite(gate_px):
            raise ValueError(f"gate_px must be finite, got {gate_px}")
        if above is None and below is None:
            raise ValueError("above or below must be given: nothing says which cells are wanted")
        if policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(POLICIES)}, got {policy!r}")
        if not 0 < width_ms < math.inf:
            raise ValueError(f"width_ms must be > 0, got {width_ms}")
        if min_frames < 2:
            raise ValueError(f"min_frames must be 2 or more, got {min_frames}: one place tells no speed")
        if not 0 <= ahead_ms < math.inf:
            raise ValueError(f"ahead_ms must be >= 0, got {ahead_ms}")
        if not 0 <= contamination <= 1:
            raise ValueError(f"contamination must be 0 to 1, got {contamination}")
        self.name = name
        self._along = 1 if axis.endswith("x") else 0
        self._sign = -1.0 if axis.startswith("-") else 1.0
        self._gate = self._sign * gate_px
        self._measure, self._above, self._below = measure, above, below
        self._output, self._width_s = output, width_ms / 1000
        self._policy: Policy = policy
        self._min_frames, self._ahead_s, self._contamination = min_frames, ahead_ms / 1000, contamination
        self._cells: dict[int, Passing] = {}
        self._latest_s = -math.inf
        self._interval_s = 0.0

    def examples(self) -> tuple[Command, ...]:
        """Return the trigger."""
        return (Trigger(self._output, 0.0, self._width_s * 1000),)

    def decide(self, moment: Moment) -> Verdict:
        """Return one trigger for each wanted cell that is about to leave the field, those not given with the reason."""
        now_s = moment.frame.time_s
        if not math.isfinite(now_s) or now_s <= self._latest_s:
            return Verdict()
        self._interval_s = now_s - self._latest_s if math.isfinite(self._latest_s) else 0.0
        self._latest_s = now_s
        values = moment.measured.get(self._measure)
        if values is None:
            known = ", ".join(moment.measured)
            return Verdict(messages=(f"cannot sort: nothing is called {self._measure!r}; measured: {known}",))
        self._see(moment, now_s, np.asarray(values, np.float64).tolist())
        end = moment.tracks.detections.shape[self._along] - 1.0 if self._sign > 0 else 0.0
        decisions: list[Decision] = []
        messages: list[str] = []
        passages = self._passages()
        for track, cell in self._cells.items():
            passage = passages.get(track)
            if cell.judged or cell.seen_s != now_s:
                continue
            if passage is None:
                continue
            leaves = cell.at(now_s) + passage.speed_px_s * self._interval_s * 1.5 >= end
            due = passage.at_s - self._width_s / 2 - self._ahead_s - self._interval_s <= now_s
            if not (leaves or due):
                continue
            if cell.frames < self._min_frames:
                if leaves:
                    cell.judged = f"seen in {cell.frames} frame(s), {self._min_frames} are needed"
                    messages.append(f"cell {track} is not sorted: {cell.judged}")
                continue
            if not self._wanted(cell):
                cell.judged = "it is not wanted"
                continue
            decisions.append(self._decision(moment, track, cell, passage, passages))
        messages += self._forget(now_s, passages)
        return Verdict(tuple(decisions), tuple(messages))

    def explain(self, moment: Moment, row: int) -> Explanation:
        """Return what is known of the cell: measure, frames, passage, and what was decided."""
        track = int(moment.tracks.track[row])
        cell = self._cells.get(track)
        if cell is None:
            return Explanation(self.name, track, moment.frame.sequence, False, "no: it was not seen.", ())
        passage = self._passages().get(track)
        threshold = self._above if self._above is not None else self._below
        clauses = [
            Clause(self._measure, cell.mean, threshold, "", self._wanted(cell)),
            Clause("frames seen", cell.frames, self._min_frames, "frames", cell.frames >= self._min_frames),
        ]
        if passage is not None:
            clauses.append(Clause("time to the gate", passage.at_s - moment.frame.time_s, None, "s", True))
        fired = cell.judged == "yes"
        verdict = "yes: the gate is to open for it." if fired else f"no: {cell.judged}."
        if not cell.judged:
            verdict = "not yet: it is judged when it is about to leave the field."
        return Explanation(self.name, track, moment.frame.sequence, fired, verdict, tuple(clauses))

    def _wanted(self, cell: Passing) -> bool:
        """Return whether a cell is to be sorted; all that is asked of a cell is asked here."""
        value = cell.mean
        return (self._above is None or value > self._above) and (self._below is None or value < self._below)

    def _see(self, moment: Moment, now_s: float, values: list[float]) -> None:
        cells, along, across = self._cells, self._along, 1 - self._along
        for correction in moment.tracks.corrections:
            if correction.old != correction.new and correction.old in cells:
                cells[correction.new] = cells.pop(correction.old)
        places = moment.tracks.detections.yx.tolist()
        length = moment.tracks.detections.shape[along]
        boxes = moment.tracks.detections.bbox[:, (along, along + 2)].tolist()
        for track, place, box, value in zip(moment.tracks.track.tolist(), places, boxes, values, strict=True):
            if (cell := cells.get(track)) is None:
                cell = cells[track] = Passing()
            # Half a cell at the edge has its centroid elsewhere: its place says nothing of its speed.
            whole = box[1] <= 0 or (box[0] > 0 and box[1] < length)
            cell.see(now_s, self._sign * place[along], place[across], value, whole=whole)

    def _passages(self) -> dict[int, Passage]:
        """Return when each cell passes the gate; one that tells no speed yet goes as fast as the others."""
        found: dict[int, Passage] = {}
        unsure: list[tuple[int, Passing]] = []
        for track, cell in self._cells.items():
            passage = cell.passage(self._gate)
            if passage is None:
                unsure.append((track, cell))
            else:
                found[track] = passage
        if unsure and found:
            speed = float(np.median([each.speed_px_s for each in found.values()]))
            found |= {track: cell.assumed(self._gate, speed) for track, cell in unsure}
        return found

    def _decision(
        self, moment: Moment, track: int, cell: Passing, passage: Passage, passages: dict[int, Passage]
    ) -> Decision:
        frame, half = moment.frame, self._width_s / 2
        opens_s = passage.at_s - half
        neighbours = [
            Neighbour(other, self._wanted(self._cells[other]), chance, theirs.at_s - passage.at_s)
            for other, theirs in passages.items()
            if other != track and (chance := chance_within(theirs, opens_s, opens_s + self._width_s)) > 0.005
        ]
        refused = refusal(self._policy, neighbours, self._contamination)
        if not refused and opens_s < frame.time_s:
            refused = f"it passes the gate {1000 * (frame.time_s - opens_s):.2f} ms too early for a trigger"
        cell.judged = refused or "yes"
        speed = (self._sign * passage.speed_px_s, 0.0)
        at = (self._sign * self._gate, cell.across)
        variance = (passage.sigma_s * passage.speed_px_s) ** 2
        xx_yy = (variance, 1.0)
        along_x = self._along == 1
        return Decision(
            rule=self.name,
            command=Trigger(self._output, max(opens_s, frame.time_s), self._width_s * 1000),
            sequence=frame.sequence,
            time_s=frame.time_s,
            expires_s=max(opens_s, frame.time_s),
            track=track,
            at_px=at if along_x else (at[1], at[0]),
            covariance_px2=(xx_yy[0], 0.0, xx_yy[1]) if along_x else (xx_yy[1], 0.0, xx_yy[0]),
            stage_um=frame.stage_um,
            reasons=(
                f"{self._measure} {cell.mean:.4g} over {cell.frames} frames{self._limits_text()}",
                f"passes the gate in {1000 * (passage.at_s - frame.time_s):.3f} ms,"
                f" sd {1000 * passage.sigma_s:.3f} ms, at {passage.speed_px_s:.0f} px/s",
                f"policy {self._policy}: {len(neighbours)} other(s) may pass in the opening",
            ),
            refused=refused,
            at_s=passage.at_s,
            velocity_px_s=speed if along_x else (speed[1], speed[0]),
        )

    def _limits_text(self) -> str:
        above = "" if self._above is None else f", above {self._above:g}"
        return above + ("" if self._below is None else f", below {self._below:g}")

    def _forget(self, now_s: float, passages: dict[int, Passage]) -> list[str]:
        """Let go of cells that have passed, and of those that tell no speed; say which were never judged."""
        wait_s = _SLOWEST * self._width_s
        unjudged: list[str] = []
        for track in list(self._cells):
            cell, passage = self._cells[track], passages.get(track)
            over_s = cell.seen_s + 1 if passage is None else passage.at_s + wait_s + 3 * passage.sigma_s
            if now_s <= max(over_s, cell.seen_s):
                continue
            if not cell.judged:
                unjudged.append(str(track))
            del self._cells[track]
        if not unjudged:
            return []
        return [f"not sorted, lost before they could be judged: cell(s) {', '.join(unjudged)}"]
