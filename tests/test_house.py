"""The house stands as it is drawn: packages, plugins, directions, weights."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("acquire", "models", "trackers", "realtime")
HEAVY = (
    "torch",
    "tensorrt",
    "onnxruntime",
    "pycromanager",
    "pymmcore",
    "scipy",
    "matplotlib",
    "zarr",
    "click",
    "rich",
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_every_folder_with_code_is_in_the_wheel():
    folders = {path.parent.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    named = {".".join(("cytoloop", *folder.parts)) for folder in folders}
    assert named == set(PROJECT["tool"]["setuptools"]["packages"])


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_that_it_is_typed(room: str):
    assert (ROOT / room / "py.typed").is_file()


@pytest.mark.parametrize("group", list(PROJECT["project"]["entry-points"]))
def test_every_registered_plugin_can_be_loaded(group: str):
    registered = PROJECT["project"]["entry-points"][group]
    found = {point.name: point for point in entry_points(group=group)}
    assert set(registered) <= set(found), "reinstall the project: its entry points have changed"
    for name in registered:
        assert isinstance(found[name].load(), type)


def test_the_microscopes_side_is_light_to_import():
    code = f"import sys, cytoloop.acquire; print([m for m in {HEAVY} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "path", sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")), ids=str
)
def test_no_module_keeps_state_or_prints(path: Path):
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Global), f"{path.name}:{node.lineno}: module-level state"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{path.name}:{node.lineno}: print"
            assert node.func.id not in ("eval", "exec"), f"{path.name}:{node.lineno}: {node.func.id}"


def test_pymmcore_and_the_demo_devices_speak_the_same_device_interface():
    pins = dict(pin.split("==") for pin in PROJECT["project"]["optional-dependencies"]["engine"])
    assert pins["pymmcore"].split(".")[3] == pins["mm-test-adapters"].split(".")[0]


def test_the_service_installs_without_heavy_parts():
    needed = {requirement.split(">=")[0] for requirement in PROJECT["project"]["dependencies"]}
    assert needed.isdisjoint(
        {"torch", "tensorrt", "openvino", "onnx", "pycromanager", "pymmcore", "matplotlib", "zarr"}
    )
