"""The pages of one TIFF file as gray images, checked before any pixel is allocated.

Decoding is strict: a strip or tile that is missing, short or decodes to too little is refused. tifffile's decoders
are used for the compressions that need them.

Source of the format: TIFF 6.0 (Adobe, 1992); predictor of TIFF Technical Note 1.
"""

from __future__ import annotations

import math
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from ..frame import Pixels
from .recording import check_image
from .tiff_directory import Directory, TiffDirectories

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _DESCRIPTION = 256, 257, 258, 259, 262, 270
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS = 273, 277, 278, 279
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _PREDICTOR = 282, 283, 296, 317
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _SAMPLE_FORMAT = 322, 323, 324, 325, 339
_CENTIMETRE = 3

_NONE, _PACKBITS = 1, 32773
_COMPRESSIONS = {
    _NONE: "none",
    5: "LZW",
    8: "deflate",
    32946: "deflate",
    _PACKBITS: "PackBits",
    50000: "Zstandard",
}
_COLOURS = {2: "RGB", 3: "palette colour", 5: "CMYK", 6: "YCbCr colour", 8: "CIELab colour"}
_KINDS = {1: "uint", 2: "int", 3: "float", 4: "uint"}


@dataclass(frozen=True, slots=True)
class Page:
    """Header of one page: a gray image that this module can read.

    Attributes
    ----------
    shape
        (y, x) in px.
    dtype
        Pixel type as stored, with its byte order.
    segment
        (rows, columns) of a strip or tile in px.
    offsets, counts
        Place and length in bytes of each strip or tile.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    compression: int
    predictor: int
    tiled: bool
    segment: tuple[int, int]
    offsets: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the decoded image in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        """Whether the pixels lie in one uncompressed run, which may go on with further images."""
        ends = [offset + count for offset, count in zip(self.offsets, self.counts, strict=True)]
        return self.compression == _NONE and not self.tiled and ends[:-1] == list(self.offsets[1:])

    def rows(self, segment: int) -> int:
        """Return the rows stored in a strip or tile: tiles have their full height, the last strip has not."""
        if self.tiled:
            return self.segment[0]
        return min(self.segment[0], self.shape[0] - segment * self.segment[0])


class TiffPages(TiffDirectories):
    """An open TIFF file: how many pages it has, and each page's header and pixels."""

    def page(self, index: int) -> Page:
        """Return the checked header of one page.

        Raises
        ------
        SourceError
            When the page is colour, float or too large, or its pixels are not all in the file.
        """
        tags = self[index]
        shape = tags.number(_LENGTH), tags.number(_WIDTH)
        dtype = self._pixel_type(tags)
        check_image(self.path, dtype.name, shape)
        compression, predictor = tags.number(_COMPRESSION, _NONE), tags.number(_PREDICTOR, 1)
        if compression not in _COMPRESSIONS:
            allowed = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
            raise SourceError(
                self.path, f"TIFF compression {compression} is not supported; allowed: {allowed}"
            )
        if predictor not in (1, 2) or (predictor == 2 and compression in (_NONE, _PACKBITS)):
            name = _COMPRESSIONS[compression]
            raise SourceError(
                self.path, f"TIFF predictor {predictor} with compression {name} is not supported"
            )
        tiled = _TILE_OFFSETS in tags
        if tiled:
            segment = tags.number(_TILE_LENGTH), tags.number(_TILE_WIDTH)
        else:
            segment = min(tags.number(_ROWS_PER_STRIP, shape[0]), shape[0]), shape[1]
        check_image(self.path, dtype.name, segment)
        offsets = tags.numbers(_TILE_OFFSETS if tiled else _STRIP_OFFSETS)
        counts = tags.numbers(_TILE_COUNTS if tiled else _STRIP_COUNTS)
        page = Page(shape, dtype, compression, predictor, tiled, segment, offsets, counts)
        self._check_extent(page)
        return page

    def pixels(self, page: Page, image: int = 0) -> Pixels:
        """Return the pixels of a page as (y, x), in native byte order.

        Parameters
        ----------
        image
            Which image of the contiguous run that one page may stand for (large ImageJ files).

        Raises
        ------
        SourceError
            When bytes are missing or do not decode to the stated size.
        """
        if page.compression == _NONE and not page.tiled:
            return self._read_strips(page, image * page.nbytes)
        return self._decode_segments(page)

    def pixel_offset(self, index: int) -> int:
        """Return the byte at which the pixels of a page begin."""
        return self[index].number(_STRIP_OFFSETS)

    def images_in_run(self) -> int:
        """Return how many images fit where the first page's pixels begin, if these are one uncompressed run."""
        page = self.page(0)
        return (self.size - page.offsets[0]) // page.nbytes if page.contiguous else 1

    def pixel_size_um(self) -> float | None:
        """Return the edge of a pixel in um from the resolution tags, or None.

        Only pixels per centimetre count, and only if they mean 1 nm to 100 um: pixels per inch are what image
        programs write for a printer, and 1/1 is what libraries write for "unknown".
        """
        tags = self[0]
        across, down = tags.ratio(_X_RESOLUTION), tags.ratio(_Y_RESOLUTION)
        if (
            tags.number(_RESOLUTION_UNIT, 0) != _CENTIMETRE
            or not across
            or not math.isclose(across, down, rel_tol=0.01)
        ):
            return None
        edge_um = 1e4 / across
        return edge_um if 1e-3 <= edge_um <= 100 else None

    def pixels_per_unit(self) -> float:
        """Return the horizontal resolution in px per unit (ImageJ names the unit elsewhere); 0 if not given."""
        return self[0].ratio(_X_RESOLUTION)

    def description(self) -> str:
        """Return the text of the first page's ImageDescription, or ``""``."""
        return self[0].text(_DESCRIPTION)

    def _pixel_type(self, tags: Directory) -> np.dtype[Any]:
        photometric, samples = tags.number(_PHOTOMETRIC, 1), tags.number(_SAMPLES, 1)
        if photometric > 1 or samples != 1:
            colour = _COLOURS.get(photometric, f"an image of {samples} samples per pixel")
            raise SourceError(
                self.path,
                f"{colour} is not supported; save one gray channel per page"
                " (tifffile takes stacks of 3 or 4 images for colour unless photometric='minisblack')",
            )
        kind, bits = _KINDS.get(tags.number(_SAMPLE_FORMAT, 1), "unknown "), tags.number(_BITS, 1)
        if kind != "uint" or bits not in (8, 16):
            check_image(self.path, f"{kind}{bits}", (1, 1))
        return np.dtype(f"{self.order}u{bits // 8}")

    def _check_extent(self, page: Page) -> None:
        """Refuse a page unless all its strips or tiles lie in the file."""
        down, across = (-(-side // step) for side, step in zip(page.shape, page.segment, strict=True))
        if not len(page.offsets) == len(page.counts) == down * across:
            raise SourceError(
                self.path,
                f"{len(page.offsets)} strips or tiles with {len(page.counts)} lengths; {down * across} are needed",
            )
        for index, (offset, count) in enumerate(zip(page.offsets, page.counts, strict=True)):
            if offset == 0 or count == 0:
                raise SourceError(
                    self.path, f"strip or tile {index} was never written (byte {offset}, length {count})"
                )
            if offset + count > self.size:
                raise SourceError(
                    self.path, f"truncated: its pixels end at byte {offset + count}, the file has {self.size}"
                )
            if page.compression == _NONE and count < page.rows(index) * page.segment[1] * page.dtype.itemsize:
                raise SourceError(self.path, f"strip or tile {index} has {count} bytes, too few for its rows")

    def _read_strips(self, page: Page, skip: int) -> NDArray[Any]:
        stored = np.empty(page.shape, page.dtype)
        for index, offset in enumerate(page.offsets):
            top = index * page.segment[0]
            self.read_into(offset + skip, stored[top : top + page.segment[0]].data.cast("B"))
        if stored.dtype.byteorder == {"little": ">", "big": "<"}[sys.byteorder]:
            return stored.byteswap(inplace=True).view(stored.dtype.newbyteorder("="))
        return stored

    def _decode_segments(self, page: Page) -> NDArray[Any]:
        image = np.empty(page.shape, page.dtype.newbyteorder("="))
        across = -(-page.shape[1] // page.segment[1])
        limit = math.prod(page.segment) * page.dtype.itemsize
        for index, (offset, count) in enumerate(zip(page.offsets, page.counts, strict=True)):
            rows = page.rows(index)
            needed = rows * page.segment[1] * page.dtype.itemsize
            data = _decompress(self.path, page.compression, self.read(offset, count), limit)
            if len(data) < needed:
                raise SourceError(
                    self.path, f"strip or tile {index} decodes to {len(data)} of {needed} bytes"
                )
            block = np.frombuffer(data, page.dtype, needed // page.dtype.itemsize).reshape(
                rows, page.segment[1]
            )
            if page.predictor == 2:
                block = np.cumsum(block, axis=1, dtype=image.dtype)
            top, left = index // across * page.segment[0], index % across * page.segment[1]
            target = image[top : top + rows, left : left + page.segment[1]]
            target[...] = block[: target.shape[0], : target.shape[1]]
        return image


def _decompress(path: Path, compression: int, data: bytes, limit: int) -> bytes:
    """Decode one strip or tile; ``limit`` is the most bytes it may decode to."""
    if compression == _NONE:
        return data
    if _COMPRESSIONS[compression] == "deflate":
        # zlib itself, because it stops at the limit: a small hostile strip may decode to gigabytes.
        try:
            return zlib.decompressobj().decompress(data, limit)
        except zlib.error as error:
            raise SourceError(path, f"deflate data is damaged: {error}") from error
    from tifffile import TIFF

    try:
        return bytes(TIFF.DECOMPRESSORS[compression](data, out=limit))
    except (KeyError, ImportError):
        name = _COMPRESSIONS[compression]
        raise SourceError(
            path, f"compressed with {name}; to read it: python -m pip install imagecodecs"
        ) from None
