"""A disk that is full when it shall be: a small tmpfs where one can be mounted, else a limit on what may be written."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

_BLOCK = bytes(1 << 20)
_BALLAST = "ballast"
TMPFS, LIMIT = "tmpfs", "RLIMIT_FSIZE of the recorder"


class SmallDisk:
    """A folder whose disk can be filled and given room again.

    Parameters
    ----------
    folder
        On the small disk.
    how
        ``"tmpfs"``: the disk itself is filled, for all that write there. Else the recorder alone is kept from making
        any file longer, by the limit that the system sets to the size of files.
    """

    def __init__(self, folder: Path, how: str) -> None:
        self.how = how
        self._folder = folder
        self._limited = 0

    def fill(self, recorder: int) -> None:
        """Leave no room; ``recorder`` is the process id of the one that writes frames."""
        if self.how != TMPFS:
            self._limited = recorder
            _limit(recorder, full=True)
            return
        with (self._folder / _BALLAST).open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(_BLOCK) == len(_BLOCK):  # the last one fits in part
                pass

    def free(self) -> None:
        """Give the room back."""
        if self._limited:
            with contextlib.suppress(ProcessLookupError):  # it has been replaced, by one without the limit
                _limit(self._limited, full=False)
            self._limited = 0
        (self._folder / _BALLAST).unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Generator[SmallDisk | None]:
    """Give a folder a small disk of its own until the end; None where the system has no way to that.

    Parameters
    ----------
    folder
        Made; what is in it is gone afterwards.
    size_bytes
        Of the disk.
    """
    folder.mkdir(parents=True)
    if not sys.platform.startswith("linux"):
        yield None
    elif not _mounted(folder, size_bytes):
        yield SmallDisk(folder, LIMIT)
    else:
        try:
            yield SmallDisk(folder, TMPFS)
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def _mounted(folder: Path, size_bytes: int) -> bool:
    """Try to mount a tmpfs; only root may."""
    if shutil.which("mount") is None or shutil.which("umount") is None:
        return False
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "cytoloop", str(folder)],
        check=False,
        capture_output=True,
    )
    return made.returncode == 0


def _limit(process: int, *, full: bool) -> None:
    """Keep a process of ours from writing to files, or let it again; it sees that as an error of each write."""
    import resource

    if sys.platform.startswith("linux"):
        _, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (0 if full else hard, hard))
