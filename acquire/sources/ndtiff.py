"""Frames from NDTiff 3, the format in which pycro-manager and Micro-Manager save an acquisition.

Read here, without ndstorage: its reader prints, opens every file of a data set, and does not hold the index
against the files, so that a truncated acquisition gives images of the wrong frame count or raises at random.

Source of the format: NDTiffStorage specification 3.x (Henry Pinkard).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SourceError
from ..frame import Frame, Pixels
from .recording import Recording, at_frame, check_image, check_interval, stack_channels
from .tiff_pages import TiffPages

_MAGIC = struct.pack("<I", 483_729)
_PIXEL_TYPES = {0: "uint8", 1: "uint16", 3: "uint16", 4: "uint16", 5: "uint16", 6: "uint16"}
_RGB = 2
_LONGEST_TEXT = 2**24

Key = tuple[tuple[str, int | str], ...]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One image of the index: where its pixels and metadata lie; offsets and lengths in bytes."""

    axes: Mapping[str, int | str]
    file: str
    offset: int
    width: int
    height: int
    pixel_type: int
    metadata_offset: int
    metadata_length: int

    @property
    def nbytes(self) -> int:
        """Size of the image in bytes."""
        return self.width * self.height * np.dtype(_PIXEL_TYPES[self.pixel_type]).itemsize


class NdtiffSource(Recording):
    """Frames of an NDTiff data set in the order of acquisition; channels are gathered into one (c, y, x) frame.

    A channel that was taken at every n-th time point only is in the frames of those.

    Times, exposures, stage positions and pixel size are those of the images' metadata
    (``ElapsedTime-ms`` and so on) of the first channel.

    Parameters
    ----------
    path
        Folder that holds ``NDTiff.index``.
    interval_s
        Time between time points in s, for data sets without ``ElapsedTime-ms``.

    Raises
    ------
    SourceError
        If index and image files contradict each other, or an image is not gray uint8 or uint16.
    """

    def __init__(self, path: str | Path, *, interval_s: float = 1.0) -> None:
        path = Path(path)
        check_interval(path, interval_s)
        self._interval_s = interval_s
        self._files: dict[str, BufferedReader] = {}
        entries, damage = read_index(path / "NDTiff.index")
        self._groups = _gather(path, entries, damage)
        listed = _check_entries(path, self._groups)
        if damage:
            raise SourceError(path / "NDTiff.index", damage, len(self._groups))
        _check_files(path, listed, len(self._groups))
        if not self._groups:
            raise SourceError(path, "the index lists no image")
        super().__init__(path, path.resolve().name, len(self._groups))
        try:
            self._timed = "ElapsedTime-ms" in self._metadata(self._groups[0][0])
        except (SourceError, OSError, ValueError) as error:
            self.close()
            raise SourceError(path, f"metadata cannot be read: {error}", 0) from error

    def close(self) -> None:
        """Close the files; may be called again."""
        for file in self._files.values():
            file.close()
        self._files = {}

    def _read(self, index: int) -> Frame:
        group = self._groups[index]
        planes = [self._pixels(entry) for entry in group]
        metadata = self._metadata(group[0])
        axes = {axis: value for axis, value in group[0].axes.items() if axis != "channel"}
        x, y = (_number(metadata, f"{axis}Position_um_Intended", f"{axis}PositionUm") for axis in "XY")
        return Frame(
            stack_channels(planes),
            index,
            self._time_s(metadata, axes, index),
            axes,
            tuple(str(entry.axes.get("channel", "")) for entry in group),
            None if x is None or y is None else (x, y),
            _number(metadata, "ZPosition_um_Intended", "ZPositionUm"),
            _number(metadata, "Exposure", "Exposure-ms"),
            _number(metadata, "PixelSize_um", "PixelSizeUm") or None,
        )

    def _time_s(self, metadata: Mapping[str, Any], axes: Mapping[str, int | str], index: int) -> float:
        if not self._timed:
            time = axes.get("time", index)
            return (index if isinstance(time, str) else time) * self._interval_s
        elapsed_ms = _number(metadata, "ElapsedTime-ms")
        if elapsed_ms is None:
            raise SourceError(self.path, "its metadata lack ElapsedTime-ms, which the first frame has")
        return elapsed_ms / 1e3

    def _pixels(self, entry: IndexEntry) -> Pixels:
        pixels = np.empty(
            (entry.height, entry.width), np.dtype(_PIXEL_TYPES[entry.pixel_type]).newbyteorder("<")
        )
        file = self._file(entry.file)
        file.seek(entry.offset)
        if file.readinto(pixels.data.cast("B")) != pixels.nbytes:
            raise SourceError(self.path / entry.file, "the file was shortened after it was opened")
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)

    def _metadata(self, entry: IndexEntry) -> Mapping[str, Any]:
        file = self._file(entry.file)
        file.seek(entry.metadata_offset)
        metadata = json.loads(file.read(entry.metadata_length))
        if not isinstance(metadata, dict):
            raise SourceError(self.path / entry.file, "its metadata are not a JSON object")
        return metadata

    def _file(self, name: str) -> BufferedReader:
        if name not in self._files:
            self._files[name] = (self.path / name).open("rb")
        return self._files[name]


def read_index(path: Path) -> tuple[list[IndexEntry], str]:
    """Return the images of an ``NDTiff.index`` in order, and why it ends early (``""`` if it does not).

    Raises
    ------
    SourceError
        If the file cannot be opened.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(path, f"cannot be opened: {error.strerror or error}") from error
    entries: list[IndexEntry] = []
    place = 0
    while place < len(data):
        try:
            entry, place = _entry(data, place)
        except (ValueError, struct.error) as error:
            return entries, f"the index is damaged or cut off after {len(entries)} image(s): {error}"
        if entry is None:
            # Zeros up to the end: the writer had reserved room and was stopped before it closed the file.
            break
        entries.append(entry)
    return entries, ""


def _entry(data: bytes, place: int) -> tuple[IndexEntry | None, int]:
    axes_text, place = _text(data, place)
    if not axes_text:
        if data[place:].strip(b"\0"):
            raise ValueError("an image without axes")
        return None, len(data)
    axes = json.loads(axes_text)
    if not isinstance(axes, dict) or not all(isinstance(value, int | str) for value in axes.values()):
        raise ValueError(f"axes {axes_text[:80]!r} are not names with numbers or words")
    file, place = _text(data, place)
    if not file or Path(file).name != file or "\\" in file or ":" in file:
        raise ValueError(f"{file[:80]!r} is not the name of a file in the folder")
    offset, width, height, kind, compression, at, length, packed = struct.unpack_from("<8I", data, place)
    if compression or packed:
        raise ValueError(f"compression {compression}, {packed} is not supported; allowed: 0 (none)")
    return IndexEntry(axes, file, offset, width, height, kind, at, length), place + 32


def _text(data: bytes, place: int) -> tuple[str, int]:
    length = struct.unpack_from("<I", data, place)[0]
    if length > min(_LONGEST_TEXT, len(data) - place - 4):
        raise ValueError(f"a text of {length} bytes, more than the file holds")
    return data[place + 4 : place + 4 + length].decode("utf-8"), place + 4 + length


def _gather(path: Path, entries: list[IndexEntry], damage: str) -> list[tuple[IndexEntry, ...]]:
    """Return the images of each frame in the order of the channels."""
    channels = list(dict.fromkeys(entry.axes.get("channel", "") for entry in entries))
    groups: dict[Key, dict[int | str, IndexEntry]] = {}
    for entry in entries:
        key: Key = tuple(sorted((axis, value) for axis, value in entry.axes.items() if axis != "channel"))
        group = groups.setdefault(key, {})
        channel = entry.axes.get("channel", "")
        if channel in group:
            raise SourceError(path, f"two images with axes {dict(entry.axes)}", list(groups).index(key))
        group[channel] = entry
    every = {} if damage else {channel: _every(channel, groups) for channel in channels}
    frames: list[tuple[IndexEntry, ...]] = []
    for key, group in groups.items():
        missing = [channel for channel in channels if channel not in group and not every.get(channel)]
        if missing:
            reason = (
                damage
                or f"no image of channel(s) {missing} at {dict(key)}; every frame needs the same channels"
            )
            raise SourceError(path, reason, len(frames))
        frames.append(tuple(group[channel] for channel in channels if channel in group))
    return frames


def _every(channel: int | str, groups: Mapping[Key, Mapping[int | str, IndexEntry]]) -> int:
    """Return n if a channel was taken at the time points that n divides and at no others; 0 if not."""
    taken = [(dict(key).get("time"), channel in group) for key, group in groups.items()]
    times = sorted({time for time, present in taken if present and isinstance(time, int)})
    if len(times) < 2:
        return 0
    step = times[1] - times[0]
    regular = all(isinstance(time, int) and present == (time % step == 0) for time, present in taken)
    return step if regular else 0


def _check_entries(path: Path, frames: list[tuple[IndexEntry, ...]]) -> dict[str, list[tuple[int, int]]]:
    """Refuse an image that is not inside its file; return (offset, frame) of the images listed for each file."""
    listed: dict[str, list[tuple[int, int]]] = {}
    sizes: dict[str, int] = {}
    for number, frame in enumerate(frames):
        for entry in frame:
            with at_frame(path, number):
                if entry.file not in sizes:
                    sizes[entry.file] = (path / entry.file).stat().st_size
                _check_entry(path / entry.file, entry, sizes[entry.file])
            listed.setdefault(entry.file, []).append((entry.offset, number))
    return listed


def _check_files(path: Path, listed: dict[str, list[tuple[int, int]]], frames: int) -> None:
    """Refuse a data set whose files hold other images than its index lists."""
    for file in sorted(path.glob("*.tif")):
        images = sorted(listed.get(file.name, []))
        held = _images_in(file) if images or _is_ndtiff(file) else []
        for offset, (expected, number) in zip(held, images, strict=False):
            if offset != expected:
                raise SourceError(
                    file, f"the index lists an image at byte {expected}, the file has none", number
                )
        if len(held) != len(images):
            first = images[len(held)][1] if len(held) < len(images) else frames
            raise SourceError(
                file, f"the index lists {len(images)} images, the file holds {len(held)}", first
            )


def _check_entry(file: Path, entry: IndexEntry, size: int) -> None:
    if entry.pixel_type == _RGB:
        raise SourceError(file, "RGB is not supported; set the camera's PixelType to 8bit or 16bit")
    check_image(
        file, _PIXEL_TYPES.get(entry.pixel_type, f"number {entry.pixel_type}"), (entry.height, entry.width)
    )
    end = max(entry.offset + entry.nbytes, entry.metadata_offset + entry.metadata_length)
    if end > size:
        raise SourceError(file, f"truncated: bytes up to {end} are listed in the index, the file has {size}")


def _is_ndtiff(file: Path) -> bool:
    """Return whether a file belongs to an NDTiff data set and is not a TIFF of another program."""
    with file.open("rb") as opened:
        return opened.read(12)[8:] == _MAGIC


def _images_in(file: Path) -> list[int]:
    """Return where the pixels of each image of a file begin, in bytes, following the file's own directories."""
    pages = TiffPages(file)
    try:
        return sorted(pages.pixel_offset(page) for page in range(len(pages)))
    finally:
        pages.close()


def _number(metadata: Mapping[str, Any], *names: str) -> float | None:
    """Return the first of these entries that is a number (the Java and the Python engine name them differently)."""
    for name in names:
        value = metadata.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None
