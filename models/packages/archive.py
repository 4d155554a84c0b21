"""Packages as one file: unpacking a .zip that others wrote, within bounds."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ...acquire.errors import ModelError
from ..runtimes.cache import cache_folder

MOST_MEMBERS = 1000
MOST_BYTES = 4 << 30
MOST_RATIO = 50
"""How many times larger a member may get; weights hardly shrink, text shrinks to a third or so."""
SMALL_BYTES = 1 << 20
"""Members below this may have any ratio."""
DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml", "model.yaml")


def unpack(path: Path) -> Path:
    """Return a folder with what is in a package; it is in the cache, and made once for each content.

    Raises
    ------
    ModelError
        If the file is no .zip, holds no description, would unpack to too much, or names files outside of itself.
    """
    try:
        with path.open("rb") as file:
            folder = cache_folder() / "packages" / hashlib.file_digest(file, "sha256").hexdigest()[:24]
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive)
            if not _is_whole(folder, archive, members):
                _extract(archive, members, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path}: no .zip that can be unpacked: {error}") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be unpacked: {error.strerror or error}") from error
    return folder


def _members(path: Path, archive: zipfile.ZipFile) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Return the files to unpack by their place below the folder, once all are found harmless."""
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > MOST_MEMBERS:
        raise ModelError(f"{path}: {len(infos)} files; a package has at most {MOST_MEMBERS}")
    total = sum(info.file_size for info in infos)
    if total > MOST_BYTES:
        raise ModelError(f"{path}: unpacks to {total} bytes; {MOST_BYTES} are allowed")
    members: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for info in infos:
        place = PurePosixPath(info.filename.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts or ":" in info.filename or "\0" in info.filename:
            raise ModelError(
                f"{path}: a file in it is called {info.filename!r}, which leads out of the package"
            )
        if info.file_size > SMALL_BYTES and info.file_size > MOST_RATIO * info.compress_size:
            raise ModelError(
                f"{path}: {info.filename!r} unpacks to {info.file_size} bytes from {info.compress_size};"
                f" {MOST_RATIO} times as much is allowed"
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ModelError(f"{path}: {info.filename!r} is packed in a way that only few programs know")
        members[place] = info
    return _without_top(path, members)


def _without_top(
    path: Path, members: dict[PurePosixPath, zipfile.ZipInfo]
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Leave out the one folder that everything may lie in."""
    roots = {place.parent for place in members if place.name in DESCRIPTIONS}
    root = min(roots, key=lambda place: len(place.parts), default=None)
    if root is None or len(root.parts) > 1:
        raise ModelError(f"{path}: no model package: there is no {DESCRIPTIONS[0]} in it")
    return {place.relative_to(root): info for place, info in members.items() if place.is_relative_to(root)}


def _is_whole(folder: Path, archive: zipfile.ZipFile, members: dict[PurePosixPath, zipfile.ZipInfo]) -> bool:
    """Tell whether the folder holds every member as the archive has it."""
    for place, info in members.items():
        try:
            with (folder / place).open("rb") as file:
                checksum, size = 0, 0
                while block := file.read(1 << 20):
                    checksum, size = zlib.crc32(block, checksum), size + len(block)
        except OSError:
            return False
        if (checksum, size) != (info.CRC, info.file_size):
            return False
    return True


def _extract(archive: zipfile.ZipFile, members: dict[PurePosixPath, zipfile.ZipInfo], folder: Path) -> None:
    """Write all members to a new folder, then put it in place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name, suffix=".part"))
    try:
        for place, info in members.items():
            target = new / place
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, target.open("xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        if folder.exists():  # damaged
            shutil.rmtree(folder)
        try:
            new.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
