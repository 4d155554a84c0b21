"""``cytoloop calibrate``: measure the map from px to stage um or to a light device, keep it, and check a kept one."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import DONE, FAILED, Output, command, short

if TYPE_CHECKING:
    from ...acquire.calibration.light import LightCalibration
    from ...acquire.calibration.stage import StageCalibration
    from ...acquire.calibration.stored import Calibration
    from ..calibrations import LightTrial, StageTrial


@command(
    "calibrate",
    examples=(
        "cytoloop calibrate --config MMConfig.cfg --out calibration.toml",
        "cytoloop calibrate --config MMConfig.cfg --check calibration.toml",
        "cytoloop calibrate --config MMConfig.cfg --light --out light.toml",
        "cytoloop calibrate --simulated --json",
    ),
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Micro-Manager's configuration file of this microscope.",
)
@click.option(
    "--adapters",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Micro-Manager's folder; by default where it is installed, else its demo devices.",
)
@click.option(
    "--simulated", is_flag=True, help="Calibrate simulated microscopes, and compare with the truth."
)
@click.option(
    "--trials", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many simulated."
)
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Of the simulated.")
@click.option("--light", is_flag=True, help="The galvo or SLM instead of the stage.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File to keep the calibration in."
)
@click.option(
    "--check",
    "kept",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Measure, and refuse this calibration if it is wrong, stale or of another objective.",
)
@click.option(
    "--days",
    type=click.FloatRange(0, 36_525),
    default=90.0,
    show_default=True,
    help="--check: oldest allowed.",
)
@click.option(
    "--longest-um",
    type=click.FloatRange(1, 100_000),
    default=1000.0,
    show_default=True,
    help="How far the stage may go from where it is.",
)
def calibrate(
    output: Output,
    config: Path | None,
    adapters: Path | None,
    simulated: bool,
    trials: int,
    seed: int,
    light: bool,
    out: Path | None,
    kept: Path | None,
    days: float,
    longest_um: float,
) -> int:
    """Measure how camera and stage, or camera and light, go together.

    The stage steps through a pattern around where it is and comes back; the images say by how many px each step was.
    Put a sample that rests and has texture in focus first. With --light spots are shown on something that shines
    evenly. With --check nothing is written, and the exit code is 1 if the kept calibration must not be used.
    """
    from ...acquire.calibration.stored import read_calibration

    if simulated == (config is not None):
        raise click.UsageError("give either --config FILE, for this microscope, or --simulated")
    if out is not None and kept is not None:
        raise click.UsageError("--check writes nothing: leave out --out")
    calibration = read_calibration(kept) if kept is not None else None
    if calibration is not None and (calibration.kind == "light") != light:
        raise click.UsageError(
            f"{kept} is a {calibration.kind} calibration: --light goes with those of a light"
        )
    with output.progress() as progress:
        if simulated:
            run = _simulated_light if light else _simulated_stage
            values, measured = run(1 if kept else trials, seed, progress)
        else:
            progress("calibrating")
            with _core(config, adapters) as core:
                values, measured = _light(core) if light else _stage(core, longest_um)
    if calibration is not None:
        values["refused"] = _refusal(calibration, values, measured, days)
        values["ok"] = not values["refused"]
    if out is not None and values["ok"]:
        _keep(out, values, measured)
        values["out"] = out
    output.result(values, lambda: _table(values))
    if values.get("refused") and not output.as_json:
        output.message(f"refused: {kept}: {values['refused']}")
    return DONE if values["ok"] else FAILED


@contextlib.contextmanager
def _core(config: Path | None, adapters: Path | None) -> Generator[Any]:
    from ...acquire.calibration.core import load_core, unload
    from ...acquire.errors import MissingExtraError

    folder = adapters or _adapters(config)
    try:
        core = load_core(str(config), str(folder))
    except ImportError as error:
        raise MissingExtraError("pymmcore", "engine") from error
    try:
        yield core
    finally:
        unload(core)


def _adapters(config: Path | None) -> Path:
    """Return where Micro-Manager's devices are: beside the configuration, where it is installed, or the demo's."""
    from ...acquire.errors import MissingExtraError
    from .checks import micromanager_folders

    beside = config.absolute().parent if config else Path()
    if any(next(beside.glob(pattern), None) for pattern in ("mmgr_dal_*", "libmmgr_dal_*")):
        return beside
    installed = micromanager_folders()
    if installed:
        return installed[0]
    try:
        import mm_test_adapters
    except ImportError as error:
        raise MissingExtraError("Micro-Manager", "engine") from error
    return Path(str(mm_test_adapters.device_adapter_path()))


def _stage(core: Any, longest_um: float) -> tuple[dict[str, Any], StageCalibration]:
    from ...acquire.calibration.core import CoreStage
    from ...acquire.calibration.stage import calibrate_stage

    stage = CoreStage(core)
    found = calibrate_stage(stage.move, stage.snap, stage.position, longest_um=longest_um)
    about = {
        "objective": stage.objective,
        "device": stage.device,
        "camera": stage.camera,
        "pixel_size_um": stage.pixel_size_um,
    }
    return {**_of_stage(found), **about, "ok": True}, found


def _light(core: Any) -> tuple[dict[str, Any], LightCalibration]:
    from ...acquire.calibration.core import CoreLight
    from ...acquire.calibration.light import calibrate_light

    light = CoreLight(core)
    found = calibrate_light(light.show, light.dark, light.snap, light.low, light.high)
    about = {"objective": light.objective, "device": light.device, "camera": light.camera}
    return {**_of_light(found), **about, "ok": True}, found


def _simulated_stage(count: int, seed: int, progress: Any) -> tuple[dict[str, Any], StageCalibration]:
    from ..calibrations import stage_trials, worst

    trials = stage_trials(count, seed, progress)
    values = {
        **_of_stage(trials[0].found),
        "trials": [_of_trial(trial) for trial in trials],
        "worst_scale_error_percent": worst(trials, lambda trial: trial.scale_error_percent),
        "worst_rotation_error_deg": worst(trials, lambda trial: trial.rotation_error_deg),
        "worst_residual_um": worst(trials, lambda trial: trial.found.residual_um),
        "wrong_refused": all(trial.wrong_refused for trial in trials),
        "ok": all(trial.ok for trial in trials),
    }
    return values, trials[0].found


def _simulated_light(count: int, seed: int, progress: Any) -> tuple[dict[str, Any], LightCalibration]:
    from ..calibrations import light_trials

    trials = light_trials(count, seed, progress)
    values = {
        **_of_light(trials[0].found),
        "trials": [_of_light_trial(trial) for trial in trials],
        "worst_error_px": max(trial.error_px for trial in trials),
        "ok": all(trial.ok for trial in trials),
    }
    return values, trials[0].found


def _of_stage(found: StageCalibration) -> dict[str, Any]:
    a, parts = found.affine, found.parts
    return {
        "affine": [[a.xx, a.xy, 0.0], [a.yx, a.yy, 0.0]],
        "residual_um": found.residual_um,
        "residual_px": found.residual_px,
        "scale": parts.scale,
        "rotation_deg": parts.rotation_deg,
        "flipped": parts.flipped,
        "shear_deg": parts.shear_deg,
        "backlash_um": found.backlash_um,
        "points": found.points,
        "used": found.used,
        "quality": found.quality,
        "shape": found.shape,
        "travel_um": found.travel_um,
    }


def _of_light(found: LightCalibration) -> dict[str, Any]:
    return {
        "affine": found.affine,
        "residual": found.residual,
        "residual_px": found.residual_px,
        "shown": found.shown,
        "found": found.found,
        "used": found.used,
        "shape": found.shape,
    }


def _of_trial(trial: StageTrial) -> dict[str, Any]:
    a, parts = trial.affine, trial.found.parts
    return {
        "affine": [[a.xx, a.xy, 0.0], [a.yx, a.yy, 0.0]],
        "camera_mirrored": trial.camera_mirrored,
        "stage_mirrored": trial.stage_mirrored,
        "scale": parts.scale,
        "rotation_deg": parts.rotation_deg,
        "flipped": parts.flipped,
        "scale_error_percent": trial.scale_error_percent,
        "rotation_error_deg": trial.rotation_error_deg,
        "residual_um": trial.found.residual_um,
        "wrong_refused": trial.wrong_refused,
    }


def _of_light_trial(trial: LightTrial) -> dict[str, Any]:
    return {"affine": trial.affine, "error_px": trial.error_px, "spots": trial.found.used}


def _refusal(
    kept: Calibration, values: dict[str, Any], measured: StageCalibration | LightCalibration, days: float
) -> str:
    """Return why a kept calibration must not be used here and now, or ``""``."""
    from ...acquire.calibration.stage import StageCalibration
    from ...acquire.calibration.verdict import contradiction, light_contradiction

    why = kept.usable(datetime.now(UTC), days, values.get("objective", ""))
    why = why or kept.fits(measured.shape, values.get("pixel_size_um"))
    if why:
        return why
    if isinstance(measured, StageCalibration):
        return contradiction(kept.map, measured.affine)
    return light_contradiction(kept.affine, measured)


def _keep(path: Path, values: dict[str, Any], measured: StageCalibration | LightCalibration) -> None:
    from ...acquire.calibration.stage import StageCalibration
    from ...acquire.calibration.stored import write_calibration
    from ...acquire.calibration.verdict import kept_light, kept_stage

    keys = ("objective", "device", "camera", "pixel_size_um")
    about = {key: values[key] for key in keys if key in values}
    now = datetime.now(UTC)
    if isinstance(measured, StageCalibration):
        write_calibration(path, kept_stage(measured, now, **about))
    else:
        write_calibration(path, kept_light(measured, now, **about))


def _table(values: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table("", "measured", title="Calibration", title_justify="left")
    for key, value in values.items():
        if key == "trials":
            table.add_row(key, str(len(value)))
        elif key != "refused" or value:
            table.add_row(key.replace("_", " "), _shown(value))
    return table


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "  ".join(_shown(each) for each in value)
    return "-" if value is None else short(value)
