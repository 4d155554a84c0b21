"""A simulated flow channel: cells of two classes cross a narrow field along x, and a gate downstream takes some."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..commands import Trigger
from ..errors import ActuatorError
from ..frame import Frame, Pixels
from ..reply import Decision

Floats = NDArray[np.float64]
_NOISE_IMAGES = 16


@dataclass(frozen=True, slots=True, eq=False)
class FlowCells:
    """The truth about the n cells of a run, in the order in which they enter.

    Attributes
    ----------
    enters_s
        (n,) when the centre is at the field's left edge, in s of frame time.
    y_px, radius_px
        (n,) place across the channel and radius of the cell.
    speed_px_s
        (n,) speed along x; it does not change.
    light
        (n,) counts above the background at the middle of the cell.
    target
        (n,) bool: whether it is to be sorted.
    """

    enters_s: Floats
    y_px: Floats
    radius_px: Floats
    speed_px_s: Floats
    light: Floats
    target: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.enters_s)

    def x_px(self, time_s: float) -> Floats:
        """Return where the centres are at a time, (n,)."""
        return (time_s - self.enters_s) * self.speed_px_s

    def passes_s(self, x_px: float) -> Floats:
        """Return when each centre passes a place along x, (n,) in s."""
        return self.enters_s + x_px / self.speed_px_s


class FlowChannel:
    """Cells that arrive as a Poisson process and cross the field at nearly one speed; the same by seed.

    Parameters
    ----------
    events_per_s
        Mean rate of cells.
    seconds
        Length of the run in frame time.
    frames_per_s
        Rate of the camera.
    speed_px_s, speed_spread
        Mean speed along x, and its standard deviation as a share of it.
    target_share
        Share of cells that are targets.
    target_light, other_light
        Counts above the background at the middle of a target and of another; each spread by a tenth.
    shape
        (height, width) of the field in px.
    dtype
        ``"uint8"`` or ``"uint16"``.
    seed
        The same seed gives the same cells and images.

    Attributes
    ----------
    cells
        The truth.

    Raises
    ------
    ValueError
        Names the option that is out of its range.
    """

    def __init__(
        self,
        *,
        events_per_s: float = 500.0,
        seconds: float = 1.0,
        frames_per_s: float = 1000.0,
        speed_px_s: float = 20_000.0,
        speed_spread: float = 0.02,
        target_share: float = 0.2,
        target_light: float = 160.0,
        other_light: float = 60.0,
        shape: tuple[int, int] = (64, 256),
        dtype: str = "uint8",
        seed: int = 0,
    ) -> None:
        positive = {
            "events_per_s": events_per_s,
            "seconds": seconds,
            "frames_per_s": frames_per_s,
            "speed_px_s": speed_px_s,
        }
        for name, value in positive.items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be > 0, got {value}")
        if not 0 <= speed_spread <= 0.2:
            raise ValueError(f"speed_spread must be 0 to 0.2, got {speed_spread}")
        if not 0 <= target_share <= 1:
            raise ValueError(f"target_share must be 0 to 1, got {target_share}")
        if dtype not in ("uint8", "uint16"):
            raise ValueError(f"dtype must be 'uint8' or 'uint16', got {dtype!r}")
        if min(shape) < 32:
            raise ValueError(f"shape must be at least 32 x 32 px, got {shape}")
        self.shape, self.frames_per_s, self.seconds = shape, frames_per_s, seconds
        random = np.random.default_rng(seed)
        count = int(random.poisson(events_per_s * seconds))
        target = random.random(count) < target_share
        light = np.where(target, target_light, other_light) * np.clip(random.normal(1, 0.1, count), 0.7, 1.3)
        near = np.clip(random.normal(0, 1, count), -3, 3)
        self.cells = FlowCells(
            enters_s=np.sort(random.uniform(0, seconds, count)),
            y_px=random.uniform(8, shape[0] - 9, count),
            radius_px=random.uniform(2.5, 4.0, count),
            speed_px_s=speed_px_s * (1 + speed_spread * near),
            light=light,
            target=target,
        )
        self._dtype = np.dtype(dtype)
        self._dark = random.normal(20, 2.5, (_NOISE_IMAGES, *shape)).astype(np.float32)
        self._window_s = (shape[1] + 16) / (speed_px_s * (1 - 3 * speed_spread))

    @property
    def count(self) -> int:
        """Number of frames."""
        return int(self.seconds * self.frames_per_s)

    def snap(self, index: int) -> Pixels:
        """Return the image of a frame, (y, x)."""
        time_s = index / self.frames_per_s
        height, width = self.shape
        cells = self.cells
        first, last = np.searchsorted(cells.enters_s, (time_s - self._window_s, time_s + 8e-3))
        image = self._dark[index % _NOISE_IMAGES].copy()
        x = (time_s - cells.enters_s[first:last]) * cells.speed_px_s[first:last]
        seen = np.flatnonzero((x > -6) & (x < width + 5))
        if len(seen):
            around = np.arange(-7, 8)
            x, y = x[seen], cells.y_px[first:last][seen]
            spread = 2 * (0.85 * cells.radius_px[first:last][seen, np.newaxis]) ** 2
            columns = np.rint(x).astype(np.int64)[:, np.newaxis] + around
            rows = np.rint(y).astype(np.int64)[:, np.newaxis] + around
            across = np.exp(-np.square(rows - y[:, np.newaxis]) / spread)
            along = np.exp(-np.square(columns - x[:, np.newaxis]) / spread)
            across[(rows < 0) | (rows >= height)] = 0
            along[(columns < 0) | (columns >= width)] = 0
            spots = np.minimum(
                2 * across[:, :, np.newaxis] * along[:, np.newaxis, :], 1
            )  # flat in the middle
            spots *= cells.light[first:last][seen, np.newaxis, np.newaxis]
            places = np.clip(rows, 0, height - 1)[:, :, np.newaxis] * width
            places = places + np.clip(columns, 0, width - 1)[:, np.newaxis, :]
            np.add.at(image.reshape(-1), places.reshape(-1), spots.reshape(-1).astype(np.float32))
        return np.clip(image, 0, np.iinfo(self._dtype).max).astype(self._dtype)

    def frames(self) -> Iterator[Frame]:
        """Take and yield the frames in order, in simulated time."""
        for index in range(self.count):
            yield Frame(self.snap(index), index, index / self.frames_per_s, {"time": index})


@dataclass(frozen=True, slots=True)
class SortScore:
    """What a gate has taken of a run.

    Attributes
    ----------
    events, targets
        Cells that passed the gate within the run, and the targets among them.
    taken, taken_targets
        Cells that the gate took, and the targets among them.
    """

    events: int
    targets: int
    taken: int
    taken_targets: int

    @property
    def purity(self) -> float:
        """Targets among what was taken; NaN if nothing was."""
        return self.taken_targets / self.taken if self.taken else float("nan")

    @property
    def yielded(self) -> float:
        """Share of the targets that was taken; NaN if there were none."""
        return self.taken_targets / self.targets if self.targets else float("nan")


class FlowGate:
    """A gate at a place along x that takes every cell that passes it while it is open; itself an actuator.

    Parameters
    ----------
    x_px
        Its place, in px of the field; beyond its right edge.

    Attributes
    ----------
    opened
        (from, to) in s of frame time, as they were asked for.
    """

    commands: tuple[type, ...] = (Trigger,)

    def __init__(self, x_px: float) -> None:
        self.x_px = x_px
        self.opened: list[tuple[float, float]] = []

    def open(self, at_s: float, width_ms: float) -> None:
        """Open the gate for a while, from a time of the frame clock on."""
        self.opened.append((at_s, at_s + width_ms / 1000))

    def actuate(self, decision: Decision) -> None:
        """Open the gate when a trigger asks for it, exactly.

        Raises
        ------
        ActuatorError
            If it is another command.
        """
        if not isinstance(decision.command, Trigger):
            raise ActuatorError(f"{type(decision.command).__name__} is not for a gate")
        self.open(decision.command.at_s, decision.command.width_ms)

    def close(self) -> None:
        """Do nothing: the gate closes after each opening."""

    def takes(self, cells: FlowCells) -> NDArray[np.bool_]:
        """Return which cells it takes, (n,) bool."""
        passes = cells.passes_s(self.x_px)
        order = np.argsort(passes)
        taken = np.zeros(len(cells), np.bool_)
        for start, end in self.opened:
            first, last = np.searchsorted(passes, (start, end), sorter=order)
            taken[order[first:last]] = True
        return taken

    def score(self, channel: FlowChannel, *, from_s: float = 0.0) -> SortScore:
        """Score what it took of the cells that pass it between a time and the end of the run."""
        cells = channel.cells
        passes, taken = cells.passes_s(self.x_px), self.takes(cells)
        counted = (passes >= from_s) & (passes < channel.seconds)
        return SortScore(
            events=int(counted.sum()),
            targets=int((counted & cells.target).sum()),
            taken=int((counted & taken).sum()),
            taken_targets=int((counted & taken & cells.target).sum()),
        )
