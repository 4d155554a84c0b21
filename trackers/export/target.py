"""Where an export goes: nothing is replaced unasked, and nothing half-written is left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...acquire.errors import ExportError


@contextmanager
def new_output(path: Path, *, force: bool, marker: str | tuple[str, ...] = ()) -> Generator[Path]:
    """Let a file or folder be written under another name beside its own, and give it its name when it is whole.

    Parameters
    ----------
    path
        Its name; folders on the way are made.
    force
        Replace what has this name.
    marker
        For a folder: names of which one is in every folder of this kind, so that ``force`` never takes away a
        folder of another kind. None: it is a file.

    Yields
    ------
    Path
        The name to write to; nothing is there yet.

    Raises
    ------
    ExportError
        If something has the name already, or it cannot be written; nothing is left then, and what was there stays.
    """
    check_output(path, force=force, marker=marker)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        yield temporary
        _put(temporary, path)
    except OSError as error:
        raise ExportError(path, f"cannot be written: {error.strerror or error}", begun=True) from error
    finally:
        with suppress(OSError):
            _remove(temporary)


def check_output(path: Path, *, force: bool, marker: str | tuple[str, ...] = ()) -> None:
    """Refuse a name that is taken; see :func:`new_output`.

    Raises
    ------
    ExportError
        Says what has the name.
    """
    markers = (marker,) if isinstance(marker, str) else marker
    if not path.exists():
        return
    if path.is_dir() != bool(markers):
        needed = "folder" if markers else "file"
        raise ExportError(path, f"is a {'folder' if path.is_dir() else 'file'}; this format is a {needed}")
    if not force:
        raise ExportError(path, "exists already; name another, or replace it with --force")
    if markers and any(path.iterdir()) and not any((path / name).exists() for name in markers):
        raise ExportError(path, f"holds other things (no {' or '.join(markers)}); it is not replaced")


def _put(temporary: Path, path: Path) -> None:
    if not path.is_dir():
        temporary.replace(path)
        return
    # A folder cannot take the place of one that is not empty: the old one steps aside first.
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
