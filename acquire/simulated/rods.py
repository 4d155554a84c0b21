"""Rod-shaped bacteria in a growing colony, which lengthen, divide, push each other apart, lyse and answer to light.

Each rod grows exponentially and divides after adding a fixed length (the adder rule, Taheri-Araghi et al. 2015).
Rods that overlap are pushed apart and turned as rigid bodies: position-based dynamics on the closest points of
their axes, with the moment of inertia of a rod (Mueller et al. 2007).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from .sample import Floats, Ints, Sample, Snapshot, ramp
from .shapes import Rods
from .texture import TEXTURES


@dataclass(frozen=True, slots=True)
class RodHabits:
    """How the rods live; times in s, lengths in um.

    Attributes
    ----------
    count, width_um
        Founders, and the edge of the square around (0, 0) on which they lie.
    diameter_um, added_um
        Width of a rod, and the length it adds from birth to division (10 % variation).
    doubling_s
        Time in which a rod doubles (10 % variation).
    jiggle_um
        Brownian displacement in one second, per axis.
    death_per_s, lysis_s
        Rate of lysis, and how long the pale ghost remains.
    arrest_s, darkening, rise_s, fade_s
        The answer to light of dose 1: how long growth stops, by which factor the rod darkens at most, how fast
        that comes and goes.
    """

    count: int = 6
    width_um: float = 16.0
    diameter_um: float = 0.9
    added_um: float = 2.0
    doubling_s: float = 1800.0
    jiggle_um: float = 0.004
    death_per_s: float = 1e-6
    lysis_s: float = 1800.0
    arrest_s: float = 900.0
    darkening: float = 0.35
    rise_s: float = 120.0
    fade_s: float = 3600.0


class RodSample(Sample):
    """A colony of rods.

    Parameters
    ----------
    habits
        How they live.
    seed
        The same seed gives the same life.
    """

    sweeps = 32  # of pushing apart per step

    def __init__(self, habits: RodHabits, seed: int) -> None:
        super().__init__(seed)
        self.habits = habits
        n, rng = habits.count, self._rng
        birth = habits.added_um * np.clip(rng.normal(1, 0.1, n), 0.8, 1.2)
        progress = -np.log2(1 - rng.uniform(0, 0.5, n))
        rows = self._newborn(birth)
        rows["length"] = birth + progress * rows["added"]
        rows["born"] = -progress * habits.doubling_s
        rows["angle"] = rng.uniform(0, 2 * np.pi, n)
        rows["xy"] = rng.uniform(-0.5, 0.5, (n, 2)) * habits.width_um
        rows["identity"], rows["parent"] = self._new_identities(n), np.zeros(n, np.int64)
        self._state = rows
        self._push_apart()

    def _newborn(self, birth_um: Floats) -> dict[str, NDArray[Any]]:
        h, rng, n = self.habits, self._rng, len(birth_um)
        zeros = np.zeros(n)
        return {
            "xy": np.zeros((n, 2)),
            "angle": zeros,
            "birth": birth_um,
            "length": birth_um.copy(),
            "added": h.added_um * np.clip(rng.normal(1, 0.1, n), 0.75, 1.3),
            "rate": np.log(2) / h.doubling_s * np.clip(rng.normal(1, 0.1, n), 0.75, 1.3),
            "density": np.clip(rng.normal(1, 0.06, n), 0.85, 1.15),
            "texture": rng.integers(0, TEXTURES, n),
            "born": zeros + self.time_s,
            "signal": zeros,
            "reporter": zeros,
            "halted": zeros - np.inf,
            "dying": zeros + np.inf,
        }

    # life ----------------------------------------------------------------------------------------------------

    def _step(self, dt_s: float) -> None:
        h, state, rng = self.habits, self._state, self._rng
        n = len(self)
        grows = (state["halted"] <= self.time_s) & np.isinf(state["dying"])
        state["length"] = self._floats("length") * np.exp(state["rate"] * dt_s * grows)
        jiggle = h.jiggle_um * np.sqrt(dt_s)
        state["xy"] = self._floats("xy") + rng.normal(0, jiggle, (n, 2))
        state["angle"] = self._floats("angle") + rng.normal(0, jiggle / h.added_um, n)
        state["signal"] = state["signal"] * np.exp(-dt_s / h.fade_s)
        state["reporter"] = state["reporter"] + (state["signal"] - state["reporter"]) * (
            1 - np.exp(-dt_s / h.rise_s)
        )
        dies = rng.random(n) < h.death_per_s * dt_s
        state["dying"] = np.where(dies, np.minimum(state["dying"], self.time_s), state["dying"])
        ready = np.flatnonzero((self._progress() >= 1) & grows)
        if len(ready):
            self._divide(ready, self._daughters(ready))
        self._bury(self._decay() >= 1)
        self._push_apart()

    def _daughters(self, mothers: Ints) -> dict[str, NDArray[Any]]:
        """Return the daughters: cut near the middle, pole to pole in a line, what they inherited from her."""
        mother = {name: np.repeat(column[mothers], 2, axis=0) for name, column in self._state.items()}
        cut = np.clip(self._rng.normal(0.5, 0.02, len(mothers)), 0.42, 0.58)
        share = np.stack([cut, 1 - cut], axis=1).ravel()
        rows = self._newborn(mother["length"] * share)
        for name in ("signal", "reporter", "halted"):
            rows[name] = mother[name]
        rows["density"] = np.clip(mother["density"] * rows["density"] ** 0.3, 0.85, 1.15)
        rows["angle"] = mother["angle"] + self._rng.normal(0, 0.03, 2 * len(mothers))
        sign = np.tile([-1.0, 1.0], len(mothers))
        along = np.stack([np.cos(mother["angle"]), np.sin(mother["angle"])], axis=1)
        rows["xy"] = mother["xy"] + along * (sign * mother["length"] * (1 - share) / 2)[:, None]
        return rows

    def _push_apart(self) -> None:
        xy, angle = self._floats("xy").copy(), self._floats("angle").copy()
        half = np.maximum(self._floats("length") - self.habits.diameter_um, 0) / 2
        inertia = (2 * half + self.habits.diameter_um) ** 2 / 12
        reach = float(self._floats("length").max(initial=0)) + 0.5
        near = KDTree(xy).query_pairs(reach, output_type="ndarray")
        i, j = near[:, 0], near[:, 1]
        for _ in range(self.sweeps):
            normal, distance, arm_i, arm_j = closest(xy, angle, half, i, j)
            overlap = 1.04 * self.habits.diameter_um - distance  # a thin gap stays
            hit = overlap > 0
            if not hit.any():
                break
            normal, overlap, first, second = normal[hit], overlap[hit], i[hit], j[hit]
            turn_i = arm_i[hit] * (np.cos(angle[first]) * normal[:, 1] - np.sin(angle[first]) * normal[:, 0])
            turn_j = arm_j[hit] * (
                np.cos(angle[second]) * normal[:, 1] - np.sin(angle[second]) * normal[:, 0]
            )
            mobility = 2 + turn_i**2 / inertia[first] + turn_j**2 / inertia[second]
            push = 1.4 * overlap / mobility
            np.add.at(xy, first, -normal * push[:, None])
            np.add.at(xy, second, normal * push[:, None])
            np.add.at(angle, first, -push * turn_i / inertia[first])
            np.add.at(angle, second, push * turn_j / inertia[second])
        self._state["xy"], self._state["angle"] = xy, angle

    # what is seen --------------------------------------------------------------------------------------------

    def _progress(self) -> Floats:
        return (self._floats("length") - self._floats("birth")) / self._floats("added")

    def _decay(self) -> Floats:
        return np.maximum((self.time_s - self._floats("dying")) / self.habits.lysis_s, -1.0)

    def snapshot(self) -> Snapshot:
        """Return the rods as they are now."""
        n = len(self)
        half = np.stack([self._floats("length") / 2, np.full(n, self.habits.diameter_um / 2)], axis=1)
        pale = 1 - 0.7 * ramp(self._decay() * 5)
        dark = self._floats("density") * (1 + self._floats("reporter")) * pale
        return Snapshot(
            time_s=self.time_s,
            identity=self._ints("identity"),
            parent=self._ints("parent"),
            born_s=self._floats("born"),
            xy_um=self._floats("xy"),
            shapes=Rods(half, self._floats("angle"), 0.7 * ramp((self._progress() - 0.75) * 4)),
            brightness=dark,
            texture=self._ints("texture"),
            contrast=np.full(n, 0.3),
            reporter=self._floats("reporter"),
        )

    # light ---------------------------------------------------------------------------------------------------

    def expose(self, identity: Ints, dose: Floats) -> None:
        """Do nothing: there is no dye to bleach."""

    def stimulate(self, identity: Ints, dose: Floats) -> None:
        """Stop the growth of cells and darken them; the answer saturates with dose (half at 0.25)."""
        rows, alive = self._rows(identity)
        answer = dose[alive] / (dose[alive] + 0.25) * 1.25
        signal, halted = self._floats("signal").copy(), self._floats("halted").copy()
        signal[rows] = np.minimum(signal[rows] + answer * self.habits.darkening, 1.5 * self.habits.darkening)
        halted[rows] = self.time_s + self.habits.arrest_s * np.minimum(answer, 1)
        self._state["signal"], self._state["halted"] = signal, halted


def closest(
    xy: Floats, angle: Floats, half: Floats, i: Ints, j: Ints
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the shortest connection between the axes of rods i and j.

    Returns
    -------
    normal
        (k, 2) unit vector from i to j.
    distance
        (k,) um.
    arm_i, arm_j
        (k,) place of its ends along the axes, in um from the centres (Ericson, Real-Time Collision Detection,
        5.1.9).
    """
    ei = np.stack([np.cos(angle[i]), np.sin(angle[i])], axis=1)
    ej = np.stack([np.cos(angle[j]), np.sin(angle[j])], axis=1)
    between = xy[i] - xy[j]
    b = (ei * ej).sum(axis=1)
    c, f = (ei * between).sum(axis=1), (ej * between).sum(axis=1)
    across = 1 - b * b
    # nearly parallel rods touch along their sides: take the middle of the overlap, so that none is turned
    middle = np.clip(-c / 2, -half[i], half[i])
    arm_i = np.where(
        across > 1e-3, np.clip((b * f - c) / np.maximum(across, 1e-3), -half[i], half[i]), middle
    )
    arm_j = np.clip(b * arm_i + f, -half[j], half[j])
    arm_i = np.clip(b * arm_j - c, -half[i], half[i])
    apart = between + ei * arm_i[:, None] - ej * arm_j[:, None]
    distance = np.hypot(apart[:, 0], apart[:, 1])
    crossed = distance < 1e-6  # axes that cross have no shortest connection: push the centres apart
    centres = between + 1e-6
    normal = np.where(crossed[:, None], -centres, -apart)
    length = np.hypot(normal[:, 0], normal[:, 1])
    return normal / length[:, None], distance, arm_i, arm_j
