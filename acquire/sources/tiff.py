"""Frames from TIFF: a stack, an OME-TIFF (also one in several files), or a folder of single images."""

from __future__ import annotations

from pathlib import Path

from ..errors import SourceError
from ..frame import Frame
from .ome_tiff import is_ome, plan_ome
from .recording import Recording, at_frame, check_image, check_interval, stack_channels
from .tiff_folder import plan_folder
from .tiff_layout import PageRef, Plan, PlannedFrame, plan_stack
from .tiff_pages import Page, TiffPages

_MOST_OPEN_FILES = 64


class TiffSource(Recording):
    """Frames of a TIFF recording; channels of one time point and z are one (c, y, x) frame.

    Parameters
    ----------
    path
        A file, whose axes come from OME-XML, ImageJ or tifffile metadata (else every page is a time point), or a
        folder of single images (see :mod:`.tiff_folder`).
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
        self._most_open = _MOST_OPEN_FILES
        self._open: dict[Path, TiffPages] = {}
        try:
            self._plan = plan_folder(path, interval_s) if self._single else self._plan_file(path, interval_s)
            super().__init__(path, path.resolve().name, len(self._plan.frames))
            channels = len(self._plan.channels)  # all channels of a frame are open while it is read
            self._most_open = channels if self._single else max(channels, _MOST_OPEN_FILES)
            self._refuse_damage()
            with at_frame(path, 0):
                pages = self._headers(self._plan.frames[0])[0][0]
                self._pixel_size_um = self._plan.pixel_size_um or pages.pixel_size_um()
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
        with at_frame(path, 0):
            if not len(pages):
                raise SourceError(path, pages.damage)
            pages.page(0)
        description = pages.description()
        if is_ome(description):
            return plan_ome(pages, description, interval_s)
        return plan_stack(pages, interval_s)

    def _refuse_damage(self) -> None:
        """Refuse a recording that ends early, naming the first frame that is not whole."""
        frames, damage = self._plan.frames, self._plan.damage
        if frames and not damage:
            try:
                with at_frame(self.path, len(frames) - 1):
                    self._headers(frames[-1])
            except SourceError as error:
                damage = error.reason
        if damage:
            for index, frame in enumerate(frames):
                with at_frame(self.path, index):
                    self._headers(frame)
            raise SourceError(self.path, damage, len(frames))

    def _pages(self, file: Path) -> TiffPages:
        """Return a file, open; those of an OME-TIFF in several files stay open, as they are read in turn."""
        if file not in self._open:
            if len(self._open) >= self._most_open:
                self._open.pop(next(iter(self._open))).close()
            self._open[file] = TiffPages(file)
        return self._open[file]

    def _header(self, ref: PageRef) -> tuple[TiffPages, Page, int]:
        pages = self._pages(ref.file)
        if ref.page >= len(pages) or (self._single and pages.damage):
            raise SourceError(ref.file, pages.damage or f"page {ref.page} is missing")
        if self._single and len(pages) > 1:
            raise SourceError(
                ref.file,
                f"holds {len(pages)} images; in a folder each file is one image. To replay it, give the file",
            )
        return pages, pages.page(ref.page), ref.image

    def _headers(self, frame: PlannedFrame) -> list[tuple[TiffPages, Page, int]]:
        """Return where the channels of a frame are, refused if they differ from each other or from the metadata."""
        headers = [self._header(ref) for ref in frame.pages]
        first = headers[0][1]
        for _, page, _ in headers:
            stated = self._plan.shape or first.shape
            if page.shape != stated or page.dtype != first.dtype:
                raise SourceError(
                    self.path, f"a page of {page.shape} {page.dtype}; stated: {stated} {first.dtype}"
                )
        check_image(self.path, first.dtype.name, (len(headers), *first.shape))
        return headers

    def _read(self, index: int) -> Frame:
        planned = self._plan.frames[index]
        return Frame(
            stack_channels([pages.pixels(page, image) for pages, page, image in self._headers(planned)]),
            index,
            planned.time_s,
            planned.axes,
            self._plan.channels,
            planned.stage_um,
            planned.z_um,
            planned.exposure_ms,
            self._pixel_size_um,
        )
