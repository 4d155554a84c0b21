"""``cytoloop arm``, ``disarm`` and ``dry-run`` against a real service with a microscope connected to it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cytoloop.acquire.link.client import Client
from cytoloop.realtime.bench.blank import BLANK
from cytoloop.realtime.cli import main
from cytoloop.realtime.experiment.config import load_experiment
from cytoloop.realtime.service.server import Service
from cytoloop.realtime.service.thread import EngineThread

STREAM = """
[streams.{name}]
address = "{address}"
segmenter = {{use = "{blank}"}}
"""
COMMANDS = {"arm": "armed", "disarm": "disarmed", "dry-run": "dry"}


def leave(*args: object) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as left:
        main([str(arg) for arg in args])
    return int(left.value.code or 0)


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


def write(folder: Path, *names: str) -> Path:
    """Write an experiment file with streams of these names."""
    streams = (STREAM.format(name=name, address=free_address(), blank=BLANK) for name in names)
    file = folder / "experiment.toml"
    file.write_text(f'log = "{folder / "log"}"\n' + "".join(streams))
    return file


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("one"), "default")


@pytest.fixture(scope="module")
def running(experiment: Path) -> Iterator[str]:
    """Return the address of a service that runs in processes of its own."""
    with Service(load_experiment(experiment)) as service:
        yield service.addresses["default"]


@pytest.fixture
def client(running: str) -> Iterator[Client]:
    with Client(running) as connected:
        assert connected.wait_connected(30)
        yield connected


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("how", ["address", "file"])
def test_the_microscope_is_told_and_the_command_says_so(
    name: str, how: str, running: str, experiment: Path, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    client.safeguard.safety.set("dry" if name != "dry-run" else "armed", "before")
    assert leave(name, running if how == "address" else experiment, "--why", "a new sample") == 0
    assert client.safeguard.safety.standing == COMMANDS[name]
    told = capsys.readouterr()
    assert words(told.out).startswith(f"The microscope is {COMMANDS[name]}: ")
    assert words(told.out).endswith(": a new sample.")
    assert told.err == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_scripts_get_one_object(
    name: str, running: str, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # also where it stands so already
        assert leave(name, running, "--json") == 0
        (line,) = capsys.readouterr().out.splitlines()
        told: dict[str, Any] = json.loads(line)
        assert (told["address"], told["stream"]) == (running, "default")
        assert (told["standing"], told["safe_state"]) == (COMMANDS[name], False)
        assert told["why"].endswith(f": cytoloop {name}")
        assert told["why"] == client.safeguard.safety.why


def test_brackets_in_a_reason_are_kept(
    running: str, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leave("arm", running, "--why", "plate [b2] is in [/]") == 0
    assert "plate [b2] is in [/]" in words(capsys.readouterr().out)
    assert client.safeguard.safety.why.endswith("plate [b2] is in [/]")


def test_one_of_several_streams_is_chosen_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, "left", "right")
    streams = load_experiment(file).streams
    with (
        EngineThread(streams["left"], tmp_path / "log"),
        EngineThread(streams["right"], tmp_path / "log"),
        Client(streams["left"].address, stream="left") as left,
        Client(streams["right"].address, stream="right") as right,
    ):
        assert left.wait_connected(10)
        assert right.wait_connected(10)
        assert leave("arm", file, "--stream", "right") == 0
        assert (left.safeguard.safety.standing, right.safeguard.safety.standing) == ("disarmed", "armed")
        assert leave("dry-run", streams["left"].address, "--stream", "left") == 0
        assert (left.safeguard.safety.standing, right.safeguard.safety.standing) == ("dry", "armed")
        capsys.readouterr()
        assert leave("arm", file) == 2
        assert "choose one with --stream: left, right" in words(capsys.readouterr().err)
        assert leave("arm", file, "--stream", "rihgt") == 2
        assert "Did you mean 'right'?" in words(capsys.readouterr().err)
        assert leave("arm", streams["left"].address, "--stream", "right") == 1
        assert "this address serves 'left'" in capsys.readouterr().err
        assert (left.safeguard.safety.standing, right.safeguard.safety.standing) == ("dry", "armed")


def test_the_only_stream_of_a_file_need_not_be_named(tmp_path: Path) -> None:
    file = write(tmp_path, "only")
    stream = load_experiment(file).streams["only"]
    with EngineThread(stream, tmp_path / "log"), Client(stream.address, stream="only") as client:
        assert client.wait_connected(10)
        assert leave("arm", file) == 0
        assert client.safeguard.safety.standing == "armed"


def test_without_a_microscope_the_command_leaves_with_1(
    running: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leave("arm", running) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "no microscope is connected to stream 'default'" in told.err
    assert leave("arm", running, "--json") == 1
    told_json = json.loads(capsys.readouterr().out)
    assert told_json["kind"] == "RefusedError"
    assert "no microscope is connected" in told_json["error"]


def test_where_no_service_answers_the_command_leaves_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("disarm", free_address()) == 1
    assert "is the service running there?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words_"),
    [
        (("nowhere.toml",), "'nowhere.toml' is neither an address (tcp://HOST:PORT, ipc://PATH) nor a file"),
        (("tcp://192.168.1.20:5790",), "cytoloop keys"),
        (("udp://x:1",), "expected"),
        (("tcp://127.0.0.1:5790", "--keys", "no-such-folder"), "does not exist"),
        (("tcp://127.0.0.1:5790", "--wyh", "x"), "No such option"),
    ],
)
def test_what_is_asked_for_wrongly_leaves_with_2(
    args: tuple[str, ...], words_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leave("arm", *args) == 2
    told = capsys.readouterr()
    assert words_ in words(told.err)
    assert "Traceback" not in told.err


def test_a_wrong_experiment_file_leaves_with_2_and_names_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, "default")
    file.write_text(file.read_text() + "armd = true\n")
    assert leave("arm", file) == 2
    assert "Did you mean 'armed'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(name, "--help") == 0
    assert f"  cytoloop {name}\n" in capsys.readouterr().out.partition("Examples:")[2]
