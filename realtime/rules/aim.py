"""What an action of a rule is: moment, cells and where they will be -> commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...acquire.commands import Command
from .rule import Moment

Answers: TypeAlias = "list[tuple[int, Command | str]]"
"""Of each row, the command or why there is none; row -1 is the whole frame."""

WHOLE_FRAME = -1


@dataclass(frozen=True, slots=True, eq=False)
class Aim:
    """Where k chosen cells will be when the actuator acts.

    Attributes
    ----------
    at_px
        (k, 2) float64, (x, y) of each in px of the frame.
    at_s
        The time for which that holds, in s of frame time.
    velocity_px_s
        (k, 2) float64, (x, y) in px per s; None: it follows from the position in the frame and ``at_px``.
    """

    at_px: NDArray[np.float64]
    at_s: float
    velocity_px_s: NDArray[np.float64] | None = None

    def speeds(self, moment: Moment, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (k, 2) float64, (x, y) in px per s; NaN where nothing says."""
        if self.velocity_px_s is not None:
            return self.velocity_px_s
        ahead_s = self.at_s - moment.frame.time_s
        if not ahead_s > 0:
            return np.full((len(rows), 2), np.nan)
        return (self.at_px - moment.tracks.detections.yx[rows, ::-1]) / ahead_s


@runtime_checkable
class Action(Protocol):
    """One kind of action, with its options; a frozen value, built once per rule.

    ``commands`` is called for every frame in which a rule acts, in order, by one thread, and must return at once. It
    depends on its arguments only. ``examples`` is called once, while the experiment file is checked.
    """

    @property
    def per_cell(self) -> bool:
        """Whether each chosen cell gets a command of its own; else there is one of the whole frame."""
        ...

    def commands(self, moment: Moment, rows: NDArray[np.int64], at: Aim) -> Answers:
        """Return for each chosen row one command, or in words why there is none.

        Parameters
        ----------
        moment
            The frame and its cells.
        rows
            (k,) int64, rows of ``moment.tracks``, first served first. They may be none where ``per_cell`` is False.
        at
            Where they will be.
        """
        ...

    def examples(self) -> tuple[Command, ...]:
        """Return commands as strong as it may give, places left out."""
        ...


def whole(command: Command) -> Answers:
    """Return one command of the whole frame."""
    return [(WHOLE_FRAME, command)]
