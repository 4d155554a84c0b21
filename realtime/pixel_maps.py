"""Which map from px to stage um a frame gets, and why it gets none."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from ..acquire.calibration.stored import Calibration, read_calibration
from ..acquire.coordinates import Affine
from ..acquire.errors import CalibrationError, ConfigurationError
from ..acquire.frame import Frame

if TYPE_CHECKING:
    from .experiment.stream import StreamConfig


ANY_AGE = 36_525.0  # days


def ageless(stream: StreamConfig) -> StreamConfig:
    """Return the stream for frames of a recording, which is as old as its calibration: age does not count."""
    return msgspec.structs.replace(stream, calibration_days=ANY_AGE)


class PixelMaps:
    """The maps of one stream's frames.

    A measured calibration, if one is named, is read and its age judged once, here; frames are judged by what they say
    themselves, so that the same frames get the same maps.

    Parameters
    ----------
    stream
        The configuration.
    now
        When the age of the calibration is judged, with its time zone; None: now.

    Attributes
    ----------
    configured
        The map that is the same for every frame, or None if it is up to the frame.
    refused
        Why the calibration that is named cannot be used, or ``""``.
    """

    def __init__(self, stream: StreamConfig, now: datetime | None = None) -> None:
        self._stream = stream
        self._calibration: Calibration | None = None
        self.refused = ""
        if stream.calibration:
            try:
                self._calibration = read_calibration(stream.calibration)
                self._measured = self._calibration.map
                self.refused = self._calibration.usable(
                    now or datetime.now(UTC), stream.calibration_days, stream.objective
                )
            except CalibrationError as error:
                self.refused = f"the calibration cannot be used: {error}"
        usable = self._calibration is not None and not self.refused
        self.configured = stream.pixel_map(None, measured=self._measured if usable else None)
        if self.refused:
            self.configured = None

    def of(self, frame: Frame) -> tuple[Affine | None, str]:
        """Return the map of a frame, or None and, if something is wrong with what is given, why there is none."""
        if self.refused:
            return None, self.refused
        if self._calibration is not None:
            why = self._calibration.fits(frame.shape, frame.pixel_size_um)
            return (None, why) if why else (self.configured, "")
        try:
            return self._stream.pixel_map(frame.pixel_size_um, frame.affine), ""
        except ConfigurationError:
            what = f"a pixel size of {frame.pixel_size_um} um"
            return (
                None,
                f"{what if frame.affine is None else f'an affine of {frame.affine}'} cannot be used; it is ignored",
            )
