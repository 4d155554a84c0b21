"""``cytoloop bench decode``: what a net says -> cells, for every family of nets, beside the family's own decoder.

No net is run. True masks are turned into what a perfect net of the family would say; our decoder and the family's
own get the same outputs, in turns, so that whatever else the machine does slows both.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import CytoloopError, FrameError, SourceError, nearest_name
from ...acquire.sources.tiff_folder import natural_key
from ...models.decoders.decoder import Decoder, Grid, Tensor
from ...models.image_files import SUFFIXES, read_mask
from ...models.labels import numbered
from ...models.scores import pool, score
from ..progress import Progress
from ..report.contents import percentiles
from .families import FAMILIES
from .own_decoders import OWN, OwnDecoder
from .scenes import SMALLEST_PX, simulated

OURS = "cytoloop"
_WARM_UP = 2
_FEWEST, _LONGEST_S = 5, 15.0
"""A family ends with its last round, or after so many seconds if it has this many rounds."""

Mask = NDArray[np.int32]
Found = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Truth:
    """True masks (numbers 1..count), and the edge in px of a square as large as they are on average."""

    size: int
    masks: list[Mask]


@dataclass(frozen=True, slots=True)
class Contender:
    """A decoder: makes something that is ready of outputs, untimed, and cells of that, timed."""

    name: str
    prepare: Callable[[tuple[Tensor, ...], tuple[int, int]], Any]
    decode: Callable[[Any], Found]


def run(
    progress: Progress,
    *,
    family: tuple[str, ...] = (),
    size: tuple[int, ...] = (512, 1024),
    masks: str = "",
    frames: int = 20,
    others: bool = True,
) -> dict[str, Any]:
    """Measure our decoder of every family, and the family's own where its package is installed.

    Masks are those of simulated nuclei, or ``masks``: a folder with instance masks, of which ``frames`` are taken,
    evenly spread. ``others`` false leaves the families' own decoders out. Ours take one thread; those of others as
    many as their packages take, which obey OMP_NUM_THREADS.
    """
    for name in family:
        if name not in FAMILIES:
            hint = nearest_name(name, FAMILIES)
            raise FrameError(
                f"{name}: no family of this name; they are {', '.join(FAMILIES)}"
                + (f". Did you mean {hint!r}?" if hint else "")
            )
    if frames < 1 or (not masks and min(size) < SMALLEST_PX):
        raise FrameError(
            f"1 frame or more is needed, of {SMALLEST_PX} px or more; got {frames} of {min(size)} px"
        )
    names = [name for name in FAMILIES if name in (family or FAMILIES)]
    skipped: list[dict[str, str]] = []
    contenders = {name: list(_contenders(name, others, skipped)) for name in names}
    rows: list[dict[str, Any]] = []
    for truth in _truths(size, masks, frames, progress):
        for number, name in enumerate(names):
            progress(f"{name} at {truth.size} px", number, len(names))
            rows += _rows(name, contenders[name], truth, frames, skipped)
    return {"threads_of_others": os.environ.get("OMP_NUM_THREADS", "all"), "rows": rows, "skipped": skipped}


def _truths(sizes: Sequence[int], masks: str, most: int, progress: Progress) -> Iterator[Truth]:
    if masks:
        read = [numbered(read_mask(path))[0] for path in _mask_files(Path(masks), most)]
        yield Truth(round(float(np.mean([mask.size for mask in read])) ** 0.5), read)
        return
    for size in sorted(set(sizes)):
        progress(f"simulating nuclei at {size} px")
        yield Truth(size, simulated(size).truth)


def _mask_files(folder: Path, most: int) -> list[Path]:
    """Return the masks of a folder, in natural order; of more than ``most``, so many that are evenly spread."""
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise SourceError(folder, f"cannot be listed: {error.strerror or error}") from error
    files = sorted(
        (file for file in entries if file.suffix.lower() in SUFFIXES), key=lambda f: natural_key(f.name)
    )
    if not files:
        raise SourceError(folder, f"no mask is in this folder; allowed: {', '.join(SUFFIXES)}")
    return [files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(most, len(files))).astype(int))]


def _contenders(family: str, others: bool, skipped: list[dict[str, str]]) -> Iterator[Contender]:
    """Yield our decoder and, if it can be had, the family's own; if not, why is added to ``skipped``."""
    yield Contender(OURS, lambda outputs, shape: (outputs, shape), partial(_ours, FAMILIES[family].build()))
    kind = OWN[family]
    if not others:
        skipped.append(_skipped(family, kind.name, "not asked for"))
        return
    try:
        with _quiet():
            own = kind()
    except CytoloopError as error:
        skipped.append(_skipped(family, kind.name, str(error)))
        return
    yield Contender(own.name, partial(_prepared, own), partial(_theirs, own))


def _skipped(family: str, decoder: str, reason: str) -> dict[str, str]:
    return {"family": family, "decoder": decoder, "reason": reason}


def _ours(decoder: Decoder, given: tuple[tuple[Tensor, ...], tuple[int, int]]) -> Found:
    outputs, shape = given
    return decoder.decode(outputs, Grid(shape, (1.0, 1.0))).image


def _prepared(own: OwnDecoder, outputs: tuple[Tensor, ...], shape: tuple[int, int]) -> Any:
    with _quiet():
        return own.prepare(outputs, shape)


def _theirs(own: OwnDecoder, given: Any) -> Found:
    with _quiet():
        return own.decode(given)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep what other packages print out of standard output, which may be JSON, and their warnings away."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _rows(
    family: str, contenders: list[Contender], truth: Truth, frames: int, skipped: list[dict[str, str]]
) -> list[dict[str, Any]]:
    """Return one row for each decoder of a family; one that fails is left out, now and later, and told."""
    outputs = [FAMILIES[family].encode(mask) for mask in truth.masks]
    given: dict[str, list[Any]] = {}
    for one in list(contenders):
        try:
            given[one.name] = [
                one.prepare(each, (mask.shape[0], mask.shape[1]))
                for each, mask in zip(outputs, truth.masks, strict=True)
            ]
            for number in range(_WARM_UP):
                one.decode(given[one.name][number % len(outputs)])
        except Exception as error:
            if one.name == OURS:
                raise
            # Whatever another project's code raises, the others are still to be measured.
            contenders.remove(one)
            skipped.append(_skipped(family, one.name, f"failed: {type(error).__name__}: {error}"))
    ms = _times(contenders, given, frames)
    rows = [_row(family, one, truth, given[one.name], ms[one.name]) for one in contenders]
    for row in rows:
        rest = [other["ms"]["p50"] for other in rows if other is not row]
        row["times_as_fast"] = rest[0] / row["ms"]["p50"] if rest else float("nan")
    return rows


def _times(
    contenders: list[Contender], given: dict[str, list[Any]], frames: int
) -> dict[str, list[tuple[float, float]]]:
    """Return times of each decoder in ms, by the clock and of the processor; they take turns on each mask."""
    ms: dict[str, list[tuple[float, float]]] = {one.name: [] for one in contenders}
    began = time.perf_counter()
    for number in range(frames):
        for one in contenders:
            mine = given[one.name][number % len(given[one.name])]
            start, worked = time.perf_counter(), time.process_time()
            one.decode(mine)
            took = time.perf_counter() - start, time.process_time() - worked
            ms[one.name].append((1000 * took[0], 1000 * took[1]))
        if number + 1 >= _FEWEST and time.perf_counter() - began > _LONGEST_S:
            break
    return ms


def _row(
    family: str, one: Contender, truth: Truth, given: list[Any], ms: list[tuple[float, float]]
) -> dict[str, Any]:
    found = pool(
        score(mask, np.asarray(one.decode(mine))) for mask, mine in zip(truth.masks, given, strict=True)
    )
    return {
        "family": family,
        "decoder": one.name,
        "size": truth.size,
        "cells": round(found.cells_found / len(truth.masks)),
        "cells_true": round(found.cells_true / len(truth.masks)),
        "ms": percentiles(np.array(ms)[:, 0]),
        "cpu_ms": round(float(np.median(np.array(ms)[:, 1])), 3),
        "f1_50": found.f1[0.5],
        "mean_iou": found.mean_iou[0.5],
    }
