"""torch: ONNX and TorchScript on the processor, and on a card with CUDA graphs."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np
import pytest
from cytoloop.acquire.errors import ModelError
from cytoloop.models.packages.package import known_packages, load_package
from cytoloop.models.runtimes import cuda
from cytoloop.models.runtimes.choose import build_runtime
from cytoloop.models.runtimes.onnx import OnnxRuntime
from cytoloop.models.runtimes.runtime import Runtime
from cytoloop.models.runtimes.torch import TorchRuntime
from cytoloop.models.runtimes.ways import Net, Way, file_of, net_of, ways

torch = pytest.importorskip("torch", reason="the train extra is not installed")
needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA card")
needs_onnx = pytest.mark.skipif(find_spec("onnx") is None, reason="the train extra is not installed")
SHIPPED = known_packages() or [pytest.param("", marks=pytest.mark.skip(reason="no net has been shipped yet"))]
SHAPES = ((1, 1, 96, 128), (1, 1, 160, 64))


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CYTOLOOP_CACHE", str(tmp_path / "cache"))


def drawn(shape):
    return np.random.default_rng(shape[-1]).normal(size=shape).astype(np.float32)


def apart(found, wanted):
    """Return the largest difference between two answers, over the largest number in the second."""
    assert [output.shape for output in found] == [output.shape for output in wanted]
    return max(
        np.abs(one - other).max() / np.abs(other).max() for one, other in zip(found, wanted, strict=True)
    )


@pytest.fixture(scope="module")
def net():
    """A small net in eager mode: (n, 1, y, x) -> logits at half size, and one number."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = torch.nn.Conv2d(1, 16, 3, stride=2, padding=1)
            self.head = torch.nn.Conv2d(16, 3, 1)

        def forward(self, planes):
            logits = self.head(torch.relu(self.stem(planes)))
            return logits, logits.mean()

    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def path(net, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(net).save(str(tmp_path / "net.pt"))
    return tmp_path / "net.pt"


@pytest.fixture
def tensor():
    return np.random.default_rng(0).normal(size=(1, 1, 96, 128)).astype(np.float32)


def test_a_torchscript_file_runs_as_the_net_it_was_made_of(net, path, tensor):
    runtime = TorchRuntime(path, device="cpu")
    assert isinstance(runtime, Runtime)
    assert (runtime.name, runtime.device, runtime.precision) == ("torch", "cpu", "fp32")
    with torch.inference_mode():
        expected = [output.numpy() for output in net(torch.from_numpy(tensor))]
    outputs = runtime.run(tensor)
    assert [output.shape for output in outputs] == [(1, 3, 48, 64), ()]
    for output, wanted in zip(outputs, expected, strict=True):
        assert output.dtype == np.float32
        assert np.allclose(output, wanted, atol=1e-6)


def test_the_answer_is_the_same_bits_however_often_it_is_asked_for(path, tensor):
    runtime = TorchRuntime(path, device="cpu")
    answers = {runtime.run(tensor)[0].tobytes() for _ in range(6)}
    assert len(answers) == 1
    assert TorchRuntime(path, device="cpu").run(tensor)[0].tobytes() in answers


def test_a_tensor_that_does_not_fit_is_refused(path):
    runtime = TorchRuntime(path, device="cpu")
    with pytest.raises(ModelError, match=r"net.pt: fails on a tensor of shape \(1, 2, 8, 8\): .*1 channels"):
        runtime.run(np.zeros((1, 2, 8, 8), np.float32))
    with pytest.raises(ModelError, match="got float64"):
        runtime.run(np.zeros((1, 1, 8, 8)))


def test_a_file_that_is_no_torchscript_is_refused(path, tmp_path):
    whole = path.read_bytes()
    torch.save({"weights": torch.zeros(3)}, tmp_path / "state.pt")
    for name, content in {"cut.pt": whole[:1000], "empty.pt": b"", "text.pt": b"weights"}.items():
        (tmp_path / name).write_bytes(content)
    for name in ("cut.pt", "empty.pt", "text.pt", "state.pt", "missing.pt"):
        with pytest.raises(ModelError, match=f"{name}: torch cannot open it as TorchScript: "):
            TorchRuntime(tmp_path / name, device="cpu")


def test_half_precision_and_cards_that_are_not_there_are_refused(path):
    with pytest.raises(ModelError, match="fp16 on a card only"):
        TorchRuntime(path, device="cpu", precision="fp16")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="sees no NVIDIA card"):
            TorchRuntime(path, device="cuda")


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("fp16", 1e-2)])
def test_a_card_agrees_with_the_processor_for_every_size(precision, most, path, tensor):
    runtime, reference = TorchRuntime(path, precision=precision), TorchRuntime(path, device="cpu")
    assert runtime.device == torch.cuda.get_device_name()
    for given in (tensor, tensor[:, :, :64, :64].copy(), 2 * tensor, tensor):
        answers, expected = runtime.run(given), reference.run(given)
        assert [answer.shape for answer in answers] == [wanted.shape for wanted in expected]
        assert np.abs(answers[0] - expected[0]).max() < most * np.abs(expected[0]).max()
        first = answers[0].copy()
        assert runtime.run(given)[0].tobytes() == first.tobytes()


@needs_onnx
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_net_says_what_onnx_runtime_says(name):
    path = net_of(load_package(name)).onnx
    runtime, reference = TorchRuntime(path, device="cpu"), OnnxRuntime(path, device="cpu")
    for shape in SHAPES:
        assert apart(runtime.run(drawn(shape)), reference.run(drawn(shape))) < 1e-4


@needs_onnx
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("architecture", ["q16", "q32", "h16", "f16"])
def test_every_net_of_the_family_says_what_onnx_runtime_says(architecture, channels, tmp_path):
    from cytoloop.models.training.export import export_onnx
    from cytoloop.models.training.net import ARCHITECTURES, CellNet

    torch.manual_seed(1)
    path = tmp_path / "net.onnx"
    export_onnx(CellNet(ARCHITECTURES[architecture], channels).eval(), path)
    runtime, reference = TorchRuntime(path, device="cpu"), OnnxRuntime(path, device="cpu")
    for n, _, height, width in SHAPES:
        planes = drawn((n, channels, height, width))
        assert apart(runtime.run(planes), reference.run(planes)) < 1e-4


def test_onnx_nets_are_run_with_torch_where_there_is_a_card_and_not_elsewhere(
    write_net, tmp_path, monkeypatch
):
    net = net_of(write_net(tmp_path / "net.onnx"))
    monkeypatch.setattr(cuda, "cards", list)
    assert [way for way in ways(net, "auto", "auto") if way.runtime == "torch"] == []
    with pytest.raises(ModelError, match="torch runs fp32 ones on an NVIDIA card: use onnxruntime"):
        ways(net, "torch", "fp32")
    monkeypatch.setattr(cuda, "cards", lambda: ["NVIDIA H200"])
    found = [way for way in ways(net, "auto", "auto") if way.runtime == "torch"]
    assert found == [Way("torch", "fp32"), Way("torch", "fp16")]
    assert [file_of(way, net) for way in found] == [net.onnx] * 2
    assert ways(net, "auto", "auto")[0] == Way("onnxruntime", "fp32")


def test_a_torchscript_file_is_taken_before_onnx(write_net, path, tmp_path, monkeypatch):
    onnx = write_net(tmp_path / "net.onnx")
    both = Net(onnx, path)
    for cards in ([], ["NVIDIA H200"]):
        monkeypatch.setattr(cuda, "cards", lambda cards=cards: cards)
        assert Way("torch", "fp32") in ways(both, "auto", "auto")
        assert file_of(Way("torch", "fp32"), both) == path


def test_a_net_that_torch_cannot_compute_is_run_by_another_runtime(write_net, tmp_path, monkeypatch):
    import onnx

    path = write_net(tmp_path / "net.onnx")
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("LRN", ["before"], ["logits"], size=1, alpha=1e-9))
    onnx.save(model, path)
    monkeypatch.setattr(cuda, "cards", lambda: ["NVIDIA H200"])
    _, choice = build_runtime(path)
    assert choice.runtime != "torch"
    tried = [trial for trial in choice.trials if trial.runtime == "torch"]
    assert len(tried) == 2
    assert "torch cannot compute LRN; use the runtime onnxruntime" in tried[0].reason


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-3), ("fp16", 2e-2)])
@needs_onnx
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_net_runs_on_a_card_as_a_graph(name, precision, most):
    path = net_of(load_package(name)).onnx
    runtime, reference = TorchRuntime(path, precision=precision), OnnxRuntime(path, device="cpu")
    assert (runtime.device, runtime.precision) == (torch.cuda.get_device_name(), precision)
    first = {}
    for shape in (*SHAPES, *SHAPES):
        planes = drawn(shape)
        answer = [output.copy() for output in runtime.run(planes)]
        assert apart(answer, reference.run(planes)) < most
        again = [output.tobytes() for output in runtime.run(planes)]
        assert again == [output.tobytes() for output in answer]
        assert first.setdefault(shape, again) == again
    assert all(way._graph is not None for way in runtime._kept.values())
    another = TorchRuntime(path, precision=precision)
    assert [output.tobytes() for output in another.run(drawn(SHAPES[0]))] == first[SHAPES[0]]


@pytest.mark.gpu
@needs_card
@needs_onnx
@pytest.mark.parametrize("name", SHIPPED)
def test_among_all_ways_of_a_shipped_net_those_of_torch_work_on_a_card(name):
    _, choice = build_runtime(load_package(name))
    tried = {trial.precision: trial for trial in choice.trials if trial.runtime == "torch"}
    assert set(tried) == {"fp32", "fp16"}
    assert tried["fp32"].accepted, tried["fp32"].reason
    runtime, choice = build_runtime(load_package(name), runtime="torch", precision="fp16")
    assert (choice.runtime, choice.precision, choice.device) == ("torch", "fp16", runtime.device)
