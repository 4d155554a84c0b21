"""How often a frame was begun: the guard against a frame that kills every engine that touches it."""

from __future__ import annotations

import struct
from pathlib import Path

_RECORD = struct.Struct("<QQ")


class Attempts:
    """A note, beside the journal, of the last frame that was begun and how often.

    It is written before the work on a frame and survives the death of the process, so that the next engine
    knows what the one before died of.

    Parameters
    ----------
    path
        The file; made if it does not exist.

    Raises
    ------
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        path.touch()
        self._file = path.open("r+b", buffering=0)
        record = self._file.read(_RECORD.size)
        self._sequence, self._count = _RECORD.unpack(record) if len(record) == _RECORD.size else (0, 0)

    def begin(self, sequence: int) -> int:
        """Note that the work on a frame begins; return how often it has begun, this time included."""
        self._count = self._count + 1 if sequence == self._sequence else 1
        self._sequence = sequence
        self._file.seek(0)
        self._file.write(_RECORD.pack(self._sequence, self._count))
        return self._count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
