"""TorchScript files: whole ones are taken, damaged ones and those that touch files are refused before they run."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.errors import ModelError
from cytoloop.models.packages.torchscript import check_torchscript


def zipped(path: Path, members: dict[str, bytes], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", options.get("compression", zipfile.ZIP_DEFLATED)) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def script(**changes: bytes) -> dict[str, bytes]:
    """Return the parts of a TorchScript file."""
    code = b"class Net(Module):\n  def forward(self: __torch__.Net, x: Tensor) -> Tensor:\n    return x\n"
    parts = {
        "data.pkl": b"\x80\x02.",
        "constants.pkl": b"\x80\x02).",
        "version": b"3\n",
        "code/__torch__.py": code,
    }
    return {f"net/{name}": content for name, content in {**parts, **changes}.items() if content is not None}


def test_a_torchscript_file_as_torch_writes_it_is_taken(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.13 advises against TorchScript
        torch.jit.script(torch.nn.Conv2d(1, 3, 3)).save(str(tmp_path / "net.pt"))
        torch.save(torch.nn.Conv2d(1, 3, 3).state_dict(), tmp_path / "weights.pt")
    check_torchscript(tmp_path / "net.pt")
    with pytest.raises(ModelError, match="weights.pt: .*(no constants.pkl|weights without code)"):
        check_torchscript(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (script(**{"data.pkl": None}), "it has no data.pkl"),
        (script(version=None), "it has no version"),
        (script(**{"code/__torch__.py": None}), "weights without code; export the net with torch.jit"),
        (
            script(**{"data/0": bytes(32 << 20)}),
            "'net/data/0' is packed; torch stores its tensors as they are",
        ),
        (
            script(**{"code/a.py": b"torch.save(x, '/tmp/x')"}),
            "'net/code/a.py' calls torch.save; a net needs no files",
        ),
        (script(**{"code/a.py": b"y = torch.from_file('/etc/passwd')"}), "calls torch.from_file"),
        (script(**{"code/a.py": b"y = ops.aten.save(x, '/tmp/x')"}), "calls ops.aten.save"),
        ({**script(), "other/file": b""}, "2 top folders, not one"),
        ({}, "no TorchScript file"),
    ],
)
def test_a_torchscript_file_that_is_none_or_touches_files_is_refused(parts, reason, tmp_path):
    check_torchscript(zipped(tmp_path / "whole.pt", script()))
    with pytest.raises(ModelError, match=f"net.pt: .*{reason}"):
        check_torchscript(zipped(tmp_path / "net.pt", parts))


def test_a_torchscript_file_that_was_cut_or_changed_is_refused(tmp_path):
    path = zipped(
        tmp_path / "net.pt", script(**{"data/0": bytes(range(256)) * 40}), compression=zipfile.ZIP_STORED
    )
    content = path.read_bytes()
    for length in np.linspace(0, len(content) - 1, 20).astype(int):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match="net.pt: "):
            check_torchscript(path)
    path.write_bytes(content.replace(bytes(range(100)), bytes(100), 1))
    with pytest.raises(ModelError, match="net.pt: damaged"):
        check_torchscript(path)
    with pytest.raises(ModelError, match="no.pt: cannot be read"):
        check_torchscript(tmp_path / "no.pt")
