"""Putting right what a writer left that was killed, or whose computer lost its power.

A plane is there if its line is in the side index and its entry in the index of its shard. The line comes last, so a
killed writer leaves at most one entry without a line; that entry is taken out, to be written again. After a loss of
power more can be amiss: planes since the last sync are compared with their checksums, and a damaged index is made
anew from the lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Protocol

import numpy as np

from ...acquire.errors import SourceError
from .files import PART, read_at, write_at
from .layout import Place
from .shard import ABSENT, Index, empty_index, encode_index, end_of, read_index
from .side_index import Plane, SideIndex


class Known(Protocol):
    """What must be known of the planes of one kind."""

    @property
    def chunks(self) -> int:
        """How many chunks one shard can hold."""
        ...

    def locate(self, place: Place) -> tuple[Path, int]:
        """Return the shard in which a place lies, and the number of its chunk in there."""
        ...

    def allows(self, place: Place) -> bool:
        """Tell whether a place that was read can be one of this recording."""
        ...

    def check_chunk(self, chunk: bytes) -> str:
        """Return the checksum of the pixels in a chunk, or ``""`` if it cannot be decoded."""
        ...


def restore(path: Path, arrays: Sequence[Path], known: Known) -> SideIndex:
    """Open a side index and bring it and the shards into agreement.

    Parameters
    ----------
    path
        The side index; made if it does not exist.
    arrays
        The folders ``c`` of the arrays that it is of.
    known
        Their layout.

    Raises
    ------
    SourceError
        If there are shards but no side index, or one that has lost lines which were on the disk itself: nothing is
        touched then.
    OSError
        If the files cannot be read or written.
    """
    shards = {file for folder in arrays for file in folder.rglob("0") if file.is_file()}
    if shards and not path.exists():
        raise SourceError(path, "is missing: without it nobody can tell which planes are whole; put it back")
    side = SideIndex(path)
    try:
        if side.synced > side.length:
            reason = f"has lost whole lines: {side.length} bytes of the {side.synced} that were on the disk are left"
            raise SourceError(path, f"{reason}; put it back")
        for part in (file for folder in arrays for file in folder.rglob(f"0{PART}")):
            part.unlink()
        _agree(side, shards, known)
    except BaseException:
        side.close()
        raise
    return side


def _agree(side: SideIndex, shards: set[Path], known: Known) -> None:
    wanted = _wanted(side, known)
    for shard in shards - wanted.keys():
        shard.unlink()
    doubtful = {shard for shard, index in wanted.items() if not _agrees(shard, index)}
    gone = _check_planes(side, known, wanted, doubtful)
    for shard, index in wanted.items():
        _put_right(shard, index)
    if gone:
        side.leave_out(gone)
    for plane in side.planes():
        side.remember(plane)


def _wanted(side: SideIndex, known: Known) -> dict[Path, Index]:
    """Return the index of each shard as the lines have it."""
    wanted: dict[Path, Index] = {}
    for plane in side.planes():
        if _is_possible(plane, known):
            shard, number = known.locate(plane.place)
            wanted.setdefault(shard, empty_index(known.chunks))[number] = plane.offset, plane.bytes
    return wanted


def _is_possible(plane: Plane, known: Known) -> bool:
    inside = 16 * known.chunks + 4 <= plane.offset < 2**62 and 0 < plane.bytes < 2**62
    return inside and plane.sequence >= 0 and known.allows(plane.place)


def _agrees(shard: Path, wanted: Index) -> bool:
    """Tell whether a shard has all chunks that are wanted, in full length."""
    if not shard.is_file():
        return False
    with FileIO(shard, "rb") as file:
        index = read_index(file, len(wanted))
        there = wanted[:, 0] != ABSENT
        return (
            index is not None
            and np.array_equal(index[there], wanted[there])
            and end_of(wanted[there]) <= shard.stat().st_size
        )


def _check_planes(side: SideIndex, known: Known, wanted: dict[Path, Index], doubtful: set[Path]) -> set[int]:
    """Take out of ``wanted`` the chunks that are not what their lines say; return where those lines end."""
    gone: set[int] = set()
    synced = side.synced
    for plane, end in side.lines():
        if plane is None or not _is_possible(plane, known):
            gone.add(end)
            continue
        shard, number = known.locate(plane.place)
        latest = tuple(wanted[shard][number]) == (plane.offset, plane.bytes)
        if latest and ((end <= synced and shard not in doubtful) or _is_right(shard, plane, known)):
            continue
        gone.add(end)
        if latest:
            wanted[shard][number] = ABSENT
    return gone


def _is_right(shard: Path, plane: Plane, known: Known) -> bool:
    if not shard.is_file() or plane.offset + plane.bytes > shard.stat().st_size:
        return False
    with FileIO(shard, "rb") as file:
        return known.check_chunk(read_at(file, plane.offset, plane.bytes)) == plane.xxh3


def _put_right(shard: Path, wanted: Index) -> None:
    """Give a shard the index that is wanted, and cut off what comes after its last chunk."""
    if not shard.is_file():
        return
    if (wanted[:, 0] == ABSENT).all():
        shard.unlink()
        return
    with FileIO(shard, "r+b") as file:
        index = read_index(file, len(wanted))
        if index is None or not np.array_equal(index, wanted):
            write_at(file, encode_index(wanted), 0)
        file.truncate(end_of(wanted))
