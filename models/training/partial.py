"""Masks that hold only some of the cells: where they say what is there, and what counts there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...acquire.frame import Frame
from ..nets.segmenter import NetSegmenter
from .folder import Annotated, Mask
from .images import near_cells
from .targets import depths

Region = NDArray[np.bool_]

SENSITIVE = 0.2
"""Probability of the foreground above which there may be a cell that nobody drew."""


def annotated_region(mask: Mask) -> Region:
    """Return (y, x) where a partial mask speaks: up to the breadth of a typical cell away from its cells."""
    return near_cells(mask, depths(mask).breadth_px)


def known_regions(images: Sequence[Annotated], model: str, threads: int) -> list[Region]:
    """Return for each image, (y, x), where partial masks and a net together know what is there.

    That is near the cells of the mask, and far from everything that the net takes for a cell: a training that
    saw no background but that between cells would find cells in the noise of empty fields.

    Parameters
    ----------
    images
        With partial masks.
    model
        The net that the training starts from; see :class:`.NetSegmenter`.
    threads
        Of the CPU.
    """
    segmenter = NetSegmenter(model=model, threads=threads, decoder_options={"foreground": SENSITIVE})
    known: list[Region] = []
    for image in images:
        segmenter.reset()
        found = segmenter.segment(Frame(image.image)).image
        breadth_px = depths(image.mask).breadth_px
        known.append(near_cells(image.mask, breadth_px) | ~near_cells(found, breadth_px))
    return known


def mostly_in(region: Region, found: Mask) -> Mask:
    """Return a mask with those cells that have more than half of their px in a region, numbered anew."""
    area = np.bincount(found.reshape(-1))
    inside = np.bincount(found.reshape(-1), region.reshape(-1), len(area))
    kept = 2 * inside > area
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[found]
