"""Frames as they travel: a header that describes the pixels, and the pixels, told to be unharmed by a checksum."""

from __future__ import annotations

import numpy as np
import xxhash

from ..errors import FrameError, WireError
from ..frame import Frame, Pixels
from .messages import FrameHeader


def checksum(pixels: Pixels | memoryview) -> int:
    """Return the xxh3 64-bit checksum of the pixels (44 GB/s where CRC-32 gives 2.5)."""
    return xxhash.xxh3_64_intdigest(pixels)  # pyright: ignore[reportArgumentType]  (any C-contiguous buffer)


def header_of(frame: Frame, *, skipped: int, slot: int, check: int) -> FrameHeader:
    """Return the header of a frame whose pixels have the given checksum."""
    return FrameHeader(
        sequence=frame.sequence,
        skipped=skipped,
        shape=frame.pixels.shape,
        dtype=frame.pixels.dtype.name,  # pyright: ignore[reportArgumentType]
        checksum=check,
        slot=slot,
        time_s=frame.time_s,
        sent_s=frame.sent_s,
        axes=dict(frame.axes),
        channels=frame.channels,
        stage_um=frame.stage_um,
        z_um=frame.z_um,
        exposure_ms=frame.exposure_ms,
        pixel_size_um=frame.pixel_size_um,
        affine=frame.affine,
        standing=frame.standing,
    )


def frame_of(header: FrameHeader, pixels: memoryview) -> Frame:
    """Return the frame of a header and its pixels, after checking that they belong together.

    Raises
    ------
    WireError
        If length or checksum differ.
    """
    if pixels.nbytes != header.nbytes:
        raise WireError(f"pixels: {pixels.nbytes} bytes for shape {header.shape} {header.dtype}")
    if checksum(pixels) != header.checksum:
        raise WireError(f"pixels of frame {header.sequence} were damaged on the way (checksum)")
    try:
        return frame_with(header, np.frombuffer(pixels, header.dtype).reshape(header.shape))
    except FrameError as error:
        raise WireError(f"frame {header.sequence}: {error}") from None


def frame_with(header: FrameHeader, pixels: Pixels) -> Frame:
    """Put a header and its pixels together.

    Raises
    ------
    FrameError
        If the pixels are of a kind that no room accepts.
    """
    return Frame(
        pixels=pixels,
        sequence=header.sequence,
        time_s=header.time_s,
        axes=header.axes,
        channels=header.channels,
        stage_um=header.stage_um,
        z_um=header.z_um,
        exposure_ms=header.exposure_ms,
        pixel_size_um=header.pixel_size_um,
        affine=header.affine,
        sent_s=header.sent_s,
        standing=header.standing,
    )
