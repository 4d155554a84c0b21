"""What every simulated sample has: cells on a plane, a clock of its own, and an exact record of what happened."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .shapes import Shapes

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Division:
    """A mother that has become two.

    Attributes
    ----------
    time_s
        Simulated time in s.
    mother, daughters
        Identities.
    at_um
        (x, y) of the mother in um.
    """

    time_s: float
    mother: int
    daughters: tuple[int, int]
    at_um: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The n cells of a sample at one moment; never modified after it is made.

    Attributes
    ----------
    time_s
        Simulated time in s.
    identity, parent
        (n,) int64; the parent is 0 for the founders.
    born_s
        (n,) time of birth in s; before 0 for the founders.
    xy_um
        (n, 2) centre in um.
    shapes
        Outlines of the n cells.
    brightness
        (n,) light given off (fluorescence) or phase retarded (phase contrast) per area; 1 is typical.
    texture, contrast
        (n,) number of the chromatin pattern, and how strongly it shows (0 to 1).
    reporter
        (n,) answer to stimulation, 0 for none; it is already in ``brightness``.
    """

    time_s: float
    identity: Ints
    parent: Ints
    born_s: Floats
    xy_um: Floats
    shapes: Shapes
    brightness: Floats
    texture: Ints
    contrast: Floats
    reporter: Floats

    def __len__(self) -> int:
        return len(self.identity)


class Sample(ABC):
    """Cells that live by simulated time; the same seed and the same calls give the same cells.

    Attributes
    ----------
    time_s
        Simulated time in s.
    divisions, deaths
        What has happened so far: divisions, and (identity, time in s) of the cells that died.
    """

    step_s = 60.0  # longest step: what moves or grows stays smooth whatever the interval between frames is

    def __init__(self, seed: int) -> None:
        self.time_s = 0.0
        self.divisions: list[Division] = []
        self.deaths: list[tuple[int, float]] = []
        self._rng = np.random.default_rng(seed)
        self._next = 1
        self._state: dict[str, NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(self._state["identity"])

    def advance(self, dt_s: float) -> None:
        """Let the cells live for ``dt_s`` seconds.

        Raises
        ------
        ValueError
            If ``dt_s`` is negative or not finite.
        """
        if not (math.isfinite(dt_s) and dt_s >= 0):
            raise ValueError(f"dt_s must be a finite number of seconds, 0 or more, got {dt_s}")
        steps = math.ceil(dt_s / self.step_s)
        for _ in range(steps):
            self.time_s += dt_s / steps
            self._step(dt_s / steps)

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """Return the cells as they are now."""

    @abstractmethod
    def expose(self, identity: Ints, dose: Floats) -> None:
        """Bleach cells: each keeps ``exp(-dose)`` of its light."""

    @abstractmethod
    def stimulate(self, identity: Ints, dose: Floats) -> None:
        """Give cells a dose of stimulating light; 1 is a full answer's worth."""

    @abstractmethod
    def _step(self, dt_s: float) -> None: ...

    # columns -------------------------------------------------------------------------------------------------

    def _floats(self, name: str) -> Floats:
        return self._state[name]

    def _ints(self, name: str) -> Ints:
        return self._state[name]

    def _new_identities(self, count: int) -> Ints:
        self._next += count
        return np.arange(self._next - count, self._next)

    def _append(self, rows: dict[str, NDArray[Any]]) -> None:
        self._state = {name: np.concatenate([column, rows[name]]) for name, column in self._state.items()}

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        self._state = {name: column[kept] for name, column in self._state.items()}

    def _rows(self, identity: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """Return the rows of those identities that still live, and which of those asked for they are."""
        rows = np.searchsorted(self._ints("identity"), identity)
        rows = np.minimum(rows, len(self) - 1)
        alive = self._ints("identity")[rows] == identity
        return rows[alive], alive

    def _divide(self, mothers: Ints, daughters: dict[str, NDArray[Any]]) -> None:
        """Replace mothers (rows) by daughters: row 2 i and 2 i + 1 of ``daughters`` come from mother i."""
        identity, xy = self._ints("identity")[mothers], self._floats("xy")[mothers]
        born = self._new_identities(2 * len(mothers))
        for i in range(len(mothers)):
            pair = int(born[2 * i]), int(born[2 * i + 1])
            at = float(xy[i, 0]), float(xy[i, 1])
            self.divisions.append(Division(self.time_s, int(identity[i]), pair, at))
        daughters["identity"], daughters["parent"] = born, np.repeat(identity, 2)
        kept = np.ones(len(self), bool)
        kept[mothers] = False
        self._keep(kept)
        self._append(daughters)

    def _bury(self, dead: NDArray[np.bool_]) -> None:
        self.deaths.extend((int(identity), self.time_s) for identity in self._ints("identity")[dead])
        self._keep(~dead)


def ramp(x: Floats) -> Floats:
    """Return a smooth step from 0 to 1 as x goes from 0 to 1."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)
