"""The protocol of a source of frames, and the choice of one for a path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from ..errors import SourceError
from ..frame import Frame
from ..plugins import find_class


@runtime_checkable
class Source(Protocol):
    """A stream of frames from a file, a folder or a simulation.

    ``__init__`` opens the recording and reads its metadata, not its pixels; it raises
    :class:`~cytoloop.acquire.errors.SourceError` when the recording as a whole cannot be used.
    ``frames`` is called once, by one thread, and may block while it reads; every frame it yields is
    complete and in order (``sequence`` 0, 1, 2, ...; ``time_s`` never decreasing). A frame that is broken
    raises SourceError with its number; nothing is skipped silently. ``close`` is called once at the end,
    also after an error, and does not raise.
    """

    name: str

    @property
    def count(self) -> int | None:
        """Number of frames that ``frames`` will yield, or None if nobody knows."""
        ...

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order."""
        ...

    def close(self) -> None:
        """Release files and memory."""
        ...


def open_source(path: str | Path, *, interval_s: float = 1.0) -> Source:
    """Open a recording, choosing its kind by what lies at the path.

    Parameters
    ----------
    path
        A file or folder; of a folder with one sequence of the Cell Tracking Challenge, that one.
    interval_s
        Time between time points in s, for recordings that do not say.

    Raises
    ------
    SourceError
        If nothing known is there (the message says what was looked for), or the recording is refused.
    MissingExtraError
        If the kind needs a package that is not installed.
    """
    # Imported here, so that a program which only links to a microscope does not load what reads files.
    path = Path(path)
    if not path.exists():
        raise SourceError(path, "there is no such file or folder")
    if path.is_file():
        if path.suffix.lower() in (".tif", ".tiff"):
            if (path.parent / "NDTiff.index").is_file():
                return _ndtiff(path.parent, interval_s)
            return _tiff(path, interval_s)
        raise SourceError(path, f"not a kind of file that can be replayed. {_KNOWN}")
    if (path / "NDTiff.index").is_file():
        return _ndtiff(path, interval_s)
    if (path / "journal").is_file():
        return find_class("sources", "run")(path, interval_s=interval_s)
    if any((path / name).is_file() for name in ("zarr.json", ".zattrs", ".zgroup", ".zarray")):
        from .zarr import ZarrSource

        return ZarrSource(path, interval_s=interval_s)
    return _folder(path, interval_s)


_KNOWN = """Looked for, in this order:
  ndtiff  a folder with NDTiff.index (pycro-manager, Micro-Manager), or one of its .tif files
  zarr    an OME-Zarr folder, 0.4 (.zattrs) or 0.5 (zarr.json)
  run     the folder of a run (log/STREAM/DATE_RUN) whose frames were recorded
  ctc     a folder of t000.tif, t001.tif, ... (Cell Tracking Challenge)
  tiff    a TIFF stack, an OME-TIFF, or a folder of TIFF files (.tif, .tiff), one image each"""


def _folder(path: Path, interval_s: float) -> Source:
    from .ctc import FRAME_FILE, CtcSource

    try:
        names = [entry.name for entry in path.iterdir()]
    except OSError as error:
        raise SourceError(path, f"cannot be listed: {error.strerror or error}") from error
    images = [name for name in names if name.lower().endswith((".tif", ".tiff"))]
    if images and all(FRAME_FILE.fullmatch(name) for name in images):
        return CtcSource(path, interval_s=interval_s)
    if images:
        return _tiff(path, interval_s)
    inside = sorted(name for name in names if name.isdecimal() and (path / name).is_dir())
    if len(inside) == 1:
        return _folder(path / inside[0], interval_s)
    hint = f"It holds the sequences {', '.join(inside)}: give one of these. " if inside else ""
    if (path / "Full resolution").is_dir():
        hint = "It is a multi-resolution NDTiff: give its folder 'Full resolution'. "
    raise SourceError(path, f"no recording in this folder. {hint}{_KNOWN}")


def _tiff(path: Path, interval_s: float) -> Source:
    from .tiff import TiffSource

    return TiffSource(path, interval_s=interval_s)


def _ndtiff(path: Path, interval_s: float) -> Source:
    from .ndtiff import NdtiffSource

    return NdtiffSource(path, interval_s=interval_s)
