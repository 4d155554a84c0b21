from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from cytoloop.acquire.errors import ConfigurationError
from cytoloop.acquire.governor.limits import Limits
from cytoloop.acquire.governor.safe import SafeState
from cytoloop.acquire.plugins import find_class, known_names
from cytoloop.realtime.experiment.config import Experiment, load_experiment
from cytoloop.realtime.experiment.stream import StreamConfig
from cytoloop.realtime.recording.settings import Record
from cytoloop.realtime.trust import Trust
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PAGE = Path(__file__).parents[2] / "docs" / "experiment.md"
FILES = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
COMPLETE = FILES[-1]
EXAMPLES = re.findall(r"^# (\w+) = .*$", COMPLETE, re.MULTILINE)


def load(folder: Path, text: str) -> Experiment:
    path = folder / "experiment.toml"
    path.write_text(text, encoding="utf-8")
    return load_experiment(path)


@pytest.mark.parametrize("index", range(len(FILES)))
def test_every_file_on_the_page_is_valid(tmp_path: Path, index: int) -> None:
    assert list(load(tmp_path, FILES[index]).streams) == ["default"]


@pytest.mark.parametrize("key", EXAMPLES)
def test_every_example_behind_a_comment_is_valid(tmp_path: Path, key: str) -> None:
    load(tmp_path, COMPLETE.replace(f"\n# {key} = ", f"\n{key} = ", 1))


def test_every_key_that_the_code_knows_is_on_the_page() -> None:
    shown = set(re.findall(r"^(?:# )?(\w+) = ", COMPLETE, re.MULTILINE))
    known = {
        field.name
        for cls in (Experiment, StreamConfig, Limits, Record, SafeState, Trust)
        for field in msgspec.structs.fields(cls)
        if field.name
        not in ("streams", "name", "rules", "limits", "record", "safe", "trust")  # these are tables
    }
    for name in known_names("rules"):
        known |= {each.rstrip("_") for each in inspect.signature(find_class("rules", name)).parameters}
    assert known - shown == set()
    assert shown - known == {"use"}


def test_the_defaults_on_the_page_are_those_of_the_code(tmp_path: Path) -> None:
    stream = load(tmp_path, COMPLETE).streams["default"]
    assert msgspec.structs.replace(stream, rules=()) == StreamConfig()
    for table in tomllib.loads(COMPLETE)["streams"]["default"]["rules"]:
        if table["use"] in ("when", "sort"):  # these say nothing without what is written there
            continue
        parameters = inspect.signature(find_class("rules", table["use"])).parameters
        for key, value in table.items():
            if key not in ("use", "count"):
                assert value == parameters[key].default


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, len(COMPLETE)),
    st.integers(0, 20),
    st.binary(max_size=6)
    | st.sampled_from([b"[", b"]]", b'"', b"'''", b"=", b".", b"{", b"\n[", b"nan", b"1e999"]),
)
def test_a_damaged_file_is_read_or_refused_with_its_problems(
    tmp_path: Path, at: int, cut: int, put: bytes
) -> None:
    data = COMPLETE.encode()
    path = tmp_path / "experiment.toml"
    path.write_bytes(data[:at] + put + data[at + cut :])
    try:
        load_experiment(path)
    except ConfigurationError as error:
        assert all(problem.reason and problem.line >= 0 for problem in error.problems)
        assert error.problems
