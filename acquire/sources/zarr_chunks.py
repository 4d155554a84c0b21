"""Whether the chunks of a Zarr array are really there.

The zarr package gives the fill value for a chunk that is missing, and hands a truncated blosc chunk to a decoder
that trusts its header. A replay must refuse both, so the files are looked at before a frame is read.

Source of the formats: Zarr specifications 2 and 3, ``sharding_indexed`` codec 1.0, c-blosc chunk header.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ..errors import SourceError

_ABSENT = 2**64 - 1
_BLOSC_HEADER = struct.Struct("<4B3I")
_WHY_MISSING = (
    "either the recording was cut off, or its writer leaves out chunks of zeros (then: allow_missing=True)"
)


@dataclass(frozen=True, slots=True)
class ChunkGrid:
    """The files of one array, from its metadata.

    Attributes
    ----------
    shape
        Length of each axis.
    file
        Length in each axis of what one file holds: a chunk, or a shard of chunks.
    chunk
        Length in each axis of what is decoded at once.
    dtype
        Name of the pixel type.
    """

    folder: Path
    shape: tuple[int, ...]
    file: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: str
    separator: str
    prefix: str
    blosc: bool
    sharded: bool = False
    index_at_end: bool = True
    index_checksum: bool = False

    def check(self, region: Sequence[range], allow_missing: bool) -> None:
        """Refuse a region of the array unless each chunk that it touches is whole, and there if it must be.

        Raises
        ------
        SourceError
            Naming the file.
        """
        for place in _blocks(region, self.file):
            file = self.folder / (self.prefix + self.separator.join(map(str, place)))
            if not file.is_file():
                if not allow_missing:
                    raise SourceError(file, f"this chunk is missing; {_WHY_MISSING}")
            elif self.sharded:
                self._check_shard(file, place, region, allow_missing)
            else:
                self._check_bytes(file, 0, file.stat().st_size)

    def _check_shard(
        self, file: Path, place: Sequence[int], region: Sequence[range], allow_missing: bool
    ) -> None:
        """Refuse a shard unless the chunks in it that the region touches are whole."""
        size = file.stat().st_size
        starts = [index * length for index, length in zip(place, self.file, strict=True)]
        inside = [
            range(max(axis.start - start, 0), min(axis.stop - start, length))
            for axis, start, length in zip(region, starts, self.file, strict=True)
        ]
        index = self._read_index(file, size)
        counts = [length // step for length, step in zip(self.file, self.chunk, strict=True)]
        for chunk in _blocks(inside, self.chunk):
            number = sum(at * math.prod(counts[axis + 1 :]) for axis, at in enumerate(chunk))
            offset, length = index[2 * number : 2 * number + 2]
            if offset == length == _ABSENT:
                if not allow_missing:
                    raise SourceError(file, f"chunk {chunk} of this shard is missing; {_WHY_MISSING}")
            elif offset + length > size:
                raise SourceError(file, f"truncated: chunk {chunk} ends at byte {offset + length} of {size}")
            else:
                self._check_bytes(file, offset, length)

    def _read_index(self, file: Path, size: int) -> tuple[int, ...]:
        entries = math.prod(length // step for length, step in zip(self.file, self.chunk, strict=True))
        length = 16 * entries + 4 * self.index_checksum
        if length > size:
            raise SourceError(file, f"truncated: its index needs {length} bytes, the file has {size}")
        with file.open("rb") as opened:
            opened.seek(size - length if self.index_at_end else 0)
            return struct.unpack(f"<{2 * entries}Q", opened.read(16 * entries))

    def _check_bytes(self, file: Path, offset: int, count: int) -> None:
        if count == 0:
            raise SourceError(file, "this chunk is empty")
        if not self.blosc:
            return
        with file.open("rb") as opened:
            opened.seek(offset)
            header = opened.read(_BLOSC_HEADER.size)
        if len(header) < _BLOSC_HEADER.size or _BLOSC_HEADER.unpack(header)[6] != count:
            raise SourceError(
                file, f"truncated: {count} bytes are not the length that the blosc chunk states"
            )


def read_grid(folder: Path) -> ChunkGrid:
    """Return the layout of the array in a folder, from ``zarr.json`` (version 3) or ``.zarray`` (version 2).

    Raises
    ------
    SourceError
        If the metadata are missing, damaged, or use an extension that cannot be checked.
    """
    try:
        if (folder / "zarr.json").is_file():
            return _grid_3(folder, read_json(folder / "zarr.json"))
        return _grid_2(folder, read_json(folder / ".zarray"))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SourceError(folder, f"array metadata are damaged: {type(error).__name__}: {error}") from error


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object from a file.

    Raises
    ------
    SourceError
        If the file is missing or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(file, "the file is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(file, f"cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise SourceError(file, "is not a JSON object")
    return content


def _grid_2(folder: Path, metadata: Mapping[str, Any]) -> ChunkGrid:
    chunk = _lengths(metadata["chunks"])
    compressor = metadata.get("compressor") or {}
    dtype = str(metadata["dtype"])
    names = {"u1": "uint8", "u2": "uint16", "i2": "int16", "f4": "float32", "f8": "float64"}
    return ChunkGrid(
        folder,
        _lengths(metadata["shape"]),
        chunk,
        chunk,
        names.get(dtype.lstrip("<>|="), dtype),
        str(metadata.get("dimension_separator", ".")),
        "",
        compressor.get("id") == "blosc",
    )


def _grid_3(folder: Path, metadata: Mapping[str, Any]) -> ChunkGrid:
    if metadata.get("node_type") != "array" or metadata["chunk_grid"]["name"] != "regular":
        raise ValueError("not an array with a regular grid of chunks")
    file = chunk = _lengths(metadata["chunk_grid"]["configuration"]["chunk_shape"])
    codecs: list[Mapping[str, Any]] = metadata["codecs"]
    index_codecs: list[Mapping[str, Any]] = [{"name": "bytes"}]
    location = "end"
    sharded = codecs[0]["name"] == "sharding_indexed"
    if sharded:
        sharding = codecs[0]["configuration"]
        chunk, codecs = _lengths(sharding["chunk_shape"]), sharding["codecs"]
        index_codecs, location = sharding["index_codecs"], sharding.get("index_location", "end")
        if any(length % step for length, step in zip(file, chunk, strict=True)):
            raise ValueError(f"shards of {file} do not hold whole chunks of {chunk}")
    names = [codec["name"] for codec in codecs]
    index_names = [codec["name"] for codec in index_codecs]
    endian = index_codecs[0].get("configuration", {}).get("endian", "little")
    if (
        "sharding_indexed" in names
        or index_names not in (["bytes"], ["bytes", "crc32c"])
        or endian != "little"
    ):
        raise ValueError(f"codecs {names} with index codecs {index_names} cannot be checked")
    encoding = metadata["chunk_key_encoding"]
    default = encoding["name"] == "default"
    separator = encoding.get("configuration", {}).get("separator", "/" if default else ".")
    return ChunkGrid(
        folder,
        _lengths(metadata["shape"]),
        file,
        chunk,
        str(metadata["data_type"]),
        separator,
        f"c{separator}" if default else "",
        "blosc" in names,
        sharded,
        location == "end",
        "crc32c" in index_names,
    )


def _lengths(values: Sequence[Any]) -> tuple[int, ...]:
    lengths = tuple(int(value) for value in values)
    if any(length < 1 for length in lengths):
        raise ValueError(f"lengths {lengths} must all be at least 1")
    return lengths


def _blocks(region: Sequence[range], step: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the indices of the blocks of size ``step`` that a region touches."""
    return product(
        *(
            range(axis.start // length, -(-axis.stop // length))
            for axis, length in zip(region, step, strict=True)
        )
    )
