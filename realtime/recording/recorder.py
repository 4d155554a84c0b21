"""The recorder: takes what the engine has put into the ring, and writes it; a process of its own.

Nothing here is ever waited for by the engine. A record leaves the ring only when it has been written, so that a
recorder that dies is followed by one that goes on with the same record.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import OrderedDict, deque
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from ...acquire.errors import CytoloopError, LinkError
from .layout import CodecName
from .records import CLOSE, FRAME, MASK, about_of, frame_in, mask_in, without_pixels
from .ring import Record, RecordRing
from .room import Room
from .run_writer import RunWriter
from .table_keeper import TableKeeper

Pipe: TypeAlias = "Connection[Any, Any]"

_IDLE_S = 0.002
_REPORT_S = 0.25
_SYNC_S = 1.0
_RETRY_S = 0.5
_MOST_OPEN = 4


class RecorderStatus(msgspec.Struct):
    """What a recorder tells its supervisor.

    Attributes
    ----------
    frames, masks
        Written so far by this process; those that were there already are not counted.
    share
        How full the ring is, 0 to 1.
    messages
        What a person should read, since the last status.
    """

    frames: int = 0
    masks: int = 0
    share: float = 0.0
    messages: tuple[str, ...] = ()


class Recorder:
    """Writes the records of one ring; called by one thread.

    Parameters
    ----------
    ring
        Where records come from.
    codec
        How pixels are stored.
    """

    def __init__(self, ring: RecordRing, *, codec: CodecName = "raw") -> None:
        self.status = RecorderStatus()
        self._ring = ring
        self._codec: CodecName = codec
        self._runs: OrderedDict[str, RunWriter] = OrderedDict()
        self._tables = TableKeeper()
        self._room: Room | None = None
        self._messages: deque[str] = deque(maxlen=100)
        self._synced_s = time.monotonic()
        self._failing = ""

    def turn(self) -> bool:
        """Write one record; return whether there was one and it was written."""
        try:
            record = self._ring.next()
        except LinkError as error:
            self._messages.append(f"{error}; what waited to be recorded is lost")
            self._ring.clear()
            return False
        if record is None:
            self._tables.turn(idle=True)
            self._sync()
            return False
        size = record.payload.nbytes
        try:
            self._write(record)
        except OSError as error:  # a full disk: nothing leaves the ring until there is room
            self._fail(f"nothing can be recorded: {error}")
            return False
        except CytoloopError as error:
            self._messages.append(f"frame {record.number} is not recorded: {error}")
        finally:
            record.payload.release()
        self._ring.taken()
        if self._room is not None and (warning := self._room.look(size)):
            self._messages.append(warning)
        if self._failing:
            self._messages.append("recording goes on")
            self._failing = ""
        self._tables.turn()
        self._sync()
        return True

    def report(self) -> RecorderStatus:
        """Return the status, with what was said since the last one."""
        self.status.share = self._ring.share
        self.status.messages = (*self._messages, *self._tables.messages)
        self._messages.clear()
        self._tables.messages.clear()
        return self.status

    def close(self) -> None:
        """Close all files; what is in the ring stays there."""
        for run in self._runs.values():
            with contextlib.suppress(OSError):
                run.close()
        self._runs.clear()
        self._tables.close()

    def _write(self, record: Record) -> None:
        about, pixels = about_of(record.payload)
        try:
            if record.kind == CLOSE:
                run = self._runs.pop(about.folder, None)
                self._tables.end(about.folder)
                if run is not None:
                    run.close()
                return
            run = self._run(about.folder)
            if record.kind == FRAME:
                self.status.frames += run.add_frame(frame_in(about, pixels))
            elif record.kind == MASK and about.header is not None:
                self.status.masks += run.add_mask(without_pixels(about.header), mask_in(about, pixels))
        finally:
            pixels.release()

    def _run(self, folder: str) -> RunWriter:
        run = self._runs.pop(folder, None)
        if run is None:
            while len(self._runs) >= _MOST_OPEN:
                oldest, closed = self._runs.popitem(last=False)
                self._tables.end(oldest)
                closed.close()
            self._tables.begin(folder)
            self._room = Room(Path(folder))
            run = RunWriter(Path(folder), codec=self._codec, labels=True)
        self._runs[folder] = run
        return run

    def _sync(self) -> None:
        now = time.monotonic()
        if now - self._synced_s < _SYNC_S:
            return
        self._synced_s = now
        for run in self._runs.values():
            try:
                run.sync()
            except OSError as error:
                self._fail(f"what was recorded may not be on the disk: {error}")

    def _fail(self, message: str) -> None:
        if message != self._failing:
            self._failing = message
            self._messages.append(message)
        time.sleep(_RETRY_S)


def recorder_main(ring: str, codec: CodecName, pipe: Pipe) -> None:
    """Record until the pipe is closed and the ring is empty; the supervisor calls it in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the supervisor, which ends its recorders
    try:
        source = RecordRing.attach(ring)
    except LinkError as error:
        with contextlib.suppress(OSError):
            pipe.send(RecorderStatus(messages=(str(error),)))
        return
    recorder = Recorder(source, codec=codec)
    reported_s, ending = 0.0, False
    while True:
        busy = recorder.turn()
        now = time.monotonic()
        try:
            ending = ending or pipe.poll()
            if now - reported_s > _REPORT_S and not ending:
                reported_s = now
                pipe.send(recorder.report())
        except (EOFError, OSError):
            ending = True
        if not busy:
            if ending:
                break
            time.sleep(_IDLE_S)
    recorder.close()
    source.close()
