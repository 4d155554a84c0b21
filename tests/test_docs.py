"""The pages are true: their code runs, their commands exist, their links lead somewhere.

A block may stand behind an HTML comment that says what it needs or is:

``<!-- test: service -->``
    A service answers while this page is run, where the page says ``tcp://127.0.0.1:5790``.
``<!-- test: engine -->``
    The real pycro-manager engine runs, with Micro-Manager's demo devices.
``<!-- test: file NAME -->``
    The block is saved under that name, for the blocks after it.
``<!-- test: not here -->``
    It cannot run in a test (a real microscope); it is only compiled.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from cytoloop.acquire.link.addresses import DEFAULT_ADDRESS
from cytoloop.acquire.link.keys import make_keys
from cytoloop.realtime.cli.app import cytoloop
from cytoloop.realtime.cli.bench import BENCHES
from cytoloop.realtime.experiment.config import load_experiment
from cytoloop.realtime.experiment.stream import StreamConfig
from cytoloop.realtime.service.thread import EngineThread

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [
    path for room in ("acquire", "models", "trackers", "realtime") for path in (ROOT / room).rglob("*.py")
]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
LANGUAGES = {"python", "toml", "bash", "console", "text"}

pytestmark = pytest.mark.timeout(110)


class Block(NamedTuple):
    line: int
    language: str
    text: str
    needs: str


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def blocks_of(page: Path) -> list[Block]:
    pattern = r"(?:^<!-- test: ([^>]*?) -->\n+)?^```(\w*)\n(.*?)^```$"
    text = text_of(page)
    return [
        Block(text[: found.start(2)].count("\n") + 1, found[2], found[3], found[1] or "")
        for found in re.finditer(pattern, text, re.DOTALL | re.MULTILINE)
    ]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


@pages
def test_every_block_says_what_it_is(page: Path):
    assert text_of(page).count("\n```") % 2 == 0
    unknown = [
        f"line {block.line}: {block.language!r}"
        for block in blocks_of(page)
        if block.language not in LANGUAGES
    ]
    assert not unknown


@pages
def test_every_block_of_code_and_every_experiment_file_works(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    blocks = [block for block in blocks_of(page) if block.language in ("python", "toml")]
    needs = {block.needs for block in blocks}
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    loaded = set(sys.modules)
    with contextlib.ExitStack() as stack:
        stack.callback(
            lambda: [sys.modules.pop(name) for name in files_of(blocks) & (set(sys.modules) - loaded)]
        )
        if "engine" in needs:
            stack.enter_context(small_camera(request.getfixturevalue("engine")))
        address = ""
        if "service" in needs:
            stream = StreamConfig(address="tcp://127.0.0.1:0")
            address = stack.enter_context(EngineThread(stream, tmp_path / "runs")).address
        names: dict[str, Any] = {"__name__": "__main__"}
        for block in blocks:
            text = block.text.replace(DEFAULT_ADDRESS, address) if address else block.text
            with told_where(page, block):
                run_python(text, block, names) if block.language == "python" else check_toml(
                    text, block, tmp_path
                )


def files_of(blocks: list[Block]) -> set[str]:
    return {
        block.needs.removeprefix("file ").removesuffix(".py")
        for block in blocks
        if block.needs.startswith("file ")
    }


def run_python(text: str, block: Block, names: dict[str, Any]) -> None:
    code = compile(text, f"line {block.line}", "exec")
    if block.needs.startswith("file "):
        Path(block.needs.removeprefix("file ")).write_text(text, encoding="utf-8")
    elif block.needs != "not here":
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, names)


def check_toml(text: str, block: Block, folder: Path) -> None:
    document = tomllib.loads(text)
    if "streams" not in document:
        return
    name = block.needs.removeprefix("file ") if block.needs.startswith("file ") else "checked.toml"
    for stream in document["streams"].values():
        if "keys" in stream and not (folder / stream["keys"]).exists():
            make_keys(folder / stream["keys"])
    (folder / name).write_text(text, encoding="utf-8")
    importlib.invalidate_caches()
    load_experiment(folder / name)


@contextlib.contextmanager
def told_where(page: Path, block: Block) -> Iterator[None]:
    """Say which block of which page failed."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in {name_of(page)}, the block at line {block.line}")
        raise


@contextlib.contextmanager
def small_camera(core: Any) -> Iterator[None]:
    """Let the demo camera give small images, as other tests of this session expect to find it afterwards."""
    for side in "XY":
        core.setProperty("Camera", f"OnCameraCCD{side}Size", "128")
    yield
    for side in "XY":
        core.setProperty("Camera", f"OnCameraCCD{side}Size", "512")
    core.setProperty("Camera", "PixelType", "8bit")
    core.setExposure(10)
    core.setXYPosition(0, 0)
    core.setPosition(0)
    core.waitForSystem()


# --- commands -----------------------------------------------------------------------------------------------


def commands_of(page: Path) -> list[str]:
    lines = [
        line.removeprefix("$ ")
        for block in blocks_of(page)
        if block.language in ("bash", "console")
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    return [part.strip() for line in lines for part in line.split("&&")]


@pages
def test_every_command_is_one_that_the_command_line_takes(page: Path):
    for line in commands_of(page):
        if line.startswith("cytoloop "):
            command, context, words = found_command(line)
            try:
                command.make_context(context.info_name, words, parent=context.parent)
            except click.BadParameter as error:  # the files of the examples are not here
                assert "does not exist" in error.message, line


@pages
def test_every_command_that_the_text_names_exists_with_its_options(page: Path):
    for line in re.findall(r"`(cytoloop [a-z][^`]*)`", text_of(page)):
        command, context, words = found_command(line)
        command.make_parser(context).parse_args(words)  # raises for an option that is not there


def found_command(line: str) -> tuple[click.Command, click.Context, list[str]]:
    """Return the command that a line names, its context and the rest of the words."""
    command, context, words = cytoloop, click.Context(cytoloop), shlex.split(line)[1:]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, command, words = command.resolve_command(context, words)
        context = click.Context(command, info_name=name, parent=context)
    return command, context, list(words)


def test_every_command_and_every_measurement_has_its_lines():
    named = {tuple(shlex.split(line)[1:3]) for line in commands_of(ROOT / "docs" / "commands.md")}
    assert {name for name, *_ in named} == set(cytoloop.commands)
    assert {rest[0] for name, *rest in named if name == "bench"} == set(BENCHES)


@pages
def test_every_extra_exists(page: Path):
    named = re.findall(r"""(?:cytoloop|"\.|'\.)\[([\w,]+)\]""", text_of(page))
    assert {extra for group in named for extra in group.split(",")} <= set(EXTRAS)


@pytest.mark.parametrize("name", ["demo", "test"])
def test_the_readme_holds_its_two_set_up_commands(name: str):
    script = [sys.executable, str(ROOT / ".ci" / "readme_command.py"), name]
    printed = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    ends = {"demo": "cytoloop demo", "test": "python -m pytest"}
    assert printed == f'python -m pip install ".[{name}]" && {ends[name]}\n'


# --- links --------------------------------------------------------------------------------------------------


def anchors_of(page: Path) -> set[str]:
    plain = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    heads = re.findall(r"^#+ +(.+?) *$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.replace("`", "").lower()).replace(" ", "-") for head in heads}


def links_of(page: Path) -> list[str]:
    plain = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", plain) if not re.match(r"[a-z]+:", link)]


@pages
def test_every_link_leads_somewhere(page: Path):
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)}: {link}"
        assert not anchor or anchor in anchors_of(target), f"{name_of(page)}: {link}"


def test_every_page_can_be_reached_from_the_index():
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links_of(index)}
    assert set(PAGES) - {ROOT / "README.md", index} <= linked
    assert index in {(ROOT / link).resolve() for link in links_of(ROOT / "README.md")}


# --- completeness -------------------------------------------------------------------------------------------


def error_classes() -> set[str]:
    """Return every class below CytoloopError in the rooms, found by reading the source."""
    children = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    found = {"CytoloopError"}
    while more := {name for name, bases in children.items() if bases & found} - found:
        found |= more
    return found


def test_every_error_has_an_entry():
    text = text_of(ROOT / "docs" / "troubleshooting.md")
    heads = set(re.findall(r"^### `(\w+)`$", text, re.MULTILINE))
    assert heads == error_classes()


def test_every_message_that_is_explained_is_still_said():
    # Each message is quoted from the source up to the first value in it.
    said = re.sub(r"""["']\s*\n\s*f?["']""", "", "\n".join(path.read_text("utf-8") for path in SOURCES))
    quoted = re.findall(r"^\| `([^`]+)` \|", text_of(ROOT / "docs" / "troubleshooting.md"), re.MULTILINE)
    assert len(quoted) > 10
    assert [message for message in quoted if message not in said] == []


def test_every_trap_has_its_line_and_its_number_is_the_one_in_the_code():
    numbers = re.findall(r"^\| (\d+) \|", text_of(ROOT / "docs" / "pycro-manager.md"), re.MULTILINE)
    assert numbers == [str(number) for number in range(1, 14)]
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "acquire").glob("test_guard*.py"))
    tested = {
        int(number)
        for group in re.findall(r"def test_traps?_([\d_]+)", tests)
        for number in group.split("_")
        if number
    }
    assert tested == set(range(1, 14))
