"""What an engine hands to its recorder: frames and masks, with all that must be known to file them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import WireError
from ...acquire.frame import Frame
from ...acquire.link.messages import FrameHeader
from ...acquire.link.pixels import frame_of, frame_with
from .ring import RecordRing

FRAME, MASK, CLOSE = 1, 2, 3
_LENGTH_BYTES = 4


class About(msgspec.Struct, frozen=True, array_like=True):
    """The head of a record.

    Attributes
    ----------
    folder
        Of the run.
    header
        Of the frame; None where the run has ended.
    mask
        Pixel type of the mask; ``""`` of a frame.
    """

    folder: str
    header: FrameHeader | None = None
    mask: Literal["", "uint16", "uint32"] = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(About)


def put_frame(ring: RecordRing, folder: str, header: FrameHeader, frame: Frame) -> bool:
    """Put a frame in; False if the ring is too full now.

    Raises
    ------
    LinkError
        If it will never fit.
    """
    return _put(ring, FRAME, header.sequence, About(folder, header), frame.pixels.data.cast("B"))


def put_mask(ring: RecordRing, folder: str, header: FrameHeader, labels: NDArray[Any]) -> bool:
    """Put the mask (y, x) of a frame in; False if the ring is too full now.

    Raises
    ------
    LinkError
        If it will never fit.
    """
    small = np.ascontiguousarray(labels, np.uint16 if labels.max(initial=0) < 65_536 else np.uint32)
    about = About(folder, header, small.dtype.name)  # pyright: ignore[reportArgumentType]
    return _put(ring, MASK, header.sequence, about, small.data.cast("B"))


def put_close(ring: RecordRing, folder: str) -> bool:
    """Say that a run has ended; False if the ring is too full now."""
    return _put(ring, CLOSE, 0, About(folder), b"")


def _put(ring: RecordRing, kind: int, number: int, about: About, pixels: bytes | memoryview) -> bool:
    head = _encoder.encode(about)
    return ring.put(kind, number, (len(head).to_bytes(_LENGTH_BYTES, "little"), head, pixels))


def about_of(payload: memoryview) -> tuple[About, memoryview]:
    """Return the head and the pixels of a record.

    Raises
    ------
    WireError
        If it is none of ours.
    """
    length = int.from_bytes(payload[:_LENGTH_BYTES], "little")
    end = _LENGTH_BYTES + length
    try:
        return _decoder.decode(payload[_LENGTH_BYTES:end]), payload[end:]
    except ValueError as error:
        raise WireError(f"a record cannot be read: {error}") from None


def frame_in(about: About, pixels: memoryview) -> Frame:
    """Return the frame of a record, its pixels in place.

    Raises
    ------
    WireError
        If the pixels are not those that its header describes.
    """
    if about.header is None:
        raise WireError("a record of a frame without its header")
    return frame_of(about.header, pixels)


def without_pixels(header: FrameHeader) -> Frame:
    """Return the frame of a header with one dark pixel of each channel."""
    shape = (1, 1) if len(header.shape) == 2 else (header.shape[0], 1, 1)
    return frame_with(header, np.zeros(shape, header.dtype))


def mask_in(about: About, pixels: memoryview) -> NDArray[Any]:
    """Return the mask (y, x) of a record, in place.

    Raises
    ------
    WireError
        If it is not of the size of its frame.
    """
    header = about.header
    if header is None or not about.mask:
        raise WireError("a record of a mask without its header")
    shape = header.shape[-2:]
    if pixels.nbytes != shape[0] * shape[1] * np.dtype(about.mask).itemsize:
        raise WireError(f"a mask of {pixels.nbytes} bytes for frame {header.sequence} of {shape} px")
    return np.frombuffer(pixels, about.mask).reshape(shape)
