"""The recorder of one stream, supervised: its process, and the ring that outlives it and the engine."""

from __future__ import annotations

import multiprocessing
import time
from collections import deque

from ..recording.recorder import RecorderStatus, recorder_main
from ..recording.ring import RecordRing
from ..recording.settings import Record

_HUNG_S = 30.0  # a disk that stalls for seconds is what the ring is there for
_STOP_S = 60.0


class SupervisedRecorder:
    """Starts the recorder, and starts it again when it dies or hangs; nothing that is in the ring is lost by that.

    Parameters
    ----------
    record
        What is recorded, and how.
    name
        Of the stream.

    Attributes
    ----------
    status
        What the recorder told last.
    restarts
        How often it was replaced.
    messages
        What a person should read.

    Raises
    ------
    LinkError
        If the system gives no memory for the ring.
    """

    def __init__(self, record: Record, name: str) -> None:
        self.ring = RecordRing.create(record.buffer_mb << 20)
        self.status = RecorderStatus()
        self.restarts = 0
        self.messages: deque[str] = deque(maxlen=1000)
        self._record, self._name = record, name
        self._start()

    @property
    def pid(self) -> int:
        """Process id of the recorder."""
        return self._process.pid or 0

    def check(self) -> None:
        """Take in what it has said, and replace it if it is dead or hung."""
        self._listen()
        alive = self._process.is_alive()
        hung = self.ring.used > 0 and time.monotonic() - self._seen_s > _HUNG_S
        if alive and not hung:
            return
        why = "gave no sign of life" if alive else f"died (exit code {self._process.exitcode})"
        self.messages.append(f"the recorder of stream {self._name!r} {why} and was replaced")
        self._stop()
        self.restarts += 1
        self._start()

    def end(self) -> None:
        """Have it write all that is in the ring, and end it; give the ring back."""
        if self.ring.used and not self._process.is_alive():
            self.check()  # it died just now
        self._pipe.close()
        until, used = time.monotonic() + _STOP_S, self.ring.used
        while self._process.is_alive() and time.monotonic() < until:
            self._process.join(0.1)
            if self.ring.used < used:  # it gets on
                until, used = time.monotonic() + _STOP_S, self.ring.used
        if self.ring.used:
            self.messages.append(
                f"{self.ring.used >> 20} MB of stream {self._name!r} could not be recorded before the end"
            )
        self._stop()
        self.ring.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child = context.Pipe()
        self._process = context.Process(
            target=recorder_main,
            args=(self.ring.name, self._record.codec, child),
            name=f"cytoloop recorder {self._name}",
            daemon=True,
        )
        self._process.start()
        child.close()
        self._seen_s = time.monotonic()

    def _listen(self) -> None:
        try:
            while self._pipe.poll():
                status: RecorderStatus = self._pipe.recv()
                self.status, self._seen_s = status, time.monotonic()
                self.messages.extend(f"recorder of stream {self._name!r}: {each}" for each in status.messages)
        except (EOFError, OSError):
            return

    def _stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._process.close()
