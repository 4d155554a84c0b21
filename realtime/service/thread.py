"""An engine in a thread of this process: what ``inproc://`` addresses need."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

from ...acquire.errors import CytoloopError
from ..experiment.stream import StreamConfig
from .engine import Engine, EngineStatus

_TURN_S = 0.02


class EngineThread:
    """Serves one stream from a thread; a context manager.

    There is no supervisor: use :class:`~cytoloop.realtime.service.server.Service` for anything that must survive.

    Raises
    ------
    AddressError
        If the stream's address cannot be bound.
    """

    def __init__(self, stream: StreamConfig, log: str | Path) -> None:
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._failure: CytoloopError | None = None
        self.status = EngineStatus(stream.address)
        self._thread = threading.Thread(target=self._work, args=(stream, Path(log)), name="cytoloop engine")
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    @property
    def address(self) -> str:
        """Where it listens, the port resolved."""
        return self.status.address

    def _work(self, stream: StreamConfig, log: Path) -> None:
        try:
            engine = Engine(stream, log, self._keep)
        except CytoloopError as error:
            self._failure = error
            return self._ready.set()
        self.status = engine.status
        self._ready.set()
        try:
            while not self._stop.is_set():
                engine.turn(_TURN_S)
        finally:
            engine.close()
        return None

    def _keep(self, status: EngineStatus) -> None:
        self.status = status

    def close(self) -> None:
        """End the engine; what it has acknowledged is in the journal."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> EngineThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
