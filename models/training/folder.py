"""A folder of images and masks to learn from, read and checked as a whole before anything is learned."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...acquire.errors import SourceError
from ...acquire.frame import Pixels
from ..image_files import read_image, read_mask
from ..image_pairs import ImagePair, pair_files
from ..labels import numbered
from .annotation import check_taken_back

SMALLEST_SIDE = 64
FEWEST_CELLS = 20
MOST_CELLS = 65_535
_MOST_NAMED = 10
_LAYOUTS = """Looked for, in this order:
  images/ and masks/ with the same names (also what `cytoloop annotate` wrote)
  01/ with 01_GT/SEG or 01_ST/SEG beside it (Cell Tracking Challenge), or such a 01 itself
  images with masks beside them: a.tif and a_masks.tif"""

Mask = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """An image, and what is in it.

    Attributes
    ----------
    name
        Unique in its folder; without suffix.
    image
        (y, x) uint8 or uint16.
    mask
        (y, x) int32, 0 is background, 1, 2, 3, ... are cells.
    """

    name: str
    image: Pixels
    mask: Mask

    @property
    def cells(self) -> int:
        """Number of cells in the mask."""
        return int(self.mask.max())


def read_annotated(
    folder: Path,
    *,
    channel: int | None = None,
    foreground: bool = False,
    partial: bool = False,
    fewest: int = 1,
) -> list[Annotated]:
    """Read every image of a folder with its mask.

    Parameters
    ----------
    folder
        In one of the layouts that the error for another names.
    channel
        Which channel of images that have several, from 0.
    foreground
        Masks hold one number for all cells: every connected piece (8 neighbours) becomes a cell.
    partial
        Masks need not hold every cell.
    fewest
        Images needed.

    Raises
    ------
    SourceError
        Names every file that cannot be learned from, and why; or what the folder as a whole lacks.
    """
    check_taken_back(folder)
    pairs = list(find_pairs(folder))
    read: list[Annotated] = []
    wrong: list[str] = []
    for name, pair in pairs:
        try:
            image, mask = _one_channel(pair.image, channel), read_mask(pair.mask)
            if foreground:
                mask = ndimage.label(mask > 0, np.ones((3, 3)))[0].astype(np.int32)
            _check(pair, image, mask)
            if not partial:
                _check_whole(pair, mask)
        except SourceError as error:
            wrong.append(str(error))
        else:
            read.append(Annotated(name, image, numbered(mask)[0]))
    if wrong:
        more = [f"and {len(wrong) - _MOST_NAMED} more"] if len(wrong) > _MOST_NAMED else []
        listed = "\n  ".join(wrong[:_MOST_NAMED] + more)
        raise SourceError(folder, f"{len(wrong)} of {len(pairs)} images cannot be learned from:\n  {listed}")
    if len(read) < fewest:
        raise SourceError(folder, f"holds {len(read)} image(s) with masks; {fewest} or more are needed")
    if (cells := sum(one.cells for one in read)) < FEWEST_CELLS:
        raise SourceError(folder, f"{cells} cells are in the masks; {FEWEST_CELLS} or more are needed")
    return read


def find_pairs(folder: Path) -> Iterator[tuple[str, ImagePair]]:
    """Yield the images of a folder with their masks, under names that are unique in it; reads no pixels.

    Raises
    ------
    SourceError
        If nothing known is there, or images and masks do not belong together.
    """
    if not folder.is_dir():
        raise SourceError(folder, "there is no such folder")
    if (folder / "images").is_dir() and (folder / "masks").is_dir():
        yield from ((pair.name, pair) for pair in pair_files(folder / "images", folder / "masks").pairs)
    elif sequences := _sequences(folder):
        for images, masks in sequences:
            yield from ((f"{images.name}_{pair.name}", pair) for pair in pair_files(images, masks).pairs)
    elif any(re.search(r"_(?:mask|label)s?$", file.stem) for file in folder.iterdir()):
        yield from ((pair.name, pair) for pair in pair_files(folder, folder).pairs)
    else:
        raise SourceError(folder, f"no images with masks are here. {_LAYOUTS}")


def _sequences(folder: Path) -> list[tuple[Path, Path]]:
    """Return (images, masks) of all sequences of the Cell Tracking Challenge here; gold before silver masks."""
    candidates = (
        [folder] if folder.name.isdecimal() else sorted(f for f in folder.iterdir() if f.name.isdecimal())
    )
    found: list[tuple[Path, Path]] = []
    for images in candidates:
        beside = [images.with_name(f"{images.name}_{kind}") / "SEG" for kind in ("GT", "ST")]
        found += [(images, masks) for masks in beside if masks.is_dir()][:1]
    return found


def _one_channel(path: Path, channel: int | None) -> Pixels:
    image = read_image(path)
    if image.ndim == 2:
        return image
    if channel is None:
        raise SourceError(path, f"has {len(image)} channels; choose one with --channel, from 0")
    if not 0 <= channel < len(image):
        raise SourceError(path, f"has the channels 0 to {len(image) - 1}, not {channel}")
    return np.ascontiguousarray(image[channel])


def _check(pair: ImagePair, image: Pixels, mask: Mask) -> None:
    """Refuse a mask that cannot be one of this image."""
    if mask.shape != image.shape:
        raise SourceError(
            pair.mask,
            f"is {mask.shape[0]} x {mask.shape[1]} px, its image {image.shape[0]} x {image.shape[1]}",
        )
    if min(image.shape) < SMALLEST_SIDE:
        raise SourceError(
            pair.image,
            f"is {image.shape[0]} x {image.shape[1]} px; sides of {SMALLEST_SIDE} or more are needed",
        )
    numbers = np.unique(mask[mask > 0])
    if len(numbers) == 0:
        raise SourceError(pair.mask, "holds no cell; draw them, or take image and mask out of the folder")
    if len(numbers) > MOST_CELLS:
        raise SourceError(pair.mask, f"holds {len(numbers)} cells; up to {MOST_CELLS} are allowed")
    pieces = int(ndimage.label(mask > 0, np.ones((3, 3)))[1])
    if len(numbers) == 1 and pieces > 1:
        raise SourceError(
            pair.mask,
            f"holds one number, {numbers[0]}, in {pieces} pieces: a mask of the foreground. Every cell needs a number"
            " of its own; if no cells touch, --foreground makes each piece a cell",
        )


def _check_whole(pair: ImagePair, mask: Mask) -> None:
    """Refuse gold masks of a challenge that leave out cells of which its tracking markers tell."""
    markers = pair.mask.parent.parent / "TRA" / pair.mask.name.replace("man_seg", "man_track")
    if pair.mask.name.startswith("man_seg") and markers.is_file():
        there, drawn = len(np.unique(read_mask(markers))) - 1, len(np.unique(mask)) - 1
        if drawn < there:
            raise SourceError(
                pair.mask,
                f"holds {drawn} of the {there} cells that {markers.name} marks; --partial learns from these",
            )
