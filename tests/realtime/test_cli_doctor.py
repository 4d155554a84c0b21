"""What the doctor calls a fault, and what it only advises."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from cytoloop.acquire.link.addresses import DEFAULT_ADDRESS, parse_address
from cytoloop.realtime.cli import checks, main


def test_the_doctor_finds_this_installation_sound(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)["checks"]
    assert all(set(check) == {"name", "ok", "found", "advice"} for check in told)
    assert [check for check in told if not check["ok"]] == []
    assert left.value.code == 0


def test_the_base_is_what_the_package_itself_says_it_needs():
    needed = dict(checks.requirements())
    assert "numpy" in needed
    assert "pycromanager" not in needed
    assert dict(checks.requirements("engine"))["pycromanager"].startswith("==")


def test_a_missing_or_old_package_of_the_base_is_a_fault():
    check = checks.judge_packages("cytoloop", [("no-such-package", ">=1"), ("numpy", ">=9999")], "do this")
    assert not check.ok
    assert "no-such-package missing" in check.found
    assert "numpy" in check.found
    assert check.advice == "do this"


@pytest.mark.parametrize(
    ("found", "condition", "met"),
    [
        ("1.10.0", ">=1.9", True),
        ("1.9", ">=1.10", False),
        ("75.2.post1", "==75.2.post1", True),
        ("2", "==2.0", False),
    ],
)
def test_versions_are_compared_as_numbers(found: str, condition: str, met: bool):
    assert checks.meets(found, condition) is met


def test_devices_of_another_interface_are_a_fault_with_the_way_out():
    assert checks.judge_interface("12.5.1.75.0", "75.20261014.post1").ok
    wrong = checks.judge_interface("11.10.0.74.0", "75.20261014.post1")
    assert not wrong.ok
    assert "mm-test-adapters==74.*" in wrong.advice


def test_without_devices_nothing_is_at_fault():
    assert checks.judge_interface("", "").ok
    assert checks.judge_interface("12.5.1.75.0", "").advice


def test_a_folder_with_device_adapters_is_found_where_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MICROMANAGER_PATH", str(tmp_path))
    assert tmp_path not in checks.micromanager_folders()
    (tmp_path / "libmmgr_dal_DemoCamera.so.0").touch()
    assert checks.micromanager_folders()[0] == tmp_path


def test_a_default_address_in_use_is_said():
    address = parse_address(DEFAULT_ADDRESS)
    with socket.socket() as other:
        try:
            other.bind((address.host, address.port))
        except OSError:
            pytest.skip("the default address is in use on this computer")
        other.listen()
        check = checks.check_default_address()
    assert check.ok
    assert "in use" in check.found


def test_a_runtime_that_is_not_there_is_optional():
    check = checks.check_runtime("no_such_runtime", "nothing")
    assert (check.ok, check.found) == (True, "not installed")
