"""Doses: how much light cells, places and the whole run have been given, and how often outputs were pulsed.

The dose of a light is its power, as a fraction of the device's maximum, times its length in ms, at each place that it
falls on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from ..commands import Stimulate, Trigger, decode_mask
from ..reply import Correction, Decision
from .limits import Limits
from .places import Seen

_MOST_SQUARES = 1_000_000


class Doses:
    """What was given in one stream, and what the limits leave."""

    def __init__(self) -> None:
        self._cells: defaultdict[int, float] = defaultdict(float)
        self._squares: defaultdict[tuple[float, int, int], float] = defaultdict(float)
        self._sides: set[float] = set()  # of squares: all that were asked for go on being counted
        self._run_ms = 0.0
        self._triggers = 0

    def correct(self, corrections: Iterable[Correction], ended: Iterable[int]) -> None:
        """Take in a frame's tracks: what was given to a cell that is another counts for that."""
        for each in corrections:
            if each.old in self._cells:
                self._cells[each.new] = max(self._cells[each.new], self._cells[each.old])
        for track in ended:
            self._cells.pop(track, None)

    def refusal(self, decision: Decision, limits: Limits, seen: Seen) -> str:
        """Return why a light or a pulse would be too much; ``""`` if it would not."""
        match decision.command:
            case Trigger():
                most = limits.triggers_max
                return "" if most is None or self._triggers < most else f"triggers_max {most} is reached"
            case Stimulate() as light:
                dose = light.power * light.duration_ms
                of_cell = self._cells.get(decision.track, 0.0)
                return (
                    _beyond("dose_ms_per_run", self._run_ms + dose * _shots(light), limits.dose_ms_per_run)
                    or _beyond("dose_ms_per_cell", of_cell + dose, limits.dose_ms_per_cell)
                    or self._square_refusal(light, limits, seen, dose)
                )
            case _:
                return ""

    def give(self, decision: Decision, limits: Limits, seen: Seen) -> None:
        """Count a decision that is let pass."""
        match decision.command:
            case Trigger():
                self._triggers += 1
            case Stimulate() as light:
                dose = light.power * light.duration_ms
                self._run_ms += dose * _shots(light)
                if decision.track:
                    self._cells[decision.track] += dose
                if limits.dose_ms_per_area is not None:
                    self._sides.add(limits.dose_area_um)
                    for square in self._lit(light, limits, seen):
                        self._squares[square] += dose
            case _:
                pass

    def _square_refusal(self, light: Stimulate, limits: Limits, seen: Seen, dose: float) -> str:
        most = limits.dose_ms_per_area
        if most is None:
            return ""
        if seen.affine is None or seen.stage_um is None:
            return "dose_ms_per_area needs a pixel size and the stage's position, and they are not known"
        squares = self._lit(light, limits, seen)
        if len(self._squares) + len(squares) > _MOST_SQUARES:
            return f"light has fallen on more than {_MOST_SQUARES} squares of dose_area_um; they are not told apart"
        given = max((self._squares.get(square, 0.0) for square in squares), default=0.0)
        return _beyond("dose_ms_per_area", given + dose, most)

    def _lit(self, light: Stimulate, limits: Limits, seen: Seen) -> set[tuple[float, int, int]]:
        """Return the squares that a light falls on, each with its side in um."""
        sides = self._sides | {limits.dose_area_um}
        return {(side, *square) for side in sides for square in _squares_of(light, side, seen)}


def _squares_of(light: Stimulate, side: float, seen: Seen) -> set[tuple[int, int]]:
    """Return the squares of the sample that a light falls on."""
    affine, stage = seen.affine, seen.stage_um
    if affine is None or stage is None:
        return set()
    height, width = shape = seen.shape
    if light.mask:
        y, x = np.nonzero(decode_mask(light.mask, shape))
    else:
        discs = [_disc(point, light.radius_px) for point in light.points_px]
        y, x = np.concatenate(discs, axis=1) if discs else np.empty((2, 0))
    dx, dy = x - (width - 1) / 2, y - (height - 1) / 2
    across = np.floor((stage[0] + affine.xx * dx + affine.xy * dy) / side).astype(np.int64)
    down = np.floor((stage[1] + affine.yx * dx + affine.yy * dy) / side).astype(np.int64)
    return set(zip(across.tolist(), down.tolist(), strict=True))


def _disc(point: tuple[float, float], radius: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return (2, k) of y and x over a disc, in px."""
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    inside = y**2 + x**2 <= max(radius, 0.5) ** 2
    return np.stack([y[inside] + point[1], x[inside] + point[0]])


def _shots(light: Stimulate) -> int:
    return max(1, len(light.points_px))


def _beyond(key: str, dose: float, most: float | None) -> str:
    if most is None or dose <= most:
        return ""
    return f"{key}: {dose:g} ms of full power would be given, allowed {most:g} ms"
