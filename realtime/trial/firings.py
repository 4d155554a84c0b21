"""What candidate rules would have decided over a recording or a run, and pictures of the cells that were meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...acquire.reply import Decision
from .played import Seen

MOST_FIRINGS = 100_000
MOST_CROPS = 12
_SMALLEST_HALF_PX, _LARGEST_HALF_PX = 16, 96


@dataclass(frozen=True, slots=True)
class Firing:
    """One decision of a candidate rule.

    Attributes
    ----------
    file, rule
        Name of the rules file, and of the rule.
    track
        The cell, 0 if the whole frame is meant.
    sequence, time_s
        The frame.
    command
        Kind of the command, such as ``stimulate``.
    reasons
        The clauses that held.
    refused
        Why the limits refused it; ``""`` if they let it pass.
    """

    file: str
    rule: str
    track: int
    sequence: int
    time_s: float
    command: str
    reasons: tuple[str, ...]
    refused: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """The image around a cell.

    Attributes
    ----------
    image
        (y, x) part of the segmented channel.
    labels
        (y, x) int32, the cells in it by their row in the frame, counted from 1; None where no mask is known.
    label
        That of the cell that is meant.
    title
        What it shows.
    box
        Instead of labels: x0, y0, x1, y1 of the cell in px of the crop; None where it is not known.
    """

    image: NDArray[Any]
    labels: NDArray[np.int32] | None
    label: int
    title: str
    box: tuple[float, float, float, float] | None = None


@dataclass(slots=True, eq=False)
class Firings:
    """What fired in the frames so far.

    Attributes
    ----------
    files
        Names of the rules files that are looked at.
    crops_of_a_rule
        How many pictures are kept of each rule.
    firings
        In the order of the frames; at most 100 000 are kept.
    counts
        Firings of each rule, (file, rule) by (file, rule); those that the limits refused too.
    refused
        Of these, how many the limits refused.
    crops
        Of the first cells that fired, where there are images.
    """

    files: tuple[str, ...]
    crops_of_a_rule: int = MOST_CROPS
    firings: list[Firing] = field(default_factory=list[Firing])
    counts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    refused: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    crops: list[Crop] = field(default_factory=list[Crop])
    _shown: set[tuple[str, str, int]] = field(default_factory=set[tuple[str, str, int]])

    def add(self, seen: Seen) -> None:
        """Take in one frame."""
        for file in self.files:
            for decision in seen.judged.decisions[file]:
                self.counts[file, decision.rule] += 1
                self.refused[file, decision.rule] += bool(decision.refused)
                if len(self.firings) < MOST_FIRINGS:
                    self.firings.append(_firing(file, decision))
                self._show(seen, file, decision)

    def _show(self, seen: Seen, file: str, decision: Decision) -> None:
        key = (file, decision.rule, decision.track)
        of_rule = sum(shown[:2] == key[:2] for shown in self._shown)
        if seen.frame is None or len(self.crops) >= MOST_CROPS or of_rule >= self.crops_of_a_rule:
            return
        title = f"cell {decision.track}, frame {decision.sequence}\n{decision.rule}"
        if key not in self._shown and (crop := crop_of(seen, decision.track, title)):
            self._shown.add(key)
            self.crops.append(crop)


def kind_of(decision: Decision) -> str:
    """Return the kind of a decision's command as the wire names it, such as ``move_stage``."""
    return str(type(decision.command).__struct_config__.tag)


def crop_of(seen: Seen, track: int, title: str) -> Crop | None:
    """Return the image around a cell of a frame; None without an image, or if the cell is not there."""
    row = seen.judged.moment.tracks.row(track)
    if seen.frame is None or row is None:
        return None
    found = seen.judged.moment.tracks.detections
    image = seen.frame.channel(seen.judged.moment.channel)
    labels = None if seen.labels is None else seen.labels.image
    return cut_crop(image, labels, found.bbox[row].tolist(), row + 1, title)


def cut_crop(
    image: NDArray[Any], labels: NDArray[Any] | None, bbox: Iterable[int], label: int, title: str
) -> Crop:
    """Cut the image around a cell out of its frame; beyond the edge of the frame there is nothing.

    Parameters
    ----------
    image, labels
        (y, x) of the whole frame.
    bbox
        y0, x0, y1, x1 of the cell in px, ends excluded.
    label
        That of the cell.
    title
        What it shows.
    """
    y0, x0, y1, x1 = bbox
    half = int(np.clip(max(y1 - y0, x1 - x0), _SMALLEST_HALF_PX, _LARGEST_HALF_PX))
    y, x = (y0 + y1) // 2, (x0 + x1) // 2
    top, left = max(y - half, 0), max(x - half, 0)
    part = (slice(top, y + half), slice(left, x + half))
    cut = None if labels is None else labels[part].astype(np.int32)
    box = (x0 - left - 0.5, y0 - top - 0.5, x1 - left - 0.5, y1 - top - 0.5)
    return Crop(image[part].copy(), cut, label, title, box)


def _firing(file: str, decision: Decision) -> Firing:
    return Firing(
        file,
        decision.rule,
        decision.track,
        decision.sequence,
        decision.time_s,
        kind_of(decision),
        decision.reasons,
        decision.refused,
    )
