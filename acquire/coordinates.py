"""From image pixels to stage micrometres."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from .errors import ConfigurationError, Problem


class Affine(msgspec.Struct, frozen=True):
    """The linear map from an offset in px, measured from the image's centre, to an offset of the stage in um.

    ``dx_um = xx * dx_px + xy * dy_px`` and ``dy_um = yx * dx_px + yy * dy_px``: moving the stage by that
    offset brings the pixel to the centre of the image. Rotation, flips and pixel size are all in it, as in
    Micro-Manager's ``getPixelSizeAffine``.
    """

    xx: float
    xy: float
    yx: float
    yy: float

    @staticmethod
    def from_pixel_size(pixel_size_um: float) -> Affine:
        """Return the map of a camera that is neither rotated nor flipped."""
        return Affine(pixel_size_um, 0.0, 0.0, pixel_size_um)

    @staticmethod
    def given(
        values: Sequence[float], pixel_size_um: float | None
    ) -> tuple[float, float, float, float] | None:
        """Return (xx, xy, yx, yy) of Micro-Manager's affine, or None if nobody has set it.

        Micro-Manager gives the identity where there is none. As it does itself, one that does not go with the size
        of a pixel, by more than a tenth, is not believed.

        Parameters
        ----------
        values
            Its six numbers, as ``getPixelSizeAffine`` gives them: two rows of three.
        pixel_size_um
            The size of a pixel that is given beside it in um, or None.
        """
        if len(values) != 6 or not all(map(math.isfinite, values)):
            return None
        xx, xy, _, yx, yy, _ = (float(value) for value in values)
        size = math.sqrt(abs(xx * yy - xy * yx))
        if size < 1e-6 or (xx, xy, yx, yy) == (1.0, 0.0, 0.0, 1.0):
            return None
        if pixel_size_um and abs(pixel_size_um - size) > 0.1 * pixel_size_um:
            return None
        return xx, xy, yx, yy

    def __post_init__(self) -> None:
        values = (self.xx, self.xy, self.yx, self.yy)
        if not all(map(math.isfinite, values)) or abs(self.xx * self.yy - self.xy * self.yx) < 1e-12:
            problem = Problem("", 0, "affine", f"{values} must be four finite numbers that can be inverted")
            raise ConfigurationError([problem])

    def stage_target(
        self, at_px: tuple[float, float], shape: tuple[int, int], stage_um: tuple[float, float]
    ) -> tuple[float, float]:
        """Return the stage position (x, y) in um that centres a pixel.

        Parameters
        ----------
        at_px
            (x, y) in px in an image taken at ``stage_um``.
        shape
            (height, width) of that image in px.
        stage_um
            (x, y) of the stage in um when it was taken.
        """
        dx, dy = at_px[0] - (shape[1] - 1) / 2, at_px[1] - (shape[0] - 1) / 2
        return stage_um[0] + self.xx * dx + self.xy * dy, stage_um[1] + self.yx * dx + self.yy * dy

    def image_position(
        self, at_um: tuple[float, float], shape: tuple[int, int], stage_um: tuple[float, float]
    ) -> tuple[float, float]:
        """Return the (x, y) in px at which a stage target lies in an image taken at ``stage_um``."""
        ux, uy = at_um[0] - stage_um[0], at_um[1] - stage_um[1]
        det = self.xx * self.yy - self.xy * self.yx
        dx, dy = (self.yy * ux - self.xy * uy) / det, (self.xx * uy - self.yx * ux) / det
        return dx + (shape[1] - 1) / 2, dy + (shape[0] - 1) / 2

    @property
    def pixel_size_um(self) -> float:
        """Geometric mean edge of a pixel in um."""
        return math.sqrt(abs(self.xx * self.yy - self.xy * self.yx))
