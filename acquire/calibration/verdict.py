"""Whether a calibration that is kept holds at this microscope now."""

from __future__ import annotations

import math
from datetime import datetime

import numpy as np

from ..coordinates import Affine
from .light import LightCalibration
from .parts import difference, parts_of
from .stage import StageCalibration
from .stored import Calibration, Rows

LARGEST_SCALE_PERCENT = 1.0
LARGEST_ROTATION_DEG = 0.5
LARGEST_LIGHT_PX = 2.0


def contradiction(kept: Affine, measured: Affine) -> str:
    """Return by what an affine that is kept differs from one that was measured now, or ``""``.

    Moves by one that is within the bounds (1 %, 0.5 degrees) end within 1.3 % of their length from where they should.
    """
    old, new = parts_of(kept), parts_of(measured)
    if old.flipped != new.flipped:
        was, now = ("mirrored", "not mirrored") if old.flipped else ("not mirrored", "mirrored")
        return f"the calibration is wrong: in it the image is {was}, measured now it is {now}"
    apart = difference(kept, measured)
    if apart.rotation_deg > LARGEST_ROTATION_DEG:
        return (
            f"the calibration is wrong: the image is turned by {new.rotation_deg:.2f} degrees, in it by"
            f" {old.rotation_deg:.2f} ({apart.rotation_deg:.2f} apart, at most {LARGEST_ROTATION_DEG:g} are allowed)"
        )
    if apart.scale_percent > LARGEST_SCALE_PERCENT:
        return (
            f"the calibration is wrong: a px is {measured.pixel_size_um:.4g} um, in it {kept.pixel_size_um:.4g}"
            f" ({apart.scale_percent:.2f} % apart, at most {LARGEST_SCALE_PERCENT:g} are allowed)"
        )
    return ""


def light_contradiction(kept: Rows, measured: LightCalibration) -> str:
    """Return by what a light calibration that is kept differs from one that was measured now, or ``""``."""
    away = light_error_px(kept, measured.affine, measured.shape)
    if away > LARGEST_LIGHT_PX:
        return (
            f"the calibration is wrong: light would fall up to {away:.1f} px from where it was meant, at most"
            f" {LARGEST_LIGHT_PX:g} are allowed"
        )
    return ""


def light_error_px(rows: Rows, reference: Rows, shape: tuple[int, int]) -> float:
    """Return how far light falls from where it is meant, at the worst corner of the image, in px.

    Parameters
    ----------
    rows
        The map that the device is steered by.
    reference
        The one that is true.
    shape
        (height, width) of the image in px.
    """
    height, width = shape
    corners = np.array([[x, y, 1.0] for x in (0, width - 1) for y in (0, height - 1)])
    device = corners @ (np.array(rows) - np.array(reference)).T
    px = device @ np.linalg.inv(np.array(reference)[:, :2]).T
    return float(np.hypot(*px.T).max())


def kept_stage(found: StageCalibration, measured: datetime, **about: object) -> Calibration:
    """Return what was measured of a stage as it is kept; ``about`` are its objective, device, camera and pixel size."""
    a = found.affine
    rows = (a.xx, a.xy, 0.0), (a.yx, a.yy, 0.0)
    return Calibration("stage", rows, found.residual_um, measured, shape=found.shape, **about)  # pyright: ignore[reportArgumentType]


def kept_light(found: LightCalibration, measured: datetime, **about: object) -> Calibration:
    """Return what was measured of a light device as it is kept; ``about`` as for :func:`kept_stage`."""
    return Calibration("light", found.affine, found.residual, measured, shape=found.shape, **about)  # pyright: ignore[reportArgumentType]


def wrong_affines(affine: Affine) -> dict[str, Affine]:
    """Return what an affine must not be mistaken for: mirrored, turned by 2 degrees, and 3 % too large."""
    cosine, sine = math.cos(math.radians(2)), math.sin(math.radians(2))
    a = affine
    return {
        "mirrored": Affine(-a.xx, a.xy, -a.yx, a.yy),
        "turned": Affine(
            cosine * a.xx - sine * a.yx,
            cosine * a.xy - sine * a.yy,
            sine * a.xx + cosine * a.yx,
            sine * a.xy + cosine * a.yy,
        ),
        "too large": Affine(1.03 * a.xx, 1.03 * a.xy, 1.03 * a.yx, 1.03 * a.yy),
    }
