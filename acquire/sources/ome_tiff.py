"""Which page of an OME-TIFF is which frame, from its OME-XML.

Source of the format: OME-TIFF specification and schema 2016-06 (Open Microscopy Environment). Read here, not with
tifffile's series, because those drop the times, exposures and stage positions of the planes and take a plane that
is missing for a black one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ..errors import SourceError
from .tiff_layout import S_PER_UNIT, UM_PER_UNIT, PageRef, Plan, PlannedFrame, frame_axes
from .tiff_pages import TiffPages

Place = tuple[int, int, int]
"""(time, z, channel) of a plane."""


@dataclass(frozen=True, slots=True)
class _Image:
    """One ``Image`` of the file, which is one position of the stage."""

    sizes: dict[str, int]
    order: str
    shape: tuple[int, int]
    channels: tuple[str, ...]
    pixel_size_um: float | None
    increment_s: float | None
    pages: dict[Place, PageRef]
    planes: dict[Place, Element]
    absent: tuple[str, ...]


def is_ome(description: str) -> bool:
    """Return whether an ImageDescription is OME-XML."""
    return description.lstrip("\ufeff \r\n\t").startswith("<") and "<OME" in description[:4096].replace(
        "<ome:OME", "<OME"
    )


def plan_ome(pages: TiffPages, description: str, interval_s: float) -> Plan:
    """Plan the frames of an OME-TIFF: over time, then position (one per Image), then z.

    Times are the planes' ``DeltaT`` where all have one (and then give the order), else ``TimeIncrement``, else
    ``interval_s``.

    Raises
    ------
    SourceError
        If the XML is damaged, contradicts itself, or belongs to a file that is elsewhere.
    """
    path = pages.path
    try:
        root = ElementTree.fromstring(description.lstrip("\ufeff \r\n\t"))
    except ElementTree.ParseError as error:
        raise SourceError(path, f"its OME-XML is damaged or cut off: {error}") from error
    for element in _all(root, "BinaryOnly"):
        raise SourceError(
            path, f"its metadata are in {element.get('MetadataFile')!r}: open that file instead"
        )
    try:
        images = [_image(pages, root, element) for element in _all(root, "Image")]
        if not images:
            raise ValueError("it describes no image")
        frames, damage = _frames(path, images, interval_s)
    except (ValueError, KeyError) as error:
        raise SourceError(path, f"its OME-XML is damaged: {type(error).__name__}: {error}") from error
    first = images[0]
    if any((image.shape, len(image.channels)) != (first.shape, len(first.channels)) for image in images):
        raise SourceError(path, "its Images differ in size or channels; save each in a file of its own")
    return Plan(frames, first.channels, first.pixel_size_um, damage or pages.damage, first.shape)


def _image(pages: TiffPages, root: Element, element: Element) -> _Image:
    pixels = next(_all(element, "Pixels"), Element("Pixels"))
    sizes = {axis: int(pixels.attrib["Size" + axis]) for axis in "XYZCT"}
    order = pixels.attrib["DimensionOrder"]
    if min(sizes.values()) < 1 or sorted(order) != sorted("XYCZT") or order[:2] != "XY":
        raise ValueError(f"sizes {sizes} in order {order!r}")
    channels = [channel.get("Name", "") for channel in _all(pixels, "Channel")]
    if any(int(channel.get("SamplesPerPixel", 1)) != 1 for channel in _all(pixels, "Channel")):
        raise SourceError(pages.path, "RGB is not supported; save one gray channel per page")
    if sizes["C"] > max(len(pages), len(channels), 1):
        raise ValueError(f"SizeC is {sizes['C']}, there are {len(channels)} Channels and {len(pages)} pages")
    names = tuple(channels[index] if index < len(channels) else "" for index in range(sizes["C"]))
    size_x, size_y = (_quantity(pixels, f"PhysicalSize{axis}", UM_PER_UNIT, "µm") for axis in "XY")
    square = size_x is not None and size_x > 0 and math.isclose(size_x, size_y or size_x, rel_tol=0.01)
    places, absent = _pages_of_planes(pages, root, pixels, sizes, order)
    return _Image(
        {"time": sizes["T"], "z": sizes["Z"], "channel": sizes["C"]},
        order,
        (sizes["Y"], sizes["X"]),
        names,
        size_x if square else None,
        _quantity(pixels, "TimeIncrement", S_PER_UNIT, "s"),
        places,
        {
            (int(p.attrib["TheT"]), int(p.attrib["TheZ"]), int(p.attrib["TheC"])): p
            for p in _all(pixels, "Plane")
        },
        absent,
    )


def _pages_of_planes(
    pages: TiffPages, root: Element, pixels: Element, sizes: dict[str, int], order: str
) -> tuple[dict[Place, PageRef], tuple[str, ...]]:
    """Follow the TiffData elements to the pages that exist; name the files that do not."""
    axes = order[2:]
    strides = {axes[0]: 1, axes[1]: sizes[axes[0]], axes[2]: sizes[axes[0]] * sizes[axes[1]]}
    total = sizes["Z"] * sizes["C"] * sizes["T"]
    held = {pages.path: len(pages)}
    places: dict[Place, PageRef] = {}
    for block in list(_all(pixels, "TiffData")) or [Element("TiffData")]:
        file = _file_of(pages.path, root, block)
        page = int(block.get("IFD", 0))
        count = int(block.get("PlaneCount", 1 if block.get("IFD") else total))
        first = sum(int(block.get("First" + axis, 0)) * strides[axis] for axis in axes)
        if page < 0 or first < 0:
            raise ValueError(f"TiffData {block.attrib}")
        if file not in held:
            held[file] = _length(file)
        for step in range(min(count, held[file] - page, total - first)):
            at = {axis: (first + step) // strides[axis] % sizes[axis] for axis in axes}
            places[at["T"], at["Z"], at["C"]] = PageRef(file, page + step)
    return places, tuple(file.name for file, length in held.items() if not length)


def _file_of(path: Path, root: Element, block: Element) -> Path:
    """Return the file that a TiffData speaks of: this one, or another part of the set beside it."""
    for uuid in _all(block, "UUID"):
        name = uuid.get("FileName")
        if name is None or (root.get("UUID") and uuid.text == root.get("UUID")):
            return path
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise SourceError(path, f"its OME-XML names the file {name!r}, which is not in the same folder")
        return path.parent / name
    return path


def _length(file: Path) -> int:
    if not file.is_file():
        return 0
    pages = TiffPages(file)
    pages.close()
    return len(pages)


def _frames(path: Path, images: list[_Image], interval_s: float) -> tuple[list[PlannedFrame], str]:
    """Return the frames up to the first whose pages are missing, and why it is."""
    frames: list[PlannedFrame] = []
    recorded: list[float | None] = []
    for time, position, z in _indices(images):
        image = images[position]
        pages = [image.pages.get((time, z, channel)) for channel in range(len(image.channels))]
        whole = tuple(page for page in pages if page is not None)
        if len(whole) < len(pages):
            files = f" (files {', '.join(image.absent)})" if image.absent else ""
            return frames, f"the page for time {time}, z {z}, channel {pages.index(None)} is missing{files}"
        plane = image.planes.get((time, z, 0), Element("Plane"))
        recorded.append(_quantity(plane, "DeltaT", S_PER_UNIT, "s"))
        x, y, focus = (_quantity(plane, f"Position{axis}", UM_PER_UNIT, "reference frame") for axis in "XYZ")
        exposure_s = _quantity(plane, "ExposureTime", S_PER_UNIT, "s")
        frames.append(
            PlannedFrame(
                whole,
                frame_axes(time, position, z, image.sizes | {"position": len(images)}),
                time * (image.increment_s or interval_s),
                None if x is None or y is None else (x, y),
                focus,
                None if exposure_s is None else exposure_s * 1e3,
            )
        )
    times = [at for at in recorded if at is not None]
    if len(times) < len(frames) or len(set(times)) < max(len({frame.axes["time"] for frame in frames}), 1):
        # Missing for some planes, or one value for several times, as of a writer that does not know them.
        return frames, ""
    frames = [replace(frame, time_s=at) for frame, at in zip(frames, times, strict=True)]
    frames.sort(key=lambda frame: frame.time_s)
    _check_order(path, frames)
    return frames, ""


def _check_order(path: Path, frames: list[PlannedFrame]) -> None:
    """Refuse times that run against the time axis."""
    latest: dict[tuple[int | str, int | str], int] = {}
    for index, frame in enumerate(frames):
        key, time = (frame.axes.get("position", 0), frame.axes.get("z", 0)), int(frame.axes["time"])
        if time < latest.get(key, 0):
            raise SourceError(
                path, f"DeltaT {frame.time_s} s of time {time} is after that of a later time", index
            )
        latest[key] = time


def _indices(images: list[_Image]) -> Iterator[tuple[int, int, int]]:
    """Yield (time, position, z), z fastest."""
    for time in range(max(image.sizes["time"] for image in images)):
        for position, image in enumerate(images):
            if time < image.sizes["time"]:
                yield from ((time, position, z) for z in range(image.sizes["z"]))


def _quantity(element: Element, name: str, units: dict[str, float], default_unit: str) -> float | None:
    """Return an attribute with a unit in um or s; None if it is absent or its unit is not a known one."""
    factor = units.get(element.get(name + "Unit", default_unit))
    value = element.get(name)
    return None if factor is None or value is None else float(value) * factor


def _all(element: Element, tag: str) -> Iterator[Element]:
    """Yield the children (any depth) of this name, whatever the version of the schema."""
    return (child for child in element.iter() if child.tag == tag or child.tag.endswith("}" + tag))
