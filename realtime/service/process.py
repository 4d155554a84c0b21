"""The process that an engine lives in: waits warm until it is needed, then serves until told to stop."""

from __future__ import annotations

import gc
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

from msgspec.structs import replace

from ...acquire.errors import AddressError, CytoloopError
from ...models.segmenter import Segmenter
from ..experiment.stream import StreamConfig
from ..pipeline import Pipeline
from .engine import Engine

_TURN_S = 0.05
_FREEZE_EVERY = 100  # frames

Pipe: TypeAlias = "Connection[Any, Any]"


def engine_main(stream: StreamConfig, log: Path, ring: str, pipe: Pipe) -> None:
    """Import and build all that a run needs, wait for the address to serve, then serve.

    The segmenter is loaded here, once, and handed on to the first run: at its start the process may be silent for
    ``stream.start_s``, later for ``stream.hang_s`` only.

    The supervisor sends the address once (a standby waits for it) with the time in s for which to try to get
    it, and closes the pipe to end the process. Sent back are an :class:`~.engine.EngineStatus` about four
    times a second, or the text of the error that made serving impossible. ``ring`` names the memory between engine and
    recorder, ``""`` if nothing is recorded.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the supervisor, which ends its engines
    try:
        segmenter: Segmenter = stream.segmenter.build("segmenters")
        Pipeline(stream, segmenter)  # warm: imports, compiled kernels; and what cannot be built fails now
        pipe.send(None)
        address, patience_s = pipe.recv()
        engine = _bind(replace(stream, address=address), log, ring, pipe, patience_s, segmenter)
    except (EOFError, ConnectionError):
        return
    except CytoloopError as error:
        pipe.send(str(error))
        return
    try:
        _serve(engine, pipe)
    finally:
        engine.close()


def _bind(
    stream: StreamConfig, log: Path, ring: str, pipe: Pipe, patience_s: float, segmenter: Segmenter
) -> Engine:
    """Listen; the address of an engine that was just killed may take a moment to become free."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return Engine(stream, log, lambda status: pipe.send(status), segmenter, ring)
        except AddressError:
            if time.monotonic() > deadline or pipe.poll():  # closed: nobody wants it any more
                raise
            time.sleep(0.02)


def _serve(engine: Engine, pipe: Pipe) -> None:
    frozen = 0
    try:
        pipe.send(engine.status)
        while not pipe.poll():
            engine.turn(_TURN_S)
            if engine.status.processed - frozen >= _FREEZE_EVERY:
                # Otherwise a full collection walks all tracks that live on: pauses of up to 57 ms.
                frozen = engine.status.processed
                gc.freeze()
    except (EOFError, ConnectionError):
        return
