"""The example scripts run as they stand, beside a service with the example's experiment file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from cytoloop.realtime.experiment.config import load_experiment
from cytoloop.realtime.service.server import Service

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("script", "images", "farthest_um"), [("follow_a_cell.py", 40, 60), ("pymmcore_plus_loop.py", 20, 1)]
)
def test_an_example_follows_its_cell(script: str, images: int, farthest_um: float, tmp_path: Path) -> None:
    pytest.importorskip("pycromanager", reason="the engine extra is not installed")
    pytest.importorskip("pymmcore_plus", reason="the plus extra is not installed")
    experiment = load_experiment(EXAMPLES / "follow.toml")
    stream = msgspec.structs.replace(experiment.streams["default"], address="tcp://127.0.0.1:0")
    experiment = msgspec.structs.replace(experiment, streams={"default": stream}, log=str(tmp_path))
    with Service(experiment) as service:
        command = [sys.executable, str(EXAMPLES / script), service.addresses["default"]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert f"{images} images" in done.stdout
    x, y = map(float, re.search(r"ended at \((.*), (.*)\) um", done.stdout).groups())  # type: ignore[union-attr]
    assert (x**2 + y**2) ** 0.5 > farthest_um
