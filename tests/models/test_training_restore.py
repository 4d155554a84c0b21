from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra train is not installed")
pytest.importorskip("onnx", reason="the extra train is not installed")

from cytoloop.acquire.errors import ModelError  # noqa: E402
from cytoloop.models.packages.contents import ModelPackage, WeightsFile  # noqa: E402
from cytoloop.models.runtimes.onnx import OnnxRuntime  # noqa: E402
from cytoloop.models.training.export import export_onnx  # noqa: E402
from cytoloop.models.training.net import ARCHITECTURES, Architecture, CellNet  # noqa: E402
from cytoloop.models.training.restore import net_from_onnx  # noqa: E402


def package_of(
    path: Path, channels: int = 1, architecture: Architecture = ARCHITECTURES["q16"]
) -> ModelPackage:
    weights = WeightsFile(path, "onnx", "fp32", "0" * 64)
    return ModelPackage(
        "small",
        path.parent,
        (weights,),
        channels=channels,
        diameter_px=architecture.diameter_px,
        diameter_range=architecture.diameter_range,
        shown_px=architecture.shown_px,
    )


def lived_in(architecture: Architecture, channels: int = 1) -> CellNet:
    """Return a net whose normalisations have seen something, in evaluation mode."""
    torch.manual_seed(3)
    net = CellNet(architecture, channels)
    with torch.no_grad():
        net.train()
        for _ in range(3):
            net(torch.rand(2, channels, 2 * architecture.step, 2 * architecture.step) * 3)
        for value in net.parameters():
            value.add_(0.05 * torch.randn(value.shape))
    return net.eval()


def planes_for(architecture: Architecture, channels: int = 1) -> np.ndarray:
    side = 3 * architecture.step
    return np.random.default_rng(1).normal(0.4, 0.6, (1, channels, side, side)).astype(np.float32)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.parametrize("channels", [1, 2])
def test_a_restored_net_says_what_the_exported_one_says(tmp_path: Path, name: str, channels: int):
    architecture = ARCHITECTURES[name]
    net = lived_in(architecture, channels)
    export_onnx(net, tmp_path / "a.onnx")
    restored = net_from_onnx(package_of(tmp_path / "a.onnx", channels, architecture))
    planes = planes_for(architecture, channels)
    with torch.no_grad():
        wanted, said = net(torch.from_numpy(planes)), restored(torch.from_numpy(planes))
    assert float(wanted.abs().max()) > 0.1
    assert float((wanted - said).abs().max()) < 1e-5 * max(1.0, float(wanted.abs().max()))
    assert restored.architecture == architecture


def test_restoring_is_undone_by_exporting(tmp_path: Path):
    architecture = Architecture(2, (8, 16), 2, 14.0, (6.0, 40.0))
    export_onnx(lived_in(architecture), tmp_path / "a.onnx")
    restored = net_from_onnx(package_of(tmp_path / "a.onnx", architecture=architecture))
    export_onnx(restored, tmp_path / "b.onnx")
    planes = planes_for(architecture)
    once, twice = (OnnxRuntime(tmp_path / f"{name}.onnx").run(planes)[0] for name in "ab")
    assert np.abs(once - twice).max() < 1e-5


def test_training_a_restored_net_does_not_let_a_batch_decide_how_values_are_normalised(tmp_path: Path):
    architecture = Architecture(2, (8, 16), 2, 14.0, (6.0, 40.0))
    export_onnx(lived_in(architecture), tmp_path / "a.onnx")
    net = net_from_onnx(package_of(tmp_path / "a.onnx", architecture=architecture)).train()
    one, bright = torch.rand(1, 1, 16, 16), 9 * torch.rand(1, 1, 16, 16)
    alone, beside = net(one), net(torch.cat([one, bright]))[:1]
    assert torch.allclose(alone, beside, atol=1e-5)
    alone.sum().backward()
    assert all(value.grad is not None for value in net.parameters())


def test_a_net_of_another_family_is_refused(tmp_path: Path, write_net):
    path = write_net(tmp_path / "other.onnx")
    with pytest.raises(ModelError, match="other.onnx.*own family"):
        net_from_onnx(package_of(path))


def test_a_broken_file_is_refused(tmp_path: Path):
    (tmp_path / "broken.onnx").write_bytes(b"no net")
    with pytest.raises(ModelError, match="broken.onnx"):
        net_from_onnx(package_of(tmp_path / "broken.onnx"))
