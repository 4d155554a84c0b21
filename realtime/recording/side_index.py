"""The side index: which planes are really there, one line of JSON each, in the order in which they came.

An array of Zarr gives zeros for a plane that is absent; this file tells. Each line also holds what Zarr has no place
for: sequence, time, stage, exposure and a checksum. A line is written after its plane; a torn last one is cut.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence, Set
from io import FileIO
from pathlib import Path

import msgspec

from .files import read_at, remove_part, replace_file, sync_file, write_at
from .layout import Place

_KEPT_PLACES = 4096
_MARK_DIGITS = 20
_BLOCK_BYTES = 1 << 16


class Plane(msgspec.Struct, frozen=True):
    """One line.

    Attributes
    ----------
    sequence
        Place of its frame in the stream.
    position, t, c, z
        Place in the recording, see :class:`~cytoloop.realtime.recording.layout.Place`.
    time_s
        Acquisition time in s since the start of the run.
    stage_um
        (x, y) of the stage in um, or None.
    z_um
        Focus position in um, or None.
    exposure_ms
        Exposure in ms, or None.
    xxh3
        xxh3 64-bit checksum of the (y, x) pixels, little-endian, as 16 hexadecimal digits.
    offset, bytes
        Where its chunk lies in its shard, and its length there, in bytes.
    """

    sequence: int
    position: int
    t: int
    c: int
    z: int
    time_s: float
    stage_um: tuple[float, float] | None
    z_um: float | None
    exposure_ms: float | None
    xxh3: str
    offset: int
    bytes: int

    @property
    def place(self) -> Place:
        """Where it lies."""
        return Place(self.position, self.t, self.c, self.z)


def read_planes(path: Path) -> Iterator[Plane]:
    """Yield the planes of a side index, also of one that is being written.

    Lines that are torn or damaged are left out.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    for plane, _ in _lines(path):
        if plane is not None:
            yield plane


class SideIndex:
    """A side index, open for appending; made if it does not exist. A torn last line is cut off.

    Parameters
    ----------
    path
        The file; beside it, ``PATH.synced`` tells how much of it, and of the planes in it, is on the disk itself.

    Raises
    ------
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        remove_part(path)
        mark = path.with_name(path.name + ".synced")
        self._mark = FileIO(mark, "r+b" if mark.exists() else "w+b")
        self._encoder = msgspec.json.Encoder()
        self._recent: dict[Place, Plane] = {}
        self._open()

    def _open(self) -> None:
        self._file = FileIO(self.path, "r+b" if self.path.exists() else "w+b")
        self._end = _end_of_last_line(self._file)
        self._file.truncate(self._end)

    def lines(self) -> Iterator[tuple[Plane | None, int]]:
        """Yield each plane, or None for a damaged line, and where its line ends in bytes."""
        return _lines(self.path)

    def planes(self) -> Iterator[Plane]:
        """Yield the planes."""
        return read_planes(self.path)

    @property
    def length(self) -> int:
        """How many bytes of whole lines there are."""
        return self._end

    @property
    def synced(self) -> int:
        """How many bytes of this file were on the disk itself, with their planes, when :meth:`sync` last returned."""
        digits = read_at(self._mark, 0, _MARK_DIGITS)
        return int(digits) if digits.isdigit() else 0

    def add(self, planes: Sequence[Plane]) -> None:
        """Write the lines of planes, all or none; they survive the death of this process when this returns.

        Raises
        ------
        OSError
            If they could not be written whole; the file is then as before.
        """
        data = self._encoder.encode_lines(planes)
        try:
            write_at(self._file, data, self._end)
        except BaseException:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise
        self._end += len(data)
        for plane in planes:
            self.remember(plane)

    def remember(self, plane: Plane) -> None:
        """Keep a plane that is in the file at hand for :meth:`find`; the last 4096 are kept."""
        self._recent[plane.place] = plane
        if len(self._recent) > _KEPT_PLACES:
            del self._recent[next(iter(self._recent))]

    def find(self, place: Place) -> Plane | None:
        """Return the plane at a place, or None; one that came long ago is looked for in the whole file."""
        recent = self._recent.get(place)
        return recent or next((plane for plane in read_planes(self.path) if plane.place == place), None)

    def leave_out(self, ends: Set[int]) -> None:
        """Take out the lines that end at the given bytes, in one step.

        Raises
        ------
        OSError
            If it cannot be written; the file is then as before.
        """
        kept = [plane for plane, end in self.lines() if plane is not None and end not in ends]
        write_at(self._mark, b"0" * _MARK_DIGITS, 0)
        self._file.close()
        self._recent.clear()
        try:
            replace_file(self.path, self._encoder.encode_lines(kept))
        finally:
            self._open()

    def sync(self) -> None:
        """Wait until the lines are on the disk itself, and note how many are; their planes must be there already.

        Raises
        ------
        OSError
            If the disk has failed.
        """
        end = self._end
        sync_file(self._file)
        write_at(self._mark, f"{end:0{_MARK_DIGITS}d}".encode(), 0)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._mark.close()


def _end_of_last_line(file: FileIO) -> int:
    """Return where the last whole line ends, in bytes."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        found = read_at(file, start, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _lines(path: Path) -> Iterator[tuple[Plane | None, int]]:
    decoder = msgspec.json.Decoder(Plane)
    end = 0
    with path.open("rb") as file:
        for line in file:
            end += len(line)
            if not line.endswith(b"\n"):
                return
            try:
                yield decoder.decode(line), end
            except (msgspec.DecodeError, UnicodeDecodeError):
                yield None, end
