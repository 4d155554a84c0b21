"""The pages of one TIFF file, read strictly.

tifffile repairs what it can: it ends a file at the first broken directory and fills missing strips with zeros.
A replay must refuse such a file instead, so directories are read here and every offset is held against the size
of the file before any pixel is allocated. tifffile's decoders are used for the compressions that need them.

Source of the format: TIFF 6.0 (Adobe, 1992), BigTIFF (Aware Systems), TIFF Technical Note 1 (predictor).
"""

from __future__ import annotations

import math
import os
import struct
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from ..frame import Pixels
from .recording import check_image

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _DESCRIPTION = 256, 257, 258, 259, 262, 270
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS = 273, 277, 278, 279
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _PREDICTOR = 282, 283, 296, 317
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _SAMPLE_FORMAT = 322, 323, 324, 325, 339
_USED = frozenset(
    value for name, value in list(globals().items()) if name[0] == "_" and isinstance(value, int)
)

_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 13: "I", 16: "Q", 18: "Q"}
_COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits", 50000: "Zstandard"}
_PHOTOMETRICS = {2: "RGB", 3: "palette colour", 5: "CMYK", 6: "YCbCr (colour)", 8: "CIELab (colour)"}
_MOST_SEGMENTS = 1_000_000

Tags = Mapping[int, tuple[int, ...] | bytes]


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
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        """Whether the pixels lie in one uncompressed run, which may go on with further images."""
        ends = [offset + count for offset, count in zip(self.offsets, self.counts, strict=True)]
        return self.compression == 1 and not self.tiled and ends[:-1] == list(self.offsets[1:])


class TiffPages:
    """An open TIFF file: how many pages it has, and each page's header and pixels.

    Attributes
    ----------
    damage
        Why the list of pages ends early, or ``""`` when it ends as it should.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
        except FileNotFoundError:
            raise SourceError(path, "the file is missing or has been removed") from None
        except OSError as error:
            raise SourceError(path, f"cannot be opened: {error.strerror or error}") from error
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            first = self._read_header()
            self._offsets, self.damage = self._walk(first)
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._offsets)

    def close(self) -> None:
        """Close the file; may be called again."""
        self._file.close()

    def tags(self, page: int) -> Tags:
        """Return the tags of one page that this package uses."""
        return self._directory(self._offsets[page])[0]

    def page(self, index: int) -> Page:
        """Return the checked header of one page.

        Raises
        ------
        SourceError
            When the page is colour, float or too large, or its pixels are not all in the file.
        """
        tags = self.tags(index)
        shape = (_one(self.path, tags, _LENGTH), _one(self.path, tags, _WIDTH))
        dtype = self._pixel_type(tags)
        check_image(self.path, dtype.name, shape)
        compression = _one(self.path, tags, _COMPRESSION, 1)
        if compression not in _COMPRESSIONS:
            allowed = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
            raise SourceError(
                self.path, f"TIFF compression {compression} is not supported; allowed: {allowed}"
            )
        predictor = _one(self.path, tags, _PREDICTOR, 1)
        if predictor not in (1, 2) or (predictor == 2 and compression in (1, 32773)):
            raise SourceError(
                self.path,
                f"TIFF predictor {predictor} with {_COMPRESSIONS[compression]} compression is not supported",
            )
        tiled = _TILE_OFFSETS in tags
        if tiled:
            segment = (_one(self.path, tags, _TILE_LENGTH), _one(self.path, tags, _TILE_WIDTH))
        else:
            segment = (min(_one(self.path, tags, _ROWS_PER_STRIP, shape[0]), shape[0]), shape[1])
        check_image(self.path, dtype.name, segment)
        offsets = _many(self.path, tags, _TILE_OFFSETS if tiled else _STRIP_OFFSETS)
        counts = _many(self.path, tags, _TILE_COUNTS if tiled else _STRIP_COUNTS)
        page = Page(shape, dtype, compression, predictor, tiled, segment, offsets, counts)
        self._check_extent(page)
        return page

    def read(self, page: Page, plane: int = 0) -> Pixels:
        """Return the pixels of a page as (y, x), in native byte order.

        Parameters
        ----------
        plane
            How many images to skip in a contiguous run that one page stands for (large ImageJ files).

        Raises
        ------
        SourceError
            When bytes are missing or do not decode to the stated size.
        """
        if page.compression == 1 and not page.tiled:
            return self._read_strips(page, plane * page.nbytes)
        return self._decode_segments(page)

    def pixel_offset(self, page: int) -> int:
        """Return the byte at which the first strip of a page begins."""
        return _many(self.path, self.tags(page), _STRIP_OFFSETS)[0]

    def images_in_run(self) -> int:
        """Return how many images fit where the first page's pixels begin, if these are one uncompressed run."""
        page = self.page(0)
        return (self.size - page.offsets[0]) // page.nbytes if page.contiguous else 1

    def pixel_size_um(self) -> float | None:
        """Return the edge of a pixel in um from the resolution tags, or None.

        Only pixels per centimetre count, and only if they mean 1 nm to 100 um: pixels per inch are what image
        programs write for a printer, and 1/1 is what libraries write for "unknown".
        """
        tags = self.tags(0)
        size = _resolution(tags, _X_RESOLUTION), _resolution(tags, _Y_RESOLUTION)
        if tags.get(_RESOLUTION_UNIT) != (3,) or 0 in size:
            return None
        edge = 1e4 / size[0]
        return edge if 1e-3 <= edge <= 100 and math.isclose(*size, rel_tol=0.01) else None

    def pixels_per_unit(self) -> float:
        """Return the horizontal resolution in px per unit (ImageJ names the unit elsewhere); 0 if not given."""
        return _resolution(self.tags(0), _X_RESOLUTION)

    def description(self) -> str:
        """Return the text of the first page's ImageDescription, or ``""``."""
        text = self.tags(0).get(_DESCRIPTION, b"")
        return text.rstrip(b"\0").decode("utf-8", "replace") if isinstance(text, bytes) else ""

    def _read_header(self) -> int:
        head = self._file.read(16)
        if not head:
            raise SourceError(self.path, "the file is empty")
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(order + "H", head[2:4])[0] if order and len(head) >= 4 else 0
        if version not in (42, 43):
            raise SourceError(self.path, f"not a TIFF file (it starts with {head[:4]!r})")
        self._order, self._big = order, version == 43
        start, form = (8, "Q") if self._big else (4, "I")
        if len(head) < start + struct.calcsize(form):
            raise SourceError(self.path, "truncated within the TIFF header")
        return struct.unpack_from(order + form, head, start)[0]

    def _walk(self, offset: int) -> tuple[list[int], str]:
        """Return the offsets of all directories, and why the chain breaks if it does."""
        offsets: dict[int, None] = {}
        while offset:
            if offset in offsets:
                return list(offsets), f"page {len(offsets)} points back to an earlier one"
            try:
                following = self._directory(offset)[1]
            except SourceError as error:
                return list(offsets), f"page {len(offsets)}: {error.reason}"
            offsets[offset] = None
            offset = following
        return list(offsets), "" if offsets else "the file holds no image"

    def _directory(self, offset: int) -> tuple[Tags, int]:
        """Return the used tags of the directory at ``offset``, and the offset of the next one."""
        number, entry, link = ("Q", "HHQ8s", "Q") if self._big else ("H", "HHI4s", "I")
        entries = struct.unpack(self._order + number, self._bytes(offset, struct.calcsize("=" + number)))[0]
        if not 0 < entries <= 4096:
            raise SourceError(self.path, f"a directory with {entries} tags; the file is damaged")
        size, start = struct.calcsize("=" + entry), offset + struct.calcsize("=" + number)
        data = self._bytes(start, entries * size + struct.calcsize("=" + link))
        tags: dict[int, tuple[int, ...] | bytes] = {}
        for place in range(0, entries * size, size):
            tag, kind, count, value = struct.unpack_from(self._order + entry, data, place)
            if tag in _USED and kind in _TYPES:
                tags[tag] = self._value(tag, kind, count, value)
        return tags, struct.unpack_from(self._order + link, data, entries * size)[0]

    def _value(self, tag: int, kind: int, count: int, inline: bytes) -> tuple[int, ...] | bytes:
        form = _TYPES[kind]
        size = struct.calcsize("=" + form) * count
        if tag != _DESCRIPTION and count > _MOST_SEGMENTS:
            raise SourceError(self.path, f"tag {tag} holds {count} values; at most {_MOST_SEGMENTS} are read")
        if size > len(inline):
            where = struct.unpack(self._order + ("Q" if self._big else "I"), inline)[0]
            data = self._bytes(where, size)
        else:
            data = inline[:size]
        return data if form == "s" else struct.unpack(f"{self._order}{count * len(form)}{form[0]}", data)

    def _bytes(self, offset: int, size: int) -> bytes:
        if offset < 0 or offset + size > self.size:
            raise SourceError(
                self.path,
                f"truncated: bytes {offset} to {offset + size} are needed, the file has {self.size}",
            )
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise SourceError(self.path, "the file was shortened after it was opened")
        return data

    def _pixel_type(self, tags: Tags) -> np.dtype[Any]:
        photometric, samples = _one(self.path, tags, _PHOTOMETRIC, 1), _one(self.path, tags, _SAMPLES, 1)
        if photometric > 1 or samples != 1:
            colour = _PHOTOMETRICS.get(photometric, f"an image of {samples} samples per pixel")
            raise SourceError(self.path, f"{colour} is not supported; save one gray channel per page")
        bits, form = _one(self.path, tags, _BITS, 1), _one(self.path, tags, _SAMPLE_FORMAT, 1)
        kind = {1: "uint", 2: "int", 3: "float", 4: "uint"}.get(form, f"sample format {form}, bits ")
        if (kind, bits) not in (("uint", 8), ("uint", 16)):
            check_image(self.path, f"{kind}{bits}", (1, 1))
        return np.dtype(f"{self._order}u{bits // 8}")

    def _check_extent(self, page: Page) -> None:
        """Refuse a page unless all its strips or tiles lie in the file."""
        down, across = (-(-side // step) for side, step in zip(page.shape, page.segment, strict=True))
        if not len(page.offsets) == len(page.counts) == down * across:
            raise SourceError(
                self.path,
                f"{len(page.offsets)} strips or tiles with {len(page.counts)} lengths; {down * across} are needed",
            )
        for index, (offset, count) in enumerate(zip(page.offsets, page.counts, strict=True)):
            if offset <= 0 or count <= 0:
                raise SourceError(self.path, f"strip or tile {index} was never written (length {count})")
            if offset + count > self.size:
                raise SourceError(
                    self.path, f"truncated: its pixels end at byte {offset + count}, the file has {self.size}"
                )
            if (
                page.compression == 1
                and count < _rows(page, index // across) * page.segment[1] * page.dtype.itemsize
            ):
                raise SourceError(self.path, f"strip or tile {index} has {count} bytes, too few for its rows")

    def _read_strips(self, page: Page, skip: int) -> NDArray[Any]:
        stored = np.empty(page.shape, page.dtype)
        for index, offset in enumerate(page.offsets):
            top = index * page.segment[0]
            rows = stored[top : top + page.segment[0]]
            if offset + skip + rows.nbytes > self.size:
                raise SourceError(self.path, f"truncated: the file has only {self.size} bytes")
            self._file.seek(offset + skip)
            if self._file.readinto(rows.data.cast("B")) != rows.nbytes:
                raise SourceError(self.path, "the file was shortened after it was opened")
        return _native(stored)

    def _decode_segments(self, page: Page) -> NDArray[Any]:
        image = np.empty(page.shape, page.dtype.newbyteorder("="))
        across = -(-page.shape[1] // page.segment[1])
        for index, (offset, count) in enumerate(zip(page.offsets, page.counts, strict=True)):
            rows = _rows(page, index // across)
            needed = rows * page.segment[1] * page.dtype.itemsize
            limit = math.prod(page.segment) * page.dtype.itemsize
            data = _decompress(self.path, page.compression, self._bytes(offset, count), limit)
            if len(data) < needed:
                raise SourceError(
                    self.path, f"strip or tile {index} decodes to {len(data)} of {needed} bytes"
                )
            block = np.frombuffer(data, page.dtype, needed // page.dtype.itemsize).reshape(
                rows, page.segment[1]
            )
            top, left = index // across * page.segment[0], index % across * page.segment[1]
            target = image[top : top + rows, left : left + page.segment[1]]
            if page.predictor == 2:
                block = np.cumsum(block, axis=1, dtype=image.dtype)
            target[...] = block[: target.shape[0], : target.shape[1]]
        return image


def _rows(page: Page, row_of_segments: int) -> int:
    """Rows stored in a segment: tiles are padded to full height, the last strip is not."""
    if page.tiled:
        return page.segment[0]
    return min(page.segment[0], page.shape[0] - row_of_segments * page.segment[0])


def _decompress(path: Path, compression: int, data: bytes, limit: int) -> bytes:
    """Decode one strip or tile; ``limit`` is the most bytes it may decode to."""
    if compression == 1:
        return data
    if _COMPRESSIONS[compression] == "deflate":
        # zlib itself, because it stops at the limit: a small hostile strip may decode to gigabytes.
        try:
            return zlib.decompressobj().decompress(data, limit)
        except zlib.error as error:
            raise SourceError(path, f"deflate data is damaged: {error}") from error
    from tifffile import TIFF

    try:
        decode = TIFF.DECOMPRESSORS[compression]
    except KeyError:
        name = _COMPRESSIONS[compression]
        raise SourceError(
            path, f"compressed with {name}; to read it: python -m pip install imagecodecs"
        ) from None
    return bytes(decode(data, out=limit))


def _native(stored: NDArray[Any]) -> NDArray[Any]:
    if stored.dtype.byteorder == {"little": ">", "big": "<"}[sys.byteorder]:
        return stored.byteswap(inplace=True).view(stored.dtype.newbyteorder("="))
    return stored


def _one(path: Path, tags: Tags, tag: int, default: int | None = None) -> int:
    values = tags.get(tag)
    if isinstance(values, tuple) and values:
        return values[0]
    if default is None:
        raise SourceError(path, f"tag {tag} is missing; the file is damaged")
    return default


def _many(path: Path, tags: Tags, tag: int) -> tuple[int, ...]:
    values = tags.get(tag)
    if isinstance(values, tuple):
        return values
    raise SourceError(path, f"tag {tag} is missing; the file is damaged")


def _resolution(tags: Tags, tag: int) -> float:
    values = tags.get(tag)
    return values[0] / values[1] if isinstance(values, tuple) and len(values) > 1 and values[1] else 0.0
