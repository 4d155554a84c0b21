"""Pace: the time between time points, where a decision has changed it."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..errors import ActuatorError
from .step import Step


class Pace:
    """When each time point begins, on the clock of the acquisition engine.

    A time point is a run of steps with the same index in time. With an interval set, each begins so long after
    the one before, or after when that one could begin at the earliest: time that was lost is not made up for.

    Attributes
    ----------
    clock
        Returns the present in s on the clock in which the engine counts planned starts, 0 before its first
        image; None where the engine has begun to wait for a step before it can be changed.
    """

    def __init__(self) -> None:
        self.clock: Callable[[], float] | None = None
        self._interval_s: float | None = None
        self._time: int | str | None = None
        self._began_s: float | None = None

    def begin_run(self) -> None:
        """Forget the interval and the time points of the acquisition before."""
        self._interval_s = self._time = self._began_s = None

    def set_interval(self, interval_s: float, plan: Step) -> None:
        """Set the time in s between time points, from the next one on.

        Parameters
        ----------
        interval_s
            Finite, 0 or more.
        plan
            The step of the frame that the decision rests on.

        Raises
        ------
        ActuatorError
            If it is out of its range, the steps have no index in time, or they cannot be changed in time.
        """
        if not 0 <= interval_s < math.inf:
            raise ActuatorError(f"interval of {interval_s} s: must be finite and 0 or more")
        if self.clock is None:
            raise ActuatorError(
                "SetInterval needs mode='lockstep' and events submitted through the guard: in other modes"
                " pycro-manager has begun to wait for the next event before it can be changed"
            )
        if plan.time is None:
            raise ActuatorError("SetInterval needs events with an axis 'time'")
        self._interval_s = interval_s

    def start_of(self, step: Step) -> float | None:
        """Return the earliest start of a step in s, or None if it may begin at once."""
        if self._interval_s is None or self._began_s is None or step.time is None:
            return step.start_s
        return self._began_s if step.time == self._time else self._began_s + self._interval_s

    def restart(self, step: Step) -> None:
        """Note that the engine counts starts anew, from this step on."""
        self._began_s = step.start_s or 0.0

    def begin(self, step: Step) -> float | None:
        """Return the earliest start of the next step, and count its time point as begun."""
        start_s = self.start_of(step)
        if step.time is not None and step.time != self._time:
            now_s = 0.0 if self.clock is None else self.clock()
            self._time, self._began_s = step.time, max(start_s or 0.0, now_s)
        return start_s
