"""Fluorescent nuclei of adherent cells that wander, grow, divide, die, bleach and answer to light.

What is seen follows from the amount of labelled DNA F and the area A of a nucleus: its brightness is F / A.
DNA doubles in S phase while the area doubles; in mitosis the nucleus rounds up and condenses, so it becomes
small and bright; then there are two small bright daughters side by side that spread within minutes.
Motion is a persistent random walk (Ornstein-Uhlenbeck velocity); nuclei keep their distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from .sample import Floats, Ints, Sample, Snapshot, ramp
from .shapes import Nuclei
from .texture import TEXTURES

_BIRTH, _GROWTH, _CONDENSED = 0.45, 0.9, 0.75  # areas at birth, gained in a cycle, in mitosis; of area_um2


@dataclass(frozen=True, slots=True)
class NucleiHabits:
    """How the nuclei live; times in s, lengths in um.

    Attributes
    ----------
    count, width_um
        Founders, and the edge of the square, centred on (0, 0), that they are spread over and stay in.
    area_um2
        Area of a nucleus soon after division; it nearly doubles until the next one.
    cycle_s, mitosis_s, spread_s
        Length of interphase (10 % variation) and of mitosis; time in which daughters spread.
    speed_um_s, persistence_s
        Standard deviation of each component of the velocity, and how long it is kept.
    movers, mover_speed_um_s
        How many of the founders, starting at the centre, run straight at this speed; they do not divide.
    death_per_s, dying_s
        Rate of dying, and how long it takes.
    gap_um
        Distance that nuclei keep from each other.
    halt_s, reporter, rise_s, fade_s
        The answer to light of dose 1: how long the cell stands still, by which factor it brightens at most,
        how fast that rises and fades.
    recovery_s
        Time in which bleached fluorescence is made anew.
    """

    count: int = 120
    width_um: float = 500.0
    area_um2: float = 100.0
    cycle_s: float = 45_000.0
    mitosis_s: float = 1500.0
    spread_s: float = 900.0
    speed_um_s: float = 0.005
    persistence_s: float = 1800.0
    movers: int = 0
    mover_speed_um_s: float = 0.05
    death_per_s: float = 1e-6
    dying_s: float = 3600.0
    gap_um: float = 2.5
    halt_s: float = 1800.0
    reporter: float = 1.5
    rise_s: float = 600.0
    fade_s: float = 7200.0
    recovery_s: float = 36_000.0


class NucleiSample(Sample):
    """A field of fluorescent nuclei.

    Parameters
    ----------
    habits
        How they live.
    seed
        The same seed gives the same life.
    """

    def __init__(self, habits: NucleiHabits, seed: int) -> None:
        super().__init__(seed)
        self.habits = habits
        h, n = habits, habits.count
        rows = self._newborn(n)
        rows["identity"], rows["parent"] = self._new_identities(n), np.zeros(n, np.int64)
        rows["xy"] = self._rng.uniform(-0.48, 0.48, (n, 2)) * h.width_um
        rows["xy"][: h.movers] = self._rng.normal(0, 10, (h.movers, 2))
        # ages in a population that grows steadily: twice as many are newborn as are about to divide
        rows["born"] = np.log2(1 - self._rng.uniform(0, 0.5, n)) * rows["cycle"]
        rows["mover"][: h.movers] = True
        rows["cycle"][: h.movers] = np.inf
        rows["velocity"] = self._rng.normal(0, h.speed_um_s, (n, 2))
        self._state = rows
        for _ in range(60):
            self._repel()
        self._sweep_movers(0.0)

    def _newborn(self, n: int) -> dict[str, NDArray[Any]]:
        h, rng = self.habits, self._rng
        zeros = np.zeros(n)
        return {
            "xy": np.zeros((n, 2)),
            "velocity": np.zeros((n, 2)),
            "angle": rng.uniform(0, 2 * np.pi, n),
            "plate": zeros + 1.0,  # axis ratio at birth
            "aspect": rng.uniform(1.1, 1.6, n),
            "lobes": rng.normal(0, 0.03, (n, 2)),
            "texture": rng.integers(0, TEXTURES, n),
            "born": zeros + self.time_s,
            "cycle": h.cycle_s * np.clip(rng.normal(1, 0.1, n), 0.7, 1.4),
            "size": np.clip(rng.lognormal(0, 0.1, n), 0.75, 1.3),
            "level": np.clip(rng.lognormal(0, 0.2, n), 0.65, 1.6),
            "unbleached": zeros + 1.0,
            "signal": zeros,
            "reporter": zeros,
            "halted": zeros - np.inf,
            "dying": zeros + np.inf,
            "mover": np.zeros(n, bool),
        }

    # life ----------------------------------------------------------------------------------------------------

    def _step(self, dt_s: float) -> None:
        h, state = self.habits, self._state
        self._walk(dt_s)
        self._repel()
        keep, gain = np.exp(-dt_s / h.fade_s), 1 - np.exp(-dt_s / h.rise_s)
        state["signal"] = state["signal"] * keep
        state["reporter"] = state["reporter"] + (state["signal"] - state["reporter"]) * gain
        state["unbleached"] = 1 - (1 - state["unbleached"]) * np.exp(-dt_s / h.recovery_s)
        dies = (self._rng.random(len(self)) < h.death_per_s * dt_s) & ~state["mover"] & (self._mitosis() <= 0)
        state["dying"] = np.where(dies, np.minimum(state["dying"], self.time_s), state["dying"])
        ready = np.flatnonzero((self._mitosis() >= 1) & np.isinf(state["dying"]))
        if len(ready):
            self._divide(ready, self._daughters(ready))
        self._bury(self._decay() >= 1)

    def _walk(self, dt_s: float) -> None:
        h, state, rng = self.habits, self._state, self._rng
        keep = np.exp(-dt_s / h.persistence_s)
        kick = h.speed_um_s * np.sqrt(1 - keep * keep)
        state["velocity"] = keep * self._floats("velocity") + kick * rng.normal(size=(len(self), 2))
        self._sweep_movers(dt_s)
        free = (state["halted"] <= self.time_s) & np.isinf(state["dying"])
        slow = np.where(self._mitosis() > 0, 0.3, 1.0)  # a rounded cell hardly crawls
        state["xy"] = self._floats("xy") + state["velocity"] * (dt_s * free * slow)[:, None]
        beyond = np.abs(state["xy"]) > h.width_um / 2
        inwards = -np.sign(state["xy"]) * np.abs(state["velocity"])
        state["velocity"] = np.where(beyond, inwards, state["velocity"])
        state["angle"] = self._floats("angle") + rng.normal(0, 0.15 * np.sqrt(dt_s / 600), len(self))

    def _sweep_movers(self, dt_s: float) -> None:
        """Keep movers at their speed, the heading turning slowly."""
        state, movers = self._state, self._state["mover"]
        velocity = self._floats("velocity")[movers]
        heading = np.arctan2(velocity[:, 1], velocity[:, 0])
        heading += self._rng.normal(0, 0.1 * np.sqrt(dt_s / 600) + 1e-12, len(heading))
        speed = self.habits.mover_speed_um_s
        state["velocity"][movers] = speed * np.stack([np.cos(heading), np.sin(heading)], axis=1)

    def _repel(self) -> None:
        """Push apart those that come nearer than their radii and the gap; movers do not give way."""
        xy, mover = self._floats("xy").copy(), self._state["mover"]
        radius = np.sqrt(self._area() / np.pi) * 1.1 + self.habits.gap_um / 2
        pairs = KDTree(xy).query_pairs(2 * float(radius.max(initial=1.0)), output_type="ndarray")
        i, j = pairs[:, 0], pairs[:, 1]
        apart = xy[j] - xy[i]
        distance = np.hypot(apart[:, 0], apart[:, 1]) + 1e-9
        overlap = np.maximum(radius[i] + radius[j] - distance, 0)
        push = apart * (0.4 * overlap / distance)[:, None]
        np.add.at(xy, i, -push * np.where(mover[i], 0, np.where(mover[j], 2, 1))[:, None])
        np.add.at(xy, j, push * np.where(mover[j], 0, np.where(mover[i], 2, 1))[:, None])
        self._state["xy"] = xy

    def _daughters(self, mothers: Ints) -> dict[str, NDArray[Any]]:
        """Return the daughters: on both sides of the plate, half the DNA each, what they inherited from her."""
        mother = {name: np.repeat(column[mothers], 2, axis=0) for name, column in self._state.items()}
        rows = self._newborn(2 * len(mothers))
        for name in ("angle", "unbleached", "signal", "reporter", "halted"):
            rows[name] = mother[name]
        rows["level"] = np.clip(mother["level"] * (rows["level"] ** 0.3), 0.65, 1.6)
        rows["size"] = np.clip(mother["size"] * rows["size"] ** 0.3, 0.75, 1.3)
        rows["plate"] = np.full(2 * len(mothers), 1.6)
        sign = np.tile([-1.0, 1.0], len(mothers))
        normal = np.stack([-np.sin(mother["angle"]), np.cos(mother["angle"])], axis=1) * sign[:, None]
        half_width = np.sqrt(_BIRTH * rows["size"] * self.habits.area_um2 / np.pi / 1.6)
        rows["xy"] = mother["xy"] + normal * (half_width + self.habits.gap_um / 2)[:, None]
        rows["velocity"] = mother["velocity"] + normal * 0.01
        return rows

    # what is seen --------------------------------------------------------------------------------------------

    def _age(self) -> Floats:
        return self.time_s - self._floats("born")

    def _progress(self) -> Floats:
        return np.clip(self._age() / self._floats("cycle"), 0, 1)

    def _mitosis(self) -> Floats:
        """Return how far each is in mitosis: negative before, 1 at division."""
        return np.maximum((self._age() - self._floats("cycle")) / self.habits.mitosis_s, -1.0)

    def _decay(self) -> Floats:
        """Return how far each has died: negative while it lives, 1 when it is gone."""
        return np.maximum((self.time_s - self._floats("dying")) / self.habits.dying_s, -1.0)

    def _spread(self) -> Floats:
        return 1 - np.exp(-self._age() / self.habits.spread_s)

    def _area(self) -> Floats:
        spread = _BIRTH + (1 - _BIRTH) * self._spread()
        grown = spread * (1 + _GROWTH * self._progress())
        condensed = grown + (_CONDENSED - grown) * ramp(self._mitosis() * 1.6)
        return condensed * (1 - 0.7 * ramp(self._decay())) * self._floats("size") * self.habits.area_um2

    def _axis_ratio(self) -> Floats:
        mitosis, spread = self._mitosis(), self._spread()
        resting = self._floats("plate") + (self._floats("aspect") - self._floats("plate")) * spread
        rounded = resting + (1.05 - resting) * ramp(np.maximum(mitosis * 2, self._decay() * 4))
        return rounded + 0.5 * ramp((mitosis - 0.6) * 3)

    def snapshot(self) -> Snapshot:
        """Return the nuclei as they are now."""
        area, ratio = self._area(), self._axis_ratio()
        calm = 1 - np.maximum(ramp(self._mitosis() * 2), ramp(self._decay() * 3))
        semi = np.sqrt(np.stack([area * ratio, area / ratio], axis=1) / np.pi)
        dna = 1 + ramp((self._progress() - 0.3) / 0.4)
        density = dna * self._floats("size") * self.habits.area_um2 / area
        fading = 1 - ramp(self._decay() * 1.6 - 0.6)
        light = self._floats("level") * self._floats("unbleached") * fading * (1 + self._floats("reporter"))
        return Snapshot(
            time_s=self.time_s,
            identity=self._ints("identity"),
            parent=self._ints("parent"),
            born_s=self._floats("born"),
            xy_um=self._floats("xy"),
            shapes=Nuclei(semi, self._floats("angle"), self._floats("lobes") * calm[:, None]),
            brightness=density * light,
            texture=self._ints("texture"),
            contrast=calm * self._spread(),
            reporter=self._floats("reporter"),
        )

    # light ---------------------------------------------------------------------------------------------------

    def expose(self, identity: Ints, dose: Floats) -> None:
        """Bleach: each keeps ``exp(-dose)`` of its fluorescence."""
        rows, alive = self._rows(identity)
        unbleached = self._floats("unbleached").copy()
        unbleached[rows] *= np.exp(-dose[alive])
        self._state["unbleached"] = unbleached

    def stimulate(self, identity: Ints, dose: Floats) -> None:
        """Make cells stand still and express their reporter; the answer saturates with dose (half at 0.25)."""
        rows, alive = self._rows(identity)
        answer = dose[alive] / (dose[alive] + 0.25) * 1.25
        signal, halted = self._floats("signal").copy(), self._floats("halted").copy()
        signal[rows] = np.minimum(signal[rows] + answer * self.habits.reporter, 1.5 * self.habits.reporter)
        halted[rows] = self.time_s + self.habits.halt_s * np.minimum(answer, 1)
        self._state["signal"], self._state["halted"] = signal, halted
