"""Simulated images of nuclei, of rods and of spread cells with their masks, as many as wanted.

``python -m cytoloop.models.recipes.simulated FOLDER --count 900 --kinds rods`` writes what :mod:`.data` reads. No
pixel comes from a real image.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from rich.progress import track

from . import nuclei, phase_cells, rods

Drawing = tuple[NDArray[np.float32], NDArray[np.int32]]

KINDS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Drawing]] = {
    "rods": rods.draw,
    "nuclei": nuclei.draw,
    "phase_cells": phase_cells.draw,
}
"""What can be drawn, by the name of the kind."""
SMALLEST = 32
"""Px along the shorter side of an image at least: less than the broadest cells."""
LARGEST_COUNT = 65535


def draw(kind: str, rng: np.random.Generator, shape: tuple[int, int] = (384, 384)) -> Drawing:
    """Draw one image.

    Parameters
    ----------
    kind
        One of :data:`KINDS`.
    rng
        The same state draws the same image.
    shape
        (height, width) in px, each at least :data:`SMALLEST`.

    Returns
    -------
    image
        (y, x) float32, counts of some camera.
    mask
        (y, x) int32, cells numbered from 1 without gaps; 0 is background. Cells may touch.

    Raises
    ------
    ValueError
        Names what is wrong and what is allowed.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: known are {', '.join(sorted(KINDS))}")
    if len(shape) != 2 or min(shape) < SMALLEST:
        raise ValueError(f"shape {shape}: two sides of at least {SMALLEST} px are needed")
    return KINDS[kind](rng, (int(shape[0]), int(shape[1])))


def write(
    folder: Path,
    kind: str,
    count: int,
    seed: int = 0,
    shape: tuple[int, int] = (384, 384),
    workers: int | None = None,
) -> None:
    """Write images and masks.

    Parameters
    ----------
    folder
        Gets ``images/NAME.tif`` and ``masks/NAME.tif``, both uint16, and ``index.csv`` with the columns name, kind
        and cells.
    kind, shape
        See :func:`draw`.
    count, seed
        How many; image number n of a seed and kind is the same whatever the count.
    workers
        Processes that draw; None is one for each core.

    Raises
    ------
    ValueError
        Names what is wrong and what is allowed.
    """
    if count < 1:
        raise ValueError(f"count {count}: at least 1 is needed")
    if seed < 0:
        raise ValueError(f"seed {seed}: at least 0 is needed")
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    one = partial(_write_one, folder, kind, seed, shape)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        drawn = pool.map(one, range(count), chunksize=8)
        rows = list(track(drawn, description=f"{kind} in {folder}", total=count))
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("name", "kind", "cells"), *rows])


def _write_one(
    folder: Path, kind: str, seed: int, shape: tuple[int, int], number: int
) -> tuple[str, str, int]:
    """Draw and write image ``number``, and return its line of the index."""
    image, mask = draw(kind, generator(kind, seed, number), shape)
    name = f"{kind}_{seed}_{number:05d}"
    tifffile.imwrite(folder / "images" / f"{name}.tif", counts(image))
    tifffile.imwrite(folder / "masks" / f"{name}.tif", mask.astype(np.uint16), compression="zlib")
    return name, kind, int(mask.max())


def generator(kind: str, seed: int, number: int) -> np.random.Generator:
    """Return the source of randomness of one image."""
    return np.random.default_rng([seed, number, *kind.encode()])


def counts(image: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the image as a camera stores it: rounded, and saturated at the ends of 16 bit."""
    return np.clip(np.rint(image), 0, LARGEST_COUNT).astype(np.uint16)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write images of some kinds, each to a folder of its own."""
    parser = argparse.ArgumentParser(
        prog="python -m cytoloop.models.recipes.simulated",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="gets a folder for each kind")
    parser.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=sorted(KINDS))
    parser.add_argument("--count", type=int, default=500, help="images of each kind")
    parser.add_argument("--size", type=int, default=384, help="edge of an image in px")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes that draw (default: one for each core)")
    chosen = parser.parse_args(arguments)
    for kind in chosen.kinds:
        write(
            chosen.folder / kind, kind, chosen.count, chosen.seed, (chosen.size, chosen.size), chosen.workers
        )


if __name__ == "__main__":
    main()
