"""The page of commands: every line of it is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from cytoloop.realtime.cli.app import cytoloop
from cytoloop.realtime.cli.bench import BENCHES
from cytoloop.realtime.config import load_experiment

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


LINES = [line for block in blocks("bash") for line in block.splitlines()]


@pytest.mark.parametrize("line", LINES)
def test_a_documented_command_is_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "movie" / "01").mkdir(parents=True)
    (tmp_path / "movie" / "01_GT" / "SEG").mkdir(parents=True)
    (tmp_path / "experiment.toml").touch()
    program, *words = shlex.split(line)
    assert program == "cytoloop"
    command: click.Command = cytoloop
    context = click.Context(cytoloop)
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(context, words)  # type: ignore[assignment]
    command.make_context(name, words, parent=context)


def test_every_command_is_documented():
    named = {tuple(shlex.split(line)[1:3]) for line in LINES}
    assert {name for name, *_ in named} == set(cytoloop.commands)
    assert {rest[0] for name, *rest in named if name == "bench"} == set(BENCHES)


def test_the_documented_experiment_is_a_right_one(tmp_path: Path):
    (block,) = blocks("toml")
    file = tmp_path / "experiment.toml"
    file.write_text(block)
    assert [rule.use for rule in load_experiment(file).streams["default"].rules] == ["stop_at_count"]
