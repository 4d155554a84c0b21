"""What the sources of recorded frames share: one loop that reads, checks and numbers them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FrameError, MissingExtraError, SourceError
from ..frame import LONGEST_SIDE_PX, PIXEL_TYPES, Frame, Pixels

LARGEST_IMAGE_PX = 2**28
"""Most pixels of one frame over all its channels; a header that claims more is refused before allocating."""


class Recording(ABC):
    """Base of the recorded sources: a known number of frames, each read when its turn comes.

    A subclass plans its frames in ``__init__`` and reads one in ``_read``; numbering, the checks that hold for
    every kind of recording and the wrapping of errors are here. At most one frame is in memory.
    """

    def __init__(self, path: Path, name: str, count: int) -> None:
        self.path, self.name, self._count = path, name, count

    @property
    def count(self) -> int:
        """Number of frames that ``frames`` yields."""
        return self._count

    @abstractmethod
    def _read(self, index: int) -> Frame:
        """Return frame ``index`` with that sequence number; may raise anything."""

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order.

        Raises
        ------
        SourceError
            With the number of the first frame that is damaged or unlike the first one.
        """
        first = last = None
        for index in range(self._count):
            with at_frame(self.path, index):
                frame = self._read(index)
                first = first or frame
                _check_alike(self.path, frame, first, last or first)
                last = frame
            yield frame

    def close(self) -> None:  # noqa: B027 - most kinds hold nothing open
        """Release files and memory; may be called again."""


@contextmanager
def at_frame(path: Path, frame: int) -> Generator[None]:
    """Turn any failure while a frame is planned or read into a SourceError that names the frame.

    Decoders that are fed damaged bytes raise what they like, so everything is caught here.
    """
    try:
        yield
    except MissingExtraError:
        raise
    except SourceError as error:
        raise SourceError(error.path, error.reason, frame if error.frame is None else error.frame) from error
    except FrameError as error:
        raise SourceError(path, str(error), frame) from error
    except FileNotFoundError as error:
        raise SourceError(error.filename or path, "the file is missing or has been removed", frame) from error
    except Exception as error:
        raise SourceError(path, f"cannot be read ({type(error).__name__}: {error})", frame) from error


def check_image(path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    """Refuse a pixel type or size that no room accepts, from a header, before anything is allocated.

    Parameters
    ----------
    dtype
        Name of the pixel type, such as ``"uint16"``.
    shape
        (y, x) or (c, y, x) in px.

    Raises
    ------
    SourceError
        Without a frame number; see :func:`at_frame`.
    """
    if dtype not in PIXEL_TYPES:
        advice = " Scale it to uint16 first." if "float" in dtype else ""
        raise SourceError(
            path, f"pixel type {dtype} is not supported; allowed: {', '.join(PIXEL_TYPES)}.{advice}"
        )
    if not all(0 < side <= LONGEST_SIDE_PX for side in shape[-2:]) or math.prod(shape) > LARGEST_IMAGE_PX:
        raise SourceError(
            path,
            f"an image of shape {shape}: each side must be 1 to {LONGEST_SIDE_PX} px,"
            f" all channels together at most {LARGEST_IMAGE_PX} px",
        )


def stack_channels(planes: Sequence[Pixels]) -> Pixels:
    """Return the planes of one frame as its pixels: (y, x) if there is one, else (c, y, x)."""
    stacked: Any = planes[0] if len(planes) == 1 else np.stack(planes)
    return stacked


def check_interval(path: Path, interval_s: float) -> None:
    """Refuse an interval between frames that is not a positive number of seconds."""
    if not (math.isfinite(interval_s) and interval_s > 0):
        raise SourceError(path, f"interval_s={interval_s} must be a number of seconds above 0")


def _check_alike(path: Path, frame: Frame, first: Frame, last: Frame) -> None:
    if frame.shape != first.shape or frame.pixels.dtype != first.pixels.dtype:
        raise SourceError(
            path,
            f"shape {frame.shape} {frame.pixels.dtype} differs from frame 0, {first.shape} {first.pixels.dtype}",
        )
    if not math.isfinite(frame.time_s) or frame.time_s < last.time_s:
        raise SourceError(
            path, f"its time {frame.time_s} s is not after that of the frame before, {last.time_s} s"
        )
