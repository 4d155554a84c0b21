"""Frame: one image with its place in the stream, in space and in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import FrameError, nearest_name
from .governor.standing import Standing

Pixels: TypeAlias = "NDArray[np.uint8] | NDArray[np.uint16]"
PIXEL_TYPES = ("uint8", "uint16")
_PIXEL_CHARS = "BH"  # the same, as numpy's one-letter codes: ten times faster to ask for than names
LONGEST_SIDE_PX = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image of one field of view; never modified after it is made.

    Attributes
    ----------
    pixels
        (y, x), or (c, y, x) when several channels were taken at once; uint8 or uint16, C-contiguous.
    sequence
        Place in the stream: 0, 1, 2, ... without gaps, given by the source or the link.
    time_s
        Acquisition time in s since the start of the run: the clock that everything downstream computes in.
    axes
        Logical indices, such as ``{"time": 3, "position": "A1", "z": 0}``; int or str values.
    channels
        One name for each channel of ``pixels``.
    stage_um
        (x, y) of the stage in um when the image was taken, or None if unknown.
    z_um
        Focus position in um, or None.
    exposure_ms
        Exposure in ms, or None.
    pixel_size_um
        Edge of a pixel in the sample in um, or None.
    affine
        (xx, xy, yx, yy) from px to stage um as Micro-Manager's configuration gives it (see
        :class:`~cytoloop.acquire.coordinates.Affine`), or None if it gives none.
    sent_s
        The sender's monotonic clock in s when the image was handed over; only ages are computed from it.
    standing
        How the microscope stood when the image was sent: what is decided on one that was ``disarmed`` is refused.
    """

    pixels: Pixels
    sequence: int = 0
    time_s: float = 0.0
    axes: Mapping[str, int | str] = field(default_factory=dict[str, "int | str"])
    channels: tuple[str, ...] = ("",)
    stage_um: tuple[float, float] | None = None
    z_um: float | None = None
    exposure_ms: float | None = None
    pixel_size_um: float | None = None
    sent_s: float = 0.0
    affine: tuple[float, float, float, float] | None = None
    standing: Standing = "armed"

    def __post_init__(self) -> None:
        check_pixels(self.pixels)
        if len(self.channels) != (1 if self.pixels.ndim == 2 else self.pixels.shape[0]):
            raise FrameError(
                f"pixels of shape {self.pixels.shape} need {self.pixels.shape[0] if self.pixels.ndim == 3 else 1}"
                f" channel name(s), got {self.channels}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def without_pixels(self) -> Frame:
        """Return the frame with one dark pixel of each channel, to be kept: images may lie in memory that is lent."""
        shape = (1, 1) if self.pixels.ndim == 2 else (self.pixels.shape[0], 1, 1)
        return replace(self, pixels=np.zeros(shape, self.pixels.dtype))

    def channel(self, which: int | str = 0) -> Pixels:
        """Return one channel, given by name or index, as a (y, x) view.

        A (y, x) image is its only channel, whatever the index; a name must be its own.

        Raises
        ------
        FrameError
            If the frame has no such channel; names those that it has.
        """
        if self.pixels.ndim == 2 and isinstance(which, int):
            return self.pixels
        index = self.channel_index(which)
        return self.pixels if self.pixels.ndim == 2 else self.pixels[index]

    def channel_index(self, which: int | str) -> int:
        """Return the index of a channel that is given by name or index.

        Raises
        ------
        FrameError
            If the frame has no such channel; names those that it has.
        """
        if isinstance(which, int) and 0 <= which < len(self.channels):
            return which
        if isinstance(which, str) and which in self.channels:
            return self.channels.index(which)
        hint = nearest_name(which, self.channels) if isinstance(which, str) else ""
        known = ", ".join(map(repr, self.channels))
        raise FrameError(
            f"no channel {which!r}; the frame has {known}" + (f". Did you mean {hint!r}?" if hint else "")
        )


def check_pixels(pixels: Any) -> None:
    """Refuse, by name, any image that is not one a Micro-Manager camera gives in gray.

    Raises
    ------
    FrameError
        RGB, float or other pixel types, wrong dimensions, an empty or oversized image, a strided view.
    """
    if not isinstance(pixels, np.ndarray):
        raise FrameError(f"pixels must be a numpy array, got {type(pixels).__name__}")
    if pixels.ndim == 3 and pixels.shape[-1] in (3, 4) and pixels.shape[0] > 8:
        raise FrameError(
            f"RGB images are not supported (shape {pixels.shape}); set the camera's PixelType to 8bit or 16bit,"
            " or send one channel"
        )
    if pixels.dtype.char not in _PIXEL_CHARS:
        rgb = " (a 32-bit Micro-Manager image is RGB)" if pixels.dtype.name == "uint32" else ""
        raise FrameError(
            f"pixel type {pixels.dtype.name}{rgb} is not supported; allowed: {', '.join(PIXEL_TYPES)}"
        )
    if not pixels.dtype.isnative:
        raise FrameError("pixels are in foreign byte order; pass image.astype(image.dtype.newbyteorder('='))")
    if pixels.ndim not in (2, 3):
        raise FrameError(f"pixels must be (y, x) or (channel, y, x), got shape {pixels.shape}")
    if 0 in pixels.shape or max(pixels.shape[-2:]) > LONGEST_SIDE_PX:
        raise FrameError(f"image of shape {pixels.shape}: each side must be 1 to {LONGEST_SIDE_PX} px")
    if not pixels.flags.c_contiguous:
        raise FrameError("pixels must be C-contiguous; pass numpy.ascontiguousarray(pixels)")
