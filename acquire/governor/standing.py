"""Standing: whether what the service decides reaches the hardware."""

from __future__ import annotations

import logging
import threading
from typing import Literal, TypeAlias, get_args

from ..errors import ActuatorError, nearest_name

Standing: TypeAlias = Literal["disarmed", "dry", "armed"]

NOT_YET = "no service has said yet that it is armed"
NOT_ARMED = "the experiment file does not say 'armed = true'; arm it with loop.arm() or 'cytoloop arm'"
_LOG = logging.getLogger("cytoloop.loop")


class Safety:
    """Holds the standing of one microscope; any thread may ask and change it.

    ``armed``: decisions are carried out. ``dry``: all is done but what reaches the hardware, which is counted and
    said instead. ``disarmed``: every decision is refused. It is disarmed until the service, or a person, arms it.

    Attributes
    ----------
    why
        Why it stands so.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._standing: Standing = "disarmed"
        self._said = False
        self.why = NOT_YET

    @property
    def standing(self) -> Standing:
        """How it stands now."""
        return self._standing

    def set(self, standing: Standing, why: str) -> bool:
        """Change the standing, and say so in the log; return whether it has changed.

        Raises
        ------
        ActuatorError
            For a standing that does not exist.
        """
        if standing not in get_args(Standing):
            near = nearest_name(str(standing), get_args(Standing))
            hint = f" Did you mean {near!r}?" if near else ""
            raise ActuatorError(f"standing {standing!r}: allowed are {', '.join(get_args(Standing))}.{hint}")
        with self._lock:
            before, self._standing, self._said, self.why = self._standing, standing, True, why
        if before == standing:
            return False
        _LOG.warning("the microscope is %s (was %s): %s", standing, before, why)
        return True

    def begin(self, *, armed: bool) -> bool:
        """Take the experiment file's word the first time, unless someone has spoken before; return whether it held."""
        with self._lock:
            if self._said:
                return False
            self._said = True
            self._standing = "armed" if armed else "disarmed"
            self.why = "the experiment file says so" if armed else NOT_ARMED
        _LOG.info("the microscope is %s: %s", self._standing, self.why)
        return True
