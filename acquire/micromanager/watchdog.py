"""The watchdog: when the service is silent for too long, the microscope falls to its safe state by itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from ..actuators import Actuator, Falling
from ..errors import ActuatorError
from ..governor.safe import SafeState
from ..link.safeguard import Safeguard
from ..scheduled import Scheduling
from .hardware import Hardware

_LOG = logging.getLogger("cytoloop.loop")
_IDLE_S = 0.25
_SOONEST_S = 0.005


class Watchdog:
    """Looks at the link from a thread of its own, so that a hung hardware thread or link cannot keep it from acting.

    Lights and outputs go off, waiting pulses are dropped, the properties that the configuration names are set. The
    stage stays where it is, and the acquisition goes on as planned. When the service is back, decisions are carried
    out again; the standing is the same throughout.

    Parameters
    ----------
    safeguard
        Tells for how long the service has been silent, and what to do then.
    actuators
        Those that can fall to a safe state do.
    hardware
        Returns the core whose properties are set, or None if there is none in this process.
    busy
        Returns whether a decision is being carried out; what it switches on is switched off again.

    Attributes
    ----------
    falls
        How often the microscope fell to its safe state.
    """

    def __init__(
        self,
        safeguard: Safeguard,
        actuators: Sequence[Actuator],
        hardware: Callable[[], Hardware | None],
        busy: Callable[[], bool],
    ) -> None:
        self.falls = 0
        self._safeguard, self._actuators, self._hardware, self._busy = (
            safeguard,
            tuple(actuators),
            hardware,
            busy,
        )
        self._again = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start the thread, once it is known when to fall; before decisions are carried out."""
        if self._thread is None and self._safeguard.terms is not None and not self._ended.is_set():
            self._thread = threading.Thread(target=self._watch, name="cytoloop watchdog", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        wait_s = _IDLE_S
        while not self._ended.wait(wait_s):
            if self._safeguard.fall():
                self.falls += 1
                self._again = self._busy()
                self._fall()
            elif self._again and not self._busy():
                self._again = False
                if self._safeguard.safe:
                    self._fall()
            due_s = _IDLE_S if self._safeguard.safe else self._safeguard.left_s()
            wait_s = _SOONEST_S if self._again else min(_IDLE_S, max(due_s, _SOONEST_S))

    def _fall(self) -> None:
        terms = self._safeguard.terms
        safe = SafeState() if terms is None else terms.safe
        _LOG.error(
            "no sign of life of the service for %g s: the microscope falls to its safe state"
            " (raise safe.after_s if work on one frame may take that long)",
            self._safeguard.safe_after_s,
        )
        for actuator in self._actuators:
            try:
                if isinstance(actuator, Scheduling):
                    actuator.drop("the service is silent")
                if isinstance(actuator, Falling):
                    actuator.fall()
            except Exception as error:  # an actuator is anyone's code, and the others must still fall
                _LOG.error("%s could not fall to its safe state: %s", type(actuator).__name__, error)
        hardware = self._hardware()
        if hardware is None:
            if safe.set:
                _LOG.error("the safe state's properties are not set: no core runs in this process")
            return
        for device, name, value in safe.settings:
            try:
                hardware.set_property(device, name, value)
            except ActuatorError as error:
                _LOG.error("safe state: %s", error)
