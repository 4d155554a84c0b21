"""All that the default tracker knows between two frames, and how that is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .alive import Alive
from .scales import Scales
from .splits import Splits

Floats = NDArray[np.float64]

LATE_FROM, MOST_FRAMES = 1.6, 8.0
"""From how many usual intervals on a frame counts as late, and as how many at most."""
INTERVAL_RATE = 0.1
"""Share of the newest interval in the usual one."""


@dataclass(frozen=True, slots=True, eq=False)
class Hidden:
    """A cell that is seen as one with another: itself (one row, its place relative to the other's), and since when."""

    carrier: int
    cell: Alive
    frames: int


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """What is known after a frame.

    Attributes
    ----------
    alive
        Tracks that may go on, where they were last seen.
    splits, hidden
        Cells that have become two of late, and cells that are seen as one with others.
    scales
        What the movie has taught; None before its second frame.
    number
        The next new track's.
    sequence
        The last frame's.
    stage_um
        (x, y) of the stage in um in the last frame, or None.
    time_s, interval_s
        The last frame's time, and the usual time between two frames, in s; NaN while it is not known.
    mask
        (y, x) of the last frame, if overlaps count. Its cells are the first rows of ``alive``.
    """

    alive: Alive
    splits: Splits
    hidden: tuple[Hidden, ...] = ()
    scales: Scales | None = None
    number: int = 1
    sequence: int = 0
    stage_um: tuple[float, float] | None = None
    time_s: float = float("nan")
    interval_s: float = float("nan")
    mask: NDArray[np.int32] | None = None

    @staticmethod
    def empty(like: Alive) -> Memory:
        """Return what is known before the first frame; its cells are like these."""
        return Memory(like.take(slice(0)), Splits.none(like))

    def frames_to(self, time_s: float) -> float:
        """Return how many usual intervals a frame comes after the last one: 1, or more where frames are missing."""
        late = (time_s - self.time_s) / self.interval_s if self.interval_s > 0 else 1.0
        return float(np.clip(late, 1.0, MOST_FRAMES)) if late > LATE_FROM else 1.0

    def interval_to(self, time_s: float) -> float:
        """Return the usual interval, with a frame at this time."""
        step = time_s - self.time_s
        if not 0 < step < np.inf:
            return self.interval_s
        if not self.interval_s > 0:
            return step
        return self.interval_s + INTERVAL_RATE * (min(step, 2 * self.interval_s) - self.interval_s)

    def shifted(self, by: Floats) -> Memory:
        """Return it with everything moved by (y, x) px: what the field of view did, the cells did not."""
        if not len(self.alive) or not by.any():
            return self
        splits = replace(self.splits, cell=_shifted(self.splits.cell, by))
        return replace(self, alive=_shifted(self.alive, by), splits=splits)

    def state(self) -> dict[str, Any]:
        """Return it as names with numbers, lists and arrays."""
        cells = self.alive.take(slice(0)).joined(*(each.cell for each in self.hidden))
        hidden = {
            "carrier": np.array([each.carrier for each in self.hidden], np.int64),
            "frames": np.array([each.frames for each in self.hidden], np.int64),
            "cell": cells.state(),
        }
        return {
            "alive": self.alive.state(),
            "splits": self.splits.state(),
            "hidden": hidden,
            "scales": None if self.scales is None else self.scales.state(),
            "number": self.number,
            "sequence": self.sequence,
            "stage_um": None if self.stage_um is None else list(self.stage_um),
            "time_s": self.time_s,
            "interval_s": self.interval_s,
            "mask": self.mask,
        }

    @staticmethod
    def of_state(state: Mapping[str, Any]) -> Memory:
        """Return what :meth:`state` was taken of.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is something else.
        """
        cells, of_hidden = Alive.of_state(state["hidden"]["cell"]), state["hidden"]
        carriers, frames = np.array(of_hidden["carrier"]), np.array(of_hidden["frames"])
        if any(each.shape != cells.track.shape or each.dtype.kind != "i" for each in (carriers, frames)):
            raise ValueError(f"carriers {carriers!r} and frames {frames!r} of {len(cells)} hidden cells")
        hidden = (
            Hidden(int(carriers[row]), cells.take(np.array([row])), int(frames[row]))
            for row in range(len(cells))
        )
        stage: Sequence[float] | None = state["stage_um"]
        return Memory(
            alive=Alive.of_state(state["alive"]),
            splits=Splits.of_state(state["splits"]),
            hidden=tuple(hidden),
            scales=None if state["scales"] is None else Scales.of_state(state["scales"]),
            number=int(state["number"]),
            sequence=int(state["sequence"]),
            stage_um=None if stage is None else (float(stage[0]), float(stage[1])),
            time_s=float(state["time_s"]),
            interval_s=float(state["interval_s"]),
            mask=_mask(state["mask"]),
        )


def _mask(given: Any) -> NDArray[np.int32] | None:
    if given is None:
        return None
    mask = np.asarray(given)
    if mask.ndim != 2 or mask.dtype.kind != "i":
        raise ValueError(f"mask is {mask.dtype} of shape {mask.shape}")
    return mask


def _shifted(alive: Alive, by: Floats) -> Alive:
    place, earlier = alive.place.copy(), alive.earlier.copy()
    place[:, -2:] += by
    earlier[:, place.shape[1] - 2 : place.shape[1]] += by
    return replace(alive, place=place, earlier=earlier)
