"""``bench rules``: what the rules of an experiment file cost per frame, by cells and number of rules.

The cells move, grow and change their brightness; each rule looks at other quantities. The time is that of all rules
of one frame, with the reasons of what they decide, and without segmentation and tracking.
"""

from __future__ import annotations

from time import perf_counter
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from ...acquire.coordinates import Affine
from ...acquire.frame import Frame
from ...models.detections import Detections
from ...trackers.history import History
from ...trackers.tracks import Tracks
from ..cell_table import measured_of
from ..progress import Progress
from ..rules.rule import Moment
from ..rules.when import When

_SIDE_PX = 2048
_PIXEL_UM = 0.65
_CONDITIONS = (
    "mean > 1.5 * median(mean)",
    "area > 120 um^2 and elongation < 1.5",
    "rate(area, 5 frames) > 0.5 um^2/min",
    "border > 20 um and neighbours(30 um) < 3",
    "mean / before(mean, 5 frames) > 1.2",
    "rank(mean) <= 10",
    "age >= 10 frames and confidence > 0.8",
    "generation > 0 and since_division < 10 min",
    "zscore(area) > 2 or zscore(mean) > 2",
    "not (max > 2000 and area < 50 px^2)",
    "speed > 0.5 um/frame and nearest > 10 um",
    "change(area, 10 frames) > 1.1",
    "mean > percentile(mean, 95)",
    "max - mean > 300 and area > 100 px^2",
    "rate(mean, 10 frames) < 0",
    "x > 100 px and x < 1900 px and y > 100 px",
    "mean * area > 2 * median(mean * area)",
    "past_max(mean, 10 frames) > 1.3 * mean",
    "major / minor > 2 and area > 60 px^2",
    "frame.count > 50 and mean > 500",
)
_CELLS, _RULES = (100, 1_000, 10_000), (1, 5, 20)
_AIM_MS = 2.0
_SETTLED = 12  # frames until every window of the past is full


def run(
    progress: Progress,
    *,
    frames: Annotated[int, "Frames that are timed."] = 60,
    seed: Annotated[int, "Of the cells."] = 0,
) -> dict[str, Any]:
    """Return ``rows`` of {cells, rules, ms}, the percentiles of the time per frame.

    Parameters
    ----------
    progress
        Told about each row.
    frames
        Frames that are timed.
    seed
        Of the cells.
    """
    rows: list[dict[str, Any]] = []
    for cells in _CELLS:
        for count in _RULES:
            progress(f"{cells} cells, {count} rules", len(rows), len(_CELLS) * len(_RULES))
            times, decisions = _time(cells, count, frames, seed)
            ms = {f"p{q:g}": float(np.percentile(times, q)) for q in (50, 95, 99)}
            rows.append({"cells": cells, "rules": count, "ms": ms, "decisions_per_frame": decisions})
    return {"rows": rows, "aim_ms": _AIM_MS, "aim_reached": rows[-1]["ms"]["p50"] <= _AIM_MS}


def rules(count: int) -> list[When]:
    """Return the first rules of the measurement, as an experiment file makes them."""
    action = {"do": "stimulate", "duration_ms": 50.0}
    return [
        When(
            action,
            text,
            for_="3 frames",
            rank="mean",
            quota={"per_frame": 1, "per_cell": 1},
            name=f"rule {number}",
        )
        for number, text in enumerate(_CONDITIONS[:count])
    ]


def _time(cells: int, count: int, frames: int, seed: int) -> tuple[NDArray[np.float64], float]:
    """Return the time of each frame in ms, and decisions per frame."""
    asked, world, history = rules(count), _World(cells, seed), History()
    times: list[float] = []
    decisions = 0
    for number in range(_SETTLED + frames):
        tracks = world.tracks(number)
        measured = measured_of(tracks, ("",))
        frame = Frame(world.pixels, sequence=number, time_s=10.0 * number, pixel_size_um=_PIXEL_UM)
        descent = history.update(tracks, measured)
        moment = Moment(frame, tracks, Affine.from_pixel_size(_PIXEL_UM), 0, history, descent, measured)
        began = perf_counter()
        for rule in asked:
            verdict = rule.decide(moment)
            rule.settled(verdict.decisions)
            decisions += len(verdict.decisions)
        if number >= _SETTLED:
            times.append((perf_counter() - began) * 1e3)
    return np.array(times), decisions / (_SETTLED + frames)


class _World:
    """Cells that move, grow and change."""

    def __init__(self, cells: int, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.pixels = np.zeros((_SIDE_PX, _SIDE_PX), np.uint8)
        self._n = cells
        self._yx = self._random.uniform(0, _SIDE_PX, (cells, 2))
        self._velocity = self._random.normal(0, 0.5, (cells, 2))
        self._area = self._random.uniform(80, 400, cells)
        self._growth = self._random.normal(1.0, 0.01, cells)
        self._mean = self._random.lognormal(6, 0.4, cells)

    def tracks(self, number: int) -> Tracks:
        """Return the cells of the next frame."""
        n, random = self._n, self._random
        self._yx = np.clip(self._yx + self._velocity, 0, _SIDE_PX - 1)
        self._area = self._area * self._growth * random.normal(1, 0.01, n)
        self._mean = self._mean * random.normal(1, 0.02, n)
        side = np.sqrt(self._area) / 2
        box = np.concatenate([self._yx - side[:, None], self._yx + side[:, None]], axis=1).astype(np.int32)
        ratio = random.uniform(1, 2, n)
        spread = self._area / (4 * np.pi)
        found = Detections(
            sequence=number,
            time_s=10.0 * number,
            shape=(_SIDE_PX, _SIDE_PX),
            yx=self._yx,
            area=self._area,
            bbox=box,
            mean=self._mean[:, None],
            maximum=self._mean[:, None] * 2,
            moments=np.column_stack([spread * ratio, spread / ratio, np.zeros(n)]),
            pixel_size_um=_PIXEL_UM,
        )
        return Tracks(
            detections=found,
            track=np.arange(1, n + 1),
            parent=np.zeros(n, np.int64),
            age=np.full(n, number, np.int32),
            velocity=self._velocity,
            covariance=np.ones((n, 3)),
            confidence=np.full(n, 0.95),
        )
