"""Least squares that one wrong measurement does not spoil."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Array: TypeAlias = "NDArray[np.float64]"

_ROUNDS = 30
_TUKEY = 4.685
_LEAST_SPREAD = 0.05  # px: better than most measurements here


class Fit(NamedTuple):
    """A linear map from k inputs to m outputs.

    Attributes
    ----------
    slope
        (m, k) of the map.
    constant
        (m,) what is added.
    rests
        (n, m) what was measured less what the map says.
    used
        (n,) bool, measurements that have any weight.
    error
        (k,) standard error of the slope of each input.
    """

    slope: _Array
    constant: _Array
    rests: _Array
    used: NDArray[np.bool_]
    error: _Array


def fit_linear(inputs: _Array, outputs: _Array) -> Fit:
    """Fit outputs = slope @ inputs + constant, with Tukey's biweight on the length of what rests.

    Weights begin from the least sum of absolute values, so that up to a third of the measurements may be far off.

    Parameters
    ----------
    inputs, outputs
        (n, k) and (n, m), of the same n measurements; outputs in px.
    """
    design = np.hstack([inputs, np.ones((len(inputs), 1))])
    weights = np.ones(len(inputs))
    solution, lengths = _solve(design, outputs, weights)
    for _ in range(_ROUNDS):
        solution, lengths = _solve(design, outputs, 1 / np.maximum(lengths, _LEAST_SPREAD))
    for _ in range(_ROUNDS):
        scaled = lengths / (_TUKEY * max(_LEAST_SPREAD, 1.4826 * float(np.median(lengths))))
        weights = np.where(scaled < 1, (1 - scaled**2) ** 2, 0.0)
        solution, lengths = _solve(design, outputs, weights)
    used = weights > 0
    freedom = max(1, int(used.sum()) - design.shape[1])
    variance = float((lengths[used] ** 2).sum()) / freedom / outputs.shape[1]
    covariance = np.linalg.pinv((design * weights[:, None]).T @ design)
    return Fit(
        slope=solution[:-1].T,
        constant=solution[-1],
        rests=outputs - design @ solution,
        used=used,
        error=np.sqrt(np.diag(covariance)[:-1] * variance),
    )


def _solve(design: _Array, outputs: _Array, weights: _Array) -> tuple[_Array, _Array]:
    root = np.sqrt(weights)[:, None]
    solution = np.linalg.lstsq(design * root, outputs * root)[0].astype(np.float64)
    return solution, np.sqrt(((outputs - design @ solution) ** 2).sum(axis=1))
