"""Simulated microscopes that are ready to use."""

from __future__ import annotations

from ..coordinates import Affine
from .camera import Camera
from .microscope import SimulatedMicroscope
from .nuclei import NucleiHabits, NucleiSample
from .optics import Fluorescence, PhaseContrast
from .reporter import TranslocationReporter
from .rods import RodHabits, RodSample
from .texture import chromatin

_FIELD_UM = 512 * 0.6  # densities below are cells per field of this size


def nuclei(
    seed: int = 0,
    *,
    size_px: int = 512,
    interval_s: float = 300.0,
    pixel_type: str = "uint16",
    affine: Affine | None = None,
    habits: NucleiHabits | None = None,
) -> SimulatedMicroscope:
    """Return fluorescent nuclei at 0.6 um/px; about 60 in a field of 512 px.

    Parameters
    ----------
    seed
        Of the sample and of the camera's noise.
    size_px, pixel_type
        Edge of the camera's image, and ``uint8`` or ``uint16``.
    interval_s
        Simulated time between two frames in s.
    affine
        From px to um; by default 0.6 um/px, neither rotated nor flipped.
    habits
        How the nuclei live; by default as many as fill the field and a margin around it.
    """
    affine = affine or Affine.from_pixel_size(0.6)
    field_um = size_px * affine.pixel_size_um
    if habits is None:
        width = field_um + 200.0
        habits = NucleiHabits(count=max(1, round(60 * (width / _FIELD_UM) ** 2)), width_um=width)
    gain, offset = (2.0, 100.0) if pixel_type == "uint16" else (0.4, 5.0)
    return SimulatedMicroscope(
        NucleiSample(habits, seed),
        Fluorescence(chromatin(seed)),
        Camera((size_px, size_px), pixel_type, gain, offset),
        affine,
        interval_s,
        seed,
    )


def runaway(seed: int = 0, *, size_px: int = 512) -> SimulatedMicroscope:
    """Return a field in which one nucleus, at the centre at first, leaves at 3 um per frame (1 frame a minute).

    It runs for about 150 frames before it meets the edge of the sample, crowded by others that make way.
    """
    count = round(30 * (1100 / _FIELD_UM) ** 2)
    habits = NucleiHabits(count=count, width_um=1100.0, movers=1, mover_speed_um_s=0.05)
    return nuclei(seed, size_px=size_px, interval_s=60.0, habits=habits)


def dividing(seed: int = 0, *, size_px: int = 512) -> SimulatedMicroscope:
    """Return a field of about 50 nuclei with about 40 divisions in it in 120 frames (one in 5 minutes)."""
    width = size_px * 0.6 + 120.0
    count = max(1, round(45 * (width / _FIELD_UM) ** 2))
    return nuclei(seed, size_px=size_px, habits=NucleiHabits(count=count, width_um=width))


def translocation(seed: int = 0, *, size_px: int = 512, channel: str = "FITC") -> SimulatedMicroscope:
    """Return about 25 nuclei, and in one channel a reporter that is in some of them and around others.

    Parameters
    ----------
    seed, size_px
        As in :func:`nuclei`.
    channel
        Name of the reporter's channel; all others show the nuclei.
    """
    width = size_px * 0.6 + 120.0
    habits = NucleiHabits(count=max(1, round(25 * (width / _FIELD_UM) ** 2)), width_um=width, gap_um=12.0)
    microscope = nuclei(seed, size_px=size_px, habits=habits)
    microscope.channels = {channel: TranslocationReporter(seed)}
    return microscope


def rods(
    seed: int = 0, *, size_px: int = 512, interval_s: float = 60.0, pixel_type: str = "uint16"
) -> SimulatedMicroscope:
    """Return a colony of rods in phase contrast at 0.1 um/px, from 6 to about 200 in 150 frames.

    Parameters
    ----------
    seed, size_px, interval_s, pixel_type
        As in :func:`nuclei`.
    """
    gain, offset = (10.0, 100.0) if pixel_type == "uint16" else (0.14, 2.0)
    return SimulatedMicroscope(
        RodSample(RodHabits(), seed),
        PhaseContrast(),
        Camera((size_px, size_px), pixel_type, gain, offset),
        Affine.from_pixel_size(0.1),
        interval_s,
        seed,
    )
