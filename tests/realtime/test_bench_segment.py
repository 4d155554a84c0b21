"""The measurement of segmentation: what it counts is so, and nothing that was asked for is left out in silence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from cytoloop.acquire.errors import CytoloopError, MissingExtraError, ModelError
from cytoloop.acquire.frame import Frame
from cytoloop.models.packages.contents import ModelPackage
from cytoloop.models.packages.saving import save_package, weights_file
from cytoloop.models.runtimes.onnx import OnnxRuntime
from cytoloop.models.runtimes.ways import Way
from cytoloop.realtime.bench import segment
from cytoloop.realtime.bench.card import Card
from cytoloop.realtime.bench.operations import Cost, cost_of
from cytoloop.realtime.bench.peak import peak_gflops
from cytoloop.realtime.bench.peers import PEERS
from cytoloop.realtime.cli import main
from cytoloop.realtime.progress import silent
from scipy import ndimage

helper = pytest.importorskip("onnx.helper", reason="the int8 extra is not installed")
SIZE = 160
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
GFLOPS = 50.0
CARD = Card("NVIDIA Test", fp32_tflops=10.0, fp16_tflops=40.0, copy_gbps=500.0)


def write_onnx(path: Path, nodes: list[object], weights: dict[str, np.ndarray], outputs: int) -> Path:
    """Write a net planes (1, 1, y, x) -> logits."""
    from onnx import TensorProto, numpy_helper, save

    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("planes", TensorProto.FLOAT, [1, 1, "y", "x"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, outputs, "y2", "x2"])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def bright_px(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A package whose net calls bright surroundings foreground and core: it does find nuclei that lie apart."""
    folder = tmp_path_factory.mktemp("models")
    kernel = np.ones((3, 1, 5, 5)) * np.array([20.0, 20.0, 0.0]).reshape(3, 1, 1, 1) / 25
    bias = np.array([-6.0, -6.0, 0.0])
    pads = {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]}
    nodes = [helper.make_node("Conv", ["planes", "kernel", "bias"], ["logits"], **pads)]
    weights = weights_file(write_onnx(folder / "net.onnx", nodes, {"kernel": kernel, "bias": bias}, 3))
    package = ModelPackage("bright", folder, (weights,), channel_names=("cells",), step=16, decoder="core")
    return str(save_package(package, folder / "bright").folder)


def test_a_net_takes_two_operations_for_each_product_and_moves_each_value_of_a_layer_once(tmp_path: Path):
    nodes = [
        helper.make_node(
            "Conv", ["planes", "a", "c"], ["half"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
        ),
        helper.make_node("Relu", ["half"], ["clipped"]),
        helper.make_node("ConvTranspose", ["clipped", "b"], ["logits"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    weights = {"a": np.zeros((2, 1, 3, 3)), "b": np.zeros((2, 3, 2, 2)), "c": np.zeros(2)}
    path = write_onnx(tmp_path / "net.onnx", nodes, weights, 3)
    cost = cost_of(path, np.zeros((1, 1, 8, 8), np.float32))
    # 8 x 8 px become 2 x 4 x 4, each of 9 products; of which each goes into 3 x 2 x 2.
    assert cost.operations == 2 * (32 * 9 + 32 * 12) == 1344
    # 64 values in and 32 out, then 32 in and 3 x 8 x 8 out; 18 weights and 2 biases, then 24 weights.
    assert (cost.maps, cost.weights) == (64 + 32 + 32 + 192, 18 + 2 + 24) == (320, 44)
    assert [cost.bytes(precision) for precision in ("fp32", "fp16", "bf16", "int8")] == [1456, 728, 728, 364]
    # Twice 8 x 8 px more in one run need no more weights; in two runs they do.
    assert cost.scaled(3, 1) == Cost(4032, 960, 44)
    assert cost.scaled(3, 2) == Cost(4032, 960, 88)


@pytest.mark.parametrize(("axes", "weights"), [(2, 15), (4, 0)])
def test_a_matrix_product_has_weights_unless_both_are_stacks(axes: int, weights: int, tmp_path: Path):
    matrix = np.zeros((1,) * (axes - 2) + (5, 3))
    nodes = [helper.make_node("MatMul", ["planes", "matrix"], ["logits"])]
    path = write_onnx(tmp_path / "net.onnx", nodes, {"matrix": matrix}, 1)
    cost = cost_of(path, np.zeros((1, 1, 4, 5), np.float32))
    # 4 x 5 times 5 x 3 is 4 x 3.
    assert cost == Cost(2 * 12 * 5, 20 + 12 + 15 - weights, weights)


def test_operations_of_what_does_not_run_are_not_counted(tmp_path: Path):
    nodes = [helper.make_node("Conv", ["planes", "a"], ["logits"], kernel_shape=[3, 3])]
    path = write_onnx(tmp_path / "net.onnx", nodes, {"a": np.zeros((2, 1, 3, 3))}, 2)
    with pytest.raises(ModelError, match=r"net\.onnx"):
        cost_of(path, np.zeros((1, 1, 2, 2), np.float32))


def test_the_peak_is_measured():
    assert peak_gflops(1) > 0.1


@pytest.fixture(scope="module")
def measured(bright_px: str) -> dict[str, object]:
    patch = pytest.MonkeyPatch()
    patch.setattr(segment, "peak_gflops", lambda threads: GFLOPS * threads)
    patch.setattr(segment.cuda, "cards", list)
    try:
        return segment.run(silent, only=("classical", bright_px), size=(SIZE,), frames=4)
    finally:
        patch.undo()


def test_each_way_to_run_a_net_is_a_row_or_is_told_why_not(measured, bright_px):
    told = {(row["model"], row["runtime"], row["precision"]) for row in measured["rows"]}
    left = {(each["model"], each["runtime"], each["precision"]) for each in measured["skipped"]}
    assert ("classical", "numpy", "fp32") in told
    assert (bright_px, "onnxruntime", "fp32") in told
    assert (bright_px, "onnxruntime", "int8") in left
    assert {runtime for _, runtime, _ in told | left} >= {
        "numpy",
        "onnxruntime",
        "openvino",
        "tensorrt",
        "torch",
    }
    assert not told & left
    assert all(each["reason"] for each in measured["skipped"])


def test_rows_hold_what_was_found_and_how_long_it_took(measured, bright_px):
    for row in measured["rows"]:
        assert row["size"] == SIZE
        assert row["cells_true"] > 8
        assert abs(row["cells"] - row["cells_true"]) < 0.4 * row["cells_true"]
        assert 0 < row["ms"]["p50"] <= row["ms"]["p99"] <= row["ms"]["max"]
        if row["model"] == bright_px:
            assert row["device"] == "cpu"
            assert row["gflop"] == pytest.approx(2 * 3 * 25 * SIZE**2 / 1e9)
            assert row["mbyte"] == pytest.approx(BYTES[row["precision"]] * (4 * SIZE**2 + 78) / 1e6)
            assert 0 < row["net_ms"]["p50"] <= row["ms"]["p50"]
            assert row["net_ms"]["max"] <= row["ms"]["max"]
            achieved = row["gflop"] / (row["ms"]["p50"] / 1000)
            assert row["share_of_peak"] == pytest.approx(achieved / (GFLOPS * row["threads"]))
        else:
            assert math.isnan(row["net_ms"]["p50"])
    assert measured["card"] is None
    threads = {(row["model"], row["threads"]) for row in measured["rows"]}
    assert ("classical", 1) in threads
    assert ("classical", 2) not in threads
    assert json.dumps(measured)


@pytest.mark.parametrize(("device", "name"), [("NVIDIA Test", "named"), ("cuda", "not named"), ("other", "")])
def test_a_row_on_a_card_has_the_share_of_its_roofline(
    device: str, name: str, bright_px: str, monkeypatch: pytest.MonkeyPatch
):
    def on_card(*args: object, **kwargs: object) -> OnnxRuntime:
        runtime = OnnxRuntime(*args, **kwargs)
        runtime.device = device
        return runtime

    monkeypatch.setattr("cytoloop.models.runtimes.ways.find_class", lambda kind, name: on_card)
    monkeypatch.setattr(segment, "ways", lambda net, runtime, precision: [Way("onnxruntime", "fp32")])
    monkeypatch.setattr(segment, "peak_gflops", lambda threads: GFLOPS)
    monkeypatch.setattr(segment.cuda, "cards", lambda: [CARD.name])
    monkeypatch.setattr(segment, "measured_card", lambda: CARD)
    told = segment.run(silent, only=(bright_px,), size=(SIZE,), threads=(1,), frames=2)
    assert told["card"] == {
        "name": "NVIDIA Test",
        "fp32_tflops": 10.0,
        "fp16_tflops": 40.0,
        "copy_gbps": 500.0,
    }
    (row,) = told["rows"]
    # 409 912 bytes at 500 GB/s take longer than 3.84 million operations at 10 TFLOP/s.
    expected = 0.000819824 / row["net_ms"]["p50"] if name else math.nan
    assert row["share_of_peak"] == pytest.approx(expected, nan_ok=True)


def test_one_runtime_alone_can_be_measured():
    found = segment.run(silent, only=("h16",), runtime=("onnxruntime",), size=(256,), quick=True)
    assert {row["runtime"] for row in found["rows"]} == {"onnxruntime"} and found["skipped"] == []
    with pytest.raises(CytoloopError, match="no 'onnxrun'; .*Did you mean 'onnxruntime'"):
        segment.run(silent, runtime=("onnxrun",), size=(256,), quick=True)


def test_a_model_that_does_not_exist_is_refused_with_the_nearest_name(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main(["bench", "segment", "--only", "no-such-net", "--size", "64"])
    assert left.value.code != 0
    assert "no-such-net: no model package of this name or path" in capsys.readouterr().err


@pytest.mark.parametrize("args", [("--size", "8"), ("--frames", "0")])
def test_what_cannot_be_measured_is_wrong_usage(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main(["bench", "segment", "--only", "classical", *args])
    assert left.value.code == 2
    assert "64 px or more" in capsys.readouterr().err


def draw_discs() -> tuple[Frame, np.ndarray]:
    y, x = np.indices((96, 96))
    truth = ndimage.label(np.hypot(y % 32 - 16, x % 32 - 16) < 9)[0].astype(np.int32)
    return Frame((100 + 900 * (truth > 0)).astype(np.uint16)), truth


@pytest.mark.filterwarnings("ignore")  # of the peers
@pytest.mark.parametrize("name", sorted(PEERS))
def test_a_peer_runs_or_says_what_is_missing(name: str):
    frame, truth = draw_discs()
    try:
        peer = PEERS[name](1, [truth])
    except MissingExtraError as error:
        assert "cytoloop[peers]" in str(error)
        pytest.skip(str(error))
    labels, effort = peer.segment(frame, 0)
    assert labels.count == truth.max() == 9
    assert effort.operations > 1e9
    assert effort.net_ms > 0
