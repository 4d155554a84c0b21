"""The frames and masks of one run, filed: which image, time point and plane each of them becomes."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import FrameError
from ...acquire.frame import Frame
from .layout import CodecName, ImageLayout
from .lock import FolderLock
from .ome_zarr import OmeZarrWriter

FRAMES_FOLDER = "frames.ome.zarr"


_REMEMBERED = 4096


class RunWriter:
    """Files what comes of one run, in the order in which it comes.

    A frame goes to the time point, position and z plane that its axes name. One that names none, or a place that is
    taken (an extra image), goes to the next free time point. Frames of another size, pixel type or kind of channels
    than the first ones get a recording of their own beside the first: ``frames-2.ome.zarr`` and so on.

    Parameters
    ----------
    run
        The run's folder.
    codec
        How pixels are stored.
    labels
        Whether masks are recorded.

    Raises
    ------
    OSError
        If another process writes them, or the disk has failed.
    SourceError
        If what is there is damaged or of another program.
    """

    def __init__(self, run: Path, *, codec: CodecName = "raw", labels: bool = False) -> None:
        self._run, self._labels = run, labels
        self._codec: CodecName = codec
        self._lock = FolderLock(run)
        self._parts: list[OmeZarrWriter] = [OmeZarrWriter(path) for path in part_folders(run)]
        self._places: OrderedDict[int, tuple[OmeZarrWriter, int, int, int]] = OrderedDict()
        self._latest = -1  # sequence numbers only ever rise
        for part in self._parts:
            for plane in part.planes():
                self._remember(plane.sequence, (part, plane.t, plane.position, plane.z))

    def add_frame(self, frame: Frame) -> bool:
        """Write a frame; False if it is there already.

        Raises
        ------
        OSError
            If it could not be written; nothing of it is there, and it can be tried again.
        """
        if frame.sequence <= self._latest:  # an engine that died had handed it on already
            return False
        writer = self._part_for(frame)
        position, z = self._position(writer, frame), self._plane(writer, frame)
        t = frame.axes.get("time")
        if isinstance(t, int) and t >= 0:
            try:
                return self._written(writer, frame, t, position, z)
            except FrameError:  # the place is taken by another frame
                pass
        return self._written(writer, frame, writer.time_points, position, z)

    def add_mask(self, frame: Frame, labels: NDArray[Any]) -> bool:
        """Write the mask (y, x) of a frame that was written; False if it is there already, or its frame is not.

        Raises
        ------
        OSError
            If it could not be written; nothing of it is there, and it can be tried again.
        """
        place = self._places.get(frame.sequence)
        if place is None:
            return False
        writer, t, position, z = place
        wanted = writer.layout.labels
        if wanted is None:
            return False
        return writer.append_labels(
            labels.astype(np.dtype(wanted), copy=False), frame, t=t, position=position, z=z
        )

    def sync(self) -> None:
        """Wait until all is on the disk itself.

        Raises
        ------
        OSError
            If the disk has failed.
        """
        for part in self._parts:
            part.sync()

    def close(self) -> None:
        """Finish the recordings.

        Raises
        ------
        OSError
            If the disk is full or has failed; what was written is there all the same.
        """
        try:
            for part in self._parts:
                part.close()
        finally:
            self._lock.close()

    def _written(self, writer: OmeZarrWriter, frame: Frame, t: int, position: int, z: int) -> bool:
        new = writer.append(frame, t=t, position=position, z=z)
        self._remember(frame.sequence, (writer, t, position, z))
        return new

    def _remember(self, sequence: int, place: tuple[OmeZarrWriter, int, int, int]) -> None:
        self._latest = max(self._latest, sequence)
        self._places[sequence] = place
        while len(self._places) > _REMEMBERED:
            self._places.popitem(last=False)

    def _part_for(self, frame: Frame) -> OmeZarrWriter:
        for part in self._parts:
            layout = part.layout
            if layout.shape == frame.shape and layout.dtype == frame.pixels.dtype.name:
                for name in frame.channels:
                    if name not in part.layout.channels:
                        part.add_channel(name)
                return part
        number = len(self._parts) + 1
        name = FRAMES_FOLDER if number == 1 else f"frames-{number}.ome.zarr"
        layout = ImageLayout(
            shape=frame.shape,
            dtype=frame.pixels.dtype.name,  # pyright: ignore[reportArgumentType]
            channels=frame.channels,
            pixel_size_um=frame.pixel_size_um,
            affine=frame.affine,
            labels="uint32" if self._labels else None,
            codec=self._codec,
        )
        self._parts.append(OmeZarrWriter(self._run / name, layout, positions=(_position_name(frame),)))
        return self._parts[-1]

    def _position(self, writer: OmeZarrWriter, frame: Frame) -> int:
        name = _position_name(frame)
        return writer.positions.index(name) if name in writer.positions else writer.add_position(name)

    def _plane(self, writer: OmeZarrWriter, frame: Frame) -> int:
        z = frame.axes.get("z", 0)
        z = z if isinstance(z, int) and z >= 0 else 0
        if z >= writer.layout.z_planes:
            writer.declare_planes(z + 1)
        return z


def _position_name(frame: Frame) -> str:
    return str(frame.axes.get("position", ""))


def part_folders(run: Path) -> list[Path]:
    """Return the folders of a run's recordings of frames, the first one first."""
    first = [run / FRAMES_FOLDER] if (run / FRAMES_FOLDER).is_dir() else []
    more = [path for path in run.glob("frames-*.ome.zarr") if path.name[7:-9].isdecimal()]
    return first + sorted(more, key=lambda path: int(path.name[7:-9]))
