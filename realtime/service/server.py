"""The service: one supervised engine process per stream, each with a warm standby behind it.

An engine that dies or hangs is replaced at once by its standby, on the same address; the journal gives the
new one its state, and the clients send again what was not answered.
"""

from __future__ import annotations

import math
import multiprocessing
import threading
import time
from collections import deque
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType

from ...acquire.errors import LinkError
from ..experiment.config import Experiment
from ..experiment.stream import StreamConfig
from .engine import EngineStatus
from .process import engine_main
from .recorder_process import SupervisedRecorder

_POLL_S = 0.1
_STOP_S = 3.0
_TAKE_OVER_S = 3.0
_FAST_DEATH_S = 1.0
_BACKOFF_S = 2.0


class _Worker:
    """A process that is, or can become, the engine of a stream."""

    def __init__(self, stream: StreamConfig, log: Path, ring: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, child = context.Pipe()
        self.process = context.Process(
            target=engine_main, args=(stream, log, ring, child), name=f"cytoloop {stream.name}", daemon=True
        )
        self.process.start()
        child.close()
        self.seen = self.started = time.monotonic()
        self.warm = self.serving = False

    def serve(self, address: str, patience_s: float = 0.0) -> None:
        """Have it serve, trying for a while to get the address; it may still be starting up."""
        self.pipe.send((address, patience_s))
        self.seen = self.started = time.monotonic()

    def end(self) -> None:
        """Ask it to stop; kill it if it does not."""
        self.pipe.close()
        self.process.join(_STOP_S)
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.process.close()


class _Stream:
    """What the supervisor knows of one stream."""

    def __init__(self, config: StreamConfig, log: Path) -> None:
        self.config, self.log = config, log
        self.address = config.address
        self.status: EngineStatus | None = None
        self.failure = ""
        self.restarts = 0
        self.messages: deque[str] = deque(maxlen=1000)
        self.recorder = SupervisedRecorder(config.record, config.name) if config.record.frames else None
        self.ring = self.recorder.ring.name if self.recorder else ""
        self.active = self._worker()
        self.standby: _Worker | None = None
        self.not_before = 0.0

    def _worker(self) -> _Worker:
        return _Worker(self.config, self.log, self.ring)

    def listen(self) -> None:
        """Take in all that the active worker, the standby and the recorder have said."""
        if self.recorder is not None:
            self.recorder.check()
            self.messages.extend(self.recorder.messages)
            self.recorder.messages.clear()
        for worker in (self.active, self.standby):
            if worker is None:
                continue
            try:
                while worker.pipe.poll():
                    self._hear(worker, worker.pipe.recv())
            except (EOFError, OSError):
                continue

    def _hear(self, worker: _Worker, said: EngineStatus | str | None) -> None:
        worker.seen = time.monotonic()
        if said is None:
            worker.warm = True
            return
        if isinstance(said, str):
            self.failure = said
            self.messages.append(said)
            return
        worker.serving = True
        self.status, self.address = said, said.address
        self.messages.extend(said.messages)
        if self.standby is None:
            self.standby = self._worker()  # only now, so that it does not delay the start

    def check(self) -> None:
        """Replace the active worker if it is dead or hung."""
        now = time.monotonic()
        alive = self.active.process.is_alive()
        hung = self.status is not None and now - self.active.seen > self._patience_s()
        if (alive and not hung) or now < self.not_before:
            return
        self.messages.append(f"engine of stream {self.config.name!r} {self._fault(alive)}")
        if now - self.active.started < _FAST_DEATH_S:
            self.not_before = now + _BACKOFF_S  # dies as soon as it starts: no point in spinning
        self.active.kill()
        self.restarts += 1
        self.active = self.standby or self._worker()
        self.standby = None
        try:
            self.active.serve(self.address, _TAKE_OVER_S)
        except OSError:  # the standby had died too
            self.active.kill()
            self.active = self._worker()
            self.active.serve(self.address, _TAKE_OVER_S)

    def _patience_s(self) -> float:
        """Return how long the active worker may be silent."""
        if not self.active.warm:  # it may be long in loading its weights; once it is warm it has no excuse
            return self.config.start_s
        return self.config.hang_s + (0.0 if self.active.serving else _TAKE_OVER_S)

    def _fault(self, alive: bool) -> str:
        """Return why the active worker is replaced."""
        if not alive:
            return f"died (exit code {self.active.process.exitcode}) and was replaced"
        if not self.active.warm:
            return f"{self._late} and was replaced"
        return (
            f"gave no sign of life for {self.config.hang_s:g} s and was replaced"
            " (raise hang_s if a single step may take that long)"
        )

    @property
    def _late(self) -> str:
        return f"did not start within {self.config.start_s:g} s (raise start_s if loading may take that long)"

    def why_not_started(self, patience_s: float) -> str:
        """Return why the first engine will not come up, or ``""`` while it still may.

        Parameters
        ----------
        patience_s
            For how long it tries to get its address once it is warm, in s.
        """
        alive = self.active.process.is_alive()
        self.listen()  # only now: it says why before it ends
        if self.failure or self.status is not None:
            return self.failure
        if not alive:
            return "its engine died at the start"
        if time.monotonic() - self.active.started > self.config.start_s + (
            patience_s if self.active.warm else 0.0
        ):
            return f"its engine {self._late}"
        return ""

    def end(self) -> None:
        for worker in (self.active, self.standby):
            if worker is not None:
                worker.end()
        if self.recorder is not None:
            self.recorder.end()


class Service:
    """Runs the streams of an experiment until closed; a context manager.

    Parameters
    ----------
    experiment
        A validated configuration.
    standby
        Wait, warm, for the addresses: another service has them now, and this one takes over when it is gone. The log
        must be the same folder, so that runs go on.

    Raises
    ------
    LinkError
        If a stream cannot be served; names the reason.
    """

    def __init__(self, experiment: Experiment, *, standby: bool = False) -> None:
        log = Path(experiment.log)
        for name, stream in experiment.streams.items():
            if stream.address.startswith("inproc:"):
                raise LinkError(
                    f"stream {name!r}: {stream.address} cannot be served by a process of its own;"
                    " use tcp://127.0.0.1:PORT or ipc://PATH"
                )
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._streams = {name: _Stream(config, log) for name, config in experiment.streams.items()}
        try:
            self._start(math.inf if standby else 0.0)
        except BaseException:
            self._end_all()
            raise
        self._thread = threading.Thread(target=self._supervise, name="cytoloop supervisor", daemon=True)
        self._thread.start()

    def _start(self, patience_s: float) -> None:
        for stream in self._streams.values():
            stream.active.serve(stream.config.address, patience_s)
        for name, stream in self._streams.items():
            while stream.status is None:
                wait([stream.active.pipe, stream.active.process.sentinel], _POLL_S)
                reason = stream.why_not_started(patience_s)
                if reason:
                    raise LinkError(f"stream {name!r} cannot be served: {reason}")

    @property
    def addresses(self) -> dict[str, str]:
        """Address of each stream, its port resolved."""
        return {name: stream.address for name, stream in self._streams.items()}

    @property
    def pids(self) -> dict[str, int]:
        """Process id of each stream's active engine."""
        with self._lock:
            return {name: stream.active.process.pid or 0 for name, stream in self._streams.items()}

    @property
    def recorder_pids(self) -> dict[str, int]:
        """Process id of each stream's recorder, of those that have one."""
        with self._lock:
            return {
                name: stream.recorder.pid
                for name, stream in self._streams.items()
                if stream.recorder is not None
            }

    @property
    def restarts(self) -> dict[str, int]:
        """How often each stream's engine was replaced."""
        return {name: stream.restarts for name, stream in self._streams.items()}

    def status(self) -> dict[str, EngineStatus]:
        """Return the last status of each stream."""
        with self._lock:
            return {
                name: stream.status for name, stream in self._streams.items() if stream.status is not None
            }

    def messages(self) -> list[str]:
        """Return what a person should read, since the last call."""
        with self._lock:
            fresh = [message for stream in self._streams.values() for message in stream.messages]
            for stream in self._streams.values():
                stream.messages.clear()
        return fresh

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the service is closed; False if that took longer."""
        return self._ended.wait(timeout_s)

    def close(self) -> None:
        """End all engines; what they have acknowledged is in the journals."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        self._end_all()

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _supervise(self) -> None:
        while not self._ended.is_set():
            with self._lock:
                waitable = [
                    item
                    for stream in self._streams.values()
                    for item in (stream.active.pipe, stream.active.process.sentinel)
                ]
            wait(waitable, _POLL_S)
            with self._lock:
                for stream in self._streams.values():
                    stream.listen()
                    stream.check()

    def _end_all(self) -> None:
        for stream in self._streams.values():
            stream.end()
