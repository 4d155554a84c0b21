"""Whether every way to compute a net finds the cells that the reference finds, on the user's own frames."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import CytoloopError, ModelError
from ...acquire.frame import Frame
from ..packages.package import load_package
from ..parity import Agreement, Parity, compare, sum_of
from ..runtimes.choose import Choice, Trial, remember_trials
from ..runtimes.engines import silent
from ..runtimes.runtime import Precision, Tensor
from ..runtimes.tensorrt_build import Report
from ..runtimes.ways import Recorder, Way, file_of, net_of, ways
from .segmenter import FRAMES_OF_SCALE, NetSegmenter

Mask = NDArray[np.int32]
FEWEST_TIMED = 10


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one way.

    Attributes
    ----------
    runtime, precision, device
        The way.
    cells
        How many it found in all frames.
    parity
        How far it agrees with the reference; None for the reference, and for a way that does not work here.
    ms
        (k,) times of a frame, from pixels to cells, in ms.
    failures
        What is demanded and not met, or why it does not work here; empty if it may stand in for the reference.
    """

    runtime: str
    precision: Precision
    device: str
    cells: int
    parity: Parity | None
    ms: NDArray[np.float64]
    failures: tuple[str, ...]

    @property
    def works(self) -> bool:
        """Whether it ran at all."""
        return self.ms.size > 0


@dataclass(frozen=True, slots=True)
class Checked:
    """Every way, the reference first; which of them is taken from now on where any will do; what was demanded."""

    rows: tuple[Row, ...]
    choice: Choice | None
    demanded: Agreement


def check(
    model: str,
    frames: Sequence[Frame],
    *,
    in_order: bool,
    threads: int = 2,
    options: Mapping[str, Any] | None = None,
    runtime: str = "auto",
    precision: str = "auto",
    demanded: Agreement | None = None,
    report: Report = silent,
) -> Checked:
    """Segment frames in every way that is here, and compare each with the reference.

    Nets are calibrated for int8 on these frames. If all ways were asked for, what follows is kept: the next
    start with ``"auto"`` takes the fastest that agrees.

    Parameters
    ----------
    model
        Name or path of a package, or of an ONNX file.
    frames
        Some frames of the user's.
    in_order
        Whether they are a stream; else each is segmented by itself.
    threads
        Of the processor.
    options
        Others of :class:`.NetSegmenter`: ``channel``, ``diameter_px``, ``decoder`` and so on.
    runtime, precision
        What to compare; ``"auto"`` means all that is here.
    demanded
        What a way must reach; None takes the default.
    report
        Told how far the work is.

    Raises
    ------
    ModelError
        If there is no frame, or the net cannot be used.
    """
    if not frames:
        raise ModelError("there is no frame to check on")
    demanded = demanded or Agreement()
    options = {**(options or {}), "model": model, "threads": threads}
    package = load_package(
        model, decoder=options.get("decoder"), decoder_options=options.get("decoder_options")
    )
    net = net_of(package)
    asked = [way for way in ways(net, runtime, precision) if way != net.reference]
    report(f"{net.reference.runtime} {net.reference.precision}, the reference", 0, len(asked) + 1)
    row, masks, tensors = _reference(net.reference, options, frames, in_order)
    rows = [row]
    for number, way in enumerate(asked, 1):
        report(f"{way.runtime} {way.precision}", number, len(asked) + 1)
        try:
            file_of(way, net, tensors)  # converted here, where there is something to calibrate on
            rows.append(_compared(way, options, frames, in_order, masks, demanded))
        except CytoloopError as error:
            rows.append(Row(way.runtime, way.precision, "", 0, None, np.empty(0), (str(error),)))
    choice = None
    if runtime == precision == "auto":
        trials = [_trial(row) for row in rows]
        choice = remember_trials(net, threads, trials, f"{len(frames)} frame(s)")
    return Checked(tuple(rows), choice, demanded)


def _segmenter(way: Way, options: Mapping[str, Any]) -> NetSegmenter:
    return NetSegmenter(**options, runtime=way.runtime, precision=way.precision)


def _reference(
    way: Way, options: Mapping[str, Any], frames: Sequence[Frame], in_order: bool
) -> tuple[Row, list[Mask], list[Tensor]]:
    """Return what the reference finds, and what its net was given for some of the frames."""
    segmenter = _segmenter(way, options)
    computes = segmenter.runtime
    masks: list[Mask] = []
    tensors: list[Tensor] = []
    for frame in frames:
        segmenter.runtime = recorder = Recorder(computes)
        masks += _segment([frame], segmenter, in_order)
        tensors += recorder.tensors[-1:]  # those before it looked for the scale
    segmenter.runtime = computes
    return _row(way, segmenter, masks, None, _times(segmenter, frames, in_order), []), masks, tensors


def _compared(
    way: Way,
    options: Mapping[str, Any],
    frames: Sequence[Frame],
    in_order: bool,
    expected: Sequence[Mask],
    demanded: Agreement,
) -> Row:
    segmenter = _segmenter(way, options)
    masks = _segment(frames, segmenter, in_order)
    parity = sum_of([compare(one, other) for one, other in zip(expected, masks, strict=True)])
    times = _times(segmenter, frames, in_order)
    return _row(way, segmenter, masks, parity, times, parity.failures(demanded))


def _segment(frames: Sequence[Frame], segmenter: NetSegmenter, in_order: bool) -> list[Mask]:
    found: list[Mask] = []
    for frame in frames:
        if not in_order:
            segmenter.reset()
        found.append(segmenter.segment(frame).image)
    return found


def _times(segmenter: NetSegmenter, frames: Sequence[Frame], in_order: bool) -> NDArray[np.float64]:
    """Return how long frames take in ms, once contrast and scale are known; each is taken at least so often."""
    took: list[float] = []
    rounds = -(-FEWEST_TIMED // len(frames))
    for frame in frames if not in_order else [*frames] * rounds:
        if not in_order:
            segmenter.reset()
            for _ in range(FRAMES_OF_SCALE):
                segmenter.segment(frame)
        for _ in range(1 if in_order else rounds):
            began = time.perf_counter()
            segmenter.segment(frame)
            took.append((time.perf_counter() - began) * 1e3)
    return np.array(took)


def _row(
    way: Way,
    segmenter: NetSegmenter,
    masks: Sequence[Mask],
    parity: Parity | None,
    ms: NDArray[np.float64],
    failures: Sequence[str],
) -> Row:
    cells = sum(int(np.count_nonzero(np.unique(mask))) for mask in masks)
    return Row(way.runtime, way.precision, segmenter.runtime.device, cells, parity, ms, tuple(failures))


def _trial(row: Row) -> Trial:
    ms = float(np.median(row.ms)) if row.works else None
    words = row.parity.in_words() if row.parity else ""
    return Trial(row.runtime, row.precision, row.device, ms, words, not row.failures, "; ".join(row.failures))
