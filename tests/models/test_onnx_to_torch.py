"""ONNX nets as modules of torch: each operator says what ONNX Runtime says, and what torch cannot do is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from cytoloop.acquire.errors import MissingExtraError, ModelError
from cytoloop.models.runtimes.onnx import OnnxRuntime
from cytoloop.models.runtimes.precision import to_fp16, to_int8
from cytoloop.models.runtimes.torch import TorchRuntime

pytest.importorskip("torch", reason="the train extra is not installed")
helper = pytest.importorskip("onnx.helper", reason="the train extra is not installed")
RANDOM = np.random.default_rng(3)


def drawn(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def floats(*values):
    return np.array(values, np.float32)


def whole(*values):
    return np.array(values, np.int64)


def node(operator, inputs, output="out", **attributes):
    return helper.make_node(
        operator, inputs.split(" "), [output], name=f"{operator} of {output}", **attributes
    )


def write(path, nodes, *, channels=4, opset=17, domain=None, outputs=("out",), **weights):
    """Write the graph of some nodes, from ``x`` (n, channels, y, x) and weights by their names to ``out``."""
    from onnx import TensorProto, numpy_helper, save

    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, "h", "w"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8 if opset < 21 else 10), path)
    return path


def agree(path, *shapes):
    """Compare torch with ONNX Runtime on images of some shapes."""
    runtime, reference = TorchRuntime(path, device="cpu"), OnnxRuntime(path, device="cpu")
    for shape in shapes:
        planes = drawn(*shape)
        found, wanted = runtime.run(planes), reference.run(planes)
        assert [output.shape for output in found] == [output.shape for output in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert one.dtype == np.float32
            assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()


def one(operator, inputs="x", *, opset=17, channels=4, weights=None, **attributes):
    name = f"{operator}-{opset}-{'-'.join(str(value) for value in attributes.values())}"
    return pytest.param(
        [node(operator, inputs, **attributes)], opset, channels, weights or {}, id=name.replace(" ", "")
    )


KERNEL = {"w": drawn(6, 4, 3, 3), "b": drawn(6)}
UNEVEN = {"w": drawn(6, 4, 2, 5)}
NORM = {"s": drawn(4), "b": drawn(4), "m": drawn(4), "v": np.abs(drawn(4)) + np.float32(0.1)}
TWICE = {"s": floats(1, 1, 2, 2)}

OPERATORS = [
    one("Conv", "x w b", weights=KERNEL, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    one("Conv", "x w b", weights=KERNEL, pads=[0, 2, 1, 0], strides=[2, 3]),
    one("Conv", "x w", weights=UNEVEN, pads=[1, 2, 0, 2], dilations=[3, 2]),
    one("Conv", "x w", weights={"w": drawn(8, 2, 3, 3)}, group=2, strides=[2, 1]),
    one("Conv", "x w b", weights={"w": drawn(4, 1, 3, 3), "b": drawn(4)}, group=4, dilations=[2, 2]),
    one("Conv", "x w b", weights=KERNEL, auto_pad="SAME_UPPER", strides=[2, 2]),
    one("Conv", "x w", weights=UNEVEN, auto_pad="SAME_LOWER", strides=[2, 2]),
    one("Conv", "x w b", weights=KERNEL, auto_pad="VALID"),
    one("ConvTranspose", "x w b", weights={"w": drawn(4, 6, 2, 2), "b": drawn(6)}, strides=[2, 2]),
    one(
        "ConvTranspose",
        "x w",
        weights={"w": drawn(4, 3, 3, 3)},
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        output_padding=[1, 1],
        group=2,
    ),
    one("ConvTranspose", "x w", weights={"w": drawn(4, 3, 4, 5)}, strides=[2, 3], pads=[0, 1, 2, 1]),
    one("ConvTranspose", "x w", weights={"w": drawn(4, 3, 3, 3)}, dilations=[2, 2], pads=[2, 2, 1, 0]),
    one("BatchNormalization", "x s b m v", weights=NORM, epsilon=1e-3),
    one("InstanceNormalization", "x s b", weights={"s": NORM["s"], "b": NORM["b"]}, epsilon=1e-4),
    *(
        one("GroupNormalization", "x s b", opset=opset, num_groups=2, weights={"s": drawn(n), "b": drawn(n)})
        for opset, n in ((18, 2), (21, 4))
    ),
    *(one(name) for name in ("Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "Softplus", "HardSigmoid")),
    *(one(name) for name in ("HardSwish", "Identity", "Abs", "Neg", "Floor", "Ceil", "Exp", "Dropout")),
    one("LeakyRelu", alpha=0.3),
    one("Elu", alpha=0.5),
    one("HardSigmoid", alpha=0.1, beta=0.4),
    one("PRelu", "x s", weights={"s": drawn(4, 1, 1)}),
    *(one("Softmax", axis=axis) for axis in (1, -1)),
    one("Softmax", opset=11),
    one("Softmax", opset=11, axis=2),
    one("Clip", "x low high", weights={"low": np.float32(-0.5), "high": np.float32(0.7)}),
    one("Clip", "x  high", weights={"high": np.float32(0.2)}),
    one("Clip", opset=9, min=-0.25, max=0.5),
    *(
        one(name, "x k", weights={"k": drawn(4, 1, 1) + np.float32(3)})
        for name in ("Add", "Sub", "Mul", "Div")
    ),
    one("Sub", "k x", weights={"k": np.float32(2)}),
    one("Pow", "x k", weights={"k": np.float32(2)}),
    one("Concat", "x x", axis=1),
    one("Concat", "x x", axis=-1),
    one("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
    one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    one("MaxPool", kernel_shape=[3, 2], strides=[2, 1], pads=[0, 1, 2, 0]),
    one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    one("MaxPool", kernel_shape=[3, 3], strides=[1, 2], dilations=[2, 2]),
    one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    one("AveragePool", kernel_shape=[2, 3], strides=[2, 2]),
    one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], count_include_pad=1),
    one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    one("GlobalAveragePool"),
    one("GlobalMaxPool"),
    one("ReduceMean", axes=[2, 3]),
    one("ReduceMean", axes=[1], keepdims=0),
    one("ReduceMean", "x k", opset=18, weights={"k": whole(-1)}),
    one("Resize", "x  s", weights=TWICE),
    one("Resize", "x  s", weights={"s": floats(1, 1, 3, 1)}, nearest_mode="round_prefer_ceil"),
    one(
        "Resize",
        "x  s",
        weights={"s": floats(1, 1, 5, 2)},
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    one("Resize", "x  s", weights=TWICE, mode="linear"),
    one("Resize", "x  s", weights={"s": floats(1, 1, 1.5, 2.25)}, mode="linear"),
    one("Resize", "x  s", weights=TWICE, mode="linear", coordinate_transformation_mode="align_corners"),
    one("Resize", "x  s", weights=TWICE, mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
    one("Resize", "x   n", weights={"n": whole(2, 4, 40, 40)}, mode="linear"),
    one("Resize", "x  s", opset=18, weights={"s": floats(2, 2)}, axes=[2, 3]),
    one("Resize", "x r s", opset=11, weights={"s": floats(1, 1, 4, 4), "r": floats()}, mode="linear"),
    one("Resize", "x s", opset=10, weights=TWICE),
    one("Upsample", "x s", opset=9, weights=TWICE),
    one("Upsample", opset=7, scales=[1.0, 1.0, 2.0, 3.0]),
    *(one("SpaceToDepth", channels=channels, blocksize=4) for channels in (1, 3)),
    one("DepthToSpace", blocksize=2),
    *(one("DepthToSpace", channels=12, blocksize=2, mode=mode) for mode in ("DCR", "CRD")),
    one("Pad", "x k", weights={"k": whole(0, 0, 1, 2, 0, 0, 3, 0)}),
    one("Pad", "x k v", weights={"k": whole(0, 1, 1, 2, 0, 0, -3, 0), "v": np.float32(1.5)}),
    *(one("Pad", "x k", weights={"k": whole(0, 0, 1, 2, 0, 0, 3, 4)}, mode=m) for m in ("reflect", "edge")),
    one("Pad", "x k  a", opset=18, weights={"k": whole(1, 2, 3, 4), "a": whole(-1, 2)}),
    one("Pad", opset=10, pads=[0, 0, 1, 1, 0, 0, 2, 2], value=0.5),
    one("Reshape", "x k", weights={"k": whole(0, 2, 2, -1)}),
    one("Transpose", perm=[0, 2, 3, 1]),
    one("Transpose"),
    one(
        "Slice",
        "x a b c d",
        weights={"a": whole(1, -9), "b": whole(3, 2**62), "c": whole(1, -1), "d": whole(1, 2)},
    ),
    one("Slice", "x a b", weights={"a": whole(0, 1), "b": whole(9, -1)}),
    one("Slice", opset=9, starts=[2], ends=[-2], axes=[3]),
    one("Gather", "x k", weights={"k": np.array(2)}, axis=1),
    one("Gather", "x k", weights={"k": whole(3, 0, -1)}, axis=1),
    one("Unsqueeze", "x k", weights={"k": whole(-1, 0)}),
    one("Unsqueeze", opset=11, axes=[2]),
    one("Squeeze", "x k", channels=1, weights={"k": whole(1)}),
    one("Squeeze", opset=11, channels=1, axes=[1]),
    one("Cast", to=1),
]


@pytest.mark.parametrize(("nodes", "opset", "channels", "weights"), OPERATORS)
def test_each_operator_says_what_onnx_runtime_says(nodes, opset, channels, weights, tmp_path):
    agree(
        write(tmp_path / "net.onnx", nodes, opset=opset, channels=channels, **weights),
        (2, channels, 16, 20),
        (2, channels, 24, 12),
    )


def test_windows_of_odd_sides_and_pads_say_what_onnx_runtime_says(tmp_path):
    nodes = [
        node("Conv", "x w", "a", pads=[0, 1, 2, 1], strides=[3, 2]),
        node("MaxPool", "a", "b", kernel_shape=[2, 3], strides=[2, 2], pads=[1, 0, 0, 1]),
        node("ConvTranspose", "b v", strides=[2, 3], pads=[0, 1, 1, 0]),
    ]
    path = write(tmp_path / "net.onnx", nodes, w=drawn(5, 4, 3, 3), v=drawn(5, 2, 3, 3))
    agree(path, (1, 4, 37, 41), (1, 4, 64, 29))


def test_sizes_that_follow_the_image_are_computed_without_the_card(tmp_path):
    """As torch exports interpolate(x, size=skip.shape[2:]) and a normalisation of groups."""
    nodes = [
        node("MaxPool", "x", "small", kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", "x", "shape"),
        node("Slice", "shape two four", "sides"),
        node("Shape", "small", "all"),
        node("Slice", "all zero two", "others"),
        node("Cast", "sides", "real", to=1),
        node("Mul", "real one", "scaled"),
        node("Cast", "scaled", "again", to=7),
        node("Concat", "others again", "sizes", axis=0),
        node("Resize", "small   sizes", "large", mode="linear"),
        node("Gather", "shape first", "n"),
        node("Unsqueeze", "n zero", "n1"),
        node("Concat", "n1 groups", "grouped", axis=0),
        node("Reshape", "large grouped", "r"),
        node("InstanceNormalization", "r s b", "i"),
        node("Reshape", "i shape", "back"),
        node("Unsqueeze", "scale axes", "gain"),
        node("Mul", "back gain", "once"),
        node("Identity", "gain", "same"),  # of constants alone, and the same tensor under another name
        node("Mul", "once same"),
    ]
    path = write(
        tmp_path / "net.onnx",
        nodes,
        two=whole(2),
        four=whole(4),
        zero=whole(0),
        one=floats(1),
        first=np.array(0),
        groups=whole(2, -1),
        s=floats(1, 1),
        b=floats(0, 0),
        scale=drawn(4),
        axes=whole(1, 2),
    )
    agree(path, (1, 4, 16, 24), (3, 4, 32, 8))


def test_constants_within_the_graph_and_several_outputs_are_understood(tmp_path):
    from onnx import numpy_helper

    nodes = [
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(drawn(4, 1, 1))),
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Constant", [], ["sides"], value_ints=[0, -1]),
        node("Add", "x k", "a"),
        node("Mul", "a two", "b"),
        node("Reshape", "b sides", "c"),
    ]
    agree(write(tmp_path / "net.onnx", nodes, outputs=("c", "a")), (1, 4, 8, 8))


def test_weights_follow_half_and_numbers_do_not(tmp_path):
    import torch
    from cytoloop.models.runtimes.onnx_file import read_onnx_file
    from cytoloop.models.runtimes.onnx_to_torch import OnnxModule

    nodes = [
        node("Conv", "x w b", "a"),
        node("Clip", "a low", "b1"),
        node("Mul", "b1 k", "c"),
        node("Resize", "c  s"),
    ]
    low, k = np.float32(0.1), floats(0.3)
    path = write(tmp_path / "net.onnx", nodes, low=low, k=k, **KERNEL, **TWICE)
    module = OnnxModule(read_onnx_file(path)).to(memory_format=torch.channels_last)
    assert [tuple(weight.shape) for weight in module.buffers()] == [(6, 4, 3, 3), (6,), (1,)]
    assert next(module.buffers()).is_contiguous(memory_format=torch.channels_last)
    planes = drawn(1, 4, 32, 32)
    with torch.inference_mode():
        (exact,) = module(torch.from_numpy(planes))
        (half,) = module.half()(torch.from_numpy(planes).half())
    assert half.dtype == torch.float16
    assert {weight.dtype for weight in module.buffers()} == {torch.float16}
    assert (half - exact).abs().max() < 5e-3 * exact.abs().max()


REFUSED = {
    "operators": ([node("Einsum", "x x", "a", equation="ij,jk"), node("LRN", "a", size=3)], "Einsum, LRN"),
    "domain": ([helper.make_node("Conv", ["x"], ["out"], domain="com.microsoft")], "com.microsoft::Conv"),
    "coordinates": (
        [node("Resize", "x  s", mode="linear", coordinate_transformation_mode="asymmetric")],
        r"node 'Resize of out' \(Resize\): linear, asymmetric cannot be computed exactly",
    ),
    "rounding": ([node("Resize", "x  s", nearest_mode="ceil")], "nearest, half_pixel, ceil cannot"),
    "cubic": ([node("Resize", "x  s", mode="cubic")], "mode is cubic; nearest or linear can"),
    "output_shape": ([node("ConvTranspose", "x s", output_shape=[9, 9])], "output_shape cannot"),
    "pads": (
        [node("AveragePool", "x", kernel_shape=[2, 2], pads=[0, 0, 1, 1])],
        r"pads \[0, 0, 1, 1\] cannot be computed",
    ),
    "outputs": (
        [helper.make_node("MaxPool", ["x"], ["out", "indices"], kernel_shape=[2, 2])],
        "has 2 outputs in use",
    ),
    "nowhere": ([node("Add", "x nothing")], "input 'nothing' comes from nowhere"),
    "twice": ([node("Relu", "x"), node("Relu", "x")], "output 'out' is there already"),
    "constant": ([node("Relu", "s")], "output 'out' is not computed from the image"),
    "attribute": ([node("MaxPool", "x", kernel_shape="large")], "torch cannot compute|fails on a tensor"),
    "missing": ([node("MaxPool", "x")], "MaxPool"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_torch_cannot_compute_is_refused_with_its_name_and_what_to_use(what, tmp_path):
    nodes, told = REFUSED[what]
    path = write(tmp_path / "net.onnx", nodes, domain="com.microsoft", **TWICE)
    with pytest.raises(ModelError, match=told) as refused:
        TorchRuntime(path, device="cpu").run(drawn(1, 4, 8, 8))
    assert "net.onnx" in str(refused.value)
    if "operators" in what or "domain" in what:
        assert "use the runtime onnxruntime, or tensorrt" in str(refused.value)


def test_what_shows_only_with_an_image_is_refused_then(tmp_path):
    nodes = [node("Resize", "x  s")]
    runtime = TorchRuntime(write(tmp_path / "net.onnx", nodes, s=floats(1, 1, 1.5, 1.5)), device="cpu")
    with pytest.raises(ModelError, match=r"fails on a tensor of shape .*: nearest px for the factors \[1.5"):
        runtime.run(drawn(1, 4, 8, 8))
    with pytest.raises(ModelError, match=r"net.onnx: takes float32 of shape \(n, 4, y, x\), got .*\(1, 3"):
        runtime.run(drawn(1, 3, 8, 8))


def test_a_damaged_file_is_refused_before_any_library_opens_it(tmp_path, write_net, monkeypatch):
    content = write_net(tmp_path / "net.onnx").read_bytes()
    monkeypatch.setattr("onnx.load", lambda *_: pytest.fail("was opened"))
    for name, damaged in {"cut": content[:-999], "empty": b"", "text": b"weights of a net"}.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=f"{name}.onnx: "):
            TorchRuntime(path, device="cpu")
    with pytest.raises(ModelError, match=r"missing.onnx: cannot be read"):
        TorchRuntime(tmp_path / "missing.onnx", device="cpu")


def test_nets_in_less_precision_are_refused(tmp_path, write_net, planes):
    net = write_net(tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"int8.onnx: is int8; torch runs fp32 nets only: use .*onnxruntime"):
        TorchRuntime(to_int8(net, tmp_path / "int8.onnx", [planes]), device="cpu")
    with pytest.raises(ModelError, match=r"half.onnx: is fp16; torch runs fp32 nets only"):
        TorchRuntime(to_fp16(net, tmp_path / "half.onnx"), device="cpu")


def test_without_the_package_onnx_its_extra_is_named(tmp_path, write_net, monkeypatch):
    path = write_net(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"onnx is not installed; .*cytoloop\[train\]"):
        TorchRuntime(path, device="cpu")
