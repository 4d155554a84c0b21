"""Reading the recorded frames of a run back, also while it goes on: pixel by pixel what was sent, or a clear error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from ...acquire.errors import SourceError
from .codec import Codec, make_codec
from .layout import ImageLayout
from .ome_zarr import FRAMES
from .run_writer import part_folders
from .side_index import Plane, read_planes
from .tree import FRAME_ARRAY, read_recorded


class _Part(NamedTuple):
    folder: Path
    layout: ImageLayout
    codec: Codec


class RecordedFrames:
    """The frames of a run, by their sequence numbers.

    Parameters
    ----------
    run
        The run's folder.

    Raises
    ------
    SourceError
        If a recording is damaged or of another program.
    MissingExtraError
        If its codec needs a package that is not installed.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._planes: dict[int, tuple[_Part, list[Plane]]] = {}
        for folder in part_folders(run):
            recorded = read_recorded(folder)
            if recorded is None:
                continue
            part = _Part(folder, recorded.layout, make_codec(recorded.layout.codec))
            for plane in read_planes(folder / FRAMES):
                self._planes.setdefault(plane.sequence, (part, []))[1].append(plane)

    def __len__(self) -> int:
        """Return how many frames there are."""
        return len(self._planes)

    def __contains__(self, sequence: object) -> bool:
        """Return whether a frame is there."""
        return sequence in self._planes

    def sequences(self) -> Iterator[int]:
        """Yield the numbers of the frames that are there, in order."""
        yield from sorted(self._planes)

    def pixels(self, sequence: int, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the pixels of a frame.

        Parameters
        ----------
        sequence
            Its number.
        shape
            (y, x), or (c, y, x) of a frame with several channels.

        Raises
        ------
        SourceError
            If it is not there, or damaged: names the file and what is wrong.
        """
        if sequence not in self._planes:
            raise SourceError(self._run, "it is not in the recording", sequence)
        part, planes = self._planes[sequence]
        channels = 1 if len(shape) == 2 else shape[0]
        if len(planes) != channels:
            raise SourceError(part.folder, f"{len(planes)} plane(s) of {channels} are there", sequence)
        images = [_read(part, plane) for plane in planes]
        return images[0] if len(shape) == 2 else np.stack(images)


def _read(part: _Part, plane: Plane) -> NDArray[Any]:
    layout = part.layout
    block = plane.t // layout.frames_per_shard
    path = part.folder / f"{plane.position}/{FRAME_ARRAY}/c/{block}/{plane.c}/{plane.z}/0/0"
    height, width = layout.shape
    size = height * width * np.dtype(layout.dtype).itemsize
    if not 0 < plane.bytes <= size + 64 or plane.offset < 0:
        raise SourceError(path, f"its line claims {plane.bytes} bytes", plane.sequence)
    try:
        with path.open("rb") as file:
            file.seek(plane.offset)
            chunk = file.read(plane.bytes)
    except OSError as error:
        raise SourceError(path, f"cannot be read: {error.strerror or error}", plane.sequence) from error
    try:
        pixels = part.codec.decode(chunk)
    except ValueError as error:
        raise SourceError(path, f"its chunk is damaged: {error}", plane.sequence) from error
    found = memoryview(pixels).nbytes
    if found != size:
        raise SourceError(path, f"its chunk holds {found} bytes of pixels, {size} are needed", plane.sequence)
    if f"{xxhash.xxh3_64_intdigest(pixels):016x}" != plane.xxh3:  # pyright: ignore[reportArgumentType]
        raise SourceError(path, "its pixels are not those that were written (checksum)", plane.sequence)
    image = np.frombuffer(pixels, np.dtype(layout.dtype).newbyteorder("<")).reshape(layout.shape)
    return image.astype(layout.dtype, copy=False)
