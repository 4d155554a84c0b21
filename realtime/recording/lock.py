"""A lock on a folder that only one process may write into; the system frees it when its holder dies."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

_NAME = "recording.lock"


class FolderLock:
    """Held from its making until it is closed.

    Parameters
    ----------
    folder
        What is locked; a small file in it stays behind, which means nothing.

    Raises
    ------
    OSError
        If another process holds it, or the file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / _NAME
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(self._file)
        except OSError as error:
            os.close(self._file)
            raise OSError(f"{folder} is written by another process") from error

    def close(self) -> None:
        """Let others in."""
        with contextlib.suppress(OSError):
            os.close(self._file)


def _lock(file: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
