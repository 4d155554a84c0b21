"""Actions at a computed time: pulses of an output, and the gate of a sorter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...acquire.commands import Command, Trigger
from .aim import Aim, Answers, whole
from .rule import Moment


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """``do = "trigger"``: a pulse of an output.

    Attributes
    ----------
    output
        Its name, as the actuator at the microscope knows it.
    delay_ms
        After the time of actuation, which is that of the next frame, in ms.
    width_ms
        Length of the pulse in ms.
    per_cell
        Whether there is one for each chosen cell; else one for the frame.
    """

    output: str
    delay_ms: float = 0.0
    width_ms: float = 1.0
    per_cell: bool = False

    def __post_init__(self) -> None:
        _check_pulse(self.output, self.delay_ms, self.width_ms)
        if self.delay_ms < 0:
            raise ValueError(f"delay_ms must be >= 0, got {self.delay_ms}")

    def examples(self) -> tuple[Command, ...]:
        """Return the pulse, without its time."""
        return (Trigger(self.output, 0.0, self.width_ms),)

    def commands(self, moment: Moment, rows: NDArray[np.int64], at: Aim) -> Answers:
        """Return one pulse, or one for each row, all at the same time."""
        pulse = Trigger(self.output, at.at_s + self.delay_ms / 1000, self.width_ms)
        return [(int(row), pulse) for row in rows] if self.per_cell else whole(pulse)


@dataclass(frozen=True, kw_only=True)
class Sort:
    """``do = "sort"``: a pulse of an output at the moment in which a cell passes a gate, by its place and speed.

    Attributes
    ----------
    output
        Name of the gate's output, as the actuator at the microscope knows it.
    gate_px
        Where the gate is along the axis of the flow, in px of the image; it may lie outside of it.
    axis
        The axis of the flow in the image, ``"x"`` or ``"y"``.
    delay_ms
        After the passing, in ms; negative before it.
    width_ms
        Length of the pulse in ms; it is centred on that moment.
    within_s
        A cell that reaches the gate later than so long after the frame is left alone, in s.
    """

    per_cell: ClassVar[bool] = True

    output: str
    gate_px: float
    axis: Literal["x", "y"] = "x"
    delay_ms: float = 0.0
    width_ms: float = 1.0
    within_s: float = 10.0

    def __post_init__(self) -> None:
        _check_pulse(self.output, self.delay_ms, self.width_ms)
        if not math.isfinite(self.gate_px):
            raise ValueError(f"gate_px must be finite, got {self.gate_px}")
        if not 0 < self.within_s < math.inf:
            raise ValueError(f"within_s must be > 0, got {self.within_s}")

    def examples(self) -> tuple[Command, ...]:
        """Return the pulse, without its time."""
        return (Trigger(self.output, 0.0, self.width_ms),)

    def commands(self, moment: Moment, rows: NDArray[np.int64], at: Aim) -> Answers:
        """Return a pulse for each cell that will pass the gate, or why it will not."""
        axis = 0 if self.axis == "x" else 1
        places, speeds = at.at_px[:, axis], at.speeds(moment, rows)[:, axis]
        return [
            self._one(moment.frame.time_s, at.at_s, *each)
            for each in zip(rows.tolist(), places.tolist(), speeds.tolist(), strict=True)
        ]

    def _one(
        self, time_s: float, at_s: float, row: int, place: float, speed: float
    ) -> tuple[int, Command | str]:
        if not (math.isfinite(place) and math.isfinite(speed)):
            return row, "its speed is not known yet"
        if speed == 0:
            return row, f"it does not move along {self.axis}"
        passing_s = at_s + (self.gate_px - place) / speed
        begins_s = passing_s + (self.delay_ms - self.width_ms / 2) / 1000
        if passing_s < time_s:
            return row, "it has passed the gate, or moves away from it"
        if begins_s < time_s:
            return row, f"the pulse would have to begin {1000 * (time_s - begins_s):.1f} ms before the frame"
        if begins_s > time_s + self.within_s:
            return row, f"it will pass the gate in {passing_s - time_s:.3g} s, within_s is {self.within_s:g}"
        return row, Trigger(self.output, begins_s, self.width_ms)


def _check_pulse(output: str, delay_ms: float, width_ms: float) -> None:
    if not output:
        raise ValueError("output must be the name of one, got ''")
    if not math.isfinite(delay_ms):
        raise ValueError(f"delay_ms must be finite, got {delay_ms}")
    if not 0 < width_ms < math.inf:
        raise ValueError(f"width_ms must be > 0, got {width_ms}")
