"""``cytoloop bench segment``: from frame to labels and measurements, for every net and every runtime.

Frames are simulated nuclei, as crowded at every size. Each row is one net, runtime and precision at one size with
so many threads; the classical segmenter and nets of other projects are rows too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from ...acquire.errors import CytoloopError, FrameError, ModelError
from ...acquire.frame import Frame
from ...acquire.plugins import known_names
from ...models.classical import ClassicalSegmenter
from ...models.labels import Labels
from ...models.measure import measure
from ...models.nets.segmenter import NetSegmenter
from ...models.packages.package import known_packages, load_package
from ...models.runtimes.runtime import Precision, Runtime, Tensor
from ...models.runtimes.ways import Way, is_here, net_of, ways
from ..machine import usable_cores
from ..progress import Progress
from ..report.contents import percentiles
from .operations import operations
from .peak import peak_gflops
from .peers import PEERS
from .scenes import SMALLEST_PX, Scene, simulated

_FEWEST, _LONGEST_S = 3, 6.0
"""A row ends with its last frame, or after so many seconds if it has this many."""
_QUICK_FRAMES = 5


class Work(Protocol):
    """Segments frames; says of each what it found and how many operations its net took."""

    @property
    def device(self) -> str:
        """What it computes on: ``"cpu"``, or the name of a card."""
        ...

    def segment(self, frame: Frame, index: int) -> tuple[Labels, float]:
        """Return the labels of frame number ``index``, and the operations (NaN: unknown)."""
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
    size: tuple[int, ...] = (512, 1024, 2048),
    threads: tuple[int, ...] = (1, 2),
    frames: int = 50,
    peers: bool = True,
    quick: bool = False,
) -> dict[str, Any]:
    """Measure every net in every runtime that is installed, the classical segmenter, and peers.

    ``only`` names models, or paths of packages; ``quick`` takes few frames, the most threads and no peers.
    Peers run at the smallest size only. Times are those of this machine as it is: close other programs.
    """
    if frames < 1 or min(size) < SMALLEST_PX:
        raise FrameError(
            f"1 frame or more is needed, of {SMALLEST_PX} px or more; got {frames} of {min(size)} px"
        )
    usable = sorted({count for count in threads if count <= usable_cores()}) or [1]
    if quick:
        usable, frames, peers = usable[-1:], min(frames, _QUICK_FRAMES), False
    skipped: list[dict[str, str]] = []
    contenders = list(_contenders(only, peers, skipped))
    progress("measuring the processor's peak")
    peak = {count: peak_gflops(count) for count in usable}
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
        whole = peak.get(row["threads"], np.nan) if row["device"] == "cpu" else np.nan
        row["share_of_peak"] = row["gflop"] / row["ms"]["p50"] * 1000 / whole
    return {
        "peak_gflops": {str(count): value for count, value in peak.items()},
        "times_as_fast_as": _ratios(rows),
        "rows": rows,
        "skipped": skipped,
    }


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

    def segment(self, frame: Frame, index: int) -> tuple[Labels, float]:
        return self._segmenter.segment(frame), float("nan")


class _Net:
    """A net of ours, with its operations counted from the tensors that its runtime is given."""

    def __init__(self, model: str, way: Way, threads: int, scene: Scene) -> None:
        self._segmenter = NetSegmenter(
            model=model, runtime=way.runtime, precision=way.precision, threads=threads
        )
        self._counted = _Counted(self._segmenter.runtime)
        self.device = self._counted.device
        self._segmenter.runtime = self._counted
        self._per_px = _operations_per_px(model)

    def segment(self, frame: Frame, index: int) -> tuple[Labels, float]:
        self._counted.px = 0
        labels = self._segmenter.segment(frame)
        return labels, self._counted.px * self._per_px


def _operations_per_px(model: str) -> float:
    """Return the operations of a net for each px of its input; NaN if they cannot be counted."""
    package = load_package(model)
    weights = net_of(package).onnx
    height, width = package.fixed_shape or (4 * package.step, 4 * package.step)
    tensor = np.zeros((1, package.channels, height, width), np.float32)
    try:
        return operations(weights, tensor) / (height * width) if weights else float("nan")
    except ModelError:
        return float("nan")


class _Counted:
    """A runtime that counts the px that it is given."""

    def __init__(self, runtime: Runtime) -> None:
        self.name, self.device = runtime.name, runtime.device
        self.precision: Precision = runtime.precision
        self.px, self._runtime = 0, runtime

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        self.px += tensor.shape[-2] * tensor.shape[-1]
        return self._runtime.run(tensor)


def _row(one: Contender, scene: Scene, threads: int, frames: int) -> dict[str, Any]:
    work = one.build(threads, scene)
    ms: list[float] = []
    cells: list[int] = []
    took, began = 0.0, time.perf_counter()
    for number in range(-one.warm_up, frames):
        if number == 0:
            began = time.perf_counter()
        index = number % len(scene.frames)
        start = time.perf_counter()
        labels, took = work.segment(scene.frames[index], index)
        measure(scene.frames[index], labels)
        end = time.perf_counter()
        if number >= 0:
            ms.append(1000 * (end - start))
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
        "gflop": took / 1e9,
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
