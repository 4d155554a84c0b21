"""Calibrations on simulated microscopes with cameras and stages that are turned and mirrored: how exact they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..acquire.calibration.light import LightCalibration, calibrate_light
from ..acquire.calibration.parts import difference
from ..acquire.calibration.registration import Image
from ..acquire.calibration.stage import StageCalibration, calibrate_stage
from ..acquire.calibration.stored import Rows
from ..acquire.calibration.verdict import contradiction, light_error_px, wrong_affines
from ..acquire.coordinates import Affine
from ..acquire.simulated import presets
from ..acquire.simulated.camera import Camera
from ..acquire.simulated.microscope import SimulatedMicroscope
from ..acquire.simulated.projector import SimulatedProjector
from .progress import Progress, silent

SCALE_PERCENT, ROTATION_DEG = 0.2, 0.2  # what must be reached
LIGHT_PX = 0.5
_SIZE_PX = 256
_UM_PER_PX = (0.35, 0.9)


@dataclass(frozen=True, slots=True)
class SimulatedStage:
    """A simulated microscope whose camera is turned and mirrored, and whose stage counts the other way.

    Attributes
    ----------
    microscope
        What is looked at; its cells rest.
    camera_mirrored
        Whether the camera's images are flipped along x, and along y.
    stage_mirrored
        Whether x, and y, of the stage count against the sample's.
    """

    microscope: SimulatedMicroscope
    camera_mirrored: tuple[bool, bool]
    stage_mirrored: tuple[bool, bool]

    @staticmethod
    def random(seed: int, number: int) -> SimulatedStage:
        """Return one of any rotation, 0.35 to 0.9 um per px, each mirror by chance; the same for the same numbers."""
        rng = np.random.default_rng((seed, number))
        angle, size = rng.uniform(-np.pi, np.pi), rng.uniform(*_UM_PER_PX)
        cosine, sine = size * math.cos(angle), size * math.sin(angle)
        flips = [bool(flip) for flip in rng.integers(0, 2, 4)]
        microscope = presets.nuclei(
            seed * 1000 + number, size_px=_SIZE_PX, interval_s=0.0, affine=Affine(cosine, -sine, sine, cosine)
        )
        return SimulatedStage(microscope, (flips[0], flips[1]), (flips[2], flips[3]))

    @property
    def affine(self) -> Affine:
        """The true map from px of the camera to um of the stage."""
        a = self.microscope.affine
        (cx, cy), (sx, sy) = _signs(self.camera_mirrored), _signs(self.stage_mirrored)
        return Affine(sx * a.xx * cx, sx * a.xy * cy, sy * a.yx * cx, sy * a.yy * cy)

    def move(self, x_um: float, y_um: float) -> None:
        """Send the stage to (x, y) in um."""
        sx, sy = _signs(self.stage_mirrored)
        self.microscope.stage_um = sx * x_um, sy * y_um

    def position(self) -> tuple[float, float]:
        """Return where the stage is, (x, y) in um."""
        (x, y), (sx, sy) = self.microscope.stage_um, _signs(self.stage_mirrored)
        return sx * x, sy * y

    def snap(self) -> Image:
        """Take an image, (y, x)."""
        image = self.microscope.snap()
        along_x, along_y = self.camera_mirrored
        return np.ascontiguousarray(image[:: -1 if along_y else 1, :: -1 if along_x else 1])


@dataclass(frozen=True, slots=True)
class StageTrial:
    """One simulated microscope that was calibrated.

    Attributes
    ----------
    found, affine
        What was measured, and the truth.
    camera_mirrored, stage_mirrored
        As in :class:`SimulatedStage`.
    scale_error_percent, rotation_error_deg
        How far one is from the other (:func:`~cytoloop.acquire.calibration.parts.difference`).
    wrong_refused
        Whether the check refuses all of
        :func:`~cytoloop.acquire.calibration.verdict.wrong_affines` and takes the true one.
    """

    found: StageCalibration
    affine: Affine
    camera_mirrored: tuple[bool, bool]
    stage_mirrored: tuple[bool, bool]
    scale_error_percent: float
    rotation_error_deg: float
    wrong_refused: bool

    @property
    def ok(self) -> bool:
        """Whether it is as exact as it must be, and wrong ones are refused."""
        exact = self.scale_error_percent <= SCALE_PERCENT and self.rotation_error_deg <= ROTATION_DEG
        return exact and self.wrong_refused


def stage_trials(count: int, seed: int, progress: Progress = silent) -> list[StageTrial]:
    """Calibrate simulated microscopes, and compare with the truth.

    Raises
    ------
    CalibrationError
        If one cannot be calibrated.
    """
    trials: list[StageTrial] = []
    for number in range(count):
        progress("calibrating simulated stages", number, count)
        stage = SimulatedStage.random(seed, number)
        found = calibrate_stage(stage.move, stage.snap, stage.position)
        apart = difference(found.affine, stage.affine)
        wrong = [contradiction(each, found.affine) for each in wrong_affines(stage.affine).values()]
        trials.append(
            StageTrial(
                found,
                stage.affine,
                stage.camera_mirrored,
                stage.stage_mirrored,
                apart.scale_percent,
                apart.rotation_deg,
                all(wrong) and not contradiction(stage.affine, found.affine),
            )
        )
    return trials


@dataclass(frozen=True, slots=True)
class LightTrial:
    """One simulated projector that was calibrated: what was measured, the truth, and how far light falls astray."""

    found: LightCalibration
    affine: Rows
    error_px: float

    @property
    def ok(self) -> bool:
        """Whether light falls within half a px of where it is meant."""
        return self.error_px <= LIGHT_PX


def simulated_projector(seed: int, number: int) -> tuple[SimulatedProjector, Rows]:
    """Return a projector, turned, mirrored and larger or smaller than the camera's field, and its true map from px."""
    rng = np.random.default_rng((seed, number, 1))
    angle, size = rng.uniform(-np.pi, np.pi), rng.uniform(0.4, 1.5)
    cosine, sine, mirror = size * math.cos(angle), size * math.sin(angle), float(rng.choice([-1, 1]))
    matrix = np.array([[cosine, -sine * mirror], [sine, cosine * mirror]])
    middle = np.array([_SIZE_PX, _SIZE_PX]) + rng.uniform(-40, 40, 2)
    offset = middle - matrix @ np.array([512.0, 384.0])
    back = np.linalg.inv(matrix)
    projector = SimulatedProjector(
        Camera((2 * _SIZE_PX, 2 * _SIZE_PX)), _rows(matrix, offset), seed=seed * 1000 + number
    )
    return projector, _rows(back, -back @ offset)


def light_trials(count: int, seed: int, progress: Progress = silent) -> list[LightTrial]:
    """Calibrate simulated projectors, and compare with the truth.

    Raises
    ------
    CalibrationError
        If one cannot be calibrated.
    """
    trials: list[LightTrial] = []
    for number in range(count):
        progress("calibrating simulated projectors", number, count)
        light, truth = simulated_projector(seed, number)
        found = calibrate_light(light.show, light.dark, light.snap, light.low, light.high)
        trials.append(LightTrial(found, truth, light_error_px(found.affine, truth, found.shape)))
    return trials


def worst(trials: list[StageTrial], error: Callable[[StageTrial], float]) -> float:
    """Return the largest error of all trials."""
    return max(error(trial) for trial in trials)


def _rows(matrix: np.ndarray, offset: np.ndarray) -> Rows:
    (xx, xy), (yx, yy) = matrix.tolist()
    return (xx, xy, float(offset[0])), (yx, yy, float(offset[1]))


def _signs(mirrored: tuple[bool, bool]) -> tuple[int, int]:
    return (-1 if mirrored[0] else 1, -1 if mirrored[1] else 1)
