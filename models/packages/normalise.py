"""The one rule by which intensities reach a net, in training and in every runtime.

Grey levels are mapped linearly: ``low`` becomes 0, ``high`` becomes 1. The rule says how the two are found; in a
stream they are smoothed over the frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..kernels import frozen
from ..resize import HIGHEST, LOWEST
from .levels import levels

Kind = Literal["percentile", "mean_std", "fixed", "none"]
Bounds = tuple[float, float]
"""Grey levels that become 0 and 1."""

FLAT = 8.0
"""Smallest spread in standard deviations of the noise: that of noise alone is 5.2, and is not stretched to 1."""
FLAT_COUNTS = 4.0
"""Smallest spread in grey levels of integer images, where the noise is less than one of them."""
MEMORY = 5
"""Frames whose median is taken: up to two in a row that differ from the rest do not count."""
SHARE = 0.3
"""How far one frame moves the smoothed levels towards that median."""
JUMP = 0.25
"""Where the median differs by so much of the spread, the light has changed: it is taken at once."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How grey levels are mapped.

    Attributes
    ----------
    kind
        ``"percentile"``: percentiles ``low`` and ``high`` of each frame become 0 and 1, with the smallest spread
        that noise allows. ``"mean_std"``: each frame gets mean 0 and standard deviation 1. ``"fixed"``: the
        grey levels ``low`` and ``high`` become 0 and 1. ``"none"``: pixels are taken as they are.
    low, high
        Percentiles, or grey levels.
    clip
        Smallest and largest value of the result; None leaves it as it is.

    Raises
    ------
    ValueError
        Names what is wrong and what is allowed.
    """

    kind: Kind = "percentile"
    low: float = 1.0
    high: float = 99.8
    clip: tuple[float, float] | None = (LOWEST, HIGHEST)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if self.kind == "percentile" and not 0 <= self.low < self.high <= 100:
            raise ValueError(
                f"low and high must be percentiles, 0 <= low < high <= 100, got {self.low}, {self.high}"
            )
        if self.kind == "fixed" and not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise ValueError(f"low and high must be grey levels, low < high, got {self.low}, {self.high}")
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"clip must be (smallest, largest), got {self.clip}")

    def bounds(self, plane: NDArray[Any]) -> Bounds:
        """Return the grey levels of one image that become 0 and 1.

        Parameters
        ----------
        plane
            (y, x) uint8, uint16 or float.
        """
        if self.kind == "percentile":
            found = levels(plane, self.low, self.high)
            counts = FLAT_COUNTS if plane.dtype.kind in "iu" else 1e-6 * max(abs(found.low), abs(found.high))
            return found.low, found.low + max(found.high - found.low, FLAT * found.noise, counts, 1e-12)
        if self.kind == "mean_std":
            mean, deviation = float(plane.mean(dtype=np.float64)), float(plane.std(dtype=np.float64))
            return mean, mean + max(deviation, 1e-6)
        return (self.low, self.high) if self.kind == "fixed" else (0.0, 1.0)

    def apply(
        self, plane: NDArray[Any], bounds: Bounds, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return the plane with its grey levels mapped, float32.

        Parameters
        ----------
        plane
            (y, x) uint8, uint16 or float.
        bounds
            From :meth:`bounds` or :class:`Contrast`.
        out
            (y, x) float32 to write to; None makes a new array.
        """
        if out is None:
            out = np.empty(plane.shape, np.float32)
        smallest, largest = self.clip or (-np.inf, np.inf)
        low, high = bounds
        _map(
            frozen(plane),
            np.float32(low),
            np.float32(1 / (high - low)),
            np.float32(smallest),
            np.float32(largest),
            out,
        )
        return out

    def __call__(self, plane: NDArray[Any]) -> NDArray[np.float32]:
        """Return one image by itself with its grey levels mapped, as for training."""
        return self.apply(plane, self.bounds(plane))


class Contrast:
    """The bounds of a stream, smoothed over its frames in their order.

    The median of the last frames passes over a flash or a piece of debris that drifts by; an exponential
    average of it takes out flicker; a lasting change of the light is followed as soon as the median shows it.

    Parameters
    ----------
    normalisation
        The rule for one frame.
    """

    def __init__(self, normalisation: Normalisation) -> None:
        self._rule = normalisation
        self._last: list[Bounds] = []
        self._smoothed: Bounds | None = None

    def update(self, plane: NDArray[Any]) -> Bounds:
        """Take the next frame of the stream, and return the bounds to use for it."""
        self._last = [*self._last, self._rule.bounds(plane)][-MEMORY:]
        low, high = (float(level) for level in _lower_median(self._last))
        if self._smoothed is not None:
            before = self._smoothed
            changed = max(abs(low - before[0]), abs(high - before[1])) > JUMP * (before[1] - before[0])
            if not changed:
                low, high = (old + SHARE * (new - old) for old, new in zip(before, (low, high), strict=True))
        self._smoothed = low, high
        return self._smoothed

    def state(self) -> dict[str, float]:
        """Return what is remembered of the frames so far."""
        named = {"smoothed": self._smoothed, **{f"last_{i}": bounds for i, bounds in enumerate(self._last)}}
        return {
            f"{name}_{end}": bounds[i]
            for name, bounds in named.items()
            if bounds is not None
            for i, end in enumerate(("low", "high"))
        }

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on with what :meth:`state` returned.

        Raises
        ------
        ValueError
            If it is no such state.
        """

        def pair(name: str) -> Bounds:
            return float(state[f"{name}_low"]), float(state[f"{name}_high"])

        try:
            last = [pair(f"last_{i}") for i in range(MEMORY) if f"last_{i}_low" in state]
            smoothed = pair("smoothed") if last else None
        except KeyError as error:
            raise ValueError(f"no state of a contrast: {error.args[0]} is missing") from None
        self._last, self._smoothed = last, smoothed


def warm_up() -> None:
    """Compile the kernels, or load them if they were compiled before."""
    for dtype in (np.uint8, np.uint16, np.float32):
        Normalisation()(np.eye(8, dtype=dtype))  # of two levels: on a blank one it would stop half way


def _lower_median(last: list[Bounds]) -> tuple[float, float]:
    """Return the median of both bounds; of an even number, the lower: bright debris is commoner than dark."""
    middle = (len(last) - 1) // 2
    lows, highs = zip(*last, strict=True)
    return sorted(lows)[middle], sorted(highs)[middle]


@njit(cache=True, nogil=True)
def _map(
    plane: NDArray[Any],
    low: np.float32,
    scale: np.float32,
    smallest: np.float32,
    largest: np.float32,
    out: NDArray[np.float32],
) -> None:
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            value = (np.float32(plane[y, x]) - low) * scale
            out[y, x] = min(max(value, smallest), largest)
