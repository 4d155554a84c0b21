"""Less precision: what is written runs everywhere, is near to fp32, and what cannot be converted is refused."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from cytoloop.acquire.errors import ModelError
from cytoloop.models.runtimes.onnx import OnnxRuntime
from cytoloop.models.runtimes.onnx_file import read_onnx_file
from cytoloop.models.runtimes.openvino import OpenvinoRuntime
from cytoloop.models.runtimes.precision import to_fp16, to_int8

onnx = pytest.importorskip("onnx", reason="the int8 extra is not installed")
RUNTIMES = [OnnxRuntime, *([OpenvinoRuntime] if find_spec("openvino") else [])]


def distance(answer, expected):
    """Root of the mean squared difference, in standard deviations of what is expected."""
    return float(np.sqrt(np.mean((answer - expected) ** 2)) / expected.std())


def single(path, operator, *, attributes=None, inputs=("planes",), weights=(), opset=17):
    """Write a net of one operator."""
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node(operator, list(inputs), ["logits"], **(attributes or {}))
    shape = [1, 1, "y", "x"]
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("planes", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name)
def test_a_half_precision_net_is_half_as_large_takes_fp32_and_differs_by_rounding(
    runtime, write_net, planes, tmp_path
):
    net = write_net(tmp_path / "net.onnx", width=16)
    half = to_fp16(net, tmp_path / "half.onnx")
    assert half.stat().st_size < 0.55 * net.stat().st_size
    converted = runtime(half)
    assert converted.precision == "fp16"
    answer, expected = converted.run(planes)[0], OnnxRuntime(net).run(planes)[0]
    assert answer.dtype == np.float32
    assert 0 < distance(answer, expected) < 2e-3


def test_all_convolutions_of_a_half_precision_net_are_half(write_net, tmp_path):
    half = onnx.load(to_fp16(write_net(tmp_path / "net.onnx"), tmp_path / "half.onnx"))
    weights = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    kernels = [weights[node.input[1]] for node in half.graph.node if node.op_type == "Conv"]
    assert len(kernels) > 5
    assert set(kernels) == {onnx.TensorProto.FLOAT16}
    assert [node.op_type for node in half.graph.node].count("Cast") == 2


@pytest.mark.parametrize(
    ("operator", "attributes", "weights"),
    [
        ("Softmax", {"axis": 1}, ()),
        ("Exp", {}, ()),
        (
            "Resize",
            {"mode": "nearest"},
            (("roi", np.zeros(0, np.float32)), ("scales", np.float32([1, 1, 2, 2]))),
        ),
        ("Cast", {"to": 1}, ()),
        ("Pad", {}, (("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1])), ("value", np.float32(0.5)))),
        ("Clip", {}, (("low", np.float32(-0.5)), ("high", np.float32(0.5)))),
    ],
)
def test_operators_with_inputs_of_fixed_type_are_converted_rightly(
    operator, attributes, weights, planes, tmp_path
):
    inputs = ("planes", *(name for name, _ in weights))
    net = single(tmp_path / "net.onnx", operator, attributes=attributes, inputs=inputs, weights=weights)
    answer = OnnxRuntime(to_fp16(net, tmp_path / "half.onnx")).run(planes)[0]
    expected = OnnxRuntime(net).run(planes)[0]
    assert answer.shape == expected.shape
    assert np.abs(answer - expected).max() <= 1e-3 * np.abs(expected).max()


def test_a_weight_beyond_fp16_is_refused_by_name(tmp_path):
    net = single(tmp_path / "net.onnx", "Mul", inputs=("planes", "w"), weights=[("w", np.float32(1e6))])
    with pytest.raises(ModelError, match=r"net.onnx: 'w' holds 1e\+06; fp16 ends at 65504"):
        to_fp16(net, tmp_path / "half.onnx")


def test_only_an_fp32_net_is_converted(write_net, planes, tmp_path):
    half = to_fp16(write_net(tmp_path / "net.onnx"), tmp_path / "half.onnx")
    for convert in (
        lambda: to_fp16(half, tmp_path / "x.onnx"),
        lambda: to_int8(half, tmp_path / "x.onnx", [planes]),
    ):
        with pytest.raises(ModelError, match="half.onnx: is fp16; only an fp32 net"):
            convert()


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name)
@pytest.mark.parametrize("runs_on", ["processor", "tensorrt"])
def test_a_quantised_net_is_a_third_of_the_size_and_near_to_fp32(
    runtime, runs_on, write_net, planes, tmp_path
):
    net = write_net(tmp_path / "net.onnx", width=32)
    quantised = to_int8(net, tmp_path / "int8.onnx", [planes], runs_on=runs_on)
    assert quantised.stat().st_size < 0.4 * net.stat().st_size
    converted = runtime(quantised)
    assert converted.precision == "int8"
    answer, expected = converted.run(planes)[0], OnnxRuntime(net).run(planes)[0]
    assert 1e-4 < distance(answer, expected) < 0.1


def test_the_calibration_frames_decide_the_ranges(write_net, planes, tmp_path):
    net = write_net(tmp_path / "net.onnx", width=16)
    expected = OnnxRuntime(net).run(planes)[0]
    apart = {
        gain: distance(
            OnnxRuntime(to_int8(net, tmp_path / "int8.onnx", [gain * planes])).run(planes)[0], expected
        )
        for gain in (np.float32(1), np.float32(0.1), np.float32(20))
    }
    assert apart[np.float32(1)] < 0.5 * min(apart[np.float32(0.1)], apart[np.float32(20)])


def test_a_net_quantised_for_tensorrt_has_only_what_it_knows(write_net, planes, tmp_path):
    quantised = onnx.load(
        to_int8(write_net(tmp_path / "net.onnx"), tmp_path / "int8.onnx", [planes], runs_on="tensorrt")
    )
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
    quantisers = [
        node for node in quantised.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    ]
    assert len(quantisers) > 10
    for node in quantisers:
        zero = weights[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()


def test_quantising_needs_frames_that_fit(write_net, planes, tmp_path):
    net = write_net(tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="net.onnx: quantising needs at least one frame"):
        to_int8(net, tmp_path / "int8.onnx", [])
    with pytest.raises(ModelError, match=r"net.onnx: takes float32 of shape \(1, 1, y, x\)"):
        to_int8(net, tmp_path / "int8.onnx", [planes.repeat(2, axis=1)])


def test_a_net_with_batch_normalisation_is_folded_before_it_is_quantised(planes, tmp_path):
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = {"w": random.normal(0, 0.3, (4, 1, 3, 3)), "gain": random.uniform(0.5, 2, 4), "shift": np.zeros(4),
               "mean": random.normal(0, 0.1, 4), "variance": np.full(4, 0.7)}  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["planes", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", ["c", "gain", "shift", "mean", "variance"], ["logits"]),
        ],
        "net",
        [helper.make_tensor_value_info("planes", TensorProto.FLOAT, [1, 1, "y", "x"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4, "y", "x"])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    net = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), net)
    quantised = to_int8(net, tmp_path / "int8.onnx", [planes])
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(quantised).graph.node}
    assert distance(OnnxRuntime(quantised).run(planes)[0], OnnxRuntime(net).run(planes)[0]) < 0.05


def test_converting_leaves_the_source_alone_and_is_repeatable(write_net, planes, tmp_path):
    net = write_net(tmp_path / "net.onnx")
    before = net.read_bytes()
    halves = [to_fp16(net, tmp_path / f"{name}.onnx").read_bytes() for name in "ab"]
    quantised = [to_int8(net, tmp_path / f"{name}.onnx", [planes]).read_bytes() for name in "cd"]
    assert net.read_bytes() == before
    assert halves[0] == halves[1]
    assert quantised[0] == quantised[1]
    assert read_onnx_file(tmp_path / "c.onnx").precision == "int8"
