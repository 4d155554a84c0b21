"""Scores of a segmenter, or of given masks, on single images with true masks."""

from __future__ import annotations

import csv
import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..acquire.errors import FrameError, MissingExtraError, SourceError
from ..acquire.frame import Frame, Pixels
from ..models.image_files import read_image, read_mask
from ..models.image_pairs import ImagePair, pair_files
from ..models.runtimes.choose import Choice
from ..models.scores import ImageScores, pool, score
from ..models.segmenter import Segmenter, as_new, needed_channels
from .experiment.stream import StreamConfig
from .progress import Progress, silent
from .report.contents import percentiles

_MOST_NAMED = 10
_DIGITS = 6

Mask = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class ImageResult:
    """What came of one image.

    Attributes
    ----------
    name
        Of the image, without suffix.
    shape
        (height, width) in px.
    scores
        How well the found cells match the true ones.
    ms
        Time from image to mask in ms; NaN for masks that were given.
    novelty
        As in :class:`~cytoloop.models.labels.Labels`.
    """

    name: str
    shape: tuple[int, int]
    scores: ImageScores
    ms: float
    novelty: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """An image with its true and its found mask, (y, x) each, to be looked at."""

    result: ImageResult
    pixels: Pixels
    truth: Mask
    found: Mask


@dataclass(frozen=True, slots=True, eq=False)
class EvaluatedImages:
    """What came of all images.

    Attributes
    ----------
    results
        One for each image, in their order.
    worst
        Those to look at, worst first.
    choice
        What computed the net, and why; None if there was no net.
    """

    results: Sequence[ImageResult]
    worst: Sequence[Compared]
    choice: Choice | None = None


class _Finder:
    """Finds the cells of single images, each the first frame of a stream of its own; or takes given masks."""

    def __init__(self, stream: StreamConfig, given: Mapping[str, Path]) -> None:
        self._stream, self.given = stream, given
        self._segmenter: Segmenter | None = None if given else stream.segmenter.build("segmenters")
        self._channels = needed_channels(self._segmenter) if self._segmenter else (0,)

    @property
    def choice(self) -> Choice | None:
        """What computes the segmenter's net, if it has one."""
        return getattr(self._segmenter, "choice", None)

    def frame(self, pixels: Pixels) -> Frame:
        """Return an image as the segmenter gets it.

        Raises
        ------
        FrameError
            If it lacks a channel that the segmenter looks at.
        """
        first, chosen = self._channels[0], self._stream.channel
        if pixels.ndim == 2:
            return Frame(pixels, channels=(chosen or (first if isinstance(first, str) else ""),))
        frame = Frame(pixels, channels=self._stream.channels or ("",) * len(pixels))
        if chosen:
            frame = Frame(frame.channel(chosen), channels=(chosen,))
        for channel in self._channels:
            frame.channel(channel)
        return frame

    def plane(self, frame: Frame) -> Pixels:
        """Return the channel of a frame in which cells are looked for."""
        return frame.channel(self._channels[0])

    def find(self, name: str, frame: Frame) -> tuple[Mask, float | None, float]:
        """Return the mask, the novelty of the image, and the time taken in ms."""
        if self._segmenter is None:
            return read_mask(self.given[name]), None, float("nan")
        segmenter = self._segmenter = as_new(
            self._segmenter, lambda: self._stream.segmenter.build("segmenters")
        )
        began = time.perf_counter()
        labels = segmenter.segment(frame)
        return labels.image, labels.novelty, 1000 * (time.perf_counter() - began)


def evaluate_images(
    pairs: Sequence[ImagePair],
    stream: StreamConfig,
    *,
    labels: Path | None = None,
    worst: int = 0,
    progress: Progress = silent,
) -> EvaluatedImages:
    """Score a segmenter on images that have nothing to do with each other.

    Every file is read and checked before the first image is segmented; the first one is segmented once more
    beforehand, so that no time holds what happens only once.

    Parameters
    ----------
    pairs
        The images and their true masks; at least one.
    stream
        What finds the cells.
    labels
        Folder of found masks, named as true ones are, that are scored instead.
    worst
        How many of the images with the lowest AP to keep for looking at.

    Raises
    ------
    SourceError
        If files are broken, do not fit each other, or are no instance masks; names them.
    CytoloopError
        If the segmenter cannot be built, or fails.
    """
    finder = _Finder(stream, _given(pairs, labels))
    _check(pairs, finder, progress)
    finder.find(pairs[0].name, finder.frame(read_image(pairs[0].image)))
    results: list[ImageResult] = []
    kept: list[tuple[float, int, Compared]] = []
    for number, pair in enumerate(pairs):
        progress("segmenting images", number, len(pairs))
        frame, truth = finder.frame(read_image(pair.image)), read_mask(pair.mask)
        found, novelty, ms = finder.find(pair.name, frame)
        result = ImageResult(pair.name, frame.shape, score(truth, found), ms, novelty)
        results.append(result)
        heapq.heappush(
            kept,
            (-_goodness(result.scores), -number, Compared(result, finder.plane(frame), truth, found)),
        )
        if len(kept) > worst:
            heapq.heappop(kept)
    shown = [compared for _, _, compared in sorted(kept, reverse=True)]
    return EvaluatedImages(results, shown, finder.choice)


def _given(pairs: Sequence[ImagePair], labels: Path | None) -> dict[str, Path]:
    """Return the found masks of a folder by the names of the images."""
    if labels is None:
        return {}
    found = pair_files(pairs[0].image.parent, labels, [pair.name for pair in pairs])
    return {pair.name: pair.mask for pair in found.pairs}


def _goodness(scores: ImageScores) -> float:
    """Return the mean AP over the thresholds; 1 for an image without cells in which none were found."""
    return float(np.nan_to_num(np.mean(list(scores.ap.values())), nan=1.0))


def _check(pairs: Sequence[ImagePair], finder: _Finder, progress: Progress) -> None:
    """Refuse, before anything runs, what cannot be read or scored."""
    wrong: list[str] = []
    counts: list[int] = []
    in_pieces = 0
    for number, pair in enumerate(pairs):
        progress("checking files", number, len(pairs))
        try:
            shape = finder.frame(read_image(pair.image)).shape
            truth = _fitting(pair.mask, shape)
            if pair.name in finder.given:
                _fitting(finder.given[pair.name], shape)
        except SourceError as error:
            wrong.append(str(error))
        except FrameError as error:
            wrong.append(f"{pair.image}: {error}")
        else:
            counts.append(len(np.unique(truth[truth > 0])))
            in_pieces += counts[-1] == 1 and int(ndimage.label(truth, np.ones((3, 3)))[1]) > 1
    if wrong:
        more = [f"and {len(wrong) - _MOST_NAMED} more"] if len(wrong) > _MOST_NAMED else []
        listed = "\n  ".join(wrong[:_MOST_NAMED] + more)
        raise SourceError(pairs[0].image.parent, f"{len(wrong)} of {len(pairs)} cannot be used:\n  {listed}")
    if max(counts) == 1 and 2 * in_pieces > sum(counts):
        raise SourceError(
            pairs[0].mask.parent,
            "no mask holds more than one number, and most of them in several pieces: these are foreground"
            " masks; instance masks are needed, in which each cell has a number of its own",
        )


def _fitting(file: Path, shape: tuple[int, int]) -> Mask:
    """Read a mask that must be of the size of its image."""
    mask = read_mask(file)
    if mask.shape != shape:
        sizes = [" x ".join(map(str, size)) for size in (mask.shape, shape)]
        raise SourceError(file, f"a mask of {sizes[0]} px for an image of {sizes[1]} px")
    return mask


def figures_of_images(evaluated: EvaluatedImages) -> dict[str, Any]:
    """Return the scores and the speed under the names that scripts read.

    AP, F1, precision and recall at each threshold, PQ and SEG are those of all images pooled; means over the
    images, each with the same weight, are under ``per_image``.
    """
    listed = [result.scores for result in evaluated.results]
    whole = pool(listed)
    times = np.array([result.ms for result in evaluated.results])
    return {
        "AP": _rounded(whole.ap),
        "F1": _rounded(whole.f1),
        "precision": _rounded(whole.precision),
        "recall": _rounded(whole.recall),
        "PQ": round(whole.pq[0.5], _DIGITS),
        "SEG": round(whole.seg, _DIGITS),
        "images": len(listed),
        "cells_true": whole.cells_true,
        "cells_found": whole.cells_found,
        "ms_per_image": round(float(times.mean()), 3),
        "latency_ms": percentiles(times),
        "per_image": {
            "AP": _mean_of([scores.ap for scores in listed]),
            "F1": _mean_of([scores.f1 for scores in listed]),
        },
        "computed_by": _told(evaluated.choice),
        "worst": [
            {"image": one.result.name, "AP": _rounded(one.result.scores.ap)} for one in evaluated.worst
        ],
    }


def write_image_table(evaluated: EvaluatedImages, path: Path) -> None:
    """Write one row for each image as CSV; what is not known is empty."""
    thresholds = evaluated.results[0].scores.thresholds
    counted = [f"{name}_{threshold}" for name in ("AP", "F1") for threshold in thresholds]
    head = ["image", "height", "width", "cells_true", "cells_found", *counted, "PQ", "SEG", "ms", "novelty"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for result in evaluated.results:
            scores = result.scores
            novelty = float("nan") if result.novelty is None else result.novelty
            values = [
                *scores.ap.values(),
                *scores.f1.values(),
                scores.pq[0.5],
                scores.seg,
                result.ms,
                novelty,
            ]
            written = ["" if np.isnan(value) else f"{value:.6g}" for value in values]
            writer.writerow([result.name, *result.shape, scores.cells_true, scores.cells_found, *written])


def _told(choice: Choice | None) -> dict[str, str] | None:
    if choice is None:
        return None
    return {key: getattr(choice, key) for key in ("runtime", "precision", "device", "reason")}


def worst_drawer(folder: Path) -> Callable[[EvaluatedImages], None]:
    """Return what draws the worst images into a folder, as ``001_NAME.png`` and so on.

    Raises
    ------
    MissingExtraError
        Without matplotlib.
    """
    try:
        from .report.compared import draw_compared
    except ImportError as error:
        raise MissingExtraError("matplotlib, which draws images,", "report") from error

    def draw(evaluated: EvaluatedImages) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for rank, one in enumerate(evaluated.worst, start=1):
            scores = one.result.scores
            title = (
                f"{one.result.name}: {scores.cells_true} true, {scores.cells_found} found,"
                f" {scores.matched[0]} matched, mean AP {_goodness(scores):.2f}"
            )
            draw_compared(
                title, one.pixels, one.truth, one.found, folder / f"{rank:03d}_{one.result.name}.png"
            )

    return draw


def _rounded(by_threshold: Mapping[float, float]) -> dict[str, float]:
    return {str(threshold): round(value, _DIGITS) for threshold, value in by_threshold.items()}


def _mean_of(listed: Sequence[Mapping[float, float]]) -> dict[str, float]:
    """Return means over the images; those in which there is nothing to judge are left out."""
    values = np.array([list(each.values()) for each in listed])
    judged = values[~np.isnan(values).any(axis=1)]
    means = judged.mean(axis=0) if len(judged) else np.full(values.shape[1], np.nan)
    return _rounded(dict(zip(listed[0], means.tolist(), strict=True)))
