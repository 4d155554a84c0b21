"""Breaking the service on purpose, and counting afterwards what that did to the frames."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Generator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..acquire.link.client import Client
from .service.server import Service

LONGEST_RECOVERY_S = 60.0
CAN_HANG = hasattr(signal, "SIGSTOP")
"""Whether the system can stop a process in its tracks, as a hang does; Windows cannot."""
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_STOP: int = getattr(signal, "SIGSTOP", _KILL)


class Recovery(threading.Thread):
    """Measures, beside the acquisition, the time from a fault to the first answer of the new engine.

    Attributes
    ----------
    fault
        ``kill`` or ``hang``.
    broken_s
        Monotonic time in s of the fault.
    recovery_ms
        Time in ms until the next answer; None while there is none.
    """

    def __init__(self, client: Client, fault: str) -> None:
        super().__init__(name="cytoloop recovery watch")
        self.fault = fault
        self.broken_s = time.monotonic()
        self.recovery_ms: float | None = None
        self._client, self._reconnects = client, client.stats().reconnects
        self.start()

    def run(self) -> None:
        """Wait for a new connection, then for an answer over it."""
        deadline = self.broken_s + LONGEST_RECOVERY_S
        acknowledged = None
        while time.monotonic() < deadline:
            stats = self._client.stats()
            if acknowledged is None and stats.reconnects > self._reconnects:
                acknowledged = stats.acknowledged
            if acknowledged is not None and stats.state == "connected" and stats.acknowledged > acknowledged:
                self.recovery_ms = (time.monotonic() - self.broken_s) * 1000
                return
            time.sleep(0.001)


def break_engine(
    service: Service, client: Client, *, stream: str = "default", hang: bool = False
) -> Recovery:
    """Kill the engine process of a stream, or stop it in its tracks where that can be done, and watch it recover."""
    stops = hang and CAN_HANG
    watch = Recovery(client, "hang" if stops else "kill")
    os.kill(service.pids[stream], _STOP if stops else _KILL)
    return watch


class Count(NamedTuple):
    """How a list of sequence numbers differs from 0, 1, 2, ..., each once."""

    lost: int
    duplicated: int
    out_of_order: int


def count(sequences: Sequence[int], expected: int) -> Count:
    """Compare sequence numbers with those of ``expected`` frames."""
    different = len(set(sequences))
    backwards = sum(later < earlier for earlier, later in pairwise(sequences))
    return Count(expected - different, len(sequences) - different, backwards)


def images_on_disk(folder: Path) -> Generator[tuple[dict[str, Any], NDArray[Any]]]:
    """Yield axes and pixels of every image that pycro-manager wrote, by time, read back from its files."""
    from ndstorage import Dataset

    with contextlib.redirect_stdout(None):  # it tells standard output how far it is
        dataset: Any = Dataset(str(folder))
    try:
        every: list[dict[str, Any]] = list(dataset.get_image_coordinates_list())
        for axes in sorted(every, key=lambda axes: axes.get("time", 0)):
            yield axes, np.asarray(dataset.read_image(**axes))
    finally:
        dataset.close()


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keep the warnings of a link that is broken on purpose from the terminal."""
    logger = logging.getLogger("cytoloop")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
