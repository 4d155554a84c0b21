"""Frames from TIFF: a stack, an OME-TIFF (also one in several files), or a folder of single images."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import SourceError
from ..frame import Frame, Pixels
from .ome_tiff import is_ome, plan_ome
from .recording import Recording, at_frame, check_image, check_interval, stack_channels
from .tiff_layout import PageRef, Plan, PlannedFrame, plan_stack
from .tiff_pages import Page, TiffPages

_MOST_OPEN_FILES = 64


class TiffSource(Recording):
    """Frames of a TIFF recording; channels of one time point and z are one (c, y, x) frame.

    Parameters
    ----------
    path
        A file, whose axes come from OME-XML, ImageJ or tifffile metadata (else every page is a time point), or a
        folder of single images, which are taken as a time series in natural order (``t2`` before ``t10``).
    interval_s
        Time between time points in s, where the metadata give none.

    Raises
    ------
    SourceError
        If the recording is empty, truncated, contradicts its metadata, or is not gray uint8 or uint16.
    """

    def __init__(self, path: str | Path, *, interval_s: float = 1.0) -> None:
        path = Path(path)
        check_interval(path, interval_s)
        self._single = path.is_dir()
        self._open: dict[Path, TiffPages] = {}
        try:
            self._plan = _plan_folder(path, interval_s) if self._single else self._plan_file(path, interval_s)
            super().__init__(path, path.resolve().name, len(self._plan.frames))
            self._refuse_damage()
            if not self._plan.frames:
                raise SourceError(path, "the file holds no image")
            with at_frame(path, 0):
                self._check_pages(self._plan.frames[0])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files; may be called again."""
        for pages in self._open.values():
            pages.close()
        self._open = {}

    def _plan_file(self, path: Path, interval_s: float) -> Plan:
        pages = self._pages(path)
        if not len(pages):
            raise SourceError(path, pages.damage, 0)
        description = pages.description()
        if is_ome(description):
            return plan_ome(pages, description, interval_s)
        return plan_stack(pages, interval_s)

    def _refuse_damage(self) -> None:
        """Refuse a recording that ends early, naming the first frame that is not whole."""
        if not self._plan.damage:
            return
        for index, frame in enumerate(self._plan.frames):
            with at_frame(self.path, index):
                self._check_pages(frame)
        raise SourceError(self.path, self._plan.damage, len(self._plan.frames))

    def _pages(self, file: Path) -> TiffPages:
        """Return a file of the recording, open; a few stay open, because a set is read file by file in turn."""
        if file not in self._open:
            if len(self._open) >= _MOST_OPEN_FILES:
                self._open.pop(next(iter(self._open))).close()
            self._open[file] = TiffPages(file)
        return self._open[file]

    def _header(self, ref: PageRef) -> tuple[TiffPages, Page]:
        pages = self._pages(ref.file)
        if ref.page >= len(pages) or (self._single and pages.damage):
            raise SourceError(ref.file, pages.damage or f"page {ref.page} is missing")
        if self._single and len(pages) > 1:
            raise SourceError(
                ref.file,
                f"holds {len(pages)} images; in a folder each file is one image. To replay it, give the file",
            )
        return pages, pages.page(ref.page)

    def _check_pages(self, frame: PlannedFrame) -> None:
        """Refuse a frame whose channels differ, or differ from what the metadata state; read no pixels."""
        headers = [self._header(ref)[1] for ref in frame.pages]
        for header in headers:
            stated = self._plan.shape or headers[0].shape
            if header.shape != stated or header.dtype != headers[0].dtype:
                raise SourceError(
                    self.path, f"a page of {header.shape} px {header.dtype}, {stated} px are stated"
                )
        check_image(self.path, headers[0].dtype.name, (len(headers), *headers[0].shape))

    def _read(self, index: int) -> Frame:
        planned = self._plan.frames[index]
        self._check_pages(planned)
        return Frame(
            stack_channels([self._read_plane(ref) for ref in planned.pages]),
            index,
            planned.time_s,
            planned.axes,
            self._plan.channels,
            planned.stage_um,
            planned.z_um,
            planned.exposure_ms,
            self._plan.pixel_size_um,
        )

    def _read_plane(self, ref: PageRef) -> Pixels:
        pages, header = self._header(ref)
        return pages.read(header, ref.plane)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts numbers inside names by value: ``t2`` before ``t10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name.lower())]


def _plan_folder(folder: Path, interval_s: float) -> Plan:
    try:
        files = [entry for entry in folder.iterdir() if entry.suffix.lower() in (".tif", ".tiff")]
    except OSError as error:
        raise SourceError(folder, f"cannot be listed: {error.strerror or error}") from error
    if not files:
        raise SourceError(folder, "no .tif or .tiff file is in this folder")
    files.sort(key=lambda file: (natural_key(file.name), file.name))
    frames = [
        PlannedFrame((PageRef(file, 0),), {"time": index}, index * interval_s)
        for index, file in enumerate(files)
    ]
    with at_frame(folder, 0):
        pages = TiffPages(files[0])
    try:
        size_um = pages.pixel_size_um() if len(pages) else None
    finally:
        pages.close()
    return Plan(frames, pixel_size_um=size_um)
