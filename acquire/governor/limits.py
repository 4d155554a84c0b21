"""Limits: what no rule can talk the microscope into, as the experiment file states it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..errors import ConfigurationError, Problem

Positive = Annotated[float, msgspec.Meta(gt=0)]
Rate = Annotated[float, msgspec.Meta(gt=0, le=10_000)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What commands of one stream may ask for; intervals are [lowest, highest] with both ends allowed.

    Attributes
    ----------
    x_um, y_um
        Where the stage may go, in um. Default none: within ten diagonals of the field of view from where the
        stage stood in the first frame of that field of view.
    z_um
        Where the focus drive may go, in um. Default none: focus is never moved, because a wrong move drives
        the objective into the sample.
    max_step_um
        Longest single move of the stage in um, measured from where the frame was taken. Default none: the
        diagonal of one field of view.
    exposure_ms
        Exposures in ms that may be set. Default [0.1, 1000].
    stimulation_ms_max
        Longest stimulation in ms. Default 1000.
    stimulation_power_max
        Strongest stimulation, as a fraction (0 to 1) of the device's maximum. Default 1.
    trigger_ms_max
        Widest pulse of an output in ms. Default 100.
    pause_s_max
        Longest pause in s. Default 60.
    skip_max
        Most planned events that one command may leave out. Default 100.
    stage_um_per_s
        Mean speed in um/s at which moves may follow each other: one of 100 um takes the stage's time for 100 um.
        Default no limit.
    commands_per_s
        Commands per second of frame time; stopping is never held back. Default 50.
    properties
        Device properties that may be set, each ``"Device.Property"``. Default none.
    channels
        Presets of configuration groups that may be set, each ``"Group.Preset"``. Default none.
    interval_s
        Times between time points in s that may be set. Default [0.1, 86400].
    webhooks
        Beginnings of the addresses that may be told of something. Default none.
    calls
        Registered functions that may be called. Default none.
    dose_ms_per_cell, dose_ms_per_area, dose_ms_per_run
        Most light that a cell, a square of the sample, and the whole run may be given: power (0 to 1) times length in
        ms; a light on several points counts once for each in the run. Default no limit.
    dose_area_um
        Edge of such a square in um. Default 10.
    triggers_max, triggers_per_s
        Pulses of outputs in the run, and per second of frame time. Default no limit.
    """

    x_um: tuple[float, float] | None = None
    y_um: tuple[float, float] | None = None
    z_um: tuple[float, float] | None = None
    max_step_um: Positive | None = None
    exposure_ms: tuple[Positive, Positive] = (0.1, 1000.0)
    stimulation_ms_max: Annotated[float, msgspec.Meta(ge=0)] = 1000.0
    stimulation_power_max: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    trigger_ms_max: Positive = 100.0
    pause_s_max: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    skip_max: Annotated[int, msgspec.Meta(ge=0)] = 100
    stage_um_per_s: Positive | None = None
    commands_per_s: Rate = 50.0
    properties: tuple[Annotated[str, msgspec.Meta(pattern=r"^[^.]+\..+$")], ...] = ()
    channels: tuple[Annotated[str, msgspec.Meta(pattern=r"^[^.]+\..+$")], ...] = ()
    interval_s: tuple[Positive, Positive] = (0.1, 86_400.0)
    webhooks: tuple[Annotated[str, msgspec.Meta(pattern=r"^https?://[^/]+/")], ...] = ()
    calls: tuple[str, ...] = ()
    dose_ms_per_cell: Positive | None = None
    dose_ms_per_area: Positive | None = None
    dose_area_um: Positive = 10.0
    dose_ms_per_run: Positive | None = None
    triggers_max: Annotated[int, msgspec.Meta(ge=0)] | None = None
    triggers_per_s: Rate | None = None

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        for key in ("x_um", "y_um", "z_um", "exposure_ms", "interval_s"):
            interval: tuple[float, float] | None = getattr(self, key)
            if interval is not None and not interval[0] <= interval[1]:
                problems.append(
                    Problem(
                        "", 0, key, f"{list(interval)}: expected [lowest, highest] with lowest <= highest."
                    )
                )
        if problems:
            raise ConfigurationError(problems)
