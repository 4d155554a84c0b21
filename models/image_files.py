"""Single images and instance masks as people have them: PNG and TIFF files."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from ..acquire.errors import SourceError
from ..acquire.frame import Pixels
from ..acquire.sources.recording import check_image

SUFFIXES = (".png", ".tif", ".tiff")
_LARGEST_LABEL = 2**31 - 1
_LARGEST_GREY = 65_535
_RED, _GREEN, _BLUE = 19_595, 38_470, 7_471
"""The weights 0.299, 0.587 and 0.114 of ITU-R BT.601 as shares of 2^16; grey that is stored as RGB stays as it is."""
_PNG = b"\x89PNG\r\n\x1a\n"
_COLOUR_PNG = (2, 6)


def read_image(path: Path) -> Pixels:
    """Read an image as a camera would have given it.

    Colour becomes luminance (ITU-R BT.601), alpha is left out. Float images have no grey levels of their own:
    the smallest value becomes 0 and the largest 65535. Other integers must fit into 16 bits.

    Parameters
    ----------
    path
        A PNG or TIFF file with one image: (y, x), colour (y, x, 3 or 4), or channels (c, y, x) in a TIFF file
        whose metadata name the axes ``CYX`` (as ImageJ's and OME's do).

    Returns
    -------
    array
        (y, x), or (c, y, x), uint8 or uint16, C-contiguous.

    Raises
    ------
    SourceError
        If it is missing, broken, of another kind, or larger than any frame; names the file and the reason.
    """
    stored, axes = _read(path, palette=True)
    if axes == "YXS":
        stored = _luminance(path, stored)
    planes = [_grey_levels(path, plane) for plane in (stored if axes == "CYX" else [stored])]
    pixels: Any = planes[0] if axes != "CYX" else np.stack(planes)
    return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))


def read_mask(path: Path) -> NDArray[np.int32]:
    """Read an instance mask: (y, x) int32, 0 is background; the numbers need not be consecutive.

    Raises
    ------
    SourceError
        If it is missing or broken, or holds anything but whole numbers from 0 to 2^31 - 1; names the file and
        the reason.
    """
    stored, axes = _read(path, palette=False)
    if axes == "YXS" and all((stored[..., 0] == stored[..., band]).all() for band in (1, 2)):
        stored, axes = stored[..., 0], "YX"
    if axes != "YX":
        raise SourceError(path, f"a mask is one image of whole numbers; this one has the axes {axes}")
    if stored.dtype.kind not in "buif" or (
        stored.dtype.kind == "f" and not (stored == np.floor(stored)).all()
    ):
        raise SourceError(path, f"a mask holds whole numbers, the cells' own; this one is {stored.dtype}")
    smallest, largest = stored.min(), stored.max()
    if not 0 <= smallest <= largest <= _LARGEST_LABEL:
        raise SourceError(
            path, f"holds numbers from {smallest} to {largest}; 0 to {_LARGEST_LABEL} are allowed"
        )
    return np.ascontiguousarray(stored, np.int32)


def _read(path: Path, *, palette: bool) -> tuple[NDArray[Any], str]:
    """Return what a file holds, and its axes: ``YX``, ``YXS`` (colour) or ``CYX`` (channels).

    ``palette`` says whether numbers of a palette stand for its colours; in masks they do not.
    """
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise SourceError(path, f"this kind of file is not read; allowed: {', '.join(SUFFIXES)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with a file is told by an error
            stored, axes = (_read_png if kind == ".png" else _read_tiff)(path, palette)
    except SourceError:
        raise
    except FileNotFoundError:
        raise SourceError(path, "there is no such file") from None
    except Exception as error:  # decoders that are fed damaged bytes raise what they like
        raise SourceError(path, f"cannot be read ({type(error).__name__}: {error})") from error
    if axes == "SYX":
        stored, axes = np.moveaxis(stored, 0, -1), "YXS"
    if axes == "YXS" and stored.shape[2] < 3:  # grey with alpha
        stored, axes = stored[..., 0], "YX"
    return stored, axes


def _read_png(path: Path, palette: bool) -> tuple[NDArray[Any], str]:
    with path.open("rb") as file:
        header = file.read(26)
        if len(header) == 26 and header.startswith(_PNG):
            width, height = struct.unpack(">II", header[16:24])
            check_image(path, "uint16", (height, width))
            if header[24] == 16 and header[25] in _COLOUR_PNG:
                raise SourceError(
                    path, "colour of 16 bits is not read from PNG files; save it in grey, or as TIFF"
                )
        file.seek(0)
        with Image.open(file, formats=("PNG",)) as image:
            stored = np.asarray(image.convert("RGB") if palette and image.mode == "P" else image)
    return stored, "YX" if stored.ndim == 2 else "YXS"


def _read_tiff(path: Path, palette: bool) -> tuple[NDArray[Any], str]:
    with tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            raise SourceError(path, f"holds {len(file.series)} series of images; one image is needed")
        series = file.series[0]
        if series.axes not in ("YX", "YXS", "SYX", "CYX"):
            raise SourceError(
                path,
                f"holds {series.shape} values along the axes {series.axes}; one image, (y, x), is needed,"
                " or channels in a file that calls its axes CYX",
            )
        first = series.keyframe
        check_image(path, "uint16", (len(series.pages), first.imagelength, first.imagewidth))
        if palette and first.photometric == tifffile.PHOTOMETRIC.PALETTE:
            raise SourceError(path, "palette colour is not read from TIFF files; save it in grey")
        if any(count == 0 for page in series.pages if page is not None for count in page.databytecounts):
            raise SourceError(path, "a part of its pixels was never written")
        return series.asarray(), series.axes


def _luminance(path: Path, colour: NDArray[Any]) -> NDArray[Any]:
    """Return (y, x) of the type of a colour image (y, x, 3 or more)."""
    if colour.dtype.type not in (np.uint8, np.uint16):
        raise SourceError(path, f"colour of type {colour.dtype} is not read; allowed: uint8, uint16")
    red, green, blue = (colour[..., band].astype(np.uint64) for band in range(3))
    return ((_RED * red + _GREEN * green + _BLUE * blue + (1 << 15)) >> 16).astype(colour.dtype.type)


def _grey_levels(path: Path, plane: NDArray[Any]) -> NDArray[Any]:
    """Return a plane as uint8 or uint16."""
    if plane.dtype.type in (np.uint8, np.uint16):
        return plane
    if plane.dtype.kind == "b":
        return plane.astype(np.uint8) * 255
    smallest, largest = plane.min(), plane.max()
    if plane.dtype.kind == "f":
        if not (np.isfinite(smallest) and np.isfinite(largest)):
            raise SourceError(path, "holds values that are infinite or no number")
        spread = float(largest) - float(smallest)
        scaled = (plane.astype(np.float64) - float(smallest)) * (
            _LARGEST_GREY / spread if spread > 0 else 0.0
        )
        return np.rint(scaled).astype(np.uint16)
    if plane.dtype.kind not in "iu":
        raise SourceError(path, f"pixel type {plane.dtype} is not read; allowed: integers, float")
    if not 0 <= smallest <= largest <= _LARGEST_GREY:
        raise SourceError(
            path, f"holds grey levels from {smallest} to {largest}; 0 to {_LARGEST_GREY} are allowed"
        )
    return plane.astype(np.uint16)
