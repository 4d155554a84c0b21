"""How good a net in training is: judged as the segmenter would use it, on images that it does not learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...acquire.frame import Frame
from ..nets.segmenter import NetSegmenter
from ..packages.contents import ModelPackage
from ..packages.saving import save_package, weights_file
from ..scores import ImageScores, pool, score
from .export import export_onnx
from .folder import Annotated, Mask
from .net import Architecture, CellNet
from .partial import annotated_region, mostly_in

PLAIN_NOVELTY = {"doubt_p95": 1.0}
"""With it the segmenter tells the doubt itself as the novelty."""


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


def template(architecture: Architecture) -> ModelPackage:
    """Return what a package of one of our nets says, but for name, weights, card and terms."""
    return ModelPackage(
        "template",
        Path(),
        (),
        channel_names=("cells",),
        step=architecture.step,
        diameter_px=architecture.diameter_px,
        diameter_range=architecture.diameter_range,
        shown_px=architecture.shown_px,
        grid=architecture.grid,
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
    file = folder.with_name(f"{folder.name}.onnx")
    export_onnx(net, file)
    try:
        return save_package(replace(package, weights=(weights_file(file),)), folder)
    finally:
        file.unlink(missing_ok=True)


class Judge:
    """Judges nets on images.

    Each is written as a package and run by the segmenter: at the scale that it finds, through the real decoder.
    Every image is the first of a stream of its own.

    Parameters
    ----------
    images
        At least one.
    package
        What is said of the nets.
    folder
        Where the package of the moment is kept.
    partial
        Masks need not hold every cell: what is found far from those that they hold does not count.
    threads
        Of the CPU.
    """

    def __init__(
        self, images: Sequence[Annotated], package: ModelPackage, folder: Path, *, partial: bool, threads: int
    ) -> None:
        self._images, self._package = images, replace(package, novelty=PLAIN_NOVELTY)
        self._folder, self._threads = folder, threads
        self._regions = [annotated_region(image.mask) if partial else None for image in images]

    def __call__(self, net: CellNet, options: Mapping[str, Any] | None = None) -> list[Judged]:
        """Return what comes of each image, in their order; with options of the decoder, or those of the package."""
        written = package_net(net, self._package, self._folder)
        segmenter = NetSegmenter(
            model=str(written.folder), threads=self._threads, decoder_options=dict(options or {})
        )
        judged: list[Judged] = []
        for image, region in zip(self._images, self._regions, strict=True):
            segmenter.reset()
            labels = segmenter.segment(Frame(image.image))
            found = labels.image if region is None else mostly_in(region, labels.image)
            judged.append(Judged(image, found, score(image.mask, found), labels.novelty or 0.0))
        return judged
