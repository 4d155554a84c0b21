"""Everything that happened in a run, in one order: a line of JSON each, numbered and with a checksum of its own.

The engine writes a line when it happens, about 10 us each. The journal stays the truth about frames: an engine that
died between the two leaves a frame without its line, and the next one writes it when it takes the run over.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from ...acquire.reply import Reply

EVENTS = "events.jsonl"
Kind: TypeAlias = Literal[
    "opened", "taken over", "frame", "correction", "outcomes", "message", "client", "closed"
]

_CHECK = b',"crc":"%08x"}\n'
_CHECK_BYTES = len(_CHECK % 0)
_LONGEST_LINE = 1 << 20


class Event(msgspec.Struct, frozen=True):
    """One line.

    Attributes
    ----------
    number
        0, 1, ... in the run.
    wall
        When it was written down: date and time, UTC.
    monotonic_s
        The same by the engine's own clock in s, which never jumps; compare it within one engine only.
    kind
        ``opened``, ``taken over`` (by an engine after one that died), ``frame`` (acknowledged), ``correction`` of an
        earlier identity, ``outcomes`` of the microscope, ``message`` (what a person should read: faults too),
        ``client`` (one has come, or come back), ``closed``.
    frame
        Which frame it is about, -1 if none.
    about
        Further figures or words.
    """

    number: int
    wall: str
    monotonic_s: float
    kind: Kind
    frame: int = -1
    about: dict[str, Any] = {}


class EventLog:
    """The events of one run, open for appending; a torn last line of an engine that died is cut off.

    A disk that is full stops neither the run nor what calls this: the line is left out, and ``lost`` counts it.

    Parameters
    ----------
    run
        The run's folder.

    Attributes
    ----------
    next
        Number of the next line.
    last_frame
        The last frame that has a line, -1 if none has.
    lost
        Lines that could not be written.

    Raises
    ------
    OSError
        If the file cannot be opened.
    """

    def __init__(self, run: Path) -> None:
        path = run / EVENTS
        path.touch()
        self.next, self.last_frame, self.lost = 0, -1, 0
        self._end = 0
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._end += len(line)
                event = decode_event(line)
                self.next = self.next + 1 if event is None else event.number + 1
                if event is not None and event.kind == "frame":
                    self.last_frame = event.frame
        self._file = path.open("r+b", buffering=0)
        self._cut()

    def add(self, kind: Kind, frame: int = -1, **about: Any) -> None:
        """Write a line; it survives the death of this process when this returns."""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        line = encode_event(Event(self.next, now, round(time.monotonic(), 6), kind, frame, about))
        self.next += 1
        try:
            if self._file.write(line) != len(line):
                raise OSError("the disk is full")
        except OSError:
            self.lost += 1
            with contextlib.suppress(OSError):
                self._cut()
            return
        self._end += len(line)
        if kind == "frame":
            self.last_frame = frame

    def add_reply(self, reply: Reply) -> None:
        """Write the lines of a frame that was worked on: its corrections, its messages, and the frame itself."""
        number = reply.sequence
        for each in reply.corrections:
            self.add("correction", number, **msgspec.structs.asdict(each))
        for message in reply.messages:
            self.add("message", number, text=message)
        refused = sum(bool(decision.refused) for decision in reply.decisions)
        self.add("frame", number, cells=len(reply.cells), decisions=len(reply.decisions), refused=refused)

    def close(self) -> None:
        """Write to the disk itself and close."""
        with contextlib.suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()

    def _cut(self) -> None:
        self._file.truncate(self._end)
        self._file.seek(self._end)


def encode_event(event: Event) -> bytes:
    """Return the line of an event: its last key is the CRC-32 of all that stands before it."""
    body = msgspec.json.encode(event)[:-1]
    return body + _CHECK % zlib.crc32(body)


def decode_event(line: bytes) -> Event | None:
    """Return the event of a line, or None if the line is torn or was altered."""
    body, check = line[:-_CHECK_BYTES], line[-_CHECK_BYTES:]
    if check != _CHECK % zlib.crc32(body):
        return None
    try:
        return msgspec.json.decode(body + b"}", type=Event)
    except (ValueError, RecursionError):
        return None


def read_events(run: Path) -> Iterator[Event | None]:
    """Yield the events of a run in their order, and None for each line that is torn or was altered.

    Lines that are missing altogether are seen by a gap in the numbers.
    """
    path = run / EVENTS
    if not path.is_file():
        return
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_LINE):
            yield decode_event(line)
