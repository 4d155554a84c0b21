"""What every decoder of maps does first: look whether the outputs are such, and take them apart."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...acquire.errors import ModelError
from ..kernels import frozen
from .decoder import Grid, Tensor

Plane = NDArray[np.float32]
Activation = Literal["none", "sigmoid", "softmax"]


def planes(outputs: tuple[Tensor, ...], grid: Grid, needs: str) -> list[Plane]:
    """Return the maps of a net one by one, in the order of the outputs and of their channels.

    Parameters
    ----------
    outputs
        What the runtime returned.
    grid
        Where the maps lie on the frame.
    needs
        What the decoder needs, in words, for the error.

    Returns
    -------
    list of arrays
        (y, x) float32, read-only, C-contiguous, all of one size; their values are not looked at.

    Raises
    ------
    ModelError
        If an output is not (1, channels, y, x), or does not cover the frame.
    """
    if not outputs or any(
        o.ndim != 4 or o.shape[0] != 1 or o.shape[2:] != outputs[0].shape[2:] for o in outputs
    ):
        raise misfit(outputs, needs)
    for axis, size, wanted, pitch in zip("yx", outputs[0].shape[2:], grid.shape, grid.pitch, strict=True):
        if size < 1 or abs(size * pitch - wanted) >= pitch + 0.5:
            raise ModelError(
                f"the net's output has {size} px along {axis}; {wanted / pitch:.1f} cover the frame of {wanted} px"
            )
    return [frozen(plane, np.float32) for output in outputs for plane in output[0]]


def misfit(outputs: tuple[Tensor, ...], needs: str) -> ModelError:
    """Return the error that says what was needed and what came."""
    shapes = ", ".join(str(output.shape) for output in outputs) or "no output"
    return ModelError(f"needed: {needs}; the net has {shapes}. Choose the decoder that fits the model")


def check_finite(*arrays: Tensor) -> None:
    """Raise ModelError if an array holds anything but finite numbers."""
    with np.errstate(all="ignore"):
        finite = all(np.isfinite(a.min()) and np.isfinite(a.max()) for a in arrays if a.size)
    if not finite:
        raise ModelError("the net's output holds values that are no numbers (NaN or infinity)")


def probabilities(maps: list[Plane], activation: Activation) -> list[Plane]:
    """Return maps as probabilities.

    Parameters
    ----------
    maps
        (y, x) float32, finite.
    activation
        ``"none"``: they are probabilities already; ``"sigmoid"``: each is a logit; ``"softmax"``: they are the
        logits of classes that exclude each other.
    """
    if activation == "none":
        return maps
    highest = maps[0]
    if activation == "softmax":
        for plane in maps[1:]:
            highest = np.maximum(highest, plane)
    powers: list[Plane] = []
    with np.errstate(over="ignore"):
        for plane in maps:
            power = plane - highest if activation == "softmax" else -plane
            powers.append(np.exp(power, out=power))
    if activation == "softmax":
        total = sum(powers[1:], powers[0].copy())
        return [frozen(np.divide(power, total, out=power), np.float32) for power in powers]
    for power in powers:
        np.add(power, 1, out=power)
        np.reciprocal(power, out=power)
    return [frozen(power, np.float32) for power in powers]
