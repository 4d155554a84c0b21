"""Act 1: the stage follows one cell that would leave the field of view."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...acquire.governor.limits import Limits
from ...acquire.simulated import presets
from ...acquire.simulated.microscope import SimulatedMicroscope
from ..experiment.stream import PluginChoice, StreamConfig
from .promise import Promise, cells_found, every_frame, late_ones_counted
from .record import Take, record
from .stage import Cast, Scene, Show

RUNAWAY = 1
"""Identity, in the truth, of the cell that runs away."""
WITHIN_UM = 10.0
TRAVEL_UM = 500.0
_OFF_CENTRE_UM = (2.0, -1.5)


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """The first act.

    Attributes
    ----------
    take, promises
        How it was played, and what came of what was promised.
    cell_um, stage_um
        (frames, 2) true positions of the cell and of the stage.
    """

    take: Take
    promises: list[Promise]
    cell_um: NDArray[np.float64]
    stage_um: NDArray[np.float64]

    @property
    def distance_um(self) -> NDArray[np.float64]:
        """(frames,) true distance of the cell from the centre of the field."""
        return distance_um(self.cell_um, self.stage_um)

    @property
    def left_alone_um(self) -> NDArray[np.float64]:
        """(frames,) the same, had the stage stayed where it was."""
        return distance_um(self.cell_um, self.stage_um[:1])


def play(core: Any, work: Path, out: Path, show: Show, *, seed: int, frames: int, size_px: int) -> Followed:
    """Play the act: lock-step, one decision for each image before the next is taken."""
    microscope = presets.runaway(seed, size_px=size_px)
    cast = Cast(
        "follow",
        "The stage follows a runaway cell",
        microscope,
        follow_stream(),
        mode="lockstep",
        deadline_s=2.0,
        frames=frames,
        start_um=beside(microscope),
    )
    show.tell("Lock-step: the next image is taken once the decision on the last one is there (at most 2 s).")
    with Scene(core, cast, work, show) as scene:
        for frame in range(frames):
            scene.take_image(frame)
    take = record(scene, out, show)
    cell_um, stage_um = positions(take)
    distance = distance_um(cell_um, stage_um)
    p95 = p95_last_half(distance)
    gone = int(np.argmax(distance_um(cell_um, stage_um[:1]) > half_field_um(microscope)))
    show.tell(
        f"  The cell ran {np.hypot(*(cell_um[-1] - cell_um[0])):.0f} µm"
        + (f" and would have left the field at frame {gone}" if gone else "")
        + f"; it stayed within {p95:.1f} µm of the centre."
    )
    text = f"cell within {WITHIN_UM:g} µm of the centre (p95, last half)"
    promises = [
        every_frame(take),
        late_ones_counted(take),
        cells_found(take),
        Promise(text, f"{p95:.2f} µm", p95 <= WITHIN_UM),
    ]
    return Followed(take, promises, cell_um, stage_um)


def follow_stream(hang_s: float = 10.0, expires_after_s: float | None = 10.0) -> StreamConfig:
    """Return the service's work in the acts in which the stage follows a cell."""
    options = {} if expires_after_s is None else {"expires_after_s": expires_after_s}
    travel = (-TRAVEL_UM, TRAVEL_UM)
    return StreamConfig(
        address="tcp://127.0.0.1:0",
        save_masks=True,
        hang_s=hang_s,
        armed=True,
        rules=(PluginChoice("follow", options),),
        limits=Limits(x_um=travel, y_um=travel),
    )


def beside(microscope: SimulatedMicroscope) -> tuple[float, float]:
    """Return where an operator would bring the stage to have the runaway near the centre at the beginning."""
    cells = microscope.sample.snapshot()
    x, y = cells.xy_um[cells.identity == RUNAWAY][0]
    return float(x) + _OFF_CENTRE_UM[0], float(y) + _OFF_CENTRE_UM[1]


def positions(take: Take) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (frames, 2) true positions of the runaway and of the stage in um."""
    samples = [take.microscope.sample_at(frame) for frame in range(len(take.stage_um))]
    cell = [cells.xy_um[cells.identity == RUNAWAY][0] for cells in samples]
    return np.array(cell), take.stage_um


def distance_um(cell_um: NDArray[np.float64], stage_um: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (frames,) distances in um."""
    return np.hypot(*(cell_um - stage_um).T)


def p95_last_half(distance: NDArray[np.float64]) -> float:
    """Return the 95th percentile over the last half of the frames."""
    return float(np.percentile(distance[len(distance) // 2 :], 95))


def half_field_um(microscope: SimulatedMicroscope) -> float:
    """Return the distance in um from the centre of the image to the middle of its edge."""
    return min(microscope.camera.shape) / 2 * microscope.affine.pixel_size_um
