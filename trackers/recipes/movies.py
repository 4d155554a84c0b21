"""Simulated movies whose divisions are known: crowds of many habits, and the masks of the simulated microscope.

In all of them cells are missed, and some fall into two pieces for a frame, as real segmenters do it: from those a
division must be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...acquire.frame import Frame
from ...acquire.simulated import presets
from ...models.damage import damaged
from ...models.detections import Detections
from ...models.labels import Labels, numbered
from ...models.measure import measure
from .crowd import Crowd, crowd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SAMPLES = (
    ("dividing", None, 100),
    ("rods", None, 130),
    ("dividing", 600.0, 60),
    ("rods", 120.0, 100),
    ("nuclei", None, 80),
)
"""Preset, time between frames in s if not its own, and number of frames."""
WAYS = ((0, 0, 1), (0.05, 0, 1), (0, 0.03, 1), (0.05, 0.05, 1), (0, 0, 2), (0.03, 0.02, 3))
"""How each sample is seen: share of cells missed and in pieces, and every how many-th frame."""
RARE = 8
"""One seed in so many is also one of the samples."""
_HALF = 4 / (3 * np.pi)
"""Distance of the centroid of half an ellipse from the cut, as a share of the half axis."""


@dataclass(frozen=True, slots=True, eq=False)
class Movie:
    """Detections of each frame, who each of them is (0 for nothing), and the mother of each daughter."""

    kind: str
    frames: list[tuple[Detections, Ints]]
    mothers: Mapping[int, int]


def movies(seeds: range) -> Iterator[Movie]:
    """Yield crowds, nuclei and rods; other seeds are other movies."""
    for seed in seeds:
        yield _crowd(seed)
        if seed % RARE == 0:
            for kind, interval_s, count in SAMPLES:
                yield from _microscope(kind, interval_s, count, seed)


def movie_count(seeds: range) -> int:
    """Return how many movies :func:`movies` yields."""
    return len(seeds) + len(SAMPLES) * len(WAYS) * sum(seed % RARE == 0 for seed in seeds)


def _habits(random: np.random.Generator) -> Crowd:
    """Return a crowd of habits that may never have been seen, so that none is taken for granted."""
    spacing = random.uniform(16, 34)
    return Crowd(
        spacing_px=spacing,
        step_px=random.uniform(0.02, 0.16) * spacing,
        persistence=random.choice([0, 0.2, 0.6]),
        drift_px=random.choice([0, 1, 2.5]),
        divisions=random.uniform(0.008, 0.02),
        deaths=0.004,
        condensed=random.uniform(0.6, 1.35),
        condensed_frames=random.choice([1.0, 2.0, 3.0]),
        uneven=random.choice([0.03, 0.06, 0.12, 0.17]),
        apart_radii=random.uniform(1.5, 2.7),
        scatter_px=random.uniform(0.5, 3),
        area_px=200 * (spacing / random.uniform(18, 30)) ** 2,
        aspect=(1.05, random.choice([1.3, 1.6, 2.2])),
        missed=random.choice([0, 0.03, 0.05]),
        false=random.choice([0, 0.02, 0.03]),
        area_error=random.uniform(0.02, 0.08),
        brightness_error=random.uniform(0.02, 0.1),
        moment_error=random.uniform(0.03, 0.12),
        gap=random.uniform(0.6, 0.9),
        brightness_spread=random.uniform(0.1, 0.35),
    )


def _crowd(seed: int, objects: int = 250, count: int = 60) -> Movie:
    random = np.random.default_rng(seed)
    habits, share = _habits(random), random.choice([0, 0, 0.01, 0.02, 0.05])
    frames: list[tuple[Detections, Ints]] = []
    mothers: dict[int, int] = {}
    for frame, _ in zip(crowd(objects, "easy", seed=seed, habits=habits), range(count), strict=False):
        mothers |= {daughter: mother for mother, *both in frame.born.tolist() for daughter in both}
        frames.append(
            cut(frame.detections, frame.identity, random.random(len(frame.identity)) < share, random)
        )
    return Movie("crowd", frames, mothers)


def cut(
    found: Detections, identity: Ints, which: NDArray[np.bool_], random: np.random.Generator
) -> tuple[Detections, Ints]:
    """Return detections of which some are cut in two across their long axis, as ellipses are."""
    rows = np.flatnonzero(which)
    if not len(rows):
        return found, identity
    yy, xx, yx = found.moments[rows].T
    angle = np.arctan2(2 * yx, xx - yy) / 2
    middle, half = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
    long, short = 4 * (middle + half), 4 * np.maximum(middle - half, 1e-3)  # squared half axes
    along, across = np.stack([np.sin(angle), np.cos(angle)], 1), np.stack([np.cos(angle), -np.sin(angle)], 1)
    part = random.uniform(0.4, 0.6, len(rows))
    inner, outer = long * (0.25 - _HALF**2), short / 4
    moments = np.stack(
        [
            inner * along[:, 0] ** 2 + outer * across[:, 0] ** 2,
            inner * along[:, 1] ** 2 + outer * across[:, 1] ** 2,
            inner * along[:, 0] * along[:, 1] + outer * across[:, 0] * across[:, 1],
        ],
        axis=1,
    )
    way = 2 * _HALF * np.sqrt(long)
    sides = ((1.0, part), (-1.0, 1 - part))
    light = [found.mean[rows] * np.exp(random.normal(0, 0.03, (len(rows), 1))) for _ in sides]
    pieces = {
        "yx": [found.yx[rows] + (side * way * (1 - share))[:, np.newaxis] * along for side, share in sides],
        "area": [found.area[rows] * share for _, share in sides],
        "moments": [moments * (2 * share)[:, np.newaxis] for _, share in sides],
        "mean": light,
        "maximum": light,
        "bbox": [found.bbox[rows]] * 2,
    }
    columns = {name: np.concatenate([getattr(found, name)[~which], *both]) for name, both in pieces.items()}
    return replace(found, **columns), np.concatenate([identity[~which], identity[rows], identity[rows]])


def _microscope(kind: str, interval_s: float | None, count: int, seed: int) -> Iterator[Movie]:
    """Yield one sample several times: whole, with cells missed or in pieces, and with frames left out."""
    scope = getattr(presets, kind)(seed)
    scope.interval_s = interval_s or scope.interval_s
    shots = [(scope.snap(), scope.truth(number).mask.astype(np.int32)) for number in range(count)]
    mothers = {daughter: each.mother for each in scope.sample.divisions for daughter in each.daughters}
    for way, (missed, broken, every) in enumerate(WAYS):
        random = np.random.default_rng((seed, way))
        frames: list[tuple[Detections, Ints]] = []
        for number, (pixels, mask) in enumerate(shots[::every]):
            worse, name_of = damaged(mask, missed, broken, random)
            labels, numbers = numbered(worse)
            found = measure(Frame(pixels, number, time_s=float(number)), Labels(labels, len(numbers)))
            frames.append(
                (found, np.array([name_of.get(int(each), int(each)) for each in numbers], np.int64))
            )
        yield Movie(kind, frames, mothers)
