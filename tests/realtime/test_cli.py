"""The command line: exit codes, JSON, help, and what it costs to ask for it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from cytoloop.realtime.cli import main
from cytoloop.realtime.cli.app import cytoloop
from cytoloop.realtime.cli.bench import BENCHES, bench_command
from cytoloop.realtime.progress import Progress

COMMANDS = ("demo", "serve", "replay", "export", "evaluate", "bench", "doctor", "keys")


def leave(*args: object) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as left:
        main([str(arg) for arg in args])
    return int(left.value.code or 0)


def the_object(text: str) -> dict[str, Any]:
    """Return the one JSON object that is all of standard output."""
    assert text.count("\n") == 1
    return json.loads(text, parse_constant=pytest.fail)


def run_bench(run: Any, *args: str) -> int:
    """Run a measurement as a command, through the same way out as any other."""
    cytoloop.add_command(bench_command("trial", "A trial.", run), "trial")
    try:
        return leave("trial", *args)
    finally:
        del cytoloop.commands["trial"]


def test_help_lists_every_command_and_imports_nothing_heavy():
    heavy = "scipy tifffile matplotlib rich torch pycromanager pymmcore zarr"
    program = (
        "import sys\nfrom cytoloop.realtime.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"print('HEAVY', [name for name in {heavy.split()!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert [name for name in COMMANDS if f"  {name} " not in done.stdout] == []
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture[str]):
    assert leave(name, "--help") == 0
    assert f"\n  cytoloop {name}" in capsys.readouterr().out.partition("Examples:")[2].replace("    ", "  ")


@pytest.mark.parametrize("name", sorted(BENCHES))
def test_bench_lists_measurements_without_importing_them(name: str, capsys: pytest.CaptureFixture[str]):
    assert leave("bench", "--help") == 0
    assert f"  {name} " in capsys.readouterr().out


def test_a_mistyped_command_names_the_nearest_and_leaves_with_2(capsys: pytest.CaptureFixture[str]):
    assert leave("replya") == 2
    assert "Did you mean 'replay'?" in capsys.readouterr().err


def test_a_wrong_option_leaves_with_2():
    assert leave("doctor", "--jsno") == 2


def test_a_wrong_experiment_is_told_problem_by_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "experiment.toml"
    file.write_text('[streams.a]\npolcy = "latest"\ncredit = "many"\n')
    assert leave("serve", file, "--check") == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "experiment.toml:2: streams.a.polcy" in told.err
    assert "Did you mean 'policy'?" in told.err
    assert "experiment.toml:3: streams.a.credit" in told.err
    assert "Traceback" not in told.err


def test_a_wrong_experiment_is_told_to_scripts_as_one_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "experiment.toml"
    file.write_text('[streams.a]\npolcy = "latest"\n')
    assert leave("serve", file, "--check", "--json") == 2
    told = the_object(capsys.readouterr().out)
    assert told["kind"] == "ConfigurationError"
    assert [(p["line"], p["key"], p["did_you_mean"]) for p in told["problems"]] == [
        (2, "streams.a.polcy", "policy")
    ]


def test_a_right_experiment_passes_the_check_without_being_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "experiment.toml"
    file.write_text('[streams.left]\naddress = "tcp://127.0.0.1:0"\n')
    assert leave("serve", file, "--check", "--json") == 0
    assert the_object(capsys.readouterr().out)["streams"] == {"left": "tcp://127.0.0.1:0"}


def test_every_object_tells_version_machine_and_seconds(capsys: pytest.CaptureFixture[str]):
    def run(progress: Progress) -> dict[str, Any]:
        progress("measuring", 1, 2)
        return {"rows": [{"ms": float("nan")}], "best": float("inf"), "words": "NaN"}

    assert run_bench(run, "--json") == 0
    told = the_object(capsys.readouterr().out)
    assert told["rows"] == [{"ms": None}]
    assert (told["best"], told["words"]) == (None, "NaN")
    assert set(told["machine"]) == {"cpu", "cores", "gpu", "os"}
    assert told["machine"]["cores"] >= 1
    assert told["version"].count(".") == 2
    assert told["seconds"] >= 0


def test_the_keywords_of_a_measurement_are_its_options(capsys: pytest.CaptureFixture[str]):
    def run(
        progress: Progress, *, seed: int = 3, size_px: tuple[int, ...] = (512,), live: bool = True
    ) -> dict[str, Any]:
        return {"seed": seed, "size": size_px, "live": live}

    assert run_bench(run, "--json") == 0
    assert run_bench(run, "--seed", "5", "--size-px", "64", "--size-px", "128", "--no-live", "--json") == 0
    default, chosen = map(json.loads, capsys.readouterr().out.splitlines())
    assert (default["seed"], default["size"], default["live"]) == (3, [512], True)
    assert (chosen["seed"], chosen["size"], chosen["live"]) == (5, [64, 128], False)


def test_a_measurement_that_fails_its_check_leaves_with_1_and_shows_tables(
    capsys: pytest.CaptureFixture[str],
):
    def run(progress: Progress) -> dict[str, Any]:
        return {"lost": 1, "rows": [{"bytes": 10, "rtt_ms": {"p50": 0.123456}}], "ok": False}

    assert run_bench(run) == 1
    shown = capsys.readouterr().out
    assert "lost" in shown
    assert "0.1235" in shown


def test_an_interrupt_leaves_with_130(capsys: pytest.CaptureFixture[str]):
    def run(progress: Progress) -> dict[str, Any]:
        raise KeyboardInterrupt

    assert run_bench(run, "--json") == 130
    assert capsys.readouterr().out.strip() == ""


def test_keys_are_made_once_and_kept_from_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "rig"
    assert leave("keys", folder, "--client", "left", "--client", "right", "--json") == 0
    secrets = [Path(name) for name in the_object(capsys.readouterr().out)["secrets"]]
    assert {path.parent.name for path in secrets} == {"rig", "left", "right"}
    if os.name == "posix":
        assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    before = {path: path.read_bytes() for path in secrets}
    assert leave("keys", folder, "--client", "left") == 2
    assert "never overwritten" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in secrets} == before


@pytest.mark.skipif(os.name != "posix", reason="a process cannot be sent Ctrl-C here without its console")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_runs_until_it_is_stopped_and_that_is_no_failure(tmp_path: Path, number: signal.Signals):
    file = tmp_path / "experiment.toml"
    file.write_text('[streams.left]\naddress = "tcp://127.0.0.1:0"\ntracker = "nearest"\n')
    arguments = [
        sys.executable,
        "-c",
        "from cytoloop.realtime.cli import main; main()",
        "serve",
        file,
        "--json",
    ]
    served = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert served.stderr is not None
        assert "stream left at tcp://127.0.0.1:" in served.stderr.readline()
        served.send_signal(number)
        out, _ = served.communicate(timeout=30)
    finally:
        served.kill()
        served.communicate()
    assert served.returncode == 0
    assert [row["stream"] for row in the_object(out)["streams"]] == ["left"]


def test_commands_are_click_commands_with_json_everywhere():
    for name in set(COMMANDS) - {"bench"}:
        command = cytoloop.commands[name]
        assert isinstance(command, click.Command)
        assert "--json" in [option for parameter in command.params for option in parameter.opts], name


def test_every_command_and_measurement_is_on_the_page_of_commands():
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    assert [name for name in cytoloop.commands if f"\n## {name}\n" not in page] == []
    assert [name for name in BENCHES if f"\ncytoloop bench {name}" not in page] == []
