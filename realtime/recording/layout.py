"""What every image of a recording looks like: declared before the first frame, kept in the recording itself."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import msgspec

from ...acquire.errors import ConfigurationError, Problem
from ...acquire.frame import LONGEST_SIDE_PX

CodecName = Literal["raw", "blosc-lz4"]
MOST_TIME_POINTS = 2**31 - 1
MOST_FRAMES_PER_SHARD = 255  # so that a shard's index fits into one page of memory, which is written whole
_LARGEST_BLOSC_BYTES = 2**31 - 17


class Place(NamedTuple):
    """Where a plane lies: index of the position, time point, index of the channel, index in z; all from 0."""

    position: int
    t: int
    c: int
    z: int


class ImageLayout(msgspec.Struct, frozen=True, kw_only=True):
    """Shape and meaning of the images of a recording; all positions share one.

    Attributes
    ----------
    shape
        (height, width) of a plane in px.
    dtype
        Pixel type of the frames.
    channels
        Names of the channels, in the order in which they are stored; different from each other.
    z_planes
        Number of planes of a z stack; 1 if there is none.
    pixel_size_um
        Edge of a pixel in the sample in um, or None if unknown.
    z_step_um
        Distance of two planes in um, or None.
    interval_s
        Planned time between two time points in s, or None; the real times stand in the side index.
    affine
        (xx, xy, yx, yy) from px to stage um, see :class:`~cytoloop.acquire.coordinates.Affine`, or None.
    labels
        Pixel type of the label image ``labels/cells`` beside each image; None if masks are not recorded.
    codec
        ``raw`` (little-endian pixels) or ``blosc-lz4`` (smaller and slower; needs the extra ``blosc``).
    frames_per_shard
        Number of time points in one file, 1 to 255.

    Raises
    ------
    ConfigurationError
        If a value is out of its range; names all that are.
    """

    shape: tuple[int, int]
    dtype: Literal["uint8", "uint16"]
    channels: tuple[str, ...] = ("",)
    z_planes: int = 1
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    interval_s: float | None = None
    affine: tuple[float, float, float, float] | None = None
    labels: Literal["uint16", "uint32"] | None = None
    codec: CodecName = "raw"
    frames_per_shard: int = 64

    def __post_init__(self) -> None:
        wrong = [(key, why) for key, why, right in self._checks() if not right]
        if wrong:
            raise ConfigurationError(
                Problem("", 0, f"layout.{key}", f"{getattr(self, key)!r}: {why}") for key, why in wrong
            )

    def _checks(self) -> list[tuple[str, str, bool]]:
        height, width = self.shape
        largest = height * width * (4 if self.labels == "uint32" else 2)
        lengths = {key: getattr(self, key) for key in ("pixel_size_um", "z_step_um", "interval_s")}
        return [
            (
                "shape",
                f"each side must be 1 to {LONGEST_SIDE_PX} px",
                min(height, width) > 0 and max(height, width) <= LONGEST_SIDE_PX,
            ),
            ("dtype", "must be uint8 or uint16", self.dtype in ("uint8", "uint16")),
            (
                "channels",
                "at least one name, all different",
                0 < len(self.channels) == len(set(self.channels)),
            ),
            ("z_planes", "must be at least 1", self.z_planes >= 1),
            (
                "frames_per_shard",
                f"must be 1 to {MOST_FRAMES_PER_SHARD}",
                1 <= self.frames_per_shard <= MOST_FRAMES_PER_SHARD,
            ),
            *(
                (key, "must be more than 0, or None", value is None or (math.isfinite(value) and value > 0))
                for key, value in lengths.items()
            ),
            (
                "affine",
                "must be four finite numbers, or None",
                self.affine is None or all(map(math.isfinite, self.affine)),
            ),
            ("labels", "must be uint16, uint32 or None", self.labels in ("uint16", "uint32", None)),
            (
                "codec",
                "must be 'raw', or 'blosc-lz4' for planes of less than 2 GiB",
                self.codec == "raw" or (self.codec == "blosc-lz4" and largest <= _LARGEST_BLOSC_BYTES),
            ),
        ]
