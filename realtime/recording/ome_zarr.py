"""Frames and masks as OME-Zarr 0.5, written while they come; readable at any moment, whole after any death.

::

    FOLDER/                         a group of the layout bioformats2raw 3
        zarr.json
        frames.jsonl labels.jsonl   the side indexes: which planes are really there, with times and checksums
        OME/                        which images there are; METADATA.ome.xml
        0/ 1/ ...                   an image for each position
            0/                      its array (t, c, z, y, x)
            labels/cells/0/         its masks (t, z, y, x), if they are recorded
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np

from ...acquire.errors import ConfigurationError, FrameError, Problem, SourceError, nearest_name
from ...acquire.frame import Frame
from .codec import Plane2D
from .layout import MOST_TIME_POINTS, ImageLayout, Place
from .metadata import Recorded
from .ome_xml import ome_xml
from .planes import Planes
from .side_index import Plane
from .tree import FRAME_ARRAY, LABEL_ARRAY, Tree, read_recorded

FRAMES, LABELS = "frames.jsonl", "labels.jsonl"


class OmeZarrWriter:
    """Writes one recording: one writer at a time, in one thread. Opening a folder goes on after what is there.

    Parameters
    ----------
    folder
        Made if it does not exist.
    layout
        What every image looks like; None takes that of the recording that is there.
    positions
        Names of the positions, at least one; None takes those that are there, or one without a name. More can be
        added later.
    time_points
        How many time points to declare ahead. Readers see zeros for those that have not come, and the number is
        cut to those that have when the recording is closed. When it is exceeded it is doubled.

    Raises
    ------
    SourceError
        If another recording, or a damaged one, is in the folder, or none and ``layout`` is None.
    ConfigurationError
        If ``positions`` or ``time_points`` are out of range.
    MissingExtraError
        If the codec needs a package that is not installed.
    OSError
        If the files cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        layout: ImageLayout | None = None,
        *,
        positions: Sequence[str] | None = None,
        time_points: int = 1024,
    ) -> None:
        if not 1 <= time_points <= MOST_TIME_POINTS:
            raise _wrong("time_points", f"{time_points}: must be 1 to {MOST_TIME_POINTS}")
        if positions is not None and not positions:
            raise _wrong("positions", "[]: at least one name is needed")
        known = read_recorded(folder)
        self.folder = folder
        self.layout = _agreed_layout(folder, layout, known)
        self._positions = _agreed_positions(folder, positions, known)
        self._tree = Tree(folder, self.layout)
        folder.mkdir(parents=True, exist_ok=True)
        self._frames = self._open(FRAME_ARRAY, FRAMES, len(self.layout.channels))
        self._labels: Planes | None = None
        self._closed = False
        try:
            if self.layout.labels is not None:
                self._labels = self._open(LABEL_ARRAY, LABELS, None)
            self._declared = max(time_points, self.time_points)
            for number, name in enumerate(self._positions):
                self._tree.write_image(number, name, self._declared)
            self._write_xml()
            self._tree.write_root(self._positions)
        except BaseException:
            self._close_files()
            raise

    def append(self, frame: Frame, *, t: int, position: int = 0, z: int = 0) -> bool:
        """Write a frame: one plane for each of its channels, all or none.

        It is readable, and survives the death of this process, as soon as this returns. A frame that is there
        already, with the same sequence number and pixels, is left as it is.

        Parameters
        ----------
        frame
            Pixels of the layout's shape and type, (y, x) or (c, y, x); its channels are among the layout's.
        t, position, z
            Where it belongs, from 0.

        Returns
        -------
        bool
            False if it was there already.

        Raises
        ------
        FrameError
            If it does not go with the layout, or its place is taken by other pixels or another frame.
        OSError
            If it could not be written (a full disk); then nothing of it is there, and it can be tried again.
        """
        pixels = frame.pixels
        self._check(pixels, self.layout.dtype, f"frame {frame.sequence}")
        planes = pixels[None] if pixels.ndim == 2 else pixels
        self._check_place(frame.sequence, t, position, z)
        images: list[tuple[Place, Plane2D]] = [
            (Place(position, t, self._channel(frame, name), z), plane)
            for name, plane in zip(frame.channels, planes, strict=True)
        ]
        self._declare(t)
        return self._frames.append(images, frame)

    def append_labels(self, labels: Plane2D, frame: Frame, *, t: int, position: int = 0, z: int = 0) -> bool:
        """Write the mask of a frame, as :meth:`append` writes the frame.

        Parameters
        ----------
        labels
            (y, x) of the layout's shape; 0 is background. Its type must fit into that of the layout's labels.
        frame
            The frame that it is of; its pixels are not looked at.
        t, position, z
            Where it belongs, from 0.

        Returns
        -------
        bool
            False if it was there already.

        Raises
        ------
        FrameError
            If it does not go with the layout, its place is taken, or the layout has no labels.
        OSError
            If it could not be written; then nothing of it is there.
        """
        what, dtype = f"mask of frame {frame.sequence}", self.layout.labels
        if self._labels is None or dtype is None:
            raise FrameError(f"{what}: the recording takes none; its layout says labels=None")
        fitting: Any = labels
        if labels.dtype.name != dtype and np.can_cast(labels.dtype, dtype):
            fitting = labels.astype(dtype)
        self._check(fitting, dtype, what)
        if labels.ndim != 2:
            raise FrameError(f"{what}: of shape {labels.shape}; allowed: (y, x)")
        self._check_place(frame.sequence, t, position, z)
        self._declare(t)
        return self._labels.append([(Place(position, t, 0, z), np.ascontiguousarray(fitting))], frame)

    def add_position(self, name: str = "") -> int:
        """Add an image for one more position; return its number.

        Raises
        ------
        OSError
            If its files cannot be made; it is then not there.
        """
        number = len(self._positions)
        positions = (*self._positions, name)
        self._tree.write_image(number, name, self._declared)
        self._tree.write_root(positions)
        self._positions = positions
        return number

    def add_channel(self, name: str) -> None:
        """Declare one more channel, of all images.

        Raises
        ------
        ConfigurationError
            If there is one of this name already.
        OSError
            If the metadata cannot be written; the channel is then not there.
        """
        self._change(msgspec.structs.replace(self.layout, channels=(*self.layout.channels, name)))

    def declare_planes(self, z_planes: int) -> None:
        """Declare more planes of the z stack, of all images.

        Raises
        ------
        OSError
            If the metadata cannot be written; they are then not there.
        """
        if z_planes > self.layout.z_planes:
            self._change(msgspec.structs.replace(self.layout, z_planes=z_planes))

    def _change(self, layout: ImageLayout) -> None:
        tree = Tree(self.folder, layout)
        for number, name in enumerate(self._positions):
            tree.write_image(number, name, self._declared)
        tree.write_root(self._positions)
        self.layout, self._tree = layout, tree
        self._frames.change(layout, len(layout.channels))
        if self._labels is not None:
            self._labels.change(layout, None)

    def planes(self) -> Iterator[Plane]:
        """Yield the planes of frames that are there, in the order in which they came."""
        return self._frames.planes()

    @property
    def positions(self) -> tuple[str, ...]:
        """Names of the positions."""
        return self._positions

    @property
    def time_points(self) -> int:
        """One more than the last time point that has a frame or a mask."""
        return max(self._frames.time_points, self._labels.time_points if self._labels else 0)

    @property
    def next_sequence(self) -> int:
        """One more than the highest sequence number of a frame that is there."""
        return self._frames.next_sequence

    def sync(self) -> None:
        """Wait until all that was appended is on the disk itself (power may fail); to be called once a second.

        Raises
        ------
        OSError
            If the disk has failed.
        """
        self._frames.sync()
        if self._labels is not None:
            self._labels.sync()

    def close(self) -> None:
        """Cut the time axis to what has come, write the metadata of all planes and close the files, once.

        Raises
        ------
        OSError
            If the disk is full or has failed; all that was appended is there all the same.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._declared = max(1, self.time_points)
            for number in range(len(self._positions)):
                self._tree.write_length(number, self._declared)
            self._write_xml()
            self.sync()
            self._tree.write_root(self._positions, finished=True)
        finally:
            self._close_files()

    def __enter__(self) -> OmeZarrWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, array: str, side: str, channels: int | None) -> Planes:
        return Planes(
            self.folder, array, side, self.layout, channels=channels, positions=len(self._positions)
        )

    def _close_files(self) -> None:
        try:
            self._frames.close()
        finally:
            if self._labels is not None:
                self._labels.close()

    def _write_xml(self) -> None:
        planes = self._frames.planes()
        self._tree.write_xml(ome_xml(self.layout, self._positions, self._declared, planes))

    def _declare(self, t: int) -> None:
        """Declare more time points, of all images, if one does not fit."""
        if t < self._declared:
            return
        longer = min(max(2 * self._declared, t + 1), MOST_TIME_POINTS)
        for number in range(len(self._positions)):
            self._tree.write_length(number, longer)
        self._declared = longer

    def _check(self, pixels: Plane2D, dtype: str, what: str) -> None:
        shape = self.layout.shape
        if pixels.shape[-2:] != shape or pixels.dtype.name != dtype:
            raise FrameError(
                f"{what}: {pixels.dtype.name} of {pixels.shape[-2:]} px; the recording takes {dtype} of {shape} px"
            )

    def _check_place(self, sequence: int, t: int, position: int, z: int) -> None:
        lengths = {
            "t": (t, MOST_TIME_POINTS),
            "position": (position, len(self._positions)),
            "z": (z, self.layout.z_planes),
        }
        for axis, (index, length) in lengths.items():
            if not 0 <= index < length:
                raise FrameError(f"frame {sequence}: {axis} is {index}; allowed: 0 to {length - 1}")

    def _channel(self, frame: Frame, name: str) -> int:
        if name in self.layout.channels:
            return self.layout.channels.index(name)
        hint = nearest_name(name, self.layout.channels)
        known = ", ".join(map(repr, self.layout.channels))
        raise FrameError(
            f"frame {frame.sequence}: the recording has no channel {name!r}; it has {known}"
            + (f". Did you mean {hint!r}?" if hint else "")
        )


def _wrong(key: str, reason: str) -> ConfigurationError:
    return ConfigurationError([Problem("", 0, key, reason)])


def _agreed_layout(folder: Path, asked: ImageLayout | None, known: Recorded | None) -> ImageLayout:
    """Return the layout that was asked for, which must be that of the recording if there is one."""
    there = None if known is None else known.layout
    layout = asked or there
    if layout is None:
        raise SourceError(folder, "there is no recording here to go on with; a new one needs a layout")
    if there is not None and layout != there:
        differs = "; ".join(
            f"{key} is {was!r}, asked for was {value!r}"
            for key, value in msgspec.structs.asdict(layout).items()
            if value != (was := getattr(there, key))
        )
        raise SourceError(folder, f"a recording of another layout is here: {differs}")
    return layout


def _agreed_positions(folder: Path, asked: Sequence[str] | None, known: Recorded | None) -> tuple[str, ...]:
    """Return the positions that are there, and those that were asked for beyond them."""
    there = () if known is None else known.positions
    positions = tuple(asked or there or ("",))
    common = min(len(there), len(positions))
    if positions[:common] != there[:common]:
        raise SourceError(folder, f"a recording of positions {there} is here; asked for were {positions}")
    return max(there, positions, key=len)
