"""One file of chunks with its index at the start: at every moment a reader sees whole chunks only.

A chunk is written first, then the index in place, in one write within one page of memory: a writer that is killed
leaves the index before it or after it, never half of it. Chunks start at multiples of 4096 bytes, so the index has
its page to itself.

Source of the format: Zarr 3, codec ``sharding_indexed`` 1.0; each entry of the index is the offset and the length of
one chunk in bytes, 2^64 - 1 both if it is absent, and the whole is followed by its CRC-32C.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from io import FileIO
from pathlib import Path
from typing import TypeAlias

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import SourceError
from .codec import Buffer
from .files import PART, move, read_at, sync_file, sync_folders, write_at

Index: TypeAlias = "NDArray[np.uint64]"
ABSENT = np.uint64(2**64 - 1)
_PAGE = 4096
_MOST_OPEN = 128


def empty_index(chunks: int) -> Index:
    """Return the index, (chunks, 2) of offset and length in bytes, of a shard without chunks."""
    return np.full((chunks, 2), ABSENT, np.uint64)


def encode_index(index: Index) -> bytes:
    """Return an index as it stands in the file, with its checksum."""
    data = index.astype("<u8", copy=False).tobytes()
    return data + google_crc32c.value(data).to_bytes(4, "little")


def read_index(file: FileIO, chunks: int) -> Index | None:
    """Return the index of an open shard, or None if it is damaged."""
    data = read_at(file, 0, 16 * chunks + 4)
    if len(data) != 16 * chunks + 4 or google_crc32c.value(data[:-4]) != int.from_bytes(data[-4:], "little"):
        return None
    return np.frombuffer(data[:-4], "<u8").astype(np.uint64).reshape(chunks, 2)


def end_of(index: Index) -> int:
    """Return where the last chunk ends, in bytes from the start of the file; at least where the first may begin."""
    present = index[index[:, 0] != ABSENT]
    return max((int(offset) + int(length) for offset, length in present), default=_PAGE)


class Shard:
    """One shard, open for appending; made if it does not exist.

    Parameters
    ----------
    path
        The file.
    chunks
        How many chunks it can hold.

    Raises
    ------
    SourceError
        If its index is damaged.
    OSError
        If it cannot be opened or made.
    """

    def __init__(self, path: Path, chunks: int) -> None:
        self.path = path
        if not path.exists():
            _make(path, encode_index(empty_index(chunks)))
        self._file = FileIO(path, "r+b")
        index = read_index(self._file, chunks)
        if index is None:
            self._file.close()
            raise SourceError(path, "the index of this shard is damaged")
        self._index = index
        self._end = end_of(index)

    def holds(self, number: int) -> bool:
        """Tell whether a chunk is there."""
        return bool(self._index[number, 0] != ABSENT)

    def append(self, number: int, chunk: Buffer) -> int:
        """Write a chunk that is not there yet; return its offset in bytes.

        It survives the death of this process as soon as this returns.

        Raises
        ------
        OSError
            If it could not be written whole; it is then not there, and the file as long as before.
        """
        offset = -(-self._end // _PAGE) * _PAGE
        try:
            write_at(self._file, chunk, offset)
            self._index[number] = offset, len(chunk)
            write_at(self._file, encode_index(self._index), 0)
        except BaseException:
            self._index[number] = ABSENT
            self._restore()
            raise
        self._end = offset + len(chunk)
        return offset

    def drop(self, number: int) -> None:
        """Take a chunk out of the index; its room is used again if it was the last.

        Raises
        ------
        OSError
            If the index cannot be written.
        """
        self._index[number] = ABSENT
        self._end = end_of(self._index)
        write_at(self._file, encode_index(self._index), 0)
        self._file.truncate(self._end)

    def sync(self) -> None:
        """Wait until all is on the disk itself."""
        sync_file(self._file)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _restore(self) -> None:
        with contextlib.suppress(
            OSError
        ):  # what cannot be put back is put right when the folder is opened again
            write_at(self._file, encode_index(self._index), 0)
            self._file.truncate(self._end)


def _make(path: Path, content: bytes) -> None:
    """Make a file with a content, in one step, so that no reader sees it empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    try:
        with FileIO(part, "wb") as file:
            write_at(file, content, 0)
        move(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


class ShardPool:
    """The shards that are open: those used last, at most 128, since there is one for each position, channel and z.

    Parameters
    ----------
    chunks
        How many chunks each can hold.
    """

    def __init__(self, chunks: int) -> None:
        self._chunks = chunks
        self._open: OrderedDict[Path, Shard] = OrderedDict()
        self._unsynced: set[Path] = set()
        self._new_names: set[Path] = set()

    def get(self, path: Path) -> Shard:
        """Return a shard to be written to, opened or made if needed."""
        if path not in self._open:
            if not path.exists():
                self._new_names.update(path.parents[:6])  # t, c, z, y; the folder c; the array
            while len(self._open) >= _MOST_OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[path] = Shard(path, self._chunks)
        self._open.move_to_end(path)
        self._unsynced.add(path)
        return self._open[path]

    def sync(self) -> None:
        """Wait until all that was written is on the disk itself, and close what was not written to since the last time.

        Raises
        ------
        OSError
            If the disk has failed.
        """
        for path in [each for each in self._open if each not in self._unsynced]:
            self._open.pop(path).close()
        for path in list(self._unsynced):
            if path in self._open:
                self._open[path].sync()
            elif path.exists():
                with FileIO(path, "r+b") as file:
                    sync_file(file)
            self._unsynced.discard(path)
        sync_folders(self._new_names)
        self._new_names.clear()

    def close(self) -> None:
        """Close all."""
        while self._open:
            self._open.popitem()[1].close()
