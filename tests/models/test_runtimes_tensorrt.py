"""TensorRT: engines are built here without a card, kept, checked and rebuilt; with a card they run."""

from __future__ import annotations

import numpy as np
import pytest
from cytoloop.acquire.errors import MissingExtraError, ModelError
from cytoloop.models.packages.package import known_packages, load_package
from cytoloop.models.runtimes import cuda, engines
from cytoloop.models.runtimes.drawn import drawn_frame
from cytoloop.models.runtimes.engines import build_ahead, engine_for
from cytoloop.models.runtimes.onnx import OnnxRuntime
from cytoloop.models.runtimes.onnx_file import read_onnx_file
from cytoloop.models.runtimes.precision import to_fp16, to_int8
from cytoloop.models.runtimes.tensorrt import TensorrtRuntime
from cytoloop.models.runtimes.tensorrt_build import CAPABILITIES, ShapeRange, build_engine, load_tensorrt
from cytoloop.models.runtimes.ways import Way, file_of, is_here, net_of

SMALL = ShapeRange((64, 64), (96, 128), (256, 256))
needs_card = pytest.mark.skipif(
    not is_here("tensorrt"), reason="there is no NVIDIA card, or the tensorrt extra is not installed"
)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CYTOLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def rtx():
    pytest.importorskip("tensorrt_rtx", reason="the tensorrt extra is not installed")
    return load_tensorrt("tensorrt_rtx")


@pytest.fixture
def net(write_net, tmp_path):
    return write_net(tmp_path / "net.onnx")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_net_of_each_precision_is_built_ahead_for_every_card(precision, rtx, net, planes, tmp_path):
    path = {
        "fp32": lambda: net,
        "fp16": lambda: to_fp16(net, tmp_path / "fp16.onnx"),
        "int8": lambda: to_int8(net, tmp_path / "int8.onnx", [planes], runs_on="tensorrt"),
    }[precision]()
    steps = []
    engine = build_engine(
        read_onnx_file(path), rtx, SMALL, capabilities=CAPABILITIES, report=lambda *step: steps.append(step)
    )
    assert len(engine) > 10_000
    assert any(total and done == total for _, done, total in steps)


@pytest.mark.parametrize(
    "name",
    known_packages() or [pytest.param("", marks=pytest.mark.skip(reason="no net has been shipped yet"))],
)
def test_every_shipped_net_is_built_ahead_in_every_precision(name, rtx):
    net = net_of(load_package(name))
    for precision in ("fp32", "fp16", "int8"):
        path = file_of(Way("tensorrt", precision), net, [drawn_frame(net)])
        assert read_onnx_file(path).precision == precision
        assert len(build_engine(read_onnx_file(path), rtx, ShapeRange(), capabilities=CAPABILITIES)) > 10_000


def test_engines_are_built_once_and_then_found(rtx, net, cache, monkeypatch):
    first = build_ahead(net, capabilities=("8.6", "8.9"), shapes=SMALL)
    assert [path.parent for path in first] == [cache / "engines"] * 2
    assert len(set(first)) == 2
    monkeypatch.setattr(engines, "build_engine", lambda *_, **__: pytest.fail("was built again"))
    assert build_ahead(net, capabilities=("8.6", "8.9"), shapes=SMALL) == first


def test_an_engine_is_built_again_when_anything_it_was_made_of_changes(rtx, net, write_net, tmp_path):
    kept = set(build_ahead(net, capabilities=("8.6",), shapes=SMALL))
    kept.update(build_ahead(net, capabilities=("8.6",), shapes=ShapeRange((64, 64), (96, 96), (256, 256))))
    kept.update(build_ahead(net, capabilities=("8.9",), shapes=SMALL))
    kept.update(build_ahead(to_fp16(net, tmp_path / "half.onnx"), capabilities=("8.6",), shapes=SMALL))
    write_net(net, seed=1)
    kept.update(build_ahead(net, capabilities=("8.6",), shapes=SMALL))
    assert len(kept) == 5


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_a_damaged_engine_is_noticed_told_and_built_again(damage, rtx, net, caplog):
    (path,) = build_ahead(net, capabilities=("8.6",), shapes=SMALL)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes({
        "flip": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "cut": whole[:middle],
        "empty": b"",
        "other": b"an engine of somebody else\n" * 100,
    }[damage])  # fmt: skip
    told = []
    again, _ = engine_for(read_onnx_file(net), rtx, "", "8.6", SMALL, lambda text, *_: told.append(text))
    assert "the engine is built again" in told[0]
    assert path.name in told[0]
    assert path.name in caplog.text
    assert len(again) > 10_000
    told.clear()
    assert (
        engine_for(read_onnx_file(net), rtx, "", "8.6", SMALL, lambda text, *_: told.append(text))[0] == again
    )
    assert told == []


def test_an_engine_that_cannot_be_kept_is_used_all_the_same(rtx, net, cache, caplog):
    cache.write_text("a file where the folder should be")
    engine, _ = engine_for(read_onnx_file(net), rtx, "", "8.6", SMALL, engines.silent)
    assert len(engine) > 10_000
    assert "cannot be kept" in caplog.text


def test_a_card_that_rtx_does_not_know_is_refused_with_what_to_do(rtx, net):
    with pytest.raises(
        ModelError, match=r"builds for compute capability 7.5, .*not 9.0: .*pip install tensorrt"
    ):
        build_ahead(net, capabilities=("9.0",), shapes=SMALL)


def test_what_tensorrt_cannot_build_is_refused_with_the_node(rtx, net, planes, tmp_path):
    quantised = to_int8(net, tmp_path / "int8.onnx", [planes], runs_on="processor")
    with pytest.raises(ModelError, match=r"int8.onnx: tensorrt_rtx cannot read it: .*node"):
        build_ahead(quantised, capabilities=("8.6",), shapes=SMALL)


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("cytoloop.models.runtimes.tensorrt_build.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"tensorrt or tensorrt_rtx is not installed.*cytoloop\[tensorrt\]"
    ):
        load_tensorrt()


@pytest.mark.skipif(bool(cuda.cards()), reason="there is an NVIDIA card")
def test_without_a_card_the_runtime_says_so(rtx, net):
    with pytest.raises(ModelError, match=r"no NVIDIA (driver|card)"):
        TensorrtRuntime(net)


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("fp16", 5e-3), ("int8", 0.1)])
def test_an_engine_agrees_with_the_reference_on_the_card(precision, most, net, planes, tmp_path):
    path = {
        "fp32": lambda: net,
        "fp16": lambda: to_fp16(net, tmp_path / "fp16.onnx"),
        "int8": lambda: to_int8(net, tmp_path / "int8.onnx", [planes], runs_on="tensorrt"),
    }[precision]()
    runtime, reference = TensorrtRuntime(path, shapes=SMALL), OnnxRuntime(net, device="cpu")
    assert (runtime.precision, runtime.device) == (precision, cuda.Card().name)
    for tensor in (planes, planes[:, :, :64, :64].copy(), planes[:, :, 16:80].copy(), planes):
        (answer,) = runtime.run(tensor)
        (expected,) = reference.run(tensor)
        assert answer.shape == expected.shape
        assert np.sqrt(np.mean((answer - expected) ** 2)) < most * expected.std()
        first = answer.copy()
        assert runtime.run(tensor)[0].tobytes() == first.tobytes()


@pytest.mark.gpu
@needs_card
def test_a_size_beyond_the_engine_is_refused_and_the_next_frame_works(net, planes):
    runtime = TensorrtRuntime(net, shapes=SMALL)
    with pytest.raises(ModelError, match="64x64 96x128 256x256, got 512x512"):
        runtime.run(np.zeros((1, 1, 512, 512), np.float32))
    assert runtime.run(planes)[0].shape == (1, 3, 48, 64)


@pytest.mark.gpu
@needs_card
def test_outputs_outlive_the_runtime(net, planes):
    runtime = TensorrtRuntime(net, shapes=SMALL)
    (answer,) = runtime.run(planes)
    copy = answer.copy()
    del runtime
    assert (answer == copy).all()
