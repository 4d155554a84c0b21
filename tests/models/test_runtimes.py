"""Runtimes on the processor: one contract, the same answer, and every bad file refused with its reason."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.errors import ModelError
from cytoloop.acquire.plugins import find_class, known_names
from cytoloop.models.runtimes.libraries import load_openvino
from cytoloop.models.runtimes.onnx import OnnxRuntime
from cytoloop.models.runtimes.onnx_file import content_hash, read_onnx_file
from cytoloop.models.runtimes.openvino import OpenvinoRuntime
from cytoloop.models.runtimes.runtime import Runtime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="the openvino extra is not installed"
)
RUNTIMES = ["onnxruntime", pytest.param("openvino", marks=needs_openvino)]


def open_runtime(name: str, path: Path, **options: Any) -> Any:
    return {"onnxruntime": OnnxRuntime, "openvino": OpenvinoRuntime}[name](path, **options)


@pytest.fixture
def net(write_net, tmp_path) -> Path:
    return write_net(tmp_path / "net.onnx")


def changed(path: Path, change: Any) -> Path:
    """Write the net again after a change to its model."""
    import onnx

    model = onnx.load(path)
    change(model)
    onnx.save(model, path.with_name("changed.onnx"))
    return path.with_name("changed.onnx")


@pytest.mark.parametrize("name", known_names("runtimes"))
def test_every_registered_runtime_is_one_and_goes_by_its_name(name):
    kind = find_class("runtimes", name)
    assert kind.name == name
    assert next(iter(inspect.signature(kind).parameters)) == "weights"
    assert list(inspect.signature(kind.run).parameters) == ["self", "tensor"]


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_says_what_it_is_and_computes_the_net(name, net, planes):
    runtime = open_runtime(name, net)
    assert isinstance(runtime, Runtime)
    assert (runtime.name, runtime.device, runtime.precision) == (name, "cpu", "fp32")
    (logits,) = runtime.run(planes)
    assert logits.shape == (1, 3, 48, 64)
    assert logits.dtype == np.float32
    assert logits.std() > 0.1


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_agrees_with_the_definition_of_the_operators(name, net, planes):
    from onnx.reference import ReferenceEvaluator

    (expected,) = ReferenceEvaluator(str(net)).run(None, {"planes": planes})
    (logits,) = open_runtime(name, net).run(planes)
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_answer_is_the_same_bits_from_run_to_run_and_for_any_number_of_threads(name, net, planes):
    first = open_runtime(name, net, threads=1).run(planes)[0].copy()
    for threads in (1, 2):
        runtime = open_runtime(name, net, threads=threads)
        for shape in (planes, planes[:, :, :64, :64].copy(), planes):
            answer = runtime.run(shape)[0]
            if shape is planes:
                assert answer.tobytes() == first.tobytes()


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize(
    "shape",
    [(1, 2, 64, 64), (1, 64, 64), (1, 1, 0, 64), (2, 1, 64, 64)],
    ids=["channels", "axes", "empty", "batch"],
)
def test_a_tensor_of_the_wrong_shape_is_refused_with_both_shapes(name, net, shape):
    runtime = open_runtime(name, net)
    with pytest.raises(ModelError) as refused:
        runtime.run(np.zeros(shape, np.float32))
    assert "net.onnx: takes float32 of shape (1, 1, y, x), got float32 of shape " + str(shape) in str(
        refused.value
    )


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_tensor_of_another_type_or_of_odd_size_is_refused(name, net):
    runtime = open_runtime(name, net)
    with pytest.raises(ModelError, match="got float64"):
        runtime.run(np.zeros((1, 1, 64, 64)))
    with pytest.raises(ModelError, match=r"net.onnx: fails on a tensor of shape \(1, 1, 50, 50\): \w+"):
        runtime.run(np.zeros((1, 1, 50, 50), np.float32))
    assert runtime.run(np.zeros((1, 1, 64, 64), np.float32))[0].shape == (1, 3, 32, 32)


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_operator_that_nobody_has_is_refused_by_name(name, net):
    def change(model):
        model.graph.node[0].op_type = "Sorcery"

    with pytest.raises(ModelError, match=r"changed.onnx: .*Sorcery"):
        open_runtime(name, changed(net, change))


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_node_without_its_input_is_refused(name, net):
    def change(model):
        model.graph.node[1].input[0] = "nowhere"

    with pytest.raises(ModelError, match=r"changed.onnx: .*nowhere"):
        open_runtime(name, changed(net, change))


def test_a_device_that_is_not_there_is_refused_and_what_is_there_is_told(net):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime computes on CUDA")
    with pytest.raises(ModelError, match=r"'cuda' needs CUDAExecutionProvider; .*CPUExecutionProvider"):
        OnnxRuntime(net, device="cuda")


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_reports_to_nobody_and_leaves_nothing_in_the_users_home(name, net, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys; from pathlib import Path; from cytoloop.acquire.plugins import find_class\n"
        f"find_class('runtimes', {name!r})(Path({str(net)!r}))\n"
        "print([m for m in sys.modules if 'openvino_telemetry' in m])"
    )
    places = {key: str(home) for key in ("HOME", "USERPROFILE", "LOCALAPPDATA", "APPDATA", "XDG_CACHE_HOME")}
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"} | places
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert answer.stdout.strip() == "[]"
    assert list(home.rglob("*")) == []


@needs_openvino
def test_a_precision_that_the_processor_lacks_is_refused(net):
    has = load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision, capability in (("bf16", "BF16"), ("fp16", "FP16")):
        if capability in has:
            assert OpenvinoRuntime(net, precision=precision).precision == precision
        else:
            with pytest.raises(ModelError, match=f"computes no {precision}; it has .*FP32"):
                OpenvinoRuntime(net, precision=precision)


def test_a_file_tells_its_input_outputs_and_precision(net):
    import onnx

    file = read_onnx_file(net)
    assert (file.input_name, file.input_shape, file.output_names) == (
        "planes",
        (1, 1, None, None),
        ("logits",),
    )
    assert (file.opset, file.precision, file.external) == (17, "fp32", ())
    assert file.opset == onnx.load(net).opset_import[0].version


def test_the_hash_follows_the_weights_wherever_they_lie(net, write_net, tmp_path):
    import onnx

    apart = tmp_path / "apart.onnx"
    onnx.save(onnx.load(net), apart, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (held,) = read_onnx_file(apart).external
    assert held.name == "weights.bin"
    before = content_hash(read_onnx_file(apart))
    content = bytearray(held.read_bytes())
    content[10] ^= 1
    held.write_bytes(content)
    assert content_hash(read_onnx_file(apart)) != before
    assert content_hash(read_onnx_file(write_net(tmp_path / "other.onnx", seed=1))) != content_hash(
        read_onnx_file(net)
    )


def test_weights_outside_of_the_folder_or_missing_are_refused(net, tmp_path):
    import onnx

    apart = tmp_path / "inside" / "apart.onnx"
    apart.parent.mkdir()
    onnx.save(onnx.load(net), apart, save_as_external_data=True, location="weights.bin", size_threshold=0)
    apart.with_name("weights.bin").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"needs \d+ bytes of 'weights.bin', which is shorter"):
        read_onnx_file(apart)
    apart.with_name("weights.bin").unlink()
    with pytest.raises(ModelError, match="'weights.bin', which is missing"):
        read_onnx_file(apart)

    def escape(model):
        for entry in model.graph.initializer[0].external_data:
            if entry.key == "location":
                entry.value = "../net.onnx"

    model = onnx.load(apart, load_external_data=False)
    escape(model)
    apart.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside of its folder"):
        read_onnx_file(apart)


def _claim(model):
    model.graph.initializer[0].dims[:] = [50_000, 50_000]


def _claim_in_numbers(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.dims[:] = [50_000, 50_000]
    tensor.float_data.extend([1.0] * 4)


def _hold_nothing(model):
    model.graph.initializer[0].ClearField("raw_data")


def _old(model):
    model.opset_import[0].version = 3


def _future(model):
    model.opset_import[0].version = 99


def _two_inputs(model):
    model.graph.input.add().CopyFrom(model.graph.input[0])
    model.graph.input[1].name = "second"


def _integers_in(model):
    model.graph.input[0].type.tensor_type.elem_type = 2


def _five_axes(model):
    model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = 4


def _no_output(model):
    del model.graph.output[:]


def _no_graph(model):
    model.ClearField("graph")


def _fill(model):
    import onnx

    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([50_000, 50_000]), "huge"))
    model.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["huge"], ["filled"]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_claim, r"tensor 'weight0' claims 10000000000 bytes and holds \d+"),
        (_claim_in_numbers, "tensor 'weight0' claims 2500000000 numbers and holds at most"),
        (_hold_nothing, "tensor 'weight0' claims"),
        (_old, "opset 3; 7 to"),
        (_future, "opset 99; 7 to"),
        (_two_inputs, "one input tensor is needed; it has 2: 'planes', 'second'"),
        (_integers_in, "input 'planes' is uint8; float32 is needed"),
        (_five_axes, r"input 'planes' is of 5 axes; \(n, channels, y, x\) is needed"),
        (_no_output, "it has no output"),
        (_no_graph, "damaged, or no ONNX file: there is no graph in it"),
        (_fill, "a node ConstantOfShape makes 2500000000 numbers"),
    ],
)
def test_a_file_that_claims_too_much_or_is_no_image_net_is_refused_before_it_is_opened(net, change, reason):
    with pytest.raises(ModelError, match=f"changed.onnx: {reason}"):
        read_onnx_file(changed(net, change))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a net", bytes(range(256)) * 40, b"\x00" * 64])
def test_a_file_that_is_no_onnx_is_refused(content, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="net.onnx: "):
        OnnxRuntime(path)
    with pytest.raises(ModelError, match="no.onnx: cannot be read"):
        OnnxRuntime(tmp_path / "no.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        OnnxRuntime(tmp_path)


def test_a_file_that_was_cut_anywhere_is_refused(net, tmp_path):
    content, path = net.read_bytes(), tmp_path / "cut.onnx"
    for length in np.linspace(1, len(content) - 1, 60).astype(int):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match="cut.onnx: "):
            read_onnx_file(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_gets_through_as_another_kind_of_error(write_net, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    path = folder / "net.onnx"
    original = folder / "original"
    if not original.exists():
        original.write_bytes(write_net(path, width=2, levels=1).read_bytes())
    content = bytearray(original.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        OnnxRuntime(path).run(np.zeros((1, 1, 16, 16), np.float32))
    except ModelError as error:
        assert "net.onnx: " in str(error)
