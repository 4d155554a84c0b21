"""What an affine says, in words of a microscopist: scale, rotation, flip, shear; and how far two of them differ."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..coordinates import Affine


class Parts(NamedTuple):
    """An affine taken apart.

    Attributes
    ----------
    scale
        Length of a step of one px along x, and along y of the image, in um.
    rotation_deg
        Direction of the image's x axis on the stage, from x towards y of the stage, in degrees, -180 to 180.
    flipped
        Whether the image is mirrored against the stage. All mirrors are flips of y and a rotation.
    shear_deg
        By how much the angle between the image's axes, on the stage, is not 90 degrees.
    """

    scale: tuple[float, float]
    rotation_deg: float
    flipped: bool
    shear_deg: float


class Difference(NamedTuple):
    """How far one affine is from another.

    Attributes
    ----------
    scale_percent
        Largest error of a length, in any direction, in percent; 200 and more if one is mirrored against the other.
    rotation_deg
        Angle between them in degrees, 0 to 180.
    """

    scale_percent: float
    rotation_deg: float


def parts_of(affine: Affine) -> Parts:
    """Return scale, rotation, flip and shear of an affine."""
    along_x, along_y = (affine.xx, affine.yx), (affine.xy, affine.yy)
    angle_x, angle_y = math.atan2(affine.yx, affine.xx), math.atan2(affine.yy, affine.xy)
    flipped = affine.xx * affine.yy - affine.xy * affine.yx < 0
    between = math.degrees(angle_y - angle_x) * (-1 if flipped else 1)
    return Parts(
        scale=(math.hypot(*along_x), math.hypot(*along_y)),
        rotation_deg=math.degrees(angle_x),
        flipped=flipped,
        shear_deg=(between - 90 + 180) % 360 - 180,
    )


def difference(affine: Affine, reference: Affine) -> Difference:
    """Return how far an affine is from one that is taken for true.

    What takes one into the other is split into a rotation and a stretch (polar decomposition).
    """
    matrix = _matrix(affine) @ np.linalg.inv(_matrix(reference))
    left, stretch, right = np.linalg.svd(matrix)
    turn = left @ right
    mirrored = np.linalg.det(turn) < 0
    angle = (
        180.0 if mirrored else abs(math.degrees(math.atan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1])))
    )
    error = float(np.abs(stretch - 1).max()) * 100
    return Difference(200.0 + error if mirrored else error, angle)


def _matrix(affine: Affine) -> np.ndarray:
    return np.array([[affine.xx, affine.xy], [affine.yx, affine.yy]])
