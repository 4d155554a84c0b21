"""A sequence in the layout of the Cell Tracking Challenge: a folder of t000.tif, t001.tif, ..."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

from ..errors import SourceError
from ..frame import Frame
from .recording import Recording, at_frame, check_interval
from .tiff_pages import TiffPages

FRAME_FILE = re.compile(r"t(\d+)\.tiff?", re.IGNORECASE)


class CtcSource(Recording):
    """Frames of one 2D sequence, such as ``Fluo-N2DH-SIM+/01``; ``axes["time"]`` is the number in the file's name.

    Parameters
    ----------
    path
        Folder with the images.
    interval_s
        Time between frames in s; the layout does not record it.

    Raises
    ------
    SourceError
        If no image is there, a number is missing or twice there, or a file is empty.
    """

    def __init__(self, path: str | Path, *, interval_s: float = 1.0) -> None:
        path = Path(path)
        check_interval(path, interval_s)
        self._files = _numbered_files(path)
        self._interval_s = interval_s
        super().__init__(path, f"{path.resolve().parent.name}/{path.resolve().name}", len(self._files))
        # The last one too: it is what a copy that was cut off leaves damaged.
        for index in sorted({0, self._count - 1}):
            with at_frame(path, index), closing(self._pages(index)) as pages:
                pages.page(0)

    def _pages(self, index: int) -> TiffPages:
        """Open the file of a frame, refused unless it is one whole image; the caller closes it."""
        pages = TiffPages(self._files[index][1])
        if pages.damage or len(pages) > 1:
            pages.close()
            reason = pages.damage or f"holds {len(pages)} images; a 2D sequence has one per file"
            raise SourceError(pages.path, reason)
        return pages

    def _read(self, index: int) -> Frame:
        number = self._files[index][0]
        with closing(self._pages(index)) as pages:
            pixels, size_um = pages.pixels(pages.page(0)), pages.pixel_size_um()
        time_s = (number - self._files[0][0]) * self._interval_s
        return Frame(pixels, index, time_s, {"time": number}, pixel_size_um=size_um)


def _numbered_files(folder: Path) -> list[tuple[int, Path]]:
    """Return (number, file) of a sequence in order, after checking that none is missing, doubled or empty."""
    try:
        entries = [
            (match, entry) for entry in folder.iterdir() if (match := FRAME_FILE.fullmatch(entry.name))
        ]
    except OSError as error:
        raise SourceError(folder, f"cannot be listed: {error.strerror or error}") from error
    files = sorted((int(match[1]), entry) for match, entry in entries)
    if not files:
        raise SourceError(folder, "no image named t000.tif, t001.tif, ... is here")
    for index, (number, file) in enumerate(files):
        expected = files[0][0] + index
        if number < expected:
            raise SourceError(file, f"there are two images with number {number}", index)
        if number > expected:
            missing = f"t{expected:0{len(file.stem) - 1}d}{file.suffix}"
            raise SourceError(folder, f"{missing} is missing; the next one is {file.name}", index)
        if file.stat().st_size == 0:
            raise SourceError(file, "the file is empty", index)
    return files
