"""Which file of a folder of single TIFF images is which frame."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import SourceError
from .tiff_layout import PageRef, Plan, PlannedFrame, frame_axes

# Micro-Manager 2, "separate image files".
_MICRO_MANAGER = re.compile(r"img_channel(\d+)_position(\d+)_time(\d+)_z(\d+)\.tiff?", re.IGNORECASE)


def plan_folder(folder: Path, interval_s: float) -> Plan:
    """Plan the images of a folder.

    Names as Micro-Manager gives them to separate image files say which channel, position, time and z each one is.
    Other images are a time series in natural order (``t2`` before ``t10``).

    Raises
    ------
    SourceError
        If there is no image, or one channel lacks an image that another has.
    """
    try:
        files = [entry for entry in folder.iterdir() if entry.suffix.lower() in (".tif", ".tiff")]
    except OSError as error:
        raise SourceError(folder, f"cannot be listed: {error.strerror or error}") from error
    if not files:
        raise SourceError(folder, "no .tif or .tiff file is in this folder")
    matches = [_MICRO_MANAGER.fullmatch(file.name) for file in files]
    if all(matches):
        names = {tuple(map(int, match.groups())): match.string for match in matches if match}
        return _plan_named(folder, names, interval_s)
    files.sort(key=lambda file: (natural_key(file.name), file.name))
    return Plan(
        [
            PlannedFrame((PageRef(file, 0),), {"time": index}, index * interval_s)
            for index, file in enumerate(files)
        ]
    )


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts numbers inside names by value: ``t2`` before ``t10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name.lower())]


def _plan_named(folder: Path, names: dict[tuple[int, ...], str], interval_s: float) -> Plan:
    """Plan files whose (channel, position, time, z) is known."""
    channels, positions, _, slices = (sorted(set(values)) for values in zip(*names, strict=True))
    sizes = {"position": len(positions), "z": len(slices)}
    frames: list[PlannedFrame] = []
    for time, position, z in sorted({(time, position, z) for _, position, time, z in names}):
        missing = [channel for channel in channels if (channel, position, time, z) not in names]
        if missing:
            reason = f"no image of channel {missing[0]} at position {position}, time {time}, z {z}"
            raise SourceError(folder, reason, len(frames))
        pages = tuple(PageRef(folder / names[channel, position, time, z], 0) for channel in channels)
        frames.append(PlannedFrame(pages, frame_axes(time, position, z, sizes), time * interval_s))
    times = sorted({int(frame.axes["time"]) for frame in frames})
    if times != list(range(times[-1] + 1)):
        gap = next(index for index, time in enumerate(times) if index != time)
        at = next(index for index, frame in enumerate(frames) if int(frame.axes["time"]) > gap)
        raise SourceError(folder, f"no image of time {gap}; the next is {times[gap]}", at)
    return Plan(frames, ("",) * len(channels))
