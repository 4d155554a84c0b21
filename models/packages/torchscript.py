"""What can be told of a TorchScript file without running it.

A TorchScript file is a program. Opening it with torch runs none of Python's own unpickling, but its code runs in
torch's interpreter with the rights of the user: it can use up memory and time, and with the operators that are
refused here it could read and write files. So a file is trusted as a program is; the checks below catch damaged
ones, those that unpack to more than they say, and those that ask for files.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ...acquire.errors import ModelError

LARGEST_BYTES = 4 << 30
MOST_MEMBERS = 20_000
LARGEST_CODE = 16 << 20
NEEDED = ("data.pkl", "constants.pkl", "version")
_TOUCHES_FILES = re.compile(rb"\b(?:torch|ops\.aten)\.(save|load|from_file|hub)\b")


def check_torchscript(path: Path) -> None:
    """Refuse a file that is no whole TorchScript archive.

    Raises
    ------
    ModelError
        Names the file, and what is wrong with it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check(path, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path}: damaged, or no TorchScript file: {error}") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error


def _check(path: Path, archive: zipfile.ZipFile) -> None:
    infos = archive.infolist()
    held = sum(info.file_size for info in infos)
    if len(infos) > MOST_MEMBERS or held > LARGEST_BYTES:
        raise ModelError(
            f"{path}: {len(infos)} parts of {held} bytes; {MOST_MEMBERS} of {LARGEST_BYTES} are allowed"
        )
    tops = {PurePosixPath(info.filename).parts[0] for info in infos if info.filename.strip("/")}
    names = {info.filename for info in infos}
    if len(tops) != 1:
        raise ModelError(f"{path}: no TorchScript file: it has {len(tops)} top folders, not one")
    top = next(iter(tops))
    for name in NEEDED:
        if f"{top}/{name}" not in names:
            raise ModelError(f"{path}: no TorchScript file: it has no {name}")
    code = [
        info for info in infos if info.filename.startswith(f"{top}/code/") and info.filename.endswith(".py")
    ]
    if not code:
        raise ModelError(
            f"{path}: weights without code; export the net with torch.jit.script or torch.jit.trace"
        )
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED and info.file_size > LARGEST_CODE:
            raise ModelError(f"{path}: {info.filename!r} is packed; torch stores its tensors as they are")
    if sum(info.file_size for info in code) > LARGEST_CODE:
        raise ModelError(f"{path}: more than {LARGEST_CODE} bytes of code")
    for info in infos:
        _read(path, archive, info, look=info in code)


def _read(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, *, look: bool) -> None:
    """Read a part to its end, by which its checksum is checked; look for operators that touch files."""
    with archive.open(info) as part:
        if not look:
            while part.read(1 << 20):
                pass
            return
        found = _TOUCHES_FILES.search(part.read())
    if found:
        raise ModelError(f"{path}: {info.filename!r} calls {found.group().decode()}; a net needs no files")
