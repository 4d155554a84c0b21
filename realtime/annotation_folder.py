"""A folder of frames to correct by hand: written for napari, and taken back."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ..acquire.errors import SourceError
from ..models.image_files import read_image, read_mask
from ..models.labels import numbered
from ..models.scores import match
from ..models.training.annotation import (
    AnnotatedFrame,
    Annotation,
    hash_of_mask,
    mask_file,
    read_annotation,
    write_annotation,
)
from .annotate import Candidate

Mask = NDArray[np.int32]

SPECK_SHARE, SPECK_PX = 0.05, 9
"""Cells smaller than this share of the median, or than so many px, are taken for slips of the brush."""
SAME_IOU = 0.5
_SURE, _DOUBTFUL = (0, 220, 130), (255, 140, 40)
_README = """# {count} frames of {recording} to correct

`images/` holds the frames, `masks/` what {model} found in them: correct these, every cell a number of its own.
`previews/` shows both (orange: unsure), `worst.csv` says why each frame is here; `found/` is kept to compare with.

In this folder, with napari installed; close a window and the mask is saved and the next one opens:

```python
import napari, tifffile
for name in {names}:
    viewer = napari.Viewer(title=name)
    viewer.add_image(tifffile.imread(f"images/{{name}}.tif"))
    labels = viewer.add_labels(tifffile.imread(f"masks/{{name}}.tif"))
    napari.run()
    tifffile.imwrite(f"masks/{{name}}.tif", labels.data, compression="zlib")
```

A frame that you do not want to correct: delete its image and its mask. Then:

```bash
cytoloop annotate --back {folder}
cytoloop train {folder} --out my-cells --from {model}
```
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one mask; it may be meant if it is only ``doubtful``."""

    file: str
    reason: str
    doubtful: bool


@dataclass(frozen=True, slots=True)
class Change:
    """How many cells of one frame a person added, removed and reshaped, and how many were left as they were."""

    name: str
    added: int
    removed: int
    reshaped: int
    unchanged: int


def check_new(folder: Path) -> None:
    """Refuse a folder that holds something.

    Raises
    ------
    SourceError
        Names it.
    """
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise SourceError(folder, "is not empty; name a new folder")


def write_annotation_folder(
    folder: Path, candidates: Sequence[Candidate], recording: Path, model: str
) -> Annotation:
    """Write frames and what was found in them to a new folder; see :func:`check_new`."""
    check_new(folder)
    for kind in ("images", "masks", "found", "previews"):
        (folder / kind).mkdir(parents=True)
    for one in candidates:
        kind = np.uint16 if one.labels.count < 2**16 else np.int32
        mask = one.labels.image.astype(kind)
        for place, array in (("images", one.plane), ("masks", mask), ("found", mask)):
            tifffile.imwrite(
                folder / place / f"{one.name}.tif", array, compression="zlib", photometric="minisblack"
            )
        Image.fromarray(preview(one)).save(folder / "previews" / f"{one.name}.png")
    _write_table(folder / "worst.csv", candidates)
    frames = [
        AnnotatedFrame(one.name, one.frame.sequence, dict(one.frame.axes), one.reason) for one in candidates
    ]
    names = [one.name for one in candidates]
    text = _README.format(
        count=len(names), recording=recording.name, model=model, names=names, folder=folder.as_posix()
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    annotation = Annotation(str(recording), model, frames)
    write_annotation(folder, annotation)
    return annotation


def _write_table(path: Path, candidates: Sequence[Candidate]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["name", "sequence", "time_s", "cells", "unsure", "unsteady", "novelty", "badness", "reason"]
        )
        for one in candidates:
            signs = [f"{value:.4f}" for value in (one.unsure, one.unsteady, one.novelty, one.badness)]
            writer.writerow(
                [one.name, one.frame.sequence, one.frame.time_s, one.labels.count, *signs, one.reason]
            )


def preview(one: Candidate) -> NDArray[np.uint8]:
    """Return (y, x, 3): the frame with the outlines of its cells, those in doubt in orange."""
    low, high = np.percentile(one.plane, (0.5, 99.7))
    grey = np.clip((one.plane.astype(np.float32) - low) / max(float(high - low), 1), 0, 1)
    picture = np.repeat((255 * grey).astype(np.uint8)[..., np.newaxis], 3, axis=2)
    image = one.labels.image
    outline = (image > 0) & (
        (ndimage.minimum_filter(image, 3) != image) | (ndimage.maximum_filter(image, 3) != image)
    )
    sure = np.ones(one.labels.count) if one.labels.confidence is None else one.labels.confidence
    paint = np.where(np.concatenate([[True], sure >= 0.5])[:, np.newaxis], _SURE, _DOUBTFUL).astype(np.uint8)
    picture[outline] = paint[image[outline]]
    return picture


def take_back(folder: Path, *, accept: bool = False) -> tuple[list[Change], list[Problem]]:
    """Check corrected masks and mark them as ready to be learned from, if nothing is wrong.

    Parameters
    ----------
    folder
        What :func:`write_annotation_folder` wrote; frames whose image and mask were deleted are left out.
    accept
        Take what is only doubtful as meant.

    Returns
    -------
    (changes, problems)
        For each frame what was changed; and what keeps the masks from being taken.

    Raises
    ------
    SourceError
        If it is no such folder.
    """
    annotation = read_annotation(folder)
    if annotation is None:
        raise SourceError(folder, "is not a folder that `cytoloop annotate RECORDING --out FOLDER` wrote")
    changes: list[Change] = []
    problems: list[Problem] = []
    for name in (frame.name for frame in annotation.frames):
        image_path, mask_path = folder / "images" / f"{name}.tif", mask_file(folder, name)
        if not image_path.exists() and not mask_path.exists():
            continue
        try:
            image, mask = read_image(image_path), read_mask(mask_path)
            found = read_mask(folder / "found" / f"{name}.tif")
        except SourceError as error:
            problems.append(Problem(error.path, error.reason, doubtful=False))
            continue
        new = list(problems_of(mask_path, mask, image.shape))
        problems += [problem for problem in new if not (accept and problem.doubtful)]
        if mask.shape == found.shape:
            changes.append(change(name, found, mask))
    if not problems:
        taken = {one.name: hash_of_mask(folder, one.name) for one in changes}
        write_annotation(folder, msgspec.structs.replace(annotation, taken_back=taken))
    return changes, problems


def problems_of(file: Path, mask: Mask, shape: tuple[int, ...]) -> list[Problem]:
    """Return what is wrong with a corrected mask."""
    if mask.shape != shape:
        size, wanted = (" x ".join(map(str, each)) for each in (mask.shape, shape))
        return [Problem(str(file), f"is {size} px, its image {wanted}", doubtful=False)]
    if not mask.any():
        return [Problem(str(file), "holds no cell; draw them, or delete image and mask", doubtful=False)]
    cells, numbers = numbered(mask)
    areas = np.bincount(cells.reshape(-1))[1:]
    smallest = max(SPECK_PX, SPECK_SHARE * float(np.median(areas)))
    problems: list[Problem] = []
    for number, area, (y, x) in zip(numbers, areas, ndimage.find_objects(cells), strict=True):
        pieces, count = ndimage.label(mask[y, x] == number, np.ones((3, 3)))
        where = f"at y {(y.start + y.stop) // 2}, x {(x.start + x.stop) // 2}"
        if count > 1:
            sizes = sorted(np.bincount(pieces.reshape(-1))[1:].tolist(), reverse=True)
            told = " and ".join(f"{size} px" for size in sizes[:3])
            reason = f"cell {number} {where} lies in {count} pieces, of {told}: two cells need two numbers"
            problems.append(Problem(str(file), reason, doubtful=True))
        elif area < smallest:
            problems.append(Problem(str(file), f"cell {number} {where} has only {area} px", doubtful=True))
    return problems


def change(name: str, found: Mask, corrected: Mask) -> Change:
    """Return what a person did to what was found."""
    matches = match(found, corrected)
    pairs = matches.at(SAME_IOU)
    same = int((pairs.iou == 1).sum())
    return Change(
        name,
        added=len(matches.found) - len(pairs.iou),
        removed=len(matches.truth) - len(pairs.iou),
        reshaped=len(pairs.iou) - same,
        unchanged=same,
    )
