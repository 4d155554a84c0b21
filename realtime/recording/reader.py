"""Reading what was recorded of a run back, also while it goes on: pixel by pixel what was sent, or a clear error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from ...acquire.errors import SourceError
from .codec import Codec, make_codec
from .layout import MOST_TIME_POINTS
from .metadata import Recorded
from .ome_zarr import FRAMES, LABELS
from .run_writer import part_folders
from .side_index import Plane, read_planes
from .tree import FRAME_ARRAY, LABEL_ARRAY, read_recorded
from .untrusted import inside

_LARGEST_OFFSET = 1 << 62


class Part(NamedTuple):
    """One recording of a run, or the masks in it.

    Attributes
    ----------
    folder, recorded
        Where it lies, and what its root says.
    codec
        How its planes are stored.
    array, dtype
        Path of the array inside the folder of a position, and its pixel type.
    planes
        Those that are there, in the order in which they came.
    """

    folder: Path
    recorded: Recorded
    codec: Codec
    array: str
    dtype: str
    planes: list[Plane]

    def read(self, plane: Plane, *, checked: bool = True) -> NDArray[Any]:
        """Return the pixels (y, x) of a plane; without ``checked``, also those that were not written so.

        Raises
        ------
        SourceError
            If they are missing or damaged.
        """
        layout = self.recorded.layout
        channel = f"/{plane.c}" if self.array == FRAME_ARRAY else ""
        block = plane.t // layout.frames_per_shard
        path = self.folder / f"{plane.position}/{self.array}/c/{block}{channel}/{plane.z}/0/0"
        height, width = layout.shape
        size = height * width * np.dtype(self.dtype).itemsize
        if not 0 < plane.bytes <= size + 64:
            raise SourceError(path, f"its line claims {plane.bytes} bytes", plane.sequence)
        inside(self.folder, path)
        try:
            with path.open("rb") as file:
                file.seek(plane.offset)
                chunk = file.read(plane.bytes)
        except OSError as error:
            raise SourceError(path, f"cannot be read: {error.strerror or error}", plane.sequence) from error
        if (claimed := self.codec.size_of(chunk)) != size:
            reason = f"its chunk holds {claimed} bytes of pixels, {size} are needed"
            raise SourceError(path, reason, plane.sequence)
        try:
            pixels = self.codec.decode(chunk)
        except ValueError as error:
            raise SourceError(path, f"its chunk is damaged: {error}", plane.sequence) from error
        if memoryview(pixels).nbytes != size or (checked and _check_of(pixels) != plane.xxh3):
            raise SourceError(path, "its pixels are not those that were written (checksum)", plane.sequence)
        image = np.frombuffer(pixels, np.dtype(self.dtype).newbyteorder("<")).reshape(layout.shape)
        return image.astype(self.dtype, copy=False)


class _RecordedPlanes:
    """The planes of one kind of a run, by the sequence numbers of their frames."""

    def __init__(self, run: Path, side: str, array: str) -> None:
        self.parts = list(_read_parts(run, side, array))
        self._run = run
        self._planes: dict[int, tuple[Part, list[Plane]]] = {}
        for part in self.parts:
            for plane in part.planes:
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

    def places(self, sequence: int) -> list[Plane]:
        """Return the planes of a frame; none if it is not there."""
        return self._planes[sequence][1] if sequence in self._planes else []

    def _images(self, sequence: int, count: int, *, checked: bool = True) -> list[NDArray[Any]]:
        if sequence not in self._planes:
            raise SourceError(self._run, "it is not in the recording", sequence)
        part, planes = self._planes[sequence]
        if len(planes) != count:
            raise SourceError(part.folder, f"{len(planes)} plane(s) of {count} are there", sequence)
        return [part.read(plane, checked=checked) for plane in planes]


class RecordedFrames(_RecordedPlanes):
    """The frames of a run, by their sequence numbers.

    Parameters
    ----------
    run
        The run's folder.

    Attributes
    ----------
    parts
        The recordings of the run: a further one for frames of another size or pixel type.

    Raises
    ------
    SourceError
        If a recording is damaged or of another program.
    MissingExtraError
        If its codec needs a package that is not installed.
    """

    def __init__(self, run: Path) -> None:
        super().__init__(run, FRAMES, FRAME_ARRAY)

    def pixels(self, sequence: int, shape: tuple[int, ...], *, checked: bool = True) -> NDArray[Any]:
        """Return the pixels of a frame.

        Parameters
        ----------
        sequence
            Its number.
        shape
            (y, x), or (c, y, x) of a frame with several channels.
        checked
            False: pixels that differ from those that were written come back too, as far as they can be decoded.

        Raises
        ------
        SourceError
            If it is not there, or damaged: names the file and what is wrong.
        """
        images = self._images(sequence, 1 if len(shape) == 2 else shape[0], checked=checked)
        return images[0] if len(shape) == 2 else np.stack(images)


class RecordedMasks(_RecordedPlanes):
    """The masks of a run, by the sequence numbers of their frames.

    Parameters
    ----------
    run
        The run's folder.

    Attributes
    ----------
    parts
        The label images of the run's recordings.

    Raises
    ------
    SourceError
        If a recording is damaged or of another program.
    MissingExtraError
        If its codec needs a package that is not installed.
    """

    def __init__(self, run: Path) -> None:
        super().__init__(run, LABELS, LABEL_ARRAY)

    def mask(self, sequence: int) -> NDArray[Any]:
        """Return the mask (y, x) of a frame.

        Raises
        ------
        SourceError
            If it is not there, or damaged: names the file and what is wrong.
        """
        return self._images(sequence, 1)[0]


def _read_parts(run: Path, side: str, array: str) -> Iterator[Part]:
    for folder in part_folders(run):
        inside(run, folder)
        inside(run, folder / "zarr.json")
        lines = inside(run, folder / side)
        try:
            planes = list(read_planes(lines)) if lines.is_file() or array == FRAME_ARRAY else []
        except FileNotFoundError as error:
            if not (folder / "zarr.json").exists():
                continue
            raise SourceError(
                lines, "is missing: without it nobody can tell which planes are there"
            ) from error
        except OSError as error:
            raise SourceError(lines, f"cannot be read: {error.strerror or error}") from error
        recorded = read_recorded(folder)  # after the lines: it knows every position that they name
        if recorded is None:
            continue
        layout = recorded.layout
        dtype = layout.dtype if array == FRAME_ARRAY else layout.labels
        if dtype is not None:
            possible = [plane for plane in planes if _is_possible(plane, recorded)]
            yield Part(folder, recorded, make_codec(layout.codec), array, dtype, possible)


def _is_possible(plane: Plane, recorded: Recorded) -> bool:
    """Tell whether a line can be one of a recording."""
    layout = recorded.layout
    lengths = (len(recorded.positions), MOST_TIME_POINTS, len(layout.channels), layout.z_planes)
    fits = all(0 <= index < length for index, length in zip(plane.place, lengths, strict=True))
    return fits and 0 <= plane.sequence < _LARGEST_OFFSET and 0 <= plane.offset < _LARGEST_OFFSET


def _check_of(pixels: Any) -> str:
    return f"{xxhash.xxh3_64_intdigest(pixels):016x}"
