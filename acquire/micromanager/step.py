"""Step: what one planned exposure asks of the microscope, in the words that both acquisition engines share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Key: TypeAlias = "frozenset[tuple[str, int | str]]"


@dataclass(frozen=True, slots=True)
class Step:
    """One planned exposure; None where the plan leaves things as they are.

    Attributes
    ----------
    xy_um
        Absolute stage position in um.
    z_um
        Absolute focus position in um.
    exposure_ms
        Exposure in ms.
    channel
        (group, preset) of the configuration, or None.
    properties
        (device, property, value) to set before the exposure; used only where no core can be reached directly.
    start_s
        Earliest start in s on the clock of the acquisition engine.
    time
        Index of the time point, or None.
    """

    xy_um: tuple[float, float] | None = None
    z_um: float | None = None
    exposure_ms: float | None = None
    channel: tuple[str, str] | None = None
    properties: tuple[tuple[str, str, str], ...] = ()
    start_s: float | None = None
    time: int | str | None = None


def axes_key(axes: Mapping[str, Any]) -> Key:
    """Return the axes of an image as a hashable key; numpy integers count as integers."""
    return frozenset((name, value if isinstance(value, str) else int(value)) for name, value in axes.items())
