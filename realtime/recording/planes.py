"""All planes of one kind in a recording, the frames or the masks: their shards and their side index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import xxhash

from ...acquire.errors import FrameError, SourceError
from ...acquire.frame import Frame
from .codec import Buffer, Plane2D, Raw, make_codec
from .layout import MOST_TIME_POINTS, ImageLayout, Place
from .recovery import restore
from .shard import Shard, ShardPool
from .side_index import Plane


class Planes:
    """Writes planes of one kind, each exactly once.

    Opening what a killed writer left puts it right first: a plane is there if its line is there and the index of
    its shard has it; what has only one of the two is taken out, to be written again.

    Parameters
    ----------
    root
        Folder of the recording.
    array
        Path of the array inside the folder of an image: ``0`` or ``labels/cells/0``.
    side
        Name of the side index in ``root``.
    layout
        What the images look like.
    channels
        How many there are; None if the array has no axis c.
    positions
        How many there are.

    Attributes
    ----------
    time_points
        One more than the last time point that has a plane.
    next_sequence
        One more than the highest sequence number that has a plane.

    Raises
    ------
    SourceError
        If there are shards but no side index, or one that has lost lines, or an array leads out of the folder.
    OSError
        If the files cannot be opened.
    """

    def __init__(
        self, root: Path, array: str, side: str, layout: ImageLayout, *, channels: int | None, positions: int
    ) -> None:
        self._root, self._array, self._positions = root, array, positions
        self._has_channels = channels is not None
        self.change(layout, channels)
        self._codec, self._raw = make_codec(layout.codec), Raw()
        self.time_points = self.next_sequence = 0
        arrays = [path for path in root.glob(f"*/{array}/c") if path.is_dir()]
        for path in arrays:
            if not path.resolve().is_relative_to(root.resolve()):
                raise SourceError(path, "leads out of the recording; a link has no place in one")
        self._pool = ShardPool(layout.frames_per_shard)
        self._side = restore(root / side, arrays, self)
        for plane in self._side.planes():
            self._count(plane)

    def change(self, layout: ImageLayout, channels: int | None) -> None:
        """Take a layout that differs in its channels and planes only."""
        self._layout = layout
        self._lengths = Place(self._positions, MOST_TIME_POINTS, channels or 1, layout.z_planes)

    def append(self, images: Sequence[tuple[Place, Plane2D]], frame: Frame) -> bool:
        """Write the planes of one frame, all or none; they survive the death of this process when this returns.

        Parameters
        ----------
        images
            Place and pixels, (y, x), of each.
        frame
            The frame that they are of, with its sequence, time and stage; its own pixels are not looked at.

        Returns
        -------
        bool
            False if all were there already.

        Raises
        ------
        FrameError
            If a place holds a plane of another frame or with other pixels.
        OSError
            If they could not be written (a full disk); then none of them is there.
        """
        written: list[Place] = []
        lines: list[Plane] = []
        try:
            for place, image in images:
                check = self.check(self._raw.encode(image))
                path, number = self.locate(place)
                shard = self._pool.get(path)
                if shard.holds(number) and self._is_same(shard, number, place, frame.sequence, check):
                    continue
                chunk = self._codec.encode(image)
                offset = shard.append(number, chunk)
                written.append(place)
                lines.append(_line(frame, place, check, offset, len(chunk)))
            if lines:
                self._side.add(lines)
        except BaseException:
            for place in written:
                path, number = self.locate(place)
                self._pool.get(path).drop(number)
            raise
        for line in lines:
            self._count(line)
        return bool(lines)

    def locate(self, place: Place) -> tuple[Path, int]:
        """Return the shard in which a place lies, and the number of its chunk in there."""
        block, number = divmod(place.t, self._layout.frames_per_shard)
        channel = f"/{place.c}" if self._has_channels else ""
        chunk = f"{place.position}/{self._array}/c/{block}{channel}/{place.z}/0/0"
        return self._root / chunk, number

    def allows(self, place: Place) -> bool:
        """Tell whether a place that was read can be one of this recording."""
        return all(0 <= index < length for index, length in zip(place, self._lengths, strict=True))

    def check(self, pixels: Buffer) -> str:
        """Return the checksum of the little-endian pixels of a plane."""
        return f"{xxhash.xxh3_64_intdigest(pixels):016x}"  # pyright: ignore[reportArgumentType]  (any buffer)

    def check_chunk(self, chunk: bytes) -> str:
        """Return the checksum of the pixels in a chunk, or ``""`` if it cannot be decoded."""
        try:
            return self.check(self._codec.decode(chunk))
        except ValueError:
            return ""

    @property
    def chunks(self) -> int:
        """How many chunks one shard can hold."""
        return self._layout.frames_per_shard

    def planes(self) -> Iterator[Plane]:
        """Yield the planes that are there, in the order in which they came."""
        return self._side.planes()

    def sync(self) -> None:
        """Wait until all is on the disk itself; to be called about once a second.

        Raises
        ------
        OSError
            If the disk has failed.
        """
        self._pool.sync()
        self._side.sync()

    def close(self) -> None:
        """Write to the disk itself and close.

        Raises
        ------
        OSError
            If the disk has failed; the files are closed all the same.
        """
        try:
            self.sync()
        finally:
            self._pool.close()
            self._side.close()

    def _is_same(self, shard: Shard, number: int, place: Place, sequence: int, check: str) -> bool:
        """Tell whether the plane that a place holds is this one; refuse any other."""
        known = self._side.find(place)
        if known is None:  # an append was interrupted before its line
            shard.drop(number)
            return False
        if (known.sequence, known.xxh3) == (sequence, check):
            return True
        other = "other pixels" if known.sequence == sequence else f"frame {known.sequence}"
        where = ", ".join(f"{axis} {index}" for axis, index in place._asdict().items())
        raise FrameError(
            f"frame {sequence}: its place ({where}) is taken by {other}; each place is written once"
        )

    def _count(self, plane: Plane) -> None:
        self.time_points = max(self.time_points, plane.t + 1)
        self.next_sequence = max(self.next_sequence, plane.sequence + 1)


def _line(frame: Frame, place: Place, check: str, offset: int, length: int) -> Plane:
    return Plane(
        sequence=frame.sequence,
        **place._asdict(),
        time_s=frame.time_s,
        stage_um=frame.stage_um,
        z_um=frame.z_um,
        exposure_ms=frame.exposure_ms,
        xxh3=check,
        offset=offset,
        bytes=length,
    )
