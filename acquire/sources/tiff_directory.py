"""The directories of one TIFF file and their tags, read strictly.

tifffile repairs what it can: it ends a file at the first broken directory and fills missing strips with zeros.
A replay must refuse such a file instead, so directories are read here and every offset is held against the size
of the file.

Source of the format: TIFF 6.0 (Adobe, 1992), BigTIFF (Aware Systems).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from ..errors import SourceError

_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 13: "I", 16: "Q", 18: "Q"}
_MOST_VALUES = 1_000_000
_MOST_TAGS = 4096
_BLOCK = 512


class Directory:
    """The tags of one page; a value that lies elsewhere in the file is read when it is asked for."""

    def __init__(self, file: TiffDirectories, data: bytes, entry: struct.Struct) -> None:
        self._file = file
        self._entries = {tag: (kind, count, value) for tag, kind, count, value in entry.iter_unpack(data)}

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return the whole numbers of a tag; empty if it is absent. A fraction counts as two numbers.

        Raises
        ------
        SourceError
            If they are not in the file, or not numbers.
        """
        if tag not in self._entries:
            return ()
        kind, count, _ = self._entries[tag]
        form = _TYPES.get(kind, "s")
        if form == "s" or count > _MOST_VALUES:
            raise SourceError(
                self._file.path, f"tag {tag} holds {count} values of type {kind}; the file is damaged"
            )
        return struct.unpack(f"{self._file.order}{count * len(form)}{form[0]}", self._data(tag))

    def number(self, tag: int, default: int | None = None) -> int:
        """Return the first number of a tag, or ``default`` if it is absent.

        Raises
        ------
        SourceError
            If it is absent and there is no default.
        """
        values = self.numbers(tag)
        if values:
            return values[0]
        if default is None:
            raise SourceError(self._file.path, f"tag {tag} is missing; the file is damaged")
        return default

    def text(self, tag: int) -> str:
        """Return the text of a tag, or ``""`` if it is absent."""
        if tag not in self._entries:
            return ""
        return self._data(tag).rstrip(b"\0").decode("utf-8", "replace")

    def ratio(self, tag: int) -> float:
        """Return the value of a fraction, or 0 if it is absent or has no value."""
        values = self.numbers(tag)
        return values[0] / values[1] if len(values) > 1 and values[1] else 0.0

    def _data(self, tag: int) -> bytes:
        kind, count, inline = self._entries[tag]
        size = struct.calcsize("=" + _TYPES.get(kind, "s")) * count
        if size <= len(inline):
            return inline[:size]
        return self._file.read(struct.unpack(self._file.order + self._file.word, inline)[0], size)


class TiffDirectories:
    """An open TIFF file as a list of directories.

    Attributes
    ----------
    size
        Of the file, in bytes.
    order, word
        Byte order and width of an offset, as :mod:`struct` writes them.
    damage
        Why the list ends early, or ``""`` when it ends as it should.

    Raises
    ------
    SourceError
        If the file cannot be opened or is not a TIFF file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Unbuffered: a walk over many directories reads a little in many places.
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError:
            raise SourceError(path, "the file is missing or has been removed") from None
        except OSError as error:
            raise SourceError(path, f"cannot be opened: {error.strerror or error}") from error
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            first = self._read_header()
            self._offsets, self.damage = self._walk(first)
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Directory:
        return Directory(self, self._entries(self._offsets[index])[0], self._entry)

    def close(self) -> None:
        """Close the file; may be called again."""
        self._file.close()

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the file; SourceError if they are not all there."""
        self._check_range(offset, size)
        self._file.seek(offset)
        return self._exactly(self._file.read(size), size)

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill ``target``, a flat view of bytes, from the file; SourceError if they are not all there."""
        self._check_range(offset, len(target))
        self._file.seek(offset)
        done = 0
        while done < len(target):
            count = self._file.readinto(target[done:])
            if not count:
                raise SourceError(self.path, "the file was shortened after it was opened")
            done += count

    def _check_range(self, offset: int, size: int) -> None:
        if offset + size > self.size:
            raise SourceError(
                self.path,
                f"truncated: bytes {offset} to {offset + size} are needed, the file has {self.size}",
            )

    def _exactly(self, data: bytes, size: int) -> bytes:
        if len(data) != size:
            raise SourceError(self.path, "the file was shortened after it was opened")
        return data

    def _read_header(self) -> int:
        head = self._file.read(16)
        if not head:
            raise SourceError(self.path, "the file is empty")
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(self.order + "H", head[2:4])[0] if self.order and len(head) >= 4 else 0
        if version not in (42, 43):
            raise SourceError(self.path, f"not a TIFF file (it starts with {head[:4]!r})")
        big = version == 43
        self.word, start = ("Q", 8) if big else ("I", 4)
        self._number = struct.Struct(self.order + ("Q" if big else "H"))
        self._entry = struct.Struct(self.order + ("HHQ8s" if big else "HHI4s"))
        self._link = struct.Struct(self.order + self.word)
        if len(head) < start + self._link.size:
            raise SourceError(self.path, "truncated within the TIFF header")
        return self._link.unpack_from(head, start)[0]

    def _walk(self, offset: int) -> tuple[list[int], str]:
        """Return the offsets of all directories, and why the chain breaks if it does."""
        offsets: dict[int, None] = {}
        while offset:
            if offset in offsets:
                return list(offsets), f"page {len(offsets)} points back to an earlier one"
            try:
                following = self._entries(offset)[1]
            except SourceError as error:
                return list(offsets), f"page {len(offsets)}: {error.reason}"
            offsets[offset] = None
            offset = following
        return list(offsets), "" if offsets else "the file holds no image"

    def _entries(self, offset: int) -> tuple[bytes, int]:
        """Return the entries of the directory at ``offset``, and the offset of the next one."""
        block = self.read(offset, max(self._number.size, min(_BLOCK, self.size - offset)))
        count = self._number.unpack_from(block)[0]
        if not 0 < count <= _MOST_TAGS:
            raise SourceError(self.path, f"a directory of {count} tags; the file is damaged")
        start, end = self._number.size, self._number.size + count * self._entry.size
        if end + self._link.size > len(block):
            block = self.read(offset, end + self._link.size)
        return block[start:end], self._link.unpack_from(block, end)[0]
