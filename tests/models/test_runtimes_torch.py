"""torch: TorchScript on the processor, and on a card with CUDA graphs."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from cytoloop.acquire.errors import ModelError
from cytoloop.models.runtimes.runtime import Runtime
from cytoloop.models.runtimes.torch import TorchRuntime

torch = pytest.importorskip("torch", reason="the train extra is not installed")
needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA card")


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
