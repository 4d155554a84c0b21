"""A microscope in front of a simulated sample: stage, focus, camera, light, and the truth about every frame."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..coordinates import Affine
from ..errors import ActuatorError
from ..frame import Pixels
from .camera import Camera
from .optics import Optics
from .sample import Sample, Snapshot
from .shapes import View, label_image


@dataclass(frozen=True, slots=True)
class Stimulation:
    """One pulse of stimulating light, and whom it hit.

    Attributes
    ----------
    frame, time_s
        The last frame taken before it (-1: none), and the simulated time in s.
    duration_ms, power
        As in the command.
    identities, fractions
        The cells under the light, and which part of each it covered.
    """

    frame: int
    time_s: float
    duration_ms: float
    power: float
    identities: tuple[int, ...]
    fractions: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What one frame really shows.

    Attributes
    ----------
    frame, time_s
        Number of the frame, and its simulated time in s.
    stage_um, z_um, exposure_ms
        State of the microscope when it was taken.
    mask
        (y, x) int32: identity of the cell in each px, 0 for none.
    identity, parent
        (n,) int64, cells in the field of view in ascending order; parent 0 for founders.
    born_frame
        (n,) int64, first frame of each cell; 0 for the founders.
    xy_px, xy_um
        (n, 2) centre of each cell in the image and in the sample; the centre may lie outside the image.
    area_px, visible
        (n,) float64, px of the mask, and which part of the whole cell they are.
    brightness, reporter
        (n,) float64, as in :class:`~cytoloop.acquire.simulated.sample.Snapshot`.
    channel
        The channel that it was taken in.
    """

    frame: int
    time_s: float
    stage_um: tuple[float, float]
    z_um: float
    exposure_ms: float
    mask: NDArray[np.int32]
    identity: NDArray[np.int64]
    parent: NDArray[np.int64]
    born_frame: NDArray[np.int64]
    xy_px: NDArray[np.float64]
    xy_um: NDArray[np.float64]
    area_px: NDArray[np.float64]
    visible: NDArray[np.float64]
    brightness: NDArray[np.float64]
    reporter: NDArray[np.float64]
    channel: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Shot:
    snapshot: Snapshot
    view: View
    z_um: float
    exposure_ms: float
    channel: str


@dataclass(eq=False)
class SimulatedMicroscope:
    """A stage, a focus drive, a camera and two lamps around a sample.

    Every frame advances the sample by ``interval_s`` of simulated time, whatever the wall clock says, and
    bleaches what it shows; images of other channels than those before show the sample at the same moment. All
    methods may be called from any thread.

    Attributes
    ----------
    sample, optics, camera
        What is looked at, and with what.
    affine
        From px to um; rotation and flips are allowed.
    interval_s
        Simulated time between two frames in s.
    seed
        Of the camera's noise.
    stage_um, z_um, exposure_ms, channel
        Present state; assign to them.
    channels
        Optics of the channels that do not show what ``optics`` does, by name.
    """

    sample: Sample
    optics: Optics
    camera: Camera
    affine: Affine
    interval_s: float
    seed: int = 0
    stage_um: tuple[float, float] = (0.0, 0.0)
    z_um: float = 0.0
    exposure_ms: float = 20.0
    channel: str = ""
    channels: Mapping[str, Optics] = field(default_factory=dict[str, Optics])
    _shots: list[_Shot] = field(default_factory=list[_Shot], init=False, repr=False)
    _stimulations: list[Stimulation] = field(default_factory=list[Stimulation], init=False, repr=False)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._illumination = self.optics.illumination(self.camera.shape)
        self._taken: set[str] = set()  # channels since the sample last advanced

    @property
    def frames(self) -> int:
        """Number of frames taken."""
        return len(self._shots)

    @property
    def stimulations(self) -> tuple[Stimulation, ...]:
        """All pulses of light so far."""
        with self._lock:
            return tuple(self._stimulations)

    def snap(self) -> Pixels:
        """Take a frame in the present state and return its pixels, (y, x) uint8 or uint16."""
        with self._lock:
            if self.channel in self._taken:
                self.sample.advance(self.interval_s)
                self._taken.clear()
            self._taken.add(self.channel)
            optics = self.channels.get(self.channel, self.optics)
            snapshot, view = self.sample.snapshot(), self._view()
            rate = optics.photons_per_ms(snapshot, view, self.z_um, self._illumination)
            pixels = self.camera.read(rate * np.float32(self.exposure_ms), self._noise())
            self._bleach(snapshot, view, optics.bleach_per_ms * self.exposure_ms)
            self._shots.append(_Shot(snapshot, view, self.z_um, self.exposure_ms, self.channel))
            return pixels

    def stimulate(
        self,
        *,
        points_px: tuple[tuple[float, float], ...] = (),
        radius_px: float = 5.0,
        mask: NDArray[np.bool_] | None = None,
        stage_um: tuple[float, float] | None = None,
        duration_ms: float = 100.0,
        power: float = 1.0,
    ) -> tuple[int, ...]:
        """Shine light on the sample as it is now, and return the identities of the cells that it hit.

        Parameters
        ----------
        points_px, radius_px, mask
            Spots (x, y) and their radius in px, or a (y, x) mask, of an image taken at ``stage_um``.
        stage_um
            Stage position of that image; None: where the stage is now. The light follows the stage, as it
            does when a projector's pattern is moved with the image.
        duration_ms, power
            Length in ms and fraction of the full power; 100 ms at full power on a whole cell is a dose of 1.

        Raises
        ------
        ActuatorError
            If nothing of the pattern lies in the present field of view, or a value is out of range.
        """
        if not 0 <= power <= 1 or duration_ms < 0:
            raise ActuatorError(
                f"stimulation with power {power} for {duration_ms} ms: power must be 0 to 1, duration 0 or more"
            )
        with self._lock:
            view = self._view()
            lit = self._pattern(points_px, radius_px, mask, stage_um or self.stage_um)
            if not lit.any():
                raise ActuatorError(
                    f"stimulation: no part of the pattern lies in the field of view at stage {self.stage_um} um"
                )
            snapshot = self.sample.snapshot()
            labels = label_image(snapshot.shapes, snapshot.xy_um, view)
            under = np.bincount(labels[lit], minlength=len(snapshot) + 1)[1:]
            whole = np.bincount(labels.ravel(), minlength=len(snapshot) + 1)[1:]
            hit = np.flatnonzero(under > 0)
            fraction = under[hit] / whole[hit]
            identity = snapshot.identity[hit]
            self.sample.stimulate(identity, fraction * power * duration_ms / 100)
            self._stimulations.append(
                Stimulation(
                    self.frames - 1,
                    self.sample.time_s,
                    duration_ms,
                    power,
                    tuple(identity.tolist()),
                    tuple(fraction.tolist()),
                )
            )
            return tuple(identity.tolist())

    def truth(self, frame: int) -> Truth:
        """Return what frame number ``frame`` (0, 1, ...) really shows.

        Raises
        ------
        IndexError
            If that frame has not been taken.
        """
        shot = self._shot(frame)
        cells, view = shot.snapshot, shot.view
        rows = label_image(cells.shapes, cells.xy_um, view)
        area = np.bincount(rows.ravel(), minlength=len(cells) + 1)[1:].astype(np.float64)
        seen = np.flatnonzero(area)
        whole = self._whole_area(shot, seen)
        return Truth(
            frame=frame,
            time_s=cells.time_s,
            stage_um=view.stage_um,
            z_um=shot.z_um,
            exposure_ms=shot.exposure_ms,
            mask=np.concatenate([[0], cells.identity]).astype(np.int32)[rows],
            identity=cells.identity[seen],
            parent=cells.parent[seen],
            born_frame=self._frame_after(cells.born_s[seen]),
            xy_px=view.to_px(cells.xy_um[seen]),
            xy_um=cells.xy_um[seen],
            area_px=area[seen],
            visible=area[seen] / np.maximum(whole, area[seen]),
            brightness=cells.brightness[seen],
            reporter=cells.reporter[seen],
            channel=shot.channel,
        )

    def sample_at(self, frame: int) -> Snapshot:
        """Return all cells of the sample as they were in frame number ``frame``, also those outside the field.

        Raises
        ------
        IndexError
            If that frame has not been taken.
        """
        return self._shot(frame).snapshot

    def _shot(self, frame: int) -> _Shot:
        if not 0 <= frame < self.frames:
            raise IndexError(f"frame {frame}: {self.frames} have been taken")
        return self._shots[frame]

    def _view(self) -> View:
        return View(self.camera.shape, self.affine, self.stage_um)

    def _noise(self) -> np.random.Generator:
        return np.random.default_rng((self.seed, len(self._shots)))

    def _bleach(self, snapshot: Snapshot, view: View, part: float) -> None:
        at = np.round(view.to_px(snapshot.xy_um)).astype(np.int64)
        height, width = view.shape
        lit = (at[:, 0] >= 0) & (at[:, 0] < width) & (at[:, 1] >= 0) & (at[:, 1] < height)
        dose = self._illumination[at[lit, 1], at[lit, 0]] * part
        self.sample.expose(snapshot.identity[lit], dose.astype(np.float64))

    def _pattern(
        self,
        points_px: tuple[tuple[float, float], ...],
        radius_px: float,
        mask: NDArray[np.bool_] | None,
        stage_um: tuple[float, float],
    ) -> NDArray[np.bool_]:
        """Return the (y, x) px of the present view that are lit."""
        shape = self.camera.shape
        x0, y0 = self.affine.image_position(stage_um, shape, self.stage_um)
        shift_x, shift_y = x0 - (shape[1] - 1) / 2, y0 - (shape[0] - 1) / 2
        lit = np.zeros(shape, bool)
        if mask is not None:
            if mask.shape != shape:
                raise ActuatorError(f"stimulation mask of shape {mask.shape}, the camera has {shape}")
            y, x = np.nonzero(mask)
            x, y = x + round(shift_x), y + round(shift_y)
            inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
            lit[y[inside], x[inside]] = True
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        for x, y in points_px:
            lit |= (columns - x - shift_x) ** 2 + (rows - y - shift_y) ** 2 <= max(radius_px, 0.5) ** 2
        return lit

    def _frame_after(self, born_s: NDArray[np.float64]) -> NDArray[np.int64]:
        times = np.array([shot.snapshot.time_s for shot in self._shots])
        return np.searchsorted(times, born_s, side="left")

    def _whole_area(self, shot: _Shot, seen: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the px that cells have when nothing is cut off by the edge of the image."""
        cells, view = shot.snapshot, shot.view
        margin = int(np.ceil(cells.shapes.reach_um[seen].max(initial=0) * 2 / view.affine.pixel_size_um)) + 2
        wide = View((view.shape[0] + 2 * margin, view.shape[1] + 2 * margin), view.affine, view.stage_um)
        rows = label_image(cells.shapes, cells.xy_um, wide)
        return np.bincount(rows.ravel(), minlength=len(cells) + 1)[1:].astype(np.float64)[seen]
