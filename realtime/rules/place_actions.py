"""Actions that go somewhere: stage and focus, at once or later."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...acquire.commands import Command, MoveFocus, MoveStage, Revisit
from .aim import WHOLE_FRAME, Aim, Answers, whole
from .motion import stage_map
from .rule import Moment


@dataclass(frozen=True, kw_only=True)
class Centre:
    """``do = "centre"``: the stage brings the first of the chosen cells to the centre of the image.

    Attributes
    ----------
    deadband_um
        The stage rests while the cell will be within this distance of the centre, in um.
    """

    per_cell: ClassVar[bool] = True

    deadband_um: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.deadband_um < math.inf:
            raise ValueError(f"deadband_um must be >= 0, got {self.deadband_um}")

    def examples(self) -> tuple[Command, ...]:
        """Return a move of the stage."""
        return (MoveStage(0.0, 0.0),)

    def commands(self, moment: Moment, rows: NDArray[np.int64], at: Aim) -> Answers:
        """Return a move for the first row, or why there is none; the others are told that one is centred."""
        if not len(rows):
            return []
        target = stage_target(moment, at, 0)
        first = int(rows[0])
        answer: Command | str = target if isinstance(target, str) else self._move(moment, target)
        one = f"the stage can centre one cell at a time, that is cell {int(moment.tracks.track[first])}"
        others = [(int(row), one) for row in rows[1:]]
        return [(first, answer), *others]

    def _move(self, moment: Moment, target: tuple[float, float]) -> Command | str:
        assert moment.frame.stage_um is not None
        distance = math.dist(target, moment.frame.stage_um)
        if distance <= self.deadband_um:
            return f"it will be {distance:.2f} um from the centre, deadband_um is {self.deadband_um:g}"
        return MoveStage(*target)


@dataclass(frozen=True, kw_only=True)
class Focus:
    """``do = "focus"``: the focus drive goes to a height, or by an offset from where the frame was taken.

    Attributes
    ----------
    z_um
        Absolute height in um.
    offset_um
        Instead: upwards from the frame's height, in um.
    """

    per_cell: ClassVar[bool] = False

    z_um: float | None = None
    offset_um: float | None = None

    def __post_init__(self) -> None:
        if (self.z_um is None) == (self.offset_um is None):
            raise ValueError("one of z_um and offset_um must be given")
        if not math.isfinite(self.z_um or 0.0):
            raise ValueError(f"z_um must be finite, got {self.z_um}")
        if not math.isfinite(self.offset_um or 0.0):
            raise ValueError(f"offset_um must be finite, got {self.offset_um}")

    def examples(self) -> tuple[Command, ...]:
        """Return a move of the focus drive."""
        return (MoveFocus(self.z_um or 0.0),)

    def commands(self, moment: Moment, rows: NDArray[np.int64], at: Aim) -> Answers:
        """Return one move, or that the frame does not say how high it was taken."""
        if self.z_um is not None:
            return whole(MoveFocus(self.z_um))
        if moment.frame.z_um is None or self.offset_um is None:
            return [(WHOLE_FRAME, "the frame does not say where the focus is")]
        return whole(MoveFocus(moment.frame.z_um + self.offset_um))


@dataclass(frozen=True, kw_only=True)
class RevisitPlace:
    """``do = "revisit"``: one more image, later, of the field of view or of each chosen cell in its centre.

    Attributes
    ----------
    after_s
        At the earliest so long after the frame, in s.
    per_cell
        Whether each chosen cell is visited, the stage bringing it to the centre; else the place of the frame is.
    exposure_ms, channel
        Exposure in ms and preset of that image; default those of the frame.
    """

    after_s: float
    per_cell: bool = False
    exposure_ms: float | None = None
    channel: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.after_s < math.inf:
            raise ValueError(f"after_s must be >= 0, got {self.after_s}")
        if self.exposure_ms is not None and not 0 < self.exposure_ms < math.inf:
            raise ValueError(f"exposure_ms must be > 0, got {self.exposure_ms}")

    def examples(self) -> tuple[Command, ...]:
        """Return a visit, without its place."""
        return (Revisit(0.0, 0.0, exposure_ms=self.exposure_ms, channel=self.channel),)

    def commands(self, moment: Moment, rows: NDArray[np.int64], at: Aim) -> Answers:
        """Return one visit of the frame's place, or one of each cell, or why there is none."""
        if not self.per_cell:
            stage = moment.frame.stage_um
            where = "the frames do not say where the stage is" if stage is None else stage
            return [self._visit(moment, WHOLE_FRAME, where)]
        return [self._visit(moment, int(row), stage_target(moment, at, k)) for k, row in enumerate(rows)]

    def _visit(self, moment: Moment, row: int, where: tuple[float, float] | str) -> tuple[int, Command | str]:
        if isinstance(where, str):
            return row, where
        at_s = moment.frame.time_s + self.after_s
        return row, Revisit(*where, at_s=at_s, exposure_ms=self.exposure_ms, channel=self.channel)


def stage_target(moment: Moment, at: Aim, k: int) -> tuple[float, float] | str:
    """Return the (x, y) of the stage in um that centres a chosen cell, or why nobody knows."""
    known = stage_map(moment)
    if known is None:
        if moment.affine is None:
            return moment.uncalibrated or "neither the frames nor the configuration give a pixel size"
        return "the frames do not say where the stage is"
    if not np.isfinite(at.at_px[k]).all():
        return "nobody knows where it will be"
    affine, stage = known
    x, y = (float(value) for value in at.at_px[k])
    return affine.stage_target((x, y), moment.tracks.detections.shape, stage)
