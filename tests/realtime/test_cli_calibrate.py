"""``cytoloop calibrate``: simulated microscopes, the real core with the demo devices, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cytoloop.acquire.calibration.stored import read_calibration, write_calibration
from cytoloop.realtime.cli.app import cytoloop

ROOT = Path(__file__).parents[2]


def run(*words: object) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(
        cytoloop, ["calibrate", *map(str, words), "--json"], standalone_mode=False, catch_exceptions=False
    )
    line = next(line for line in result.output.splitlines() if line.startswith("{"))
    return int(result.return_value), json.loads(line)


def test_simulated_microscopes_with_flips_are_recovered_to_a_fifth_of_a_percent_and_degree() -> None:
    code, values = run("--simulated", "--trials", 20)
    assert code == 0
    assert len(values["trials"]) == 20
    assert values["worst_scale_error_percent"] < 0.2
    assert values["worst_rotation_error_deg"] < 0.2
    assert values["wrong_refused"] is True
    assert values["ok"] is True
    assert [len(row) for row in values["affine"]] == [3, 3]
    assert {"residual_um", "scale", "rotation_deg", "flipped"} <= set(values)
    assert {trial["flipped"] for trial in values["trials"]} == {True, False}
    assert len({tuple(trial["camera_mirrored"] + trial["stage_mirrored"]) for trial in values["trials"]}) > 5


def test_a_calibration_is_kept_and_checked_and_one_of_another_microscope_refused(tmp_path: Path) -> None:
    file = tmp_path / "calibration.toml"
    assert run("--simulated", "--trials", 1, "--out", file)[0] == 0
    assert run("--simulated", "--check", file)[1]["refused"] == ""
    code, values = run("--simulated", "--seed", 3, "--check", file)
    assert code == 1
    assert "the calibration is wrong" in values["refused"]
    kept = read_calibration(file)
    write_calibration(file, replace(kept, measured=kept.measured - timedelta(days=100)))
    code, values = run("--simulated", "--check", file)
    assert (code, values["ok"]) == (1, False)
    assert "stale" in values["refused"]
    assert run("--simulated", "--check", file, "--days", 200)[0] == 0
    file.write_text("kind = 3")
    code, values = run("--simulated", "--check", file)
    assert code == 1
    assert (values["kind"], "kind: 3 is not allowed" in values["error"]) == ("CalibrationError", True)


def test_simulated_projectors_are_recovered_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "light.toml"
    code, values = run("--simulated", "--light", "--trials", 5, "--out", file)
    assert code == 0
    assert values["worst_error_px"] < 0.5
    assert run("--simulated", "--light", "--check", file)[0] == 0
    assert run("--simulated", "--light", "--seed", 1, "--check", file)[0] == 1


@pytest.mark.parametrize("words", [(), ("--simulated", "--out", "a", "--check", "b")])
def test_wrong_usage_is_told(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cytoloop, ["calibrate", *words])
    assert result.exit_code == 2
    assert "give either --config" in result.output or "leave out --out" in result.output


@pytest.mark.engine
def test_the_real_core_is_calibrated_from_its_configuration_file(tmp_path: Path) -> None:
    adapters = pytest.importorskip("mm_test_adapters", reason="the engine extra is not installed")
    demo = Path(str(adapters.device_adapter_path())) / "MMConfig_demo.cfg"
    config = tmp_path / "beads.cfg"
    startup = "\nConfigGroup,System,Startup,Camera,Mode,Fluorescent Beads\n"
    config.write_text(demo.read_text() + startup)
    file = tmp_path / "calibration.toml"

    def cytoloop_process(*words: object) -> subprocess.CompletedProcess[str]:
        code = "from cytoloop.realtime.cli.app import main; main()"
        command = [
            sys.executable,
            "-c",
            code,
            "calibrate",
            "--config",
            str(config),
            *map(str, words),
            "--json",
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    done = cytoloop_process("--adapters", demo.parent, "--out", file)
    values = json.loads(done.stdout)
    assert done.returncode == 0, values
    assert values["scale"] == pytest.approx([1.0, 1.0], abs=1e-3)
    assert (values["objective"], values["device"], values["camera"]) == ("Res10x", "XY", "Camera")
    kept = read_calibration(file)
    assert (kept.objective, kept.shape, kept.pixel_size_um) == ("Res10x", (512, 512), 1.0)
    write_calibration(file, replace(kept, objective="Res20x"))
    done = cytoloop_process("--adapters", demo.parent, "--check", file)
    assert done.returncode == 1
    assert "of objective 'Res20x', in use is 'Res10x'" in json.loads(done.stdout)["refused"]
