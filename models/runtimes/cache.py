"""Files that took long to make and can be made again: engines, converted nets, choices.

They lie in the user's cache folder. Each has a header that says what it was made of and for, and a checksum of
everything behind it; a file that was made for something else is left alone, a damaged one is reported.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_KINDS = {
    ".engine": "engine",
    ".kernels": "kernels of an engine",
    ".onnx": "converted net",
    ".json": "choice",
}
_MAGIC = b"CYTOLOOP CACHE 1\n"


class CacheDamagedError(ValueError):
    """A file of the cache that is not as it was written; it can be made again."""


def cache_folder() -> Path:
    """Return where files are kept: ``CYTOLOOP_CACHE`` if set, else where the platform keeps caches."""
    named = os.environ.get("CYTOLOOP_CACHE")
    if named:
        return Path(named)
    home = Path.home()
    if platform.system() == "Windows":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "cytoloop" / "Cache"
    if platform.system() == "Darwin":
        return home / "Library" / "Caches" / "cytoloop"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "cytoloop"


def key_of(made_from: Mapping[str, str]) -> str:
    """Return a short name that changes with everything that a file is made of and for."""
    return hashlib.sha256(_canonical(made_from)).hexdigest()[:24]


def write_cached(path: Path, made_from: Mapping[str, str], payload: bytes) -> None:
    """Write a file so that it is there whole or not at all, whatever happens meanwhile.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    header = _canonical(made_from)
    content = b"%d\n%b%b" % (len(header), header, payload)
    digest = hashlib.sha256(content).hexdigest().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(b"%b%b\n%b" % (_MAGIC, digest, content))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_cached(path: Path, made_from: Mapping[str, str]) -> bytes | None:
    """Return what was written; None if there is nothing, or it was made of or for something else.

    Raises
    ------
    CacheDamagedError
        If the file is not as it was written.
    """
    try:
        written = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CacheDamagedError(f"{path}: cannot be read: {error.strerror or error}") from error
    digest, _, content = written.removeprefix(_MAGIC).partition(b"\n")
    if not written.startswith(_MAGIC) or hashlib.sha256(content).hexdigest().encode() != digest:
        raise CacheDamagedError(f"{path}: its checksum is wrong")
    length, _, rest = content.partition(b"\n")
    header, payload = rest[: int(length)], rest[int(length) :]
    return payload if header == _canonical(made_from) else None


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of the cache: what it is, where, and how large in bytes."""

    kind: str
    path: Path
    size: int


def kept_files() -> list[Kept]:
    """Return what is kept, sorted by kind and name."""
    found = [
        Kept(_KINDS[path.suffix], path, path.stat().st_size)
        for path in cache_folder().glob("*/*")
        if path.suffix in _KINDS
    ]
    return sorted(found, key=lambda kept: (kept.kind, kept.path.name))


def _canonical(made_from: Mapping[str, str]) -> bytes:
    return json.dumps(dict(made_from), sort_keys=True).encode()
