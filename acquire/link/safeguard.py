"""What the link carries for safety: terms and orders to the microscope, its standing and outcomes back."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque

from ..governor.standing import Safety
from ..outcome import Outcome
from .messages import FromService, Noted, Order, Outcomes, Stands, Terms, Welcome

_LOG = logging.getLogger("cytoloop.link")
_MOST_KEPT = 100_000
_MOST_AT_ONCE = 1000
_AGAIN_S = 2.0
"""After so long without a word outcomes are told again: the service's disk may have been full."""


class Safeguard:
    """The microscope's side of it; all methods are thread-safe and return at once.

    Outcomes are numbered, and kept until the service has written them down. Of more than 100 000 the oldest are let go
    of; the gap in the numbers tells.

    Attributes
    ----------
    safety
        The standing of the microscope.
    terms
        What the service says of what may reach the hardware; None before it has answered.
    safe
        Whether the microscope has fallen to its safe state.
    """

    def __init__(self) -> None:
        self.safety = Safety()
        self.terms: Terms | None = None
        self.safe = False
        self._lock = threading.Lock()
        self._heard_s = 0.0
        self._hang_s = math.inf
        self._told: Stands | None = None
        self._waiting: deque[Outcome] = deque()
        self._first = 0  # number of the first that waits
        self._under_way_s = -math.inf  # since when some of them are

    @property
    def pending(self) -> int:
        """Outcomes that the service has not written down yet."""
        with self._lock:
            return len(self._waiting)

    def left_s(self) -> float:
        """Return in how many s the microscope must fall to its safe state if nothing is heard meanwhile."""
        return self._heard_s + self.safe_after_s - time.monotonic()

    @property
    def safe_after_s(self) -> float:
        """How long the service may be silent, in s."""
        if self.terms is None:
            return math.inf
        return self._hang_s if self.terms.safe.after_s is None else self.terms.safe.after_s

    def fall(self) -> bool:
        """Note that the microscope is in its safe state if the service has been silent for too long; True if so."""
        with self._lock:
            falls = not self.safe and self.left_s() <= 0
            self.safe = self.safe or falls
        return falls

    def report(self, outcome: Outcome) -> None:
        """Have the service note what came of a decision."""
        with self._lock:
            self._waiting.append(outcome)
            if len(self._waiting) > _MOST_KEPT:
                self._waiting.popleft()
                self._first += 1

    # --- for the link's thread --------------------------------------------------------------------------------

    def begin_again(self) -> None:
        """Say everything again that may have been lost with the last connection."""
        with self._lock:
            self._told, self._under_way_s = None, -math.inf

    def take(self, message: FromService) -> None:
        """Act on a message of a service that has welcomed us; every one is a sign of life."""
        with self._lock:
            self._heard_s = time.monotonic()
            back, self.safe = self.safe, False
        if back:
            _LOG.warning("the service is back: decisions are carried out again")
        match message:
            case Welcome(terms=terms, hang_s=hang_s):
                self._hang_s, self.terms = hang_s, terms
                self.safety.begin(armed=terms.armed)
            case Order(standing=standing, why=why):
                self.safety.set(standing, why)
                self._told = None  # who asked waits for a word, also where nothing has changed
            case Noted(next=number):
                self._forget(number)
            case _:
                pass

    def due(self) -> list[Stands | Outcomes]:
        """Return what the service does not know yet."""
        messages: list[Stands | Outcomes] = []
        with self._lock:
            stands = Stands(self.safety.standing, self.safety.why[:4096], self.safe)
            if stands != self._told:
                self._told = stands
                messages.append(stands)
            if self._waiting and (now := time.monotonic()) - self._under_way_s > _AGAIN_S:
                self._under_way_s = now
                count = min(len(self._waiting), _MOST_AT_ONCE)
                messages.append(Outcomes(self._first, tuple(self._waiting[index] for index in range(count))))
        return messages

    def _forget(self, number: int) -> None:
        with self._lock:
            self._under_way_s = -math.inf
            while self._waiting and self._first < number:
                self._waiting.popleft()
                self._first += 1
