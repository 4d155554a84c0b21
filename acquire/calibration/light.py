"""Measuring the map from px to a DMD, SLM or galvo: it shows spots, and the images say where they fell."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError
from .registration import Image
from .robust import fit_linear
from .spots import Spot, find_spot
from .stored import Rows

Show: TypeAlias = Callable[[float, float], object]
_Place: TypeAlias = "tuple[float, float]"

_GRID = 5
_MARGIN = 0.1  # of the range of the device
_LEAST_SPOTS = 6
_WANTED_SPOTS = 12
_FINER = 4


class LightCalibration(NamedTuple):
    """What was measured.

    Attributes
    ----------
    affine
        ((xx, xy, x0), (yx, yy, y0)): image (x, y) in px -> units of the device, as
        :class:`~cytoloop.acquire.actuators.CoreActuator` takes it.
    residual
        Root of the mean squared residual in units of the device.
    residual_px
        The same in px of the image.
    shown, found, used
        Spots that were shown, seen in an image, and that the fit rests on.
    shape
        (height, width) of the images in px.
    """

    affine: Rows
    residual: float
    residual_px: float
    shown: int
    found: int
    used: int
    shape: tuple[int, int]


def calibrate_light(
    show: Show,
    dark: Callable[[], object],
    snap: Callable[[], Image],
    low: tuple[float, float],
    high: tuple[float, float],
    *,
    residual_px: float = 1.0,
) -> LightCalibration:
    """Show spots, find them in images, and fit the map from image px to the device's units.

    A grid of 5 x 5 over the range of the device is shown first; if only a part of it is seen by the camera, a finer
    one around what was seen. The light is off at the end, also after an error.

    Parameters
    ----------
    show
        Lights one spot at (x, y) of the device, until the next or ``dark``.
    dark
        Puts the light off.
    snap
        Takes an image, (y, x); something that shines evenly where it is lit, such as a dye, should be in focus.
    low, high
        (x, y) of the ends of the device's range, in its units.
    residual_px
        Largest residual of a fit that is taken, in px.

    Raises
    ------
    CalibrationError
        If too few spots are seen, they lie on one line, or no affine fits.
    """
    if not all(b > a for a, b in zip(low, high, strict=True)):
        raise CalibrationError(f"the device's range from {low} to {high} is empty")
    size = np.subtract(high, low)
    grid = _grid(np.add(low, high) / 2, size * (1 - 2 * _MARGIN))
    try:
        seen, shape = _shown(grid, show, dark, snap)
        shown = len(grid)
        if 0 < len(seen) < _WANTED_SPOTS:
            brightest = max(seen, key=lambda each: each[1].contrast)[0]
            finer = _grid(np.array(brightest), size * (1 - 2 * _MARGIN) / _FINER)
            finer = [(x, y) for x, y in finer if low[0] <= x <= high[0] and low[1] <= y <= high[1]]
            more, shape = _shown(finer, show, dark, snap)
            seen, shown = seen + more, shown + len(finer)
    finally:
        dark()
    if len(seen) < _LEAST_SPOTS:
        raise CalibrationError(
            f"{len(seen)} of {shown} spots were seen, {_LEAST_SPOTS} are needed: is the light on, something that"
            " shines in focus, and the camera's filter the right one?"
        )
    return _fitted(seen, shown, shape, residual_px)


def _grid(centre: NDArray[np.float64], size: NDArray[np.float64]) -> list[_Place]:
    steps = np.linspace(-0.5, 0.5, _GRID)
    return [(float(centre[0] + size[0] * x), float(centre[1] + size[1] * y)) for y in steps for x in steps]


def _shown(
    places: list[_Place], show: Show, dark: Callable[[], object], snap: Callable[[], Image]
) -> tuple[list[tuple[_Place, Spot]], tuple[int, int]]:
    """Return the places of which a spot was seen, with the spot, and the shape of the images."""
    dark()
    background = snap()
    seen: list[tuple[_Place, Spot]] = []
    for x, y in places:
        show(x, y)
        spot = find_spot(snap(), background)
        if spot is not None:
            seen.append(((x, y), spot))
    height, width = background.shape
    return seen, (height, width)


def _fitted(
    seen: list[tuple[_Place, Spot]], shown: int, shape: tuple[int, int], largest_px: float
) -> LightCalibration:
    places = np.array([place for place, _ in seen])
    spots = np.array([[spot.x_px, spot.y_px] for _, spot in seen])
    for what, points in (("shown", places), ("seen", spots)):
        spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        if spread[1] < 1e-2 * spread[0] or not spread[0] > 0:
            raise CalibrationError(
                f"the spots that were {what} lie on one line; a device with two axes is needed"
            )
    # What was shown is exact and what was seen is not: fit px of the device's units, and turn it round.
    fit = fit_linear(places, spots)
    if abs(np.linalg.det(fit.slope)) < 1e-12:
        raise CalibrationError("the spots do not follow the device: the fit cannot be inverted")
    matrix = np.linalg.inv(fit.slope)
    rests = fit.rests[fit.used]
    residual = float(np.sqrt((rests**2).sum(axis=1).mean()))
    used = int(fit.used.sum())
    if used < max(_LEAST_SPOTS, 0.6 * len(seen)) or residual > largest_px:
        raise CalibrationError(
            f"no affine fits: {residual:.2f} px of residual (at most {largest_px:g}) with {used} of {len(seen)} spots"
        )
    offset = -matrix @ fit.constant
    (xx, xy), (yx, yy) = matrix.tolist()
    return LightCalibration(
        ((xx, xy, float(offset[0])), (yx, yy, float(offset[1]))),
        residual=float(np.sqrt(((rests @ matrix.T) ** 2).sum(axis=1).mean())),
        residual_px=residual,
        shown=shown,
        found=len(seen),
        used=used,
        shape=shape,
    )
