"""Writing to files so that a reader, or the next writer, never meets a half-written one."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

PART = ".part"
_REPLACE_TRIES = 50


def write_at(file: FileIO, data: bytes | memoryview, offset: int) -> None:
    """Write all of the data at an offset in bytes; with seek and write where there is no pwrite (Windows).

    Raises
    ------
    OSError
        If it could not be written whole (a full disk); a part of it may then be in the file.
    """
    left = memoryview(data)
    while left:
        if hasattr(os, "pwrite"):
            count = os.pwrite(file.fileno(), left, offset)
        else:
            file.seek(offset)
            count = file.write(left) or 0
        if count == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file.name))
        left, offset = left[count:], offset + count


def read_at(file: FileIO, offset: int, length: int) -> bytes:
    """Return up to ``length`` bytes from an offset in bytes; fewer at the end of the file."""
    file.seek(offset)
    parts: list[bytes] = []
    while length > 0 and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def sync_file(file: FileIO) -> None:
    """Wait until the content of a file is on the disk itself."""
    getattr(os, "fdatasync", os.fsync)(file.fileno())


def sync_folders(folders: Iterable[Path]) -> None:
    """Wait until the names of new files in the folders are on the disk itself (nothing to do on Windows)."""
    if os.name == "nt":
        return
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Put a file in its place in one step: a reader sees the one before or this one, also after a loss of power.

    Raises
    ------
    OSError
        If it could not be written; the one before is then still there.
    """
    part = path.with_name(path.name + PART)
    try:
        with part.open("wb") as file:
            file.write(content)
            if path.exists():
                file.flush()
                os.fsync(file.fileno())
        move(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def remove_part(path: Path) -> None:
    """Remove what a writer left that was killed while it replaced a file."""
    path.with_name(path.name + PART).unlink(missing_ok=True)


def move(part: Path, path: Path) -> None:
    """Rename a file over another; on Windows it is tried again for a while, if a reader has that one open."""
    for attempt in range(_REPLACE_TRIES):
        try:
            part.replace(path)
            return
        except PermissionError:
            if os.name != "nt" or attempt == _REPLACE_TRIES - 1:
                raise
            time.sleep(0.01)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Put a JSON document in its place in one step, unless it is there already; its folder is made if needed.

    Raises
    ------
    OSError
        If it could not be written; the one before is then still there.
    """
    content = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_bytes() != content:
        replace_file(path, content)
    else:
        remove_part(path)
