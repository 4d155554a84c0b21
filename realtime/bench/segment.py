"""``cytoloop bench segment``: from frame to labels and measurements, for every net and every runtime.

Frames are simulated nuclei, as crowded at every size. Each row is one net, runtime and precision at one size with
so many threads; the classical segmenter and nets of other projects are rows too. A row's keys, beside its names:

``cells``, ``cells_true``
    Means per frame.
``ms``
    From frame to labels and measurements.
``net_ms``
    Of that, the net alone: on a card with upload and download; NaN without a net.
``gflop``, ``mbyte``
    Operations (10^9) of the net on a frame, and the bytes (10^6) that it moves at least, layer by layer, nothing
    fused, in the row's precision.
``share_of_peak``
    On the processor the rate of operations, the whole frame's time counted, in that of a product of fp32 matrices.
    On a card the share of the roofline: the least time that its rates allow the net, in ``net_ms``. A net whose
    layers are fused, or fit into the card's cache, can pass 1; int8 has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from ...acquire.errors import CytoloopError, FrameError, ModelError
from ...acquire.frame import Frame
from ...acquire.plugins import find_class, known_names
from ...models.classical import ClassicalSegmenter
from ...models.labels import Labels
from ...models.measure import measure
from ...models.nets.segmenter import NetSegmenter
from ...models.packages.package import known_packages, load_package
from ...models.runtimes import cuda
from ...models.runtimes.runtime import Precision, Runtime, Tensor
from ...models.runtimes.ways import Way, is_here, net_of, ways
from ..machine import usable_cores
from ..progress import Progress
from ..report.contents import percentiles
from .card import Card, measured_card
from .operations import UNKNOWN, Cost, Effort, cost_of
from .peak import peak_gflops
from .peers import PEERS
from .scenes import SMALLEST_PX, Scene, simulated

_FEWEST, _LONGEST_S = 3, 6.0
"""A row ends with its last frame, or after so many seconds if it has this many."""
_QUICK_FRAMES = 5


class Work(Protocol):
    """Segments frames; says of each what it found and what its net took."""

    @property
    def device(self) -> str:
        """What it computes on: ``"cpu"``, or the name of a card."""
        ...

    def segment(self, frame: Frame, index: int) -> tuple[Labels, Effort]:
        """Return the labels of frame number ``index``, and what the net took for it."""
        ...


@dataclass(frozen=True, slots=True)
class Contender:
    """What rows are about.

    Attributes
    ----------
    model, runtime, precision
        Its names.
    build
        Makes it for so many threads and the frames of a scene.
    threaded
        Whether it uses more than one thread.
    is_peer
        Whether it is slow: it runs at the smallest size only, and warms up on one frame.
    """

    model: str
    runtime: str
    precision: str
    build: Callable[[int, Scene], Work]
    threaded: bool = True
    is_peer: bool = False

    @property
    def warm_up(self) -> int:
        """Frames before the first that counts: on three of them a net of ours looks for the scale."""
        return 1 if self.is_peer else 5


def run(
    progress: Progress,
    *,
    only: tuple[str, ...] = (),
    runtime: tuple[str, ...] = (),
    size: tuple[int, ...] = (512, 1024, 2048),
    threads: tuple[int, ...] = (1, 2),
    frames: int = 50,
    peers: bool = True,
    quick: bool = False,
) -> dict[str, Any]:
    """Measure every net in every runtime that is installed, the classical segmenter, and peers.

    ``only`` names models, or paths of packages, ``runtime`` what computes nets (peers and the classical segmenter
    are then left out); ``quick`` takes few frames, the most threads and no peers. Peers run at the smallest size
    only. Times are those of this machine as it is: close other programs.
    """
    for name in runtime:
        find_class("runtimes", name)
    if frames < 1 or min(size) < SMALLEST_PX:
        raise FrameError(
            f"1 frame or more is needed, of {SMALLEST_PX} px or more; got {frames} of {min(size)} px"
        )
    usable = sorted({count for count in threads if count <= usable_cores()}) or [1]
    if quick:
        usable, frames, peers = usable[-1:], min(frames, _QUICK_FRAMES), False
    skipped: list[dict[str, str]] = []
    contenders = list(_contenders(only, peers and not runtime, skipped))
    if runtime:
        contenders = [one for one in contenders if one.runtime in runtime]
        skipped = [one for one in skipped if one["runtime"] in runtime]
    progress("measuring the processor's peak")
    peak = {count: peak_gflops(count) for count in usable}
    card = _card(progress, skipped)
    rows: list[dict[str, Any]] = []
    for scene in _scenes(sorted(set(size)), progress):
        todo = [each for each in contenders if scene.size == min(size) or not each.is_peer]
        for number, one in enumerate(todo):
            progress(f"{one.model} in {one.runtime} at {scene.size} px", number, len(todo))
            try:
                rows += [_row(one, scene, count, frames) for count in (usable if one.threaded else [1])]
            except CytoloopError as error:
                contenders.remove(one)
                skipped.append(_skipped(one.model, one.runtime, one.precision, str(error)))
    # Measured again, as other programs may have run meanwhile.
    peak = {count: max(peak[count], peak_gflops(count)) for count in usable}
    for row in rows:
        row["share_of_peak"] = _share_of_peak(row, peak, card)
    return {
        "peak_gflops": {str(count): value for count, value in peak.items()},
        "card": asdict(card) if card else None,
        "times_as_fast_as": _ratios(rows),
        "rows": rows,
        "skipped": skipped,
    }


def _card(progress: Progress, skipped: list[dict[str, str]]) -> Card | None:
    """Measure the card, if there is one; why that failed is added to ``skipped``."""
    if not cuda.cards():
        return None
    progress("measuring the card's peak")
    try:
        return measured_card()
    except ModelError as error:
        skipped.append(_skipped("peak of the card", "torch", "", str(error)))
        return None


def _share_of_peak(row: dict[str, Any], peak: dict[int, float], card: Card | None) -> float:
    if row["device"] == "cpu":
        return row["gflop"] / row["ms"]["p50"] * 1000 / peak.get(row["threads"], np.nan)
    if card is None or not card.is_called(row["device"]):
        return np.nan
    return card.floor_ms(row["gflop"], row["mbyte"], row["precision"]) / row["net_ms"]["p50"]


def _scenes(sizes: Sequence[int], progress: Progress) -> Iterator[Scene]:
    for size in sizes:
        progress(f"simulating nuclei at {size} px")
        yield simulated(size)


def _contenders(only: tuple[str, ...], peers: bool, skipped: list[dict[str, str]]) -> Iterator[Contender]:
    """Yield what was asked for; what cannot be had is added to ``skipped``."""
    models = only or (*known_packages(), "classical", *(PEERS if peers else ()))
    for model in models:
        if model == "classical":
            yield Contender(model, "numpy", "fp32", lambda threads, scene: _Classical(), threaded=False)
        elif model in PEERS:
            yield Contender(model, "torch", "fp32", partial(_peer, model), is_peer=True)
        else:
            net = net_of(load_package(model))
            found = ways(net, "auto", "auto")
            for way in found:
                yield Contender(model, way.runtime, way.precision, partial(_Net, model, way))
            for runtime in sorted(set(known_names("runtimes")) - {way.runtime for way in found}):
                reason = (
                    "it has no weights for it" if is_here(runtime) else "not installed, or no card for it"
                )
                skipped.append(_skipped(model, runtime, "", reason))


def _skipped(model: str, runtime: str, precision: str, reason: str) -> dict[str, str]:
    return {"model": model, "runtime": runtime, "precision": precision, "reason": reason}


def _peer(model: str, threads: int, scene: Scene) -> Work:
    return PEERS[model](threads, scene.truth)


class _Classical:
    device = "cpu"

    def __init__(self) -> None:
        self._segmenter = ClassicalSegmenter()

    def segment(self, frame: Frame, index: int) -> tuple[Labels, Effort]:
        return self._segmenter.segment(frame), Effort()


class _Net:
    """A net of ours, with its cost reckoned from the tensors that its runtime is given."""

    def __init__(self, model: str, way: Way, threads: int, scene: Scene) -> None:
        self._segmenter = NetSegmenter(
            model=model, runtime=way.runtime, precision=way.precision, threads=threads
        )
        self._counted = _Counted(self._segmenter.runtime)
        self.device = self._counted.device
        self._segmenter.runtime = self._counted
        self._precision: Precision = way.precision
        self._cost, self._px = _cost_of_some_px(model)

    def segment(self, frame: Frame, index: int) -> tuple[Labels, Effort]:
        counted = self._counted
        counted.px, counted.runs, counted.ms = 0, 0, 0.0
        labels = self._segmenter.segment(frame)
        cost = self._cost.scaled(counted.px / self._px, counted.runs)
        return labels, Effort(cost.operations, cost.bytes(self._precision), counted.ms)


def _cost_of_some_px(model: str) -> tuple[Cost, int]:
    """Return the cost of a net on a small tensor, unknown if it cannot be counted, and the px of that tensor."""
    package = load_package(model)
    weights = net_of(package).onnx
    height, width = package.fixed_shape or (4 * package.step, 4 * package.step)
    tensor = np.zeros((1, package.channels, height, width), np.float32)
    try:
        return cost_of(weights, tensor) if weights else UNKNOWN, height * width
    except ModelError:
        return UNKNOWN, height * width


class _Counted:
    """A runtime that counts the px that it is given, its runs, and the ms that they take."""

    def __init__(self, runtime: Runtime) -> None:
        self.name, self.device = runtime.name, runtime.device
        self.precision: Precision = runtime.precision
        self.px, self.runs, self.ms, self._runtime = 0, 0, 0.0, runtime

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        self.px += tensor.shape[-2] * tensor.shape[-1]
        self.runs += 1
        began = time.perf_counter()
        outputs = self._runtime.run(tensor)
        self.ms += 1000 * (time.perf_counter() - began)
        return outputs


def _row(one: Contender, scene: Scene, threads: int, frames: int) -> dict[str, Any]:
    work = one.build(threads, scene)
    ms: list[float] = []
    net_ms: list[float] = []
    cells: list[int] = []
    effort, began = Effort(), time.perf_counter()
    for number in range(-one.warm_up, frames):
        if number == 0:
            began = time.perf_counter()
        index = number % len(scene.frames)
        start = time.perf_counter()
        labels, effort = work.segment(scene.frames[index], index)
        measure(scene.frames[index], labels)
        end = time.perf_counter()
        if number >= 0:
            ms.append(1000 * (end - start))
            net_ms.append(effort.net_ms)
            cells.append(labels.count)
            if len(ms) >= _FEWEST and end - began > _LONGEST_S:
                break
    return {
        "model": one.model,
        "runtime": one.runtime,
        "precision": one.precision,
        "device": work.device,
        "size": scene.size,
        "threads": threads,
        "cells": round(float(np.mean(cells))),
        "cells_true": scene.cells,
        "ms": percentiles(np.array(ms)),
        "net_ms": percentiles(np.array(net_ms)),
        "gflop": effort.operations / 1e9,
        "mbyte": effort.bytes / 1e6,
    }


def _ratios(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return how many times as fast our fastest net is as each peer, with the same frames and threads."""
    best: dict[tuple[int, int], float] = {}
    for row in rows:
        if row["model"] not in (*PEERS, "classical") and row["device"] == "cpu":
            key = row["size"], row["threads"]
            best[key] = min(best.get(key, np.inf), row["ms"]["p50"])
    ratios: dict[str, list[float]] = {}
    for row in rows:
        key = row["size"], row["threads"]
        if row["model"] in PEERS and key in best:
            ratios.setdefault(row["model"], []).append(row["ms"]["p50"] / best[key])
    return {model: min(values) for model, values in ratios.items()}
