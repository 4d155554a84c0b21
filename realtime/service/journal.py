"""The journal of a run: one checked record per frame, written before the frame is answered.

From it a new engine takes over where a killed one stopped: the detections restore tracker and rules, the
replies answer a client that did not get them. A record is its length, its CRC-32 and msgpack; a torn end
(the engine died while it wrote) is cut off, which loses nothing that was acknowledged.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ...acquire.errors import SourceError
from ...acquire.frame import Frame
from ...acquire.link.messages import FrameHeader
from ...acquire.link.pixels import frame_with, header_of
from ...acquire.reply import Reply, decode_array, encode_array
from ...models.detections import Detections
from .columns import columns_of, detections_from

_RECORD = struct.Struct("<II")
_LARGEST_RECORD = 1 << 28
_MAGIC = b"cytoloop journal 1\n"


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of one frame: its header, the detections as bytes per column (or None), the reply, and what
    the segmenter knows after it.

    Where the image completed a frame of several channels, ``joined`` is that frame's header: the detections are
    of that frame.
    """

    header: FrameHeader
    detections: dict[str, bytes] | None
    reply: Reply
    joined: FrameHeader | None = None
    memory: dict[str, Any] | None = None

    @staticmethod
    def of(
        header: FrameHeader,
        detections: Detections | None,
        reply: Reply,
        segmented: Frame | None = None,
        memory: dict[str, Any] | None = None,
        *,
        with_mask: bool = False,
    ) -> Entry:
        """Return the entry of a processed frame.

        Parameters
        ----------
        header, detections, reply
            The frame as it came, and what came of it.
        segmented
            The frame that was segmented; None if none was.
        memory
            What the segmenter knows after it.
        with_mask
            Keep the mask as well, because the tracker needs it.
        """
        columns = None if detections is None else columns_of(detections, with_mask=with_mask)
        joined = None
        if segmented is not None and segmented.channels != header.channels:
            joined = header_of(segmented, skipped=0, slot=-1, check=0)
        return Entry(header, columns, reply, joined, memory)

    @property
    def frame(self) -> Frame:
        """The frame as it came, without its pixels (they are zero)."""
        return frame_with(self.header, np.zeros(self.header.shape, self.header.dtype))

    @property
    def segmented(self) -> FrameHeader:
        """Header of the frame that the detections are of."""
        return self.joined or self.header

    def restore_detections(self) -> Detections | None:
        """Return the detections as they were measured."""
        return None if self.detections is None else detections_from(self.detections, self.segmented)


class Journal:
    """The journal file of one run, open for appending.

    Parameters
    ----------
    path
        The file; made if it does not exist. If it does, :meth:`entries` must be read to the end before the
        first :meth:`append`.

    Raises
    ------
    SourceError
        If the file is not a journal.
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        fresh = not path.exists() or path.stat().st_size == 0
        self._file = path.open("ab" if fresh else "r+b", buffering=0)
        if fresh:
            self._file.write(_MAGIC)
        elif self._file.read(len(_MAGIC)) != _MAGIC:
            self._file.close()
            raise SourceError(path, "this is not a cytoloop journal (version 1)")
        self._end = len(_MAGIC)
        self._encoder = msgspec.msgpack.Encoder(enc_hook=encode_array)

    def entries(self) -> Iterator[Entry]:
        """Yield what is there, and cut off a torn or damaged end."""
        for entry, end in _read(self._path, self._end):
            self._end = end
            yield entry
        self._file.truncate(self._end)
        self._file.seek(self._end)

    def append(self, entry: Entry) -> None:
        """Write one entry; it survives the death of this process as soon as this returns.

        Raises
        ------
        OSError
            If it could not be written whole (a full disk); the file then ends with the entry before.
        """
        payload = self._encoder.encode(entry)
        record = _RECORD.pack(len(payload), zlib.crc32(payload)) + payload
        try:
            if self._file.write(record) != len(record):
                raise OSError(f"{self._path}: the disk is full")
        except OSError:
            self._file.truncate(self._end)
            self._file.seek(self._end)
            raise
        self._end += len(record)

    def close(self) -> None:
        """Write to the disk itself and close."""
        try:
            os.fsync(self._file.fileno())
        finally:
            self._file.close()


def read_journal(path: Path) -> Iterator[Entry]:
    """Yield the entries of a finished or running run's journal, up to the first that is torn or damaged.

    Raises
    ------
    SourceError
        If the file is not a journal.
    """
    yield from (entry for entry, _ in follow_journal(path))


def follow_journal(path: Path, start: int = 0) -> Iterator[tuple[Entry, int]]:
    """Yield the entries from a place in a journal on, each with the place where the next one begins, in bytes.

    Parameters
    ----------
    path
        The journal, of a run that goes on too.
    start
        0, or such a place.

    Raises
    ------
    SourceError
        If the file is not a journal.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise SourceError(path, "this is not a cytoloop journal (version 1)")
    yield from _read(path, max(start, len(_MAGIC)))


def left_behind(path: Path, end: int) -> tuple[int, bool]:
    """Return how many bytes stand behind the last whole entry of a journal, and whether they are the torn end of one.

    Parameters
    ----------
    path
        The journal.
    end
        Where the last entry of :func:`follow_journal` ends; 0 if there was none.
    """
    end = max(end, len(_MAGIC))
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(end)
        head = file.read(_RECORD.size)
    torn = len(head) < _RECORD.size or end + _RECORD.size + _RECORD.unpack(head)[0] > size
    return size - end, torn


def _read(path: Path, start: int) -> Iterator[tuple[Entry, int]]:
    decoder = msgspec.msgpack.Decoder(Entry, dec_hook=decode_array)
    with path.open("rb") as file:
        file.seek(start)
        while len(head := file.read(_RECORD.size)) == _RECORD.size:
            length, crc = _RECORD.unpack(head)
            payload = file.read(length) if length <= _LARGEST_RECORD else b""
            if len(payload) != length or zlib.crc32(payload) != crc:
                return
            try:
                entry = decoder.decode(payload)
            except ValueError:
                return
            yield entry, file.tell()
