"""The ring between an engine and its recorder: seconds of records in shared memory, that outlive either of them.

The supervisor owns it. The engine puts records in at its head, the recorder takes them out at its tail; each moves only
its own end, after its work is done, so that a record is there whole or not at all, and is taken again if the recorder
died before it had written it. A disk that is slow for seconds is never felt by the engine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
from collections.abc import Sequence
from multiprocessing.shared_memory import SharedMemory
from typing import NamedTuple, TypeAlias

import numpy as np

from ...acquire.errors import LinkError
from ...acquire.memory import attach_memory

Buffer: TypeAlias = "bytes | bytearray | memoryview"

_MAGIC = b"cyto ring 1\0\0\0\0\0"
_CONTROL = 64
_HEAD, _TAIL = 4, 5  # places of the two ends among the control block's 64-bit words
_RECORD = struct.Struct("<IIQQ")
_MARK, _SKIP = 0x4B415243, 0xFFFFFFFF
_ALIGNMENT = 8


class Record(NamedTuple):
    """One record, in place: valid until :meth:`RecordRing.taken`."""

    kind: int
    number: int
    payload: memoryview


class RecordRing:
    """One ring; made by :meth:`create`, used by others through :meth:`attach`.

    One process puts and one takes; the others only look.
    """

    def __init__(self, memory: SharedMemory, *, owned: bool) -> None:
        self._memory, self._owned = memory, owned
        buffer = memory.buf
        assert buffer is not None
        self._bytes = buffer
        self._words = np.frombuffer(buffer, np.uint64, _CONTROL // 8)
        self.capacity = memory.size - _CONTROL - memory.size % _ALIGNMENT
        self._taking = 0

    @staticmethod
    def create(size_bytes: int) -> RecordRing:
        """Make a ring of a size in bytes.

        Raises
        ------
        LinkError
            If the system gives no shared memory of that size.
        """
        name = f"cyrec_{os.getpid()}_{secrets.token_hex(4)}"  # macOS allows 31 characters
        try:
            memory = SharedMemory(name, create=True, size=_CONTROL + size_bytes)
        except OSError as error:
            raise LinkError(f"no shared memory of {size_bytes >> 20} MB for recording: {error}") from None
        ring = RecordRing(memory, owned=True)
        ring._bytes[: len(_MAGIC)] = _MAGIC
        return ring

    @staticmethod
    def attach(name: str) -> RecordRing:
        """Return the ring that another process has made.

        Raises
        ------
        LinkError
            If there is none of this name.
        """
        try:
            memory = attach_memory(name)
        except (OSError, ValueError) as error:
            raise LinkError(f"ring {name!r} is not there: {error}") from None
        ring = RecordRing(memory, owned=False)
        if bytes(ring._bytes[: len(_MAGIC)]) != _MAGIC:
            ring.close()
            raise LinkError(f"{name!r} is no ring of records")
        return ring

    @property
    def name(self) -> str:
        """Under which others attach."""
        return self._memory.name

    @property
    def used(self) -> int:
        """Bytes that wait to be taken."""
        return int(self._words[_HEAD]) - int(self._words[_TAIL])

    @property
    def share(self) -> float:
        """How full it is, 0 to 1."""
        return self.used / self.capacity

    def put(self, kind: int, number: int, parts: Sequence[Buffer]) -> bool:
        """Copy a record in; return False, and change nothing, if it does not fit now.

        Parameters
        ----------
        kind
            0 to 65535.
        number
            The record's own, 0 to 2**64 - 1.
        parts
            Contiguous buffers; the record holds their bytes one after the other.

        Raises
        ------
        LinkError
            If it will never fit.
        """
        lengths = [memoryview(part).nbytes for part in parts]
        length = sum(lengths)
        needed = _padded(_RECORD.size + length)
        if needed > self.capacity // 2:
            raise LinkError(f"a record of {length} bytes in a ring of {self.capacity}; make it larger")
        head = int(self._words[_HEAD])
        place = head % self.capacity
        gap = self.capacity - place if self.capacity - place < needed else 0
        if self.used + gap + needed > self.capacity:
            return False
        if gap:
            if gap >= _RECORD.size:
                _RECORD.pack_into(self._bytes, _CONTROL + place, _MARK, _SKIP, 0, 0)
            place = 0
        start = _CONTROL + place
        _RECORD.pack_into(self._bytes, start, _MARK, kind, number, length)
        at = start + _RECORD.size
        for part, size in zip(parts, lengths, strict=True):
            _copy(self._bytes[at : at + size], part)
            at += size
        self._words[_HEAD] = head + gap + needed
        return True

    def next(self) -> Record | None:
        """Return the record that was put in first and not taken yet, or None.

        Raises
        ------
        LinkError
            If what is there is no record: the memory was damaged.
        """
        tail = int(self._words[_TAIL])
        while tail < int(self._words[_HEAD]):
            place = tail % self.capacity
            left = self.capacity - place
            if left < _RECORD.size:
                tail += left
                continue
            mark, kind, number, length = _RECORD.unpack_from(self._bytes, _CONTROL + place)
            if mark != _MARK or (kind != _SKIP and _RECORD.size + length > left):
                raise LinkError(f"the ring is damaged at byte {place}")
            if kind == _SKIP:
                tail += left
                continue
            start = _CONTROL + place + _RECORD.size
            self._taking = tail + _padded(_RECORD.size + length)
            return Record(kind, number, self._bytes[start : start + length].toreadonly())
        return None

    def taken(self) -> None:
        """Give the room of the record that :meth:`next` returned back."""
        self._words[_TAIL] = self._taking

    def clear(self) -> None:
        """Forget all that waits; for the recorder, when the memory was damaged."""
        self._words[_TAIL] = self._words[_HEAD]

    def close(self) -> None:
        """Let go of it; the owner gives the memory back."""
        del self._words
        self._bytes.release()
        with contextlib.suppress(BufferError):  # someone still looks at a record
            self._memory.close()
        if self._owned:
            with contextlib.suppress(FileNotFoundError):
                self._memory.unlink()


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _copy(target: memoryview, part: Buffer) -> None:
    """Copy bytes; numpy does it without holding the interpreter."""
    source = memoryview(part)
    if source.nbytes:
        np.copyto(np.frombuffer(target, np.uint8), np.frombuffer(source.cast("B"), np.uint8))
