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
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import SourceError
from ...acquire.frame import Frame
from ...acquire.link.messages import FrameHeader, frame_with, header_of
from ...acquire.reply import Reply, decode_array, encode_array
from ...models.detections import Compartments, Detections

Columns: TypeAlias = tuple[tuple[str, str, int], ...]

_RECORD = struct.Struct("<II")
_LARGEST_RECORD = 1 << 28
_MAGIC = b"cytoloop journal 1\n"

# Name, type and width of each column of Detections; 0 is the number of channels. Those of the second list belong
# to its compartments; the third is there if the segmenter says it.
_COLUMNS = (
    ("yx", "f8", 2),
    ("area", "f8", 1),
    ("bbox", "i4", 4),
    ("mean", "f8", 0),
    ("maximum", "f8", 0),
    ("moments", "f8", 3),
)
_PARTS = (
    ("nuclei", "i4", 1),
    ("nuclear_area", "f8", 1),
    ("cytoplasm_area", "f8", 1),
    ("nuclear_mean", "f8", 0),
    ("cytoplasm_mean", "f8", 0),
)
_CONFIDENCE = (("confidence", "f4", 1),)


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
        """
        columns = None
        if detections is not None:
            columns = _bytes_of(detections, _COLUMNS)
            if detections.compartments is not None:
                columns |= _bytes_of(detections.compartments, _PARTS)
            if detections.confidence is not None:
                columns |= _bytes_of(detections, _CONFIDENCE)
            if detections.novelty is not None:
                columns["novelty"] = struct.pack("<d", detections.novelty)
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
        if self.detections is None:
            return None
        header, channels = self.segmented, len(self.segmented.channels)
        parts = confidence = novelty = None
        if "nuclei" in self.detections:
            parts = Compartments(**_arrays_of(self.detections, _PARTS, channels))
        if "confidence" in self.detections:
            confidence = _arrays_of(self.detections, _CONFIDENCE, channels)["confidence"]
        if "novelty" in self.detections:
            (novelty,) = struct.unpack("<d", self.detections["novelty"])
        return Detections(
            sequence=header.sequence,
            time_s=header.time_s,
            shape=(header.shape[-2], header.shape[-1]),
            stage_um=header.stage_um,
            pixel_size_um=header.pixel_size_um,
            channels=header.channels,
            compartments=parts,
            confidence=confidence,
            novelty=novelty,
            **_arrays_of(self.detections, _COLUMNS, channels),
        )


def _bytes_of(table: Detections | Compartments, columns: Columns) -> dict[str, bytes]:
    return {name: np.ascontiguousarray(getattr(table, name), dtype).tobytes() for name, dtype, _ in columns}


def _arrays_of(stored: dict[str, bytes], columns: Columns, channels: int) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for name, dtype, width in columns:
        array: NDArray[Any] = np.frombuffer(stored[name], dtype)
        arrays[name] = array if width == 1 else array.reshape(-1, width or channels)
    return arrays


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
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise SourceError(path, "this is not a cytoloop journal (version 1)")
    yield from (entry for entry, _ in _read(path, len(_MAGIC)))


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
