"""Recorded images as one array whose planes are read, and checked, only when they are asked for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import SourceError
from .reader import Part
from .side_index import Plane
from .tree import FRAME_ARRAY

Selected: TypeAlias = "range | int"

_LONGEST_AXIS = 65_536  # channels, and planes of a stack
_MOST_EMPTY = 1000  # for each plane that is there; more is no sparse recording but a trap
_MOST_CHUNKS = 1 << 20
_FREE = 1 << 20


class LazyImages:
    """The images of one position: (t, c, z, y, x), or masks (t, z, y, x); planes that were not taken are zero.

    Takes integers, slices and an ellipsis, as an array of numpy does.

    Parameters
    ----------
    part
        The recording.
    position
        Number of the position.

    Attributes
    ----------
    shape, dtype, ndim
        As of an array of numpy.
    axes
        Names of the axes, one letter each.

    Raises
    ------
    SourceError
        If the recording claims to be larger than it can be.
    """

    def __init__(self, part: Part, position: int) -> None:
        layout = part.recorded.layout
        with_channels = part.array == FRAME_ARRAY
        self.axes = "tczyx" if with_channels else "tzyx"
        self._part = part
        self._planes: dict[tuple[int, ...], Plane] = {}
        for plane in part.planes:
            if plane.position == position:
                index = (plane.t, plane.c, plane.z) if with_channels else (plane.t, plane.z)
                self._planes[index] = plane
        times = max((index[0] for index in self._planes), default=-1) + 1
        lengths = (
            (times, len(layout.channels), layout.z_planes) if with_channels else (times, layout.z_planes)
        )
        if max(lengths[1:]) > _LONGEST_AXIS or math.prod(lengths) > _FREE + _MOST_EMPTY * len(self._planes):
            claim = " x ".join(map(str, lengths))
            raise SourceError(part.folder, f"claims {claim} planes, and {len(self._planes)} are there")
        self.shape: tuple[int, ...] = (*lengths, *layout.shape)
        self.dtype = np.dtype(part.dtype)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        axes = ", ".join(f"{axis} {length}" for axis, length in zip(self.axes, self.shape, strict=True))
        return f"<LazyImages {axes}; {self.dtype.name}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read the planes that are asked for.

        Raises
        ------
        IndexError
            If there are none.
        SourceError
            If one of them is damaged.
        """
        keys = _keys(key, self.ndim)
        outer = self.ndim - 2
        chosen = [_selected(each, length) for each, length in zip(keys[:outer], self.shape, strict=False)]
        inside = keys[outer:]
        kept = [each if isinstance(each, range) else range(each, each + 1) for each in chosen]
        empty = np.empty((0, *self.shape[outer:]), self.dtype)
        shape = empty[(slice(None), *inside)].shape[1:]
        result = np.zeros((*map(len, kept), *shape), self.dtype)
        for place in np.ndindex(*map(len, kept)):
            plane = self._planes.get(tuple(axis[index] for axis, index in zip(kept, place, strict=True)))
            if plane is not None:
                result[place] = self._part.read(plane)[tuple(inside)]
        return result[tuple(slice(None) if isinstance(each, range) else 0 for each in chosen)]


def as_lazy_array(images: LazyImages) -> Any:
    """Return images as an array of dask, a chunk for each plane, if dask is installed; else as they are."""
    try:
        import dask.array
    except ImportError:
        return images
    outer = images.shape[:-2]
    together = max(1, math.ceil(math.prod(outer) / _MOST_CHUNKS))
    chunks = (together, *(1 for _ in outer[1:]), *images.shape[-2:])
    name = f"cytoloop-{images.axes}-{id(images):x}"
    made: Any = dask.array
    return made.from_array(images, chunks=chunks, name=name, asarray=True, meta=np.empty(0, images.dtype))


def _keys(key: Any, count: int) -> list[Any]:
    keys = list(key) if isinstance(key, tuple) else [key]
    if (dots := [index for index, each in enumerate(keys) if each is Ellipsis]) and len(dots) == 1:
        at = dots[0]
        keys[at : at + 1] = [slice(None)] * (count - len(keys) + 1)
    keys += [slice(None)] * (count - len(keys))
    if len(keys) != count or not all(isinstance(each, int | np.integer | slice) for each in keys):
        raise IndexError(f"{key!r}: allowed are up to {count} integers and slices")
    return keys


def _selected(key: Any, length: int) -> Selected:
    if isinstance(key, slice):
        return range(length)[key]
    return range(length)[int(key)]


def first_position(path: Path, names: tuple[str, ...], name: int | str | None) -> int:
    """Return the number of a position that is given by name, or the first one for None.

    Raises
    ------
    SourceError
        If there is none of this name; names those that are there.
    """
    if name is None:
        return 0
    if str(name) in names:
        return names.index(str(name))
    raise SourceError(path, f"there is no position {name!r}; there are {', '.join(map(repr, names))}")
