"""Trying a runtime against the reference: does it say the same, and how long does it take?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..parity import Agreement, compare, sum_of
from .runtime import Runtime, Tensor

Decode = Callable[[tuple[Tensor, ...], tuple[int, int]], NDArray[np.int32]]
"""Makes the instance mask of a frame, of the outputs and its (height, width) in px."""

TOLERANCE = 0.01
"""Largest difference between outputs that cannot be decoded, as a share of their spread (root mean squares)."""
ROUNDS = 9
_BUDGET_S = 20.0


class Reference:
    """What the reference says of some frames.

    Parameters
    ----------
    runtime
        The reference.
    tensors
        The frames, as the net sees them.
    decode
        Makes cells of the outputs; None compares the outputs themselves.
    """

    def __init__(self, runtime: Runtime, tensors: Sequence[Tensor], decode: Decode | None) -> None:
        self._tensors, self._decode = tensors, decode
        self._outputs = [tuple(output.copy() for output in runtime.run(tensor)) for tensor in tensors]
        self._masks = (
            [self._cells(o, t) for o, t in zip(self._outputs, tensors, strict=True)] if decode else []
        )
        if not any(mask.any() for mask in self._masks):
            self._decode = None  # without cells there is nothing to compare but the outputs

    def judge(self, runtime: Runtime, demanded: Agreement) -> tuple[str, list[str]]:
        """Return how far a runtime agrees, in words, and what is demanded and not met.

        Raises
        ------
        ModelError
            If the runtime fails.
        """
        if self._decode is None:
            return self._judge_outputs(runtime)
        found = [self._cells(runtime.run(tensor), tensor) for tensor in self._tensors]
        parity = sum_of([compare(mask, other) for mask, other in zip(self._masks, found, strict=True)])
        return parity.in_words(), parity.failures(demanded)

    def _cells(self, outputs: tuple[Tensor, ...], tensor: Tensor) -> NDArray[np.int32]:
        assert self._decode is not None
        return self._decode(outputs, (int(tensor.shape[-2]), int(tensor.shape[-1])))

    def _judge_outputs(self, runtime: Runtime) -> tuple[str, list[str]]:
        worst = 0.0
        for tensor, expected in zip(self._tensors, self._outputs, strict=True):
            found = runtime.run(tensor)
            if [output.shape for output in found] != [output.shape for output in expected]:
                return "", ["its outputs have other shapes"]
            worst = max(worst, *(_difference(a, b) for a, b in zip(expected, found, strict=True)))
        if not np.isfinite(worst):
            return "", ["its outputs are not all numbers"]
        told = f"outputs differ by {worst:.3%} of their spread"
        return told, [] if worst <= TOLERANCE else [f"{told}, allowed {TOLERANCE:.0%}"]


def _difference(expected: Tensor, found: Tensor) -> float:
    """Return the root mean squared difference as a share of the spread; infinite if a value is no number."""
    with np.errstate(all="ignore"):
        apart = (
            float(np.sqrt(np.mean(np.square(found - expected, dtype=np.float64)))) if expected.size else 0.0
        )
    spread = float(expected.std(dtype=np.float64)) if expected.size else 0.0
    if not np.isfinite(apart):
        return np.inf
    return apart / spread if spread else (0.0 if apart == 0 else np.inf)


def median_ms(runtimes: Sequence[Runtime], tensor: Tensor) -> list[float]:
    """Return the median time of each runtime in ms; they take turns, so that other load meets all alike."""
    for runtime in runtimes:
        runtime.run(tensor)
    took = [[_seconds(runtime, tensor) for runtime in runtimes]]
    rounds = min(ROUNDS, int(_BUDGET_S / sum(took[0])))
    took += [[_seconds(runtime, tensor) for runtime in runtimes] for _ in range(1, rounds)]
    return (np.median(took, axis=0) * 1e3).tolist()


def _seconds(runtime: Runtime, tensor: Tensor) -> float:
    began = time.perf_counter()
    runtime.run(tensor)
    return time.perf_counter() - began
