"""How good a net in training is: judged as the segmenter would use it, on images that it does not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...acquire.frame import Frame
from ..nets.segmenter import NetSegmenter
from ..packages.contents import ModelPackage
from ..packages.saving import save_package, weights_file
from ..scores import ImageScores, pool, score
from .export import export_onnx
from .folder import Annotated, Mask
from .images import near_cells
from .net import Architecture, CellNet
from .targets import depths

PLAIN_NOVELTY = {"doubt_p95": 1.0}
"""What makes the segmenter say the doubt itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What came of one image.

    Attributes
    ----------
    image
        The image with its true mask.
    found
        (y, x) int32, the cells that count.
    scores
        Of these.
    doubt
        See :mod:`cytoloop.models.nets.novelty`.
    """

    image: Annotated
    found: Mask
    scores: ImageScores
    doubt: float


def mean_ap(judged: Sequence[Judged]) -> float:
    """Return the average precision of all images pooled, as the mean over the thresholds 0.5 to 0.9."""
    return float(np.mean(list(pool(one.scores for one in judged).ap.values())))


def draft(architecture: Architecture, *, channels: int = 1) -> ModelPackage:
    """Return what a package of a net says before it has weights, name, card and terms."""
    return ModelPackage(
        "draft",
        Path(),
        (),
        channels=channels,
        channel_names=("cells",) if channels == 1 else tuple(f"channel{i}" for i in range(channels)),
        step=architecture.step,
        diameter_px=architecture.diameter_px,
        diameter_range=architecture.diameter_range,
        grid=architecture.grid,
        novelty=PLAIN_NOVELTY,
        decoder="core",
    )


def package_net(net: CellNet, package: ModelPackage, folder: Path) -> ModelPackage:
    """Write a net as a package to ``folder``, with what ``package`` says of it, and return what was written.

    Raises
    ------
    ModelError
        If something else lies in the folder.
    MissingExtraError
        Without the ``onnx`` package.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f"{folder.name}.onnx")
    export_onnx(net, part)
    try:
        return save_package(replace(package, weights=(weights_file(part),)), folder)
    finally:
        part.unlink(missing_ok=True)


class Judge:
    """Judges nets on images.

    Each is written as a package and run by the segmenter: at the scale that it finds, through the real decoder.
    Every image is the first of a stream of its own.

    Parameters
    ----------
    images
        At least one.
    folder
        Where the package of the moment is kept.
    partial
        Masks need not hold every cell: what is found far from those that they hold does not count.
    threads
        Of the CPU.
    """

    def __init__(
        self, images: Sequence[Annotated], folder: Path, *, partial: bool = False, threads: int = 2
    ) -> None:
        self._images, self._folder, self._threads = images, folder, threads
        self._known = [
            near_cells(one.mask, depths(one.mask).breadth_px) if partial else None for one in images
        ]

    def __call__(self, net: CellNet) -> list[Judged]:
        """Return what comes of each image, in their order."""
        package = package_net(net, draft(net.architecture, channels=net.channels), self._folder)
        segmenter = NetSegmenter(model=str(package.folder), threads=self._threads)
        judged: list[Judged] = []
        for image, known in zip(self._images, self._known, strict=True):
            segmenter.reset()
            labels = segmenter.segment(Frame(image.image))
            found = labels.image if known is None else mostly_in(known, labels.image)
            judged.append(Judged(image, found, score(image.mask, found), labels.novelty or 0.0))
        return judged


def mostly_in(known: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], found: Mask) -> Mask:
    """Return the cells that lie in a region with more than half of their px."""
    area = np.bincount(found.reshape(-1))
    inside = np.bincount(found.reshape(-1), known.reshape(-1), len(area))
    return np.where((2 * inside > area)[found], found, 0).astype(np.int32)
