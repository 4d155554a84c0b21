"""``cytoloop engine``: every way is compared on the user's frames, and what disagrees is refused."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cytoloop.models.runtimes import cuda
from cytoloop.realtime.cli import main
from PIL import Image
from scipy import ndimage

onnx = pytest.importorskip("onnx", reason="the int8 extra is not installed")


def leave(*args: object) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as left:
        main(["engine", *(str(arg) for arg in args)])
    return int(left.value.code or 0)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CYTOLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_disc_finder(path: Path, *, coarse: bool = False) -> Path:
    """Write a net made by hand: a blur, then the logits of inside, core and breadth as the decoder takes them.

    The coarse one carries two large numbers that cancel out; rounded to few bits they do not.
    """
    from onnx import TensorProto, helper, numpy_helper

    along = np.arange(-4, 5)
    blur = np.exp(-(along[:, np.newaxis] ** 2 + along**2) / 8.0)
    weights = {
        "blur": np.stack([blur / blur.sum()] * 2)[:, np.newaxis],
        "offset": np.array([0.0, 500.0 if coarse else 0.0]),
        "head": np.array([[[20.0], [0.0]], [[20.0], [0.0]], [[0.0], [0.0]]])[..., np.newaxis],
        "bias": np.array([-8.0, -12.0, 0.0]),
    }
    if coarse:
        weights["head"][:2, 1] = 20.0
        weights["bias"][:2] -= 10_000.0
        weights["head"][:2, 0] = 0.0
    nodes = [
        helper.make_node("Conv", ["planes", "blur", "offset"], ["blurred"], pads=[4] * 4, name="blur"),
        helper.make_node("Relu", ["blurred"], ["positive"], name="relu"),
        helper.make_node("Conv", ["positive", "head", "bias"], ["maps"], name="head"),
    ]
    given = helper.make_tensor_value_info("planes", TensorProto.FLOAT, [1, 1, "y", "x"])
    maps = helper.make_tensor_value_info("maps", TensorProto.FLOAT, [1, 3, "y", "x"])
    values = [numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()]
    graph = helper.make_graph(nodes, "discs", [given], [maps], values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def draw(seed: int) -> np.ndarray[Any, Any]:
    """Return a uint16 image of 20 discs apart from each other."""
    random = np.random.default_rng(seed)
    image = np.zeros((160, 200))
    y, x = np.indices(image.shape)
    for row in range(4):
        for column in range(5):
            cy, cx = 20 + 40 * row + random.uniform(-6, 6), 20 + 40 * column + random.uniform(-6, 6)
            image[(y - cy) ** 2 + (x - cx) ** 2 < random.uniform(7, 11) ** 2] = random.uniform(0.9, 1)
    return random.poisson(200 + 3000 * ndimage.gaussian_filter(image, 1)).astype(np.uint16)


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    folder = tmp_path / "movie"
    folder.mkdir()
    for number in range(6):
        tifffile.imwrite(folder / f"t{number:03d}.tif", draw(number))
    return folder


def checked(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, dict[str, Any]]:
    code = leave("check", *args, "--json")
    return code, json.loads(capsys.readouterr().out)


def rows_of(told: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["runtime"], row["precision"]): row for row in told["rows"]}


def test_every_way_that_is_here_is_compared_and_the_fastest_that_agrees_is_kept(
    tmp_path: Path, movie: Path, capsys: pytest.CaptureFixture[str]
):
    net = write_disc_finder(tmp_path / "discs.onnx")
    code, told = checked(capsys, net, movie, "--decoder", "core", "--count", 3)
    rows = rows_of(told)
    assert told["frames"] == 3
    assert rows["onnxruntime", "fp32"]["cells"] == 60
    assert rows["onnxruntime", "int8"]["F1"].keys() == {"0.5", "0.75", "0.9"}
    assert rows["onnxruntime", "int8"]["F1"]["0.5"] > 0.9
    assert ("openvino", "fp32") in rows or find_spec("openvino") is None
    for row in rows.values():
        assert row["ms"]["p50"] > 0
        assert row["accepted"] is (row["reason"] == "")
    assert code == (0 if all(row["accepted"] for row in rows.values()) else 1)
    assert rows[told["choice"]["runtime"], told["choice"]["precision"]]["accepted"]

    from cytoloop.models.nets.segmenter import NetSegmenter

    options = {"model": str(net), "decoder": "core"}
    kept = NetSegmenter(**options, runtime="auto", precision="auto").choice
    assert (kept.runtime, kept.precision) == (told["choice"]["runtime"], told["choice"]["precision"])
    assert kept.reason == told["choice"]["reason"]


def test_a_way_that_loses_the_cells_is_refused_by_name(
    tmp_path: Path, movie: Path, capsys: pytest.CaptureFixture[str]
):
    net = write_disc_finder(tmp_path / "coarse.onnx", coarse=True)
    code, told = checked(
        capsys, net, movie, "--decoder", "core", "--runtime", "onnxruntime", "--precision", "int8"
    )
    assert code == 1
    row = rows_of(told)["onnxruntime", "int8"]
    assert not row["accepted"]
    assert "F1@0.75 is" in row["reason"]
    assert rows_of(told)["onnxruntime", "fp32"]["cells"] == 120
    assert told["choice"] is None


def test_people_see_a_table_and_the_reasons(tmp_path: Path, movie: Path, capsys: pytest.CaptureFixture[str]):
    net = write_disc_finder(tmp_path / "coarse.onnx", coarse=True)
    assert leave("check", net, movie, "--decoder", "core", "--runtime", "onnxruntime", "--count", 2) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "onnxruntime fp32 40 reference" in shown
    assert "onnxruntime int8: F1@0.75 is" in shown
    assert "Demanded: F1@0.75 >= 0.99, F1@0.9 >= 0.97, px disagreement <= 0.5%" in shown


def test_single_images_are_each_taken_by_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        bright = draw(number) // (1 + 9 * (number % 2))  # no contrast of one would suit the next
        Image.fromarray(bright).save(folder / f"{number}.png")
    net = write_disc_finder(tmp_path / "discs.onnx")
    _, told = checked(
        capsys, net, folder, "--decoder", "core", "--runtime", "onnxruntime", "--precision", "fp32"
    )
    assert told["frames"] == 3
    assert [row["cells"] for row in told["rows"]] == [60]


def test_what_cannot_be_checked_is_told(
    tmp_path: Path, movie: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cuda, "cards", list)
    net = write_disc_finder(tmp_path / "discs.onnx")
    assert leave("check", net, movie, "--decoder", "core", "--runtime", "torch") == 1
    assert "no way to run ONNX weights" in capsys.readouterr().err
    assert leave("check", tmp_path / "missing.onnx", movie, "--decoder", "core") != 0
    assert "missing.onnx" in capsys.readouterr().err
    assert leave("check", net, movie, "--decoder", "cores") == 2
    assert "Did you mean 'core'?" in capsys.readouterr().err
    assert leave("check", net, movie, "--precision", "fp61") == 2


def test_engines_are_built_ahead_and_listed(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("tensorrt_rtx", reason="the tensorrt extra is not installed")
    net = write_disc_finder(tmp_path / "discs.onnx")
    assert leave("build", net, "--for", "8.6", "--for", "8.9", "--json") == 0
    engines = [Path(path) for path in json.loads(capsys.readouterr().out)["engines"]]
    assert [path.parent for path in engines] == [cache / "engines"] * 2
    assert leave("list", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {Path(row["path"]) for row in told["kept"] if row["kind"] == "engine"} == set(engines)
    (half,) = [row for row in told["kept"] if row["kind"] == "converted net"]
    assert "fp16" in half["path"]
    assert {row["runtime"]: row["installed"] for row in told["runtimes"]}["onnxruntime"] is True
    assert leave("build", net, "--for", "9.0") == 1
    assert "not 9.0" in capsys.readouterr().err


@pytest.mark.skipif(bool(cuda.cards()), reason="there is an NVIDIA card")
def test_without_a_card_the_engine_can_only_be_built_ahead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    net = write_disc_finder(tmp_path / "discs.onnx")
    assert leave("build", net) == 1
    assert "no NVIDIA card here; for one elsewhere build ahead" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["check", "build", "list"])
def test_every_part_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture[str]):
    assert leave(name, "--help") == 0
    assert f"  cytoloop engine {name}" in capsys.readouterr().out.partition("Examples:")[2]
