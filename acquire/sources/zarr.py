"""Frames from OME-Zarr, 0.4 (Zarr 2) and 0.5 (Zarr 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingExtraError, SourceError
from ..frame import Frame, Pixels
from .recording import LARGEST_IMAGE_PX, Recording, at_frame, check_image, check_interval
from .tiff_layout import S_PER_UNIT, UM_PER_UNIT, frame_axes
from .zarr_chunks import ChunkGrid, read_grid, read_json

_AXES = {"t": "time", "z": "z", "c": "channel", "y": "y", "x": "x"}


@dataclass(frozen=True, slots=True)
class _Image:
    """One multiscale image, at its full resolution; ``axes`` are letters as in OME-Zarr."""

    grid: ChunkGrid
    axes: tuple[str, ...]
    channels: tuple[str, ...]
    pixel_size_um: float | None
    z_step_um: float | None
    interval_s: float | None
    array: Any

    def length(self, axis: str) -> int:
        return self.grid.shape[self.axes.index(axis)] if axis in self.axes else 1


class ZarrSource(Recording):
    """Frames of an OME-Zarr image at full resolution, over time, then position, then z; channels in one frame.

    Positions are the images of a bioformats2raw layout, which is how several are saved in one folder.

    Parameters
    ----------
    path
        Folder of the image or of the layout.
    interval_s
        Time between time points in s, where the time axis has no unit.
    allow_missing
        Take chunks that are missing for black: some writers leave out chunks of zeros. Then a recording that was
        cut off cannot be told from one that is dark.

    Raises
    ------
    SourceError
        If the metadata are damaged or describe something else; while reading, if a chunk is missing or damaged.
    MissingExtraError
        If the zarr package is not installed.
    """

    def __init__(self, path: str | Path, *, interval_s: float = 1.0, allow_missing: bool = False) -> None:
        path = Path(path)
        check_interval(path, interval_s)
        self._images = [_open_image(folder) for folder in _image_folders(path)]
        first = self._images[0]
        if any((image.axes, image.grid.shape) != (first.axes, first.grid.shape) for image in self._images):
            raise SourceError(path, "its images differ in axes or shape; replay them one by one")
        self._sizes = {"time": first.length("t"), "position": len(self._images), "z": first.length("z")}
        self._interval_s = first.interval_s or interval_s
        self._allow_missing = allow_missing
        super().__init__(path, path.resolve().name, math.prod(self._sizes.values()))
        with at_frame(path, 0):
            first.grid.check(_region(first, 0, 0), allow_missing)

    def _read(self, index: int) -> Frame:
        rest, z = divmod(index, self._sizes["z"])
        time, position = divmod(rest, self._sizes["position"])
        image = self._images[position]
        region = _region(image, time, z)
        image.grid.check(region, self._allow_missing)
        return Frame(
            _pixels(image, region),
            index,
            time * self._interval_s,
            frame_axes(time, position, z, self._sizes),
            image.channels,
            z_um=None if image.z_step_um is None else z * image.z_step_um,
            pixel_size_um=image.pixel_size_um,
        )


def _region(image: _Image, time: int, z: int) -> list[range]:
    """Return what one frame takes of each axis."""
    single = {"t": range(time, time + 1), "z": range(z, z + 1)}
    return [
        single.get(axis, range(length)) for axis, length in zip(image.axes, image.grid.shape, strict=True)
    ]


def _pixels(image: _Image, region: Sequence[range]) -> Pixels:
    read = image.array[tuple(slice(axis.start, axis.stop) for axis in region)]
    shape = tuple(len(axis) for axis, letter in zip(region, image.axes, strict=True) if letter in "cyx")
    if shape[0] == 1 and len(shape) == 3:
        shape = shape[1:]
    pixels = np.ascontiguousarray(read).reshape(shape)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _image_folders(path: Path) -> list[Path]:
    """Return the folders of the images in a recording: itself, or its positions in order."""
    attributes = _attributes(path)
    if "multiscales" in attributes:
        return [path]
    if "bioformats2raw.layout" in attributes:
        series = _attributes(path / "OME").get("series")
        if series is None:
            series = sorted((folder.name for folder in path.iterdir() if folder.name.isdecimal()), key=int)
        if isinstance(series, list) and series:
            return [_inside(path, str(name)) for name in series]
        raise SourceError(path, "a bioformats2raw layout without images")
    if "plate" in attributes or "well" in attributes:
        raise SourceError(path, "a plate or well: give the folder of one field, such as plate.zarr/A/1/0")
    raise SourceError(
        path,
        "no OME-Zarr image here: no 'multiscales' (0.4 or 0.5); of a single array, give the folder above",
    )


def _attributes(path: Path) -> Mapping[str, Any]:
    """Return the OME attributes of a group, of either version."""
    if (path / "zarr.json").is_file():
        attributes = read_json(path / "zarr.json").get("attributes", {})
        attributes = attributes.get("ome", {}) if isinstance(attributes, dict) else {}
        return attributes if isinstance(attributes, dict) else {}
    return read_json(path / ".zattrs") if (path / ".zattrs").is_file() else {}


def _open_image(path: Path) -> _Image:
    attributes = _attributes(path)
    try:
        multiscale = attributes["multiscales"][0]
        dataset = multiscale["datasets"][0]
        name = str(dataset["path"])
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in multiscale["axes"]]
        letters = tuple(str(axis["name"]).lower() for axis in axes)
        units = [str(axis.get("unit", "")) for axis in axes]
        scale = _scale(dataset, len(axes)) * _scale(multiscale, len(axes))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise SourceError(path, f"its 'multiscales' are damaged: {type(error).__name__}: {error}") from error
    if letters[-2:] != ("y", "x") or set(letters) - set(_AXES) or len(set(letters)) < len(letters):
        raise SourceError(
            path, f"axes {list(letters)} are not supported; allowed: some of t, c, z, then y, x"
        )
    folder = _inside(path, name)
    grid = read_grid(folder)
    if not len(grid.shape) == len(grid.file) == len(grid.chunk) == len(letters):
        raise SourceError(path, f"the array has {len(grid.shape)} axes, the metadata name {list(letters)}")
    sizes = dict(zip(letters, grid.shape, strict=True))
    check_image(path, grid.dtype, (sizes.get("c", 1), sizes["y"], sizes["x"]))
    if math.prod(grid.chunk) > LARGEST_IMAGE_PX:
        raise SourceError(
            path, f"chunks of {grid.chunk} px; at most {LARGEST_IMAGE_PX} px can be decoded at once"
        )
    steps = {
        letter: value * factor
        for letter, value, unit in zip(letters, scale, units, strict=True)
        if (factor := (S_PER_UNIT if letter == "t" else UM_PER_UNIT).get(unit))
        and math.isfinite(value)
        and value > 0
    }
    square = "x" in steps and math.isclose(steps["x"], steps.get("y", 0), rel_tol=0.01)
    return _Image(
        grid,
        letters,
        _channel_names(attributes, sizes.get("c", 1)),
        steps["x"] if square else None,
        steps.get("z"),
        steps.get("t"),
        _open_array(folder),
    )


def _inside(path: Path, name: str) -> Path:
    """Return a folder named by the metadata, refused if it is not inside the recording."""
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\\" in name or ":" in name:
        raise SourceError(path, f"the image {name!r} is not inside the folder")
    return path / name


def _scale(holder: Mapping[str, Any], axes: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the scale of a dataset or multiscale, one factor per axis; ones where none is given."""
    for transformation in holder.get("coordinateTransformations", []):
        if transformation.get("type") == "scale":
            scale = np.asarray(transformation["scale"], dtype=float)
            if scale.shape != (axes,):
                raise ValueError(f"a scale of {scale.size} factors for {axes} axes")
            return scale
    return np.ones(axes)


def _channel_names(attributes: Mapping[str, Any], channels: int) -> tuple[str, ...]:
    omero = attributes.get("omero")
    listed = omero.get("channels") if isinstance(omero, dict) else None
    labels = [str(channel.get("label", "")) for channel in listed or [] if isinstance(channel, dict)]
    return tuple(labels) if len(labels) == channels else ("",) * channels


def _open_array(folder: Path) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise MissingExtraError("zarr", "zarr") from error
    try:
        return zarr.open_array(folder, mode="r")
    except Exception as error:
        raise SourceError(
            folder, f"cannot be opened as a Zarr array ({type(error).__name__}: {error})"
        ) from error
