"""The images that the shipped nets are made from, and the part of them that is held out.

DSB2018 (CC0), Usiigaci-PhC (MIT) and our own simulations: nothing else may train weights that ship.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from ...acquire.errors import SourceError

ONE_IN = 5
"""One image of DSB2018 in so many is held out, chosen by its name, so that it stays so when images are added."""
USIIGACI_HELD_OUT = ("set06", "set07", "set36", "set37")
"""Two of the ten fields of view: neighbouring numbers are the same cells at another time."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """An image with its mask.

    Attributes
    ----------
    name, kind
        Of the image, and of the group that it belongs to.
    image
        (y, x) uint8 or uint16.
    mask
        (y, x) integers, 0 is background.
    held_out
        Whether it must not be trained on.
    """

    name: str
    kind: str
    image: NDArray[np.uint8] | NDArray[np.uint16]
    mask: NDArray[np.integer]
    held_out: bool


def dsb2018(folder: Path) -> Iterator[Pair]:
    """Yield the images of DSB2018; kinds are ``fluorescence`` and ``gray_brightfield``."""
    index = folder / "index.csv"
    if not index.is_file():
        raise SourceError(folder, "no index.csv: this is not the DSB2018 folder")
    with index.open(newline="") as file:
        for row in csv.DictReader(file):
            name = row["id"]
            image = np.asarray(Image.open(folder / "images" / f"{name}.png").convert("L"))
            mask = tifffile.imread(folder / "masks" / f"{name}.tif")
            held_out = int(hashlib.sha256(name.encode()).hexdigest(), 16) % ONE_IN == 0
            yield Pair(name, row["category"], image, mask, held_out)


def usiigaci(folder: Path) -> Iterator[Pair]:
    """Yield the images of Usiigaci-PhC; their kind is ``phase``."""
    return _paired_tiffs(folder, "phase", USIIGACI_HELD_OUT)


def simulated(folder: Path) -> Iterator[Pair]:
    """Yield the images that :mod:`.simulated` wrote; kinds are its own."""
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        yield from _paired_tiffs(kind, kind.name, ())


def _paired_tiffs(folder: Path, kind: str, held_out: tuple[str, ...]) -> Iterator[Pair]:
    paths = sorted((folder / "images").glob("*.tif"))
    if not paths:
        raise SourceError(folder, "no images/*.tif")
    for path in paths:
        mask = tifffile.imread(folder / "masks" / path.name)
        yield Pair(path.stem, kind, tifffile.imread(path), mask, path.stem in held_out)
