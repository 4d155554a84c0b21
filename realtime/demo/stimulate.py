"""Act 2: cells that have just divided are stimulated, and answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...acquire.simulated import presets
from ...acquire.simulated.actuator import SimulatedActuator
from ...acquire.simulated.microscope import SimulatedMicroscope, Stimulation
from ..experiment.stream import PluginChoice, StreamConfig
from .promise import Promise, cells_found, every_frame, late_ones_counted
from .record import Take, record
from .stage import Cast, Scene, Show

WITHIN_FRAMES = 3
TRUE_AT_LEAST = 0.9
CURVE_FRAMES = 16
_ANSWER_AFTER = 6


@dataclass(frozen=True, slots=True, eq=False)
class Daughter:
    """A cell that was born in the movie.

    Attributes
    ----------
    identity, mother, born
        True identities, and the first frame of its life.
    lit
        The frame after which light fell on it, or None.
    reporter
        (k,) its reporter in the frames from birth on.
    """

    identity: int
    mother: int
    born: int
    lit: int | None
    reporter: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Stimulated:
    """The second act.

    Attributes
    ----------
    take, promises
        How it was played, and what came of what was promised.
    fired, on_true_division
        Stimulations carried out, and those that hit a cell born in the last three frames.
    divisions
        True divisions in the field of view.
    daughters
        All cells born in the movie in or near the field: those that light fell on, and those it did not.
    """

    take: Take
    promises: list[Promise]
    fired: int
    on_true_division: int
    divisions: int
    daughters: list[Daughter]

    def curve(self, *, lit: bool) -> NDArray[np.float64]:
        """Return (daughters, CURVE_FRAMES) reporters from birth on, NaN beyond the end of life or movie."""
        chosen = [daughter for daughter in self.daughters if (daughter.lit is not None) == lit]
        table = np.full((len(chosen), CURVE_FRAMES), np.nan)
        for row, daughter in enumerate(chosen):
            table[row, : len(daughter.reporter)] = daughter.reporter[:CURVE_FRAMES]
        return table


def play(core: Any, work: Path, out: Path, show: Show, *, seed: int, frames: int, size_px: int) -> Stimulated:
    """Play the act: lock-step, so that light falls on a cell before it has moved on."""
    microscope = presets.dividing(seed, size_px=size_px)
    stream = StreamConfig(
        address="tcp://127.0.0.1:0",
        save_masks=True,
        armed=True,
        rules=(PluginChoice("on_division", {"expires_after_s": 10.0}),),
    )
    cast = Cast(
        "stimulate",
        "New daughters are stimulated",
        microscope,
        stream,
        mode="lockstep",
        deadline_s=2.0,
        frames=frames,
        actuators=(SimulatedActuator(microscope),),
    )
    show.tell("Lock-step: light falls on new daughters before the next image is taken.")
    with Scene(core, cast, work, show) as scene:
        for frame in range(frames):
            scene.take_image(frame)
    take = record(scene, out, show)
    pulses = microscope.stimulations
    right = sum(_is_right(microscope, pulse) for pulse in pulses)
    daughters, divisions = _daughters(microscope)
    act = Stimulated(take, [], len(pulses), right, divisions, daughters)
    lit, dark = (_answer(act.curve(lit=on)) for on in (True, False))
    show.tell(
        f"  {len(pulses)} stimulations, {right} on true daughters; reporter {lit:.2f} against {dark:.2f}."
    )
    act.promises.extend(
        [
            every_frame(take),
            late_ones_counted(take, carried_out=len(pulses)),
            cells_found(take),
            Promise(
                f"{TRUE_AT_LEAST:.0%} of light on cells born in the last {WITHIN_FRAMES} frames",
                f"{right} of {len(pulses)}",
                len(pulses) > 0 and right >= TRUE_AT_LEAST * len(pulses),
            ),
            Promise(
                "they answer, other cells of the same age do not",
                f"reporter {lit:.2f} against {dark:.2f}",
                lit > 0.5 and not dark > 0.1,
            ),
        ]
    )
    return act


def _is_right(microscope: SimulatedMicroscope, pulse: Stimulation) -> bool:
    """Return whether the cell that got most of the light was born in the last frames."""
    if not pulse.identities:
        return False
    target = pulse.identities[int(np.argmax(pulse.fractions))]
    cells = microscope.sample_at(pulse.frame)
    row = int(np.flatnonzero(cells.identity == target)[0])
    age = pulse.frame - _first_frame(microscope, float(cells.born_s[row]))
    return bool(cells.parent[row] > 0 and 0 <= age <= WITHIN_FRAMES)


def _first_frame(microscope: SimulatedMicroscope, born_s: float) -> int:
    """Return the first frame at or after a moment of simulated time."""
    return max(0, int(np.ceil(born_s / microscope.interval_s - 1e-9)))


def _daughters(microscope: SimulatedMicroscope) -> tuple[list[Daughter], int]:
    """Return all cells born in the movie, and how many divisions there were in the field of view."""
    lit: dict[int, int] = {}
    for pulse in microscope.stimulations:
        for identity in pulse.identities:
            lit.setdefault(identity, pulse.frame)
    samples = [microscope.sample_at(frame) for frame in range(microscope.frames)]
    values = [dict(zip(s.identity.tolist(), s.reporter.tolist(), strict=True)) for s in samples]
    daughters: list[Daughter] = []
    inside = 0
    for division in microscope.sample.divisions:
        born = _first_frame(microscope, division.time_s)
        if born >= microscope.frames:
            continue
        seen = microscope.truth(born).identity.tolist()
        inside += any(daughter in seen for daughter in division.daughters)
        if division.mother in lit:
            continue  # what a daughter inherits is no answer of her own
        for identity in division.daughters:
            alive = [values[f][identity] for f in range(born, microscope.frames) if identity in values[f]]
            daughters.append(Daughter(identity, division.mother, born, lit.get(identity), np.array(alive)))
    return daughters, inside


def _answer(curves: NDArray[np.float64]) -> float:
    """Return the mean reporter some frames after birth; NaN where nobody is that old."""
    values = curves[:, _ANSWER_AFTER]
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
