"""Recordings from elsewhere are data: nothing outside their folder is read; all that is wrong is one kind of error."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ...acquire.errors import SourceError

_WRONG = (
    ValueError,  # also what msgspec, numpy, Unicode and zarr raise
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    OSError,
    struct.error,
    zlib.error,
)


def inside(folder: Path, path: Path) -> Path:
    """Return a path after checking that it does not lead out of a folder, and is no pipe or device.

    Raises
    ------
    SourceError
        If it does: a link has no place in a recording.
    """
    try:
        real = path.resolve()
        if not real.is_relative_to(folder.resolve()):
            raise SourceError(path, "leads out of the recording; a link has no place in one")
        if real.exists() and not (real.is_file() or real.is_dir()):
            raise SourceError(path, "is neither a file nor a folder")
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # a link that leads to itself, a name that is too long
        raise SourceError(path, f"cannot be read: {error}") from error
    return path


@contextmanager
def read_from(path: Path) -> Generator[None]:
    """Turn whatever goes wrong while a file is read into a :class:`~cytoloop.acquire.errors.SourceError`."""
    try:
        yield
    except _WRONG as error:
        raise SourceError(path, f"cannot be read: {type(error).__name__}: {error}") from error
