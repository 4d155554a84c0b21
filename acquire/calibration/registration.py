"""By how much one image is shifted against another, to a hundredth of a pixel; numpy only.

Phase correlation (Kuglin and Hines, 1975) finds the shift to a pixel; on what both images show, the peak of the
cross-correlation is then found on a fine grid by a matrix product (Guizar-Sicairos et al., Optics Letters 33, 156,
2008).
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError

Image: TypeAlias = "NDArray[Any]"
_Array: TypeAlias = "NDArray[np.float64]"

SMALLEST_SIDE_PX = 32
_CANDIDATES = 6
_BLUR_PX = 1.0  # what is finer is noise
_COARSE = 1 / 12  # of the shorter side: what is coarser is illumination
_STEPS_PER_PX = 100


class Shift(NamedTuple):
    """How far the content of one image lies from where it lies in another.

    Attributes
    ----------
    x_px, y_px
        Shift in px: what is at (x, y) in the first image is at (x + x_px, y + y_px) in the second.
    quality
        Correlation of what both images show, -1 to 1: near 1 for the same scene, near 0 for noise or other scenes.
    """

    x_px: float
    y_px: float
    quality: float


def register(before: Image, after: Image) -> Shift:
    """Return by how much the content has shifted from one image to another of the same size.

    Parameters
    ----------
    before, after
        (y, x), any number type, at least 32 px on each side. Shifts of less than half a side can be found.

    Raises
    ------
    CalibrationError
        If the images are not two images of one size, too small, or all of one value.
    """
    first, second = _checked(before), _checked(after)
    if first.shape != second.shape:
        raise CalibrationError(f"images of {first.shape} and {second.shape} px cannot be registered")
    first, second = _band(first), _band(second)
    quality, x, y = max((_agreement(first, second, x, y), x, y) for x, y in _candidates(first, second))
    if quality <= 0:
        return Shift(float(x), float(y), quality)
    fine_x, fine_y = _fine_shift(*_overlap(first, second, x, y))
    return Shift(x + fine_x, y + fine_y, quality)


def _checked(image: Image) -> _Array:
    if image.ndim != 2 or min(image.shape) < SMALLEST_SIDE_PX:
        raise CalibrationError(
            f"an image of shape {image.shape} cannot be registered; (y, x) of at least {SMALLEST_SIDE_PX} px is needed"
        )
    values = image.astype(np.float64)
    if not np.ptp(values) > 0:
        raise CalibrationError(f"the image holds no texture: all of its pixels are {values.flat[0]:g}")
    return values


def _band(image: _Array) -> _Array:
    """Leave out what is finer than a cell's edge and coarser than a cell."""
    coarse = min(image.shape) * _COARSE
    height, width = image.shape
    margin = int(np.ceil(2 * coarse))
    padded = np.pad(_level(image), margin, mode="reflect")
    fy = np.fft.fftfreq(padded.shape[0])[:, None]
    fx = np.fft.rfftfreq(padded.shape[1])[None, :]
    squared = -2 * np.pi**2 * (fy**2 + fx**2)
    kept = np.exp(squared * _BLUR_PX**2) - np.exp(squared * coarse**2)
    whole = np.fft.irfft2(np.fft.rfft2(padded) * kept, padded.shape)
    return whole[margin : margin + height, margin : margin + width]


def _level(image: _Array) -> _Array:
    """Take the plane off that fits an image best, whose edge would else look like texture."""
    y, x = (np.linspace(-1, 1, side) for side in image.shape)
    slope_y = float((image.mean(axis=1) * y).mean() / (y * y).mean())
    slope_x = float((image.mean(axis=0) * x).mean() / (x * x).mean())
    return image - image.mean() - slope_y * y[:, None] - slope_x * x[None, :]


def _candidates(first: _Array, second: _Array) -> list[tuple[int, int]]:
    """Return the whole-pixel shifts (x, y) of the highest peaks of the phase correlation, and no shift."""
    window = _hann(first.shape)
    one, other = np.fft.rfft2(first * window), np.fft.rfft2(second * window)
    cross = np.conj(one) * other
    peaks = np.fft.irfft2(cross / (np.abs(cross) + 1e-3 * np.abs(cross).max()), first.shape)
    height, width = first.shape
    found = [(0, 0)]
    for _ in range(_CANDIDATES):
        row, column = (int(at) for at in np.unravel_index(int(np.argmax(peaks)), peaks.shape))
        around = np.arange(-2, 3)
        peaks[np.ix_((row + around) % height, (column + around) % width)] = -np.inf
        found.append(((column + width // 2) % width - width // 2, (row + height // 2) % height - height // 2))
    return found


def _overlap(first: _Array, second: _Array, x: int, y: int) -> tuple[_Array, _Array]:
    """Return what both images show when the second is shifted by (x, y)."""
    height, width = first.shape
    one = first[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
    other = second[max(0, y) : height - max(0, -y), max(0, x) : width - max(0, -x)]
    return one, other


def _agreement(first: _Array, second: _Array, x: int, y: int) -> float:
    one, other = _overlap(first, second, x, y)
    a, b = one - one.mean(), other - other.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / size) if size > 0 else 0.0


def _fine_shift(one: _Array, other: _Array) -> tuple[float, float]:
    """Return the rest of the shift (x, y) in px, at most 1.5 either way."""
    window = _hann(one.shape)
    spectrum = np.conj(np.fft.fft2((one - one.mean()) * window)) * np.fft.fft2(
        (other - other.mean()) * window
    )
    fy, fx = np.fft.fftfreq(one.shape[0]), np.fft.fftfreq(one.shape[1])
    x = y = 0.0
    reach, steps = 1.5, 7
    while reach > 0.5 / _STEPS_PER_PX:
        xs, ys = x + np.linspace(-reach, reach, steps), y + np.linspace(-reach, reach, steps)
        height = (
            np.exp(2j * np.pi * np.outer(ys, fy)) @ spectrum @ np.exp(2j * np.pi * np.outer(fx, xs))
        ).real
        row, column = np.unravel_index(int(np.argmax(height)), height.shape)
        x, y = float(xs[column]), float(ys[row])
        reach /= 2.5
    return x, y


def _hann(shape: tuple[int, ...]) -> _Array:
    return np.outer(np.hanning(shape[0] + 2)[1:-1], np.hanning(shape[1] + 2)[1:-1])
