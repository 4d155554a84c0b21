"""What a run's folder says of the stream that made it, so that the run can be worked out again from its journal."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import msgspec

from ...acquire.errors import SourceError
from ..experiment.stream import StreamConfig

_FILE = "stream.json"
_JOURNAL = "journal"


def is_run(path: Path) -> bool:
    """Return whether a path is the folder of a run: it holds a journal."""
    return (path / _JOURNAL).is_file()


def check_run(path: Path) -> None:
    """Refuse what is not the folder of a run.

    Raises
    ------
    SourceError
        If it holds no journal.
    """
    if not is_run(path):
        raise SourceError(
            path, "this is not the folder of a run: it holds no journal (log/STREAM/DATE_RUN does)"
        )


def has_stream(run: Path) -> bool:
    """Return whether a run's folder says how the run was made."""
    return (run / _FILE).is_file()


def write_stream(run: Path, stream: StreamConfig) -> str:
    """Write the configuration of a run beside its journal; return its SHA-256.

    A full disk does not stop the run; then it is ``""``.
    """
    new = run / f"{_FILE}.new"
    with contextlib.suppress(OSError, TypeError):  # TypeError: an option of a script that JSON does not know
        content = msgspec.json.format(msgspec.json.encode(stream)) + b"\n"
        new.write_bytes(content)
        new.replace(run / _FILE)
        return hashlib.sha256(content).hexdigest()
    return ""


def read_stream(run: Path) -> StreamConfig:
    """Return the configuration of a run.

    Raises
    ------
    SourceError
        If the folder is that of no run, or says nothing of its configuration (a run of an older version).
    """
    check_run(run)
    path = run / _FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=StreamConfig)
    except FileNotFoundError:
        raise SourceError(run, f"it holds no {_FILE}, which says how the run was made") from None
    except (OSError, ValueError) as error:
        raise SourceError(path, f"cannot be read: {error}") from None
