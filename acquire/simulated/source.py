"""The simulated microscope as a source of frames, for tests and trials without Micro-Manager."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from ..frame import Frame
from . import presets
from .microscope import SimulatedMicroscope


class SimulatedSource:
    """Frames of a simulated sample.

    Parameters
    ----------
    kind
        ``nuclei``, ``runaway``, ``dividing`` (fluorescence) or ``rods`` (phase contrast);
        see :mod:`~cytoloop.acquire.simulated.presets`.
    frames
        How many.
    size_px
        Edge of the image in px.
    seed
        The same seed gives the same frames.
    interval_s
        Simulated time between two frames in s; by default that of the kind.

    Attributes
    ----------
    microscope
        What takes the frames: its stage may be moved and its lamp used between two of them, and it knows the
        truth about each.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    def __init__(
        self,
        *,
        kind: Literal["nuclei", "runaway", "dividing", "rods"] = "nuclei",
        frames: int = 100,
        size_px: int = 512,
        seed: int = 0,
        interval_s: float | None = None,
    ) -> None:
        makers = {
            "nuclei": presets.nuclei,
            "runaway": presets.runaway,
            "dividing": presets.dividing,
            "rods": presets.rods,
        }
        if kind not in makers:
            raise ValueError(f"kind {kind!r} is unknown; allowed: {', '.join(makers)}")
        if frames < 0:
            raise ValueError(f"frames must be 0 or more, got {frames}")
        if not 16 <= size_px <= 8192:
            raise ValueError(f"size_px must be 16 to 8192, got {size_px}")
        if interval_s is not None and not 0 <= interval_s < float("inf"):
            raise ValueError(f"interval_s must be 0 or more, got {interval_s}")
        self.name = f"simulated {kind}"
        self.microscope: SimulatedMicroscope = makers[kind](seed, size_px=size_px)
        if interval_s is not None:
            self.microscope.interval_s = interval_s
        self._frames = frames

    @property
    def count(self) -> int:
        """Number of frames."""
        return self._frames

    def frames(self) -> Iterator[Frame]:
        """Take and yield the frames in order, in simulated time."""
        scope = self.microscope
        for sequence in range(self._frames):
            pixels = scope.snap()
            yield Frame(
                pixels,
                sequence,
                time_s=scope.sample.time_s,
                axes={"time": sequence},
                stage_um=scope.stage_um,
                z_um=scope.z_um,
                exposure_ms=scope.exposure_ms,
                pixel_size_um=scope.affine.pixel_size_um,
            )

    def close(self) -> None:
        """Do nothing: a simulation holds no file."""
