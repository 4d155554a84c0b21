"""Measuring the map from px to stage um: the stage steps through a pattern, the images say where it went."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..coordinates import Affine
from ..errors import CalibrationError, ConfigurationError
from .parts import Parts, parts_of
from .registration import Image, Shift, register
from .robust import Fit, fit_linear

Move: TypeAlias = Callable[[float, float], object]
Snap: TypeAlias = Callable[[], Image]
Position: TypeAlias = Callable[[], "tuple[float, float]"]

LEAST_QUALITY = 0.3
_CLEAR_PX = 4.0  # a shift that gives the direction of an axis
_REACH = 0.3  # of the shorter side: the longest shift of the pattern
_DIRECTIONS = 8
_LEAST_POINTS = 8
_ARRIVED = 0.3  # of a step: how far from where it was sent a stage may be
_LARGEST_SHEAR_DEG = 15.0
_LARGEST_RATIO = 1.3
_SIGNIFICANT = 4.0  # standard errors
_VISIBLE_PX = 0.1


class StageCalibration(NamedTuple):
    """What was measured.

    Attributes
    ----------
    affine
        From px to stage um.
    residual_um
        Root of the mean squared distance between where the images were and where the affine says, in um.
    residual_px
        The same in px.
    backlash_um
        By how much an axis (x, y) stops short when it comes from the other side, in um; None where it cannot be told
        from nothing.
    points, used
        Positions that were visited, and those that the fit rests on.
    quality
        Lowest correlation of two images that the fit rests on.
    shape
        (height, width) of the images in px.
    travel_um
        How far the stage went from where it began, in um.
    """

    affine: Affine
    residual_um: float
    residual_px: float
    backlash_um: tuple[float | None, float | None]
    points: int
    used: int
    quality: float
    shape: tuple[int, int]
    travel_um: float

    @property
    def parts(self) -> Parts:
        """Scale, rotation, flip and shear."""
        return parts_of(self.affine)


class _Visit(NamedTuple):
    """One position: where the stage said it was, which way each axis last went (-1, 0, 1), and what was seen."""

    at_um: tuple[float, float]
    came: tuple[float, float]
    shift: Shift


class _Stage:
    """The stage and camera during one calibration: visits positions relative to the start."""

    def __init__(self, move: Move, snap: Snap, position: Position) -> None:
        self._move, self._snap, self._position = move, snap, position
        self.start_um = position()
        self.reference = snap()
        self.farthest_um = 0.0
        self._came = (0.0, 0.0)
        self._asked = (0.0, 0.0)

    def visit(self, x_um: float, y_um: float) -> _Visit:
        self._came = (
            _direction(x_um - self._asked[0]) or self._came[0],
            _direction(y_um - self._asked[1]) or self._came[1],
        )
        step = math.dist((x_um, y_um), self._asked)
        self._asked = (x_um, y_um)
        self._move(self.start_um[0] + x_um, self.start_um[1] + y_um)
        now = self._position()
        at = now[0] - self.start_um[0], now[1] - self.start_um[1]
        away = math.dist(at, self._asked)
        if away > _ARRIVED * max(step, math.hypot(x_um, y_um)):
            raise CalibrationError(
                f"the stage did not move as it was told: sent to ({x_um:.2f}, {y_um:.2f}) um from where it began,"
                f" it says that it is at ({at[0]:.2f}, {at[1]:.2f}) um"
            )
        self.farthest_um = max(self.farthest_um, math.hypot(*at))
        return _Visit(at, self._came, register(self.reference, self._snap()))

    def back(self) -> None:
        self._move(*self.start_um)


def calibrate_stage(
    move: Move,
    snap: Snap,
    position: Position,
    *,
    first_step_um: float = 1.0,
    longest_um: float = 1000.0,
    residual_px: float = 0.5,
) -> StageCalibration:
    """Step the stage through a pattern, register the images, and fit the map from px to um.

    Small steps, doubled until they are seen, find size and direction of a pixel. A ring of positions follows, at
    0.3 of the shorter side of the image, and one at half of it the other way round, so that each axis comes from both
    sides. At the end, and on an error, the stage goes back to where it was.

    Parameters
    ----------
    move
        Sends the stage to (x, y) in um, absolute, and returns when it is there.
    snap
        Takes an image, (y, x). The sample should not move by itself meanwhile, and be in focus.
    position
        Says where the stage is, (x, y) in um.
    first_step_um
        First step in um; short enough to keep most of the image in view.
    longest_um
        How far the stage may go from where it is, in um.
    residual_px
        Largest residual of a fit that is taken, in px.

    Returns
    -------
    StageCalibration
        The affine and what it rests on.

    Raises
    ------
    CalibrationError
        If the images hold no texture, the stage does not move, the images do not follow it, or no affine fits.
    """
    stage = _Stage(move, snap, position)
    try:
        along_x = _seen_step(stage, (1.0, 0.0), first_step_um, longest_um)
        along_y = _seen_step(stage, (0.0, 1.0), first_step_um, longest_um)
        visits = _pattern(stage, _rough(along_x, along_y), longest_um)
    finally:
        stage.back()
    height, width = stage.reference.shape
    return _fitted(visits, (height, width), stage.farthest_um, residual_px)


def _direction(step_um: float) -> float:
    return float(np.sign(round(step_um, 6)))


def _seen_step(stage: _Stage, axis: tuple[float, float], first_um: float, longest_um: float) -> _Visit:
    """Step along one axis, farther and farther, until the shift is clear."""
    step, last, quality = first_um, None, 1.0
    while step <= longest_um:
        visit = stage.visit(axis[0] * step, axis[1] * step)
        quality = visit.shift.quality
        if quality < LEAST_QUALITY:
            break
        last = visit
        if math.hypot(visit.shift.x_px, visit.shift.y_px) >= _CLEAR_PX:
            return visit
        step *= 2
    name = "x" if axis[0] else "y"
    if last is None:
        raise CalibrationError(
            f"the images hold no texture that can be recognised after a step of {first_um:g} um in {name}"
            f" (correlation {quality:.2f}, {LEAST_QUALITY} is needed): focus on the sample, expose for longer, or"
            " start with a shorter step"
        )
    if quality < LEAST_QUALITY:
        raise CalibrationError(
            f"the image is another one after a step of {step:g} um in {name} (correlation {quality:.2f}), and it"
            f" had not moved by {_CLEAR_PX:g} px before"
        )
    raise CalibrationError(
        f"the image does not follow the stage: {last.at_um[name == 'y']:g} um in {name} moved it by"
        f" {math.hypot(last.shift.x_px, last.shift.y_px):.2f} px. Is it the stage under this camera, and what is seen"
        " the sample?"
    )


def _rough(along_x: _Visit, along_y: _Visit) -> NDArray[np.float64]:
    """Return the (2, 2) map from stage um to shift in px, from one step along each axis."""
    um = np.array([along_x.at_um, along_y.at_um]).T
    px = np.array([[each.shift.x_px, each.shift.y_px] for each in (along_x, along_y)]).T
    rough = px @ np.linalg.inv(um)
    lengths = np.linalg.norm(rough, axis=0)
    sine = abs(np.linalg.det(rough)) / float(lengths.prod())
    if sine < math.sin(math.radians(30)):
        raise CalibrationError(
            "both axes of the stage move the image along the same line:"
            f" x by {np.round(rough[:, 0], 3).tolist()} and y by {np.round(rough[:, 1], 3).tolist()} px per um"
        )
    return rough


def _pattern(stage: _Stage, rough: NDArray[np.float64], longest_um: float) -> list[_Visit]:
    """Visit a ring of shifts of the image, and a smaller one the other way round."""
    inverse = np.linalg.inv(rough)
    radius = _REACH * min(stage.reference.shape)
    radius = min(radius, longest_um / float(np.linalg.norm(inverse, 2)))
    angles = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS) + 0.2
    ring = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    targets = np.concatenate([ring, ring[::-1] / 2, [[0.0, 0.0]]]) @ inverse.T
    return [stage.visit(float(x), float(y)) for x, y in targets]


def _fitted(
    visits: list[_Visit], shape: tuple[int, int], travel_um: float, largest_residual_px: float
) -> StageCalibration:
    good = [visit for visit in visits if visit.shift.quality >= LEAST_QUALITY]
    if len(good) < _LEAST_POINTS:
        worst = min(visit.shift.quality for visit in visits)
        raise CalibrationError(
            f"only {len(good)} of {len(visits)} images could be recognised (lowest correlation {worst:.2f},"
            f" {LEAST_QUALITY} is needed); {_LEAST_POINTS} are needed"
        )
    fit, backlash = _best_fit(good)
    try:
        matrix = -np.linalg.inv(fit.slope[:, :2])
        affine = Affine(*map(float, matrix.ravel()))
    except (np.linalg.LinAlgError, ConfigurationError):
        raise CalibrationError(f"the fit cannot be inverted: {fit.slope.tolist()}") from None
    rests = matrix @ fit.rests[fit.used].T
    found = StageCalibration(
        affine,
        residual_um=float(np.sqrt((rests**2).sum(axis=0).mean())),
        residual_px=float(np.sqrt((fit.rests[fit.used] ** 2).sum(axis=1).mean())),
        backlash_um=backlash,
        points=len(visits),
        used=int(fit.used.sum()),
        quality=min(visit.shift.quality for visit in good),
        shape=shape,
        travel_um=travel_um,
    )
    _check(found, largest_residual_px)
    return found


def _best_fit(visits: list[_Visit]) -> tuple[Fit, tuple[float | None, float | None]]:
    """Fit shift = slope @ position + constant; with the backlash of both axes if it can be told from nothing."""
    at = np.array([visit.at_um for visit in visits])
    came = np.array([visit.came for visit in visits])
    shift = np.array([[visit.shift.x_px, visit.shift.y_px] for visit in visits])
    plain, full = fit_linear(at, shift), fit_linear(np.hstack([at, came]), shift)
    px, error = full.slope[:, 2:], full.error[2:]
    visible = [
        bool(np.linalg.norm(px[:, axis]) > max(_VISIBLE_PX / 2, _SIGNIFICANT * error[axis]))
        for axis in (0, 1)
    ]
    if not any(visible):
        return plain, (None, None)
    um = np.abs(2 * np.diag(np.linalg.inv(full.slope[:, :2]) @ px))
    return full, tuple(float(um[axis]) if visible[axis] else None for axis in (0, 1))  # pyright: ignore[reportReturnType]


def _check(found: StageCalibration, largest_residual_px: float) -> None:
    """Refuse a fit that nobody should steer by.

    Raises
    ------
    CalibrationError
        Says what is wrong with it.
    """
    parts = found.parts
    low, high = sorted(parts.scale)
    if found.used < max(_LEAST_POINTS, 0.6 * found.points) or found.residual_px > largest_residual_px:
        raise CalibrationError(
            f"no affine fits: {found.residual_px:.2f} px of residual (at most {largest_residual_px:g}) with"
            f" {found.used} of {found.points} positions. The stage may slip, or the sample move by itself"
        )
    if abs(parts.shear_deg) > _LARGEST_SHEAR_DEG or high > _LARGEST_RATIO * low:
        raise CalibrationError(
            f"the fit is none of a camera on a stage: {parts.scale[0]:.4g} and {parts.scale[1]:.4g} um per px along x"
            f" and y, and a shear of {parts.shear_deg:.1f} degrees. Are both axes of the stage set up?"
        )
