"""Forty broken rules files, made from valid ones by a seeded hand: each is refused with line, key, reason and hint."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from cytoloop.acquire.errors import ConfigurationError
from cytoloop.acquire.plugins import known_names
from cytoloop.realtime.cli import main
from cytoloop.realtime.experiment.any_rules import load_rules
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = Path(__file__).parents[2] / "examples" / "rules"
HAS_WHEN = "when" in known_names("rules")
WHEN_FILES = 14

PLAIN = """\
channels = ["DAPI", "GFP"]

[[rules]]
use = "follow"
which = "brightest"
deadband_um = 2.5
expires_after_s = 9.0

[[rules]]
use = "on_division"
action = "stimulate"
within_frames = 4
delay_frames = 1
duration_ms = 80.0
power = 0.5
radius_px = 6.0

[[rules]]
use = "stop_at_count"
count = 200
dwell_frames = 3

[limits]
stimulation_ms_max = 100.0
commands_per_s = 20.0
pause_s_max = 10.0
"""

WHEN = """\
channels = ["DAPI", "GFP"]
classes = ["mitotic", "dead"]

[[rules]]
use = "when"
name = "bright growers"
condition = "age >= 10 frames and rate(area, 10 frames) > 0 px^2/s and GFP.mean > 1.5 * median(GFP.mean)"
rank = "rate(area, 10 frames) / area"
most = 3
for = "2 frames"
cooldown = "10 min"
quota = { per_cell = 2, per_frame = 3 }
action = { do = "stimulate", duration_ms = 50.0 }

[limits]
stimulation_ms_max = 100.0
"""


class Broken(NamedTuple):
    """A text with one mistake, and what must be said of it."""

    text: str
    line: int
    key: str
    reason: str
    hint: str = ""


def line_of(text: str, start: str, nth: int = 0) -> int:
    return [i for i, line in enumerate(text.split("\n"), 1) if line.startswith(start)][nth]


def put(text: str, old: str, new: str, key: str, reason: str, hint: str = "") -> Broken:
    """Replace what stands there once, and expect the mistake on that line."""
    assert text.count(old) == 1, old
    line = text[: text.index(old)].count("\n") + 1
    return Broken(text.replace(old, new), line, key, reason, hint)


def misspelt(rng: random.Random, word: str) -> str:
    """Return a word with two letters swapped, one left out or one doubled, that is another word."""
    while True:
        at = rng.randrange(1, len(word) - 1)
        made = rng.choice(
            (
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
            )
        )
        if made != word:
            return made


OPTIONS = {
    0: ("which", "deadband_um", "expires_after_s"),
    1: ("action", "within_frames", "delay_frames", "duration_ms", "power", "radius_px"),
    2: ("dwell_frames",),
}


def misspelt_option(rng: random.Random) -> Broken:
    rule = rng.choice(list(OPTIONS))
    name = rng.choice(OPTIONS[rule])
    wrong = misspelt(rng, name)
    return put(
        PLAIN, f"\n{name} =", f"\n{wrong} =", f"rules[{rule}].{wrong}", "unknown option; allowed: ", name
    )._replace(line=line_of(PLAIN, f"{name} ="))


def misspelt_rule(rng: random.Random) -> Broken:
    rule = rng.randrange(3)
    name = ("follow", "on_division", "stop_at_count")[rule]
    wrong = misspelt(rng, name)
    return put(PLAIN, f'"{name}"', f'"{wrong}"', f"rules[{rule}].use", "among the rules; known: ", name)


def misspelt_limit(rng: random.Random) -> Broken:
    name = rng.choice(("stimulation_ms_max", "commands_per_s", "pause_s_max"))
    wrong = misspelt(rng, name)
    return put(PLAIN, f"{name} =", f"{wrong} =", f"limits.{wrong}", "unknown key; allowed: ", name)


def misspelt_table(rng: random.Random) -> Broken:
    if rng.random() < 0.5:
        wrong = misspelt(rng, "limits")
        return put(PLAIN, "[limits]", f"[{wrong}]", wrong, "unknown key; allowed: ", "limits")
    wrong = misspelt(rng, "channels")
    return put(PLAIN, "channels =", f"{wrong} =", wrong, "unknown key; allowed: ", "channels")


def misspelt_choice(rng: random.Random) -> Broken:
    name, key = rng.choice((("brightest", "rules[0].which"), ("stimulate", "rules[1].action")))
    return put(PLAIN, f'"{name}"', f'"{misspelt(rng, name)}"', key, "is not allowed; allowed: ", name)


def wrong_type(rng: random.Random) -> Broken:
    name, old, new, key = rng.choice(
        (
            ("deadband_um", "2.5", '"2.5 um"', "rules[0].deadband_um"),
            ("within_frames", "4", "4.5", "rules[1].within_frames"),
            ("power", "0.5", "true", "rules[1].power"),
            ("count", "200", "[200]", "rules[2].count"),
            ("commands_per_s", "20.0", '"fast"', "limits.commands_per_s"),
            ("channels", '["DAPI", "GFP"]', '"DAPI"', "channels"),
        )
    )
    start = PLAIN.index(f"{name} = ")
    line = PLAIN[:start].count("\n") + 1
    text = PLAIN[:start] + PLAIN[start:].replace(f"{name} = {old}", f"{name} = {new}", 1)
    return Broken(text, line, key, "Expected")


def out_of_range(rng: random.Random) -> Broken:
    old, new, key, reason = rng.choice(
        (
            ("deadband_um = 2.5", "deadband_um = -1.0", "rules[0].deadband_um", "must be >= 0"),
            ("delay_frames = 1", "delay_frames = 9", "rules[1].delay_frames", "must be from 0 to 4"),
            ("power = 0.5", "power = 1.5", "rules[1].power", "must be from 0 to 1"),
            ("count = 200", "count = 0", "rules[2].count", "must be >= 1"),
            ("radius_px = 6.0", "radius_px = inf", "rules[1].radius_px", "not a finite number"),
            ("commands_per_s = 20.0", "commands_per_s = 0", "limits.commands_per_s", "> 0"),
            (
                "duration_ms = 80.0",
                "duration_ms = 800.0",
                "rules[1].use",
                "the limits would refuse every Stimulate",
            ),
        )
    )
    broken = put(PLAIN, f"\n{old}", f"\n{new}", key, reason)
    return broken._replace(
        line=line_of(PLAIN, 'use = "on_division"') if key.endswith("use") else line_of(PLAIN, old)
    )


def missing(rng: random.Random) -> Broken:
    rule = rng.randrange(4)
    if rule == 3:
        text = PLAIN.replace("count = 200\n", "")
        return Broken(text, line_of(text, "[[rules]]", 2), "rules[2].count", "this option is needed")
    name = ("follow", "on_division", "stop_at_count")[rule]
    text = PLAIN.replace(f'use = "{name}"\n', "")
    return Broken(text, line_of(text, "[[rules]]", rule), f"rules[{rule}].use", "expected a name; known: ")


def same_name(rng: random.Random) -> Broken:
    name = misspelt(rng, "twins")
    text = PLAIN.replace('use = "follow"', f'use = "follow"\nname = "{name}"')
    text = text.replace("count = 200", f'count = 200\nname = "{name}"')
    return Broken(text, line_of(text, "name =", 1), "rules[2].name", "give each rule a name of its own")


def no_toml(rng: random.Random) -> Broken:
    old, new, key = rng.choice(
        (
            ('which = "brightest"', 'which = "brightest', "rules.which"),
            ('which = "brightest"', "which = brightest", "rules.which"),
            ("power = 0.5", "power 0.5", "rules"),
            ("count = 200", "count = ", "rules.count"),
            ("count = 200", "count = 200\ncount = 300", "rules.count"),
            ("[limits]", "[limits", "rules"),
        )
    )
    broken = put(PLAIN, old, new, key, "not valid TOML")
    return broken._replace(line=broken.line + new.count("\n"))


MUTATORS: tuple[Callable[[random.Random], Broken], ...] = (
    misspelt_option,
    misspelt_rule,
    misspelt_limit,
    misspelt_table,
    misspelt_choice,
    wrong_type,
    out_of_range,
    missing,
    same_name,
    no_toml,
)


def broken_when(number: int, rng: random.Random) -> Broken:
    """Return one of the mistakes that expressions, actions, durations and quotas can have."""
    condition, action = "rules[0].condition", "rules[0].action"
    area, gfp, do = misspelt(rng, "area"), misspelt(rng, "median"), misspelt(rng, "stimulate")
    cell, channel = misspelt(rng, "per_cell"), misspelt(rng, "GFP")
    return (
        lambda: put(WHEN, "and rate(area", f"and rate({area}", condition, "nothing is called", "area"),
        lambda: put(WHEN, "> 0 px^2/s", "> 3 um", condition, "cannot compare an area per time"),
        lambda: put(
            WHEN, "rate(area, 10 frames) > 0", "(rate(area, 10 frames) > 0", condition, "')' is missing"
        ),
        lambda: put(WHEN, "median(", f"{gfp}(", condition, "no function is called", "median"),
        lambda: put(WHEN, "and GFP.mean", f"and {channel}.mean", condition, "no channel", "GFP.mean"),
        lambda: put(WHEN, "age >= 10 frames", "age >= 10 s", condition, "cannot compare a number of frames"),
        lambda: put(WHEN, "age >= 10 frames", "p.mitotc > 0.5", condition, "no class", "p.mitotic"),
        lambda: put(WHEN, '"stimulate"', f'"{do}"', f"{action}.do", "is no action; known: ", "stimulate"),
        lambda: put(
            WHEN, "duration_ms = 50.0", "duration_ms = -50.0", f"{action}.duration_ms", "must be > 0"
        ),
        lambda: put(
            WHEN,
            "{ per_cell = 2",
            f"{{ {cell} = 2",
            f"rules[0].quota.{cell}",
            "unknown key; allowed: ",
            "per_cell",
        ),
        lambda: put(WHEN, '"2 frames"', '"2 fortnights"', "rules[0].for", "'fortnights'"),
        lambda: put(WHEN, "most = 3", "most = 0", "rules[0].most", "1 or more"),
        lambda: put(
            WHEN,
            'rank = "rate(area, 10 frames) / area"',
            'rank = "rate(area"',
            "rules[0].rank",
            "')' is missing",
        ),
        lambda: Broken(
            text := "\n".join(line for line in WHEN.split("\n") if not line.startswith("action")),
            line_of(text, "[[rules]]"),
            "rules[0].action",
            "needed",
        ),
    )[number]()


def broken_file(number: int) -> Broken:
    """Return file ``number`` of the forty; those of ``when`` come last."""
    rng = random.Random(number)
    plain = 40 - WHEN_FILES
    return broken_when(number - plain, rng) if number >= plain else MUTATORS[number % len(MUTATORS)](rng)


def leave(*args: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(arg) for arg in args])
    return int(left.value.code or 0)


@pytest.mark.parametrize("number", range(40))
def test_a_broken_rules_file_is_refused_with_line_key_reason_and_hint(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    if number >= 40 - WHEN_FILES and not HAS_WHEN:
        pytest.skip("the rule 'when' is not registered")
    broken = broken_file(number)
    file = tmp_path / "rules.toml"
    file.write_text(broken.text)
    assert leave("rules", "check", file, "--json") == 2
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["ok"] is False
    assert told.err == ""
    matching = [
        error
        for error in found["errors"]
        if (error["line"], error["key"], error["did_you_mean"]) == (broken.line, broken.key, broken.hint)
        and broken.reason in error["reason"]
    ]
    assert matching, (broken[1:], found["errors"])
    assert all(error["file"] == str(file) and error["reason"] for error in found["errors"])
    assert leave("rules", "check", file) == 2
    told = capsys.readouterr()
    assert f"rules.toml:{broken.line}: {broken.key}: " in told.err
    assert "Traceback" not in told.err + told.out


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=st.sampled_from([PLAIN, WHEN] if HAS_WHEN else [PLAIN]),
    at=st.integers(0, 600),
    cut=st.integers(0, 20),
    put_in=st.text(max_size=6)
    | st.sampled_from(["(" * 200, "]]", "'", "and and", "1e999", "-", "= {", "not " * 99]),
)
def test_a_file_that_is_damaged_anywhere_is_read_or_refused_with_its_problems(
    tmp_path: Path, base: str, at: int, cut: int, put_in: str
):
    file = tmp_path / "rules.toml"
    at %= len(base)
    file.write_text(base[:at] + put_in + base[at + cut :], "utf-8", errors="surrogatepass")
    try:
        load_rules(file)
    except ConfigurationError as error:
        assert error.problems
        assert all(problem.reason and problem.line >= 0 for problem in error.problems)


def test_the_same_seed_makes_the_same_forty_files_and_no_two_are_alike():
    texts = [broken_file(number).text for number in range(40)]
    assert texts == [broken_file(number).text for number in range(40)]
    assert len(set(texts)) == 40


def checked(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object]]:
    file = folder / "rules.toml"
    file.write_text(text)
    code = leave("rules", "check", file, "--json")
    return code, json.loads(capsys.readouterr().out)


def test_the_files_that_are_broken_here_are_valid_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for text in (PLAIN, WHEN) if HAS_WHEN else (PLAIN,):
        code, found = checked(tmp_path, text, capsys)
        assert (code, found["ok"], found["errors"]) == (0, True, [])


@pytest.mark.skipif(not HAS_WHEN, reason="the rule 'when' is not registered")
def test_the_example_files_are_valid(capsys: pytest.CaptureFixture[str]):
    files = sorted(EXAMPLES.glob("*.toml"))
    assert len(files) == 3
    for file in files:
        assert leave("rules", "check", file) == 0, capsys.readouterr().err


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = (
        PLAIN.replace("which", "wich")
        .replace("power = 0.5", "power = 2.0")
        .replace("count = 200", "count = 'x'")
    )
    code, found = checked(tmp_path, text, capsys)
    assert code == 2
    errors = found["errors"]
    assert isinstance(errors, list)
    assert [error["key"] for error in errors] == ["rules[0].wich", "rules[1].power", "rules[2].count"]


def test_a_file_without_rules_says_what_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for text in ("", "rules = []\n", "[limits]\n"):
        code, found = checked(tmp_path, text, capsys)
        assert code == 2
        assert "at least one rule is needed" in json.dumps(found["errors"])


def test_an_experiment_file_is_checked_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    valid = (
        '[streams.a]\nsegmenter = "classical"\n[[streams.a.rules]]\nuse = "follow"\n'
        '[streams.b]\naddress = "tcp://127.0.0.1:5791"\nsegmenter = "classical"\n'
    )
    file = tmp_path / "experiment.toml"
    file.write_text(valid)
    assert leave("rules", "check", file, "--stream", "a") == 0
    capsys.readouterr()
    assert leave("rules", "check", file) == 2
    assert "several streams; choose one with --stream: a, b" in capsys.readouterr().err
    assert leave("rules", "check", file, "--stream", "aa") == 2
    assert "no stream 'aa'; known: a, b" in capsys.readouterr().err
    file.write_text(valid.replace("follow", "folow"))
    assert leave("rules", "check", file) == 2
    assert "experiment.toml:4: streams.a.rules[0].use" in capsys.readouterr().err


def test_a_rule_that_fails_while_it_is_checked_is_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "odd_rule_for_a_check.py").write_text(
        "class Odd:\n    name = 'odd'\n    def examples(self): raise KeyError('no')\n"
        "    def decide(self, moment): ...\n"
    )
    code, found = checked(tmp_path, '[[rules]]\nuse = "odd_rule_for_a_check:Odd"\n', capsys)
    assert code == 2
    assert "failed while it was checked: KeyError" in json.dumps(found["errors"])


def test_a_rule_that_checks_itself_is_told_what_the_file_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "picky_rule_for_a_check.py").write_text(
        "class Picky:\n    name = 'picky'\n    def __init__(self, channel: str = 'x'): self.channel = channel\n"
        "    def examples(self): return ()\n    def decide(self, moment): ...\n"
        "    def check(self, known):\n"
        "        if self.channel not in known.channels:\n"
        "            yield 'channel', f'no channel {self.channel!r} among {known.channels}', known.channels[0]\n"
    )
    text = 'channels = ["GFP"]\n[[rules]]\nuse = "picky_rule_for_a_check:Picky"\nchannel = "GPF"\n'
    code, found = checked(tmp_path, text, capsys)
    assert code == 2
    (error,) = found["errors"]  # type: ignore[misc]
    assert (error["line"], error["key"], error["did_you_mean"]) == (4, "rules[0].channel", "GFP")


def test_all_that_is_wrong_in_one_rule_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(
        '[[rules]]\nuse = "when"\ncondition = "aera > 3 um^2"\nrank = "meen"\nfor = "5 framse"\n'
        'quota = { per_cel = 1, per_run = 0 }\naction = { do = "stimulate", duration = 5, powr = 1 }\n'
    )
    with pytest.raises(ConfigurationError) as found:
        load_rules(path)
    keys = {problem.key.removeprefix("rules[0]."): problem.line for problem in found.value.problems}
    assert keys == {
        "condition": 3,
        "rank": 4,
        "for": 5,
        "quota.per_cel": 6,
        "quota.per_run": 6,
        "action.duration": 7,
        "action.powr": 7,
    }
    assert {"area", "mean", "per_cell", "power"} <= {each.did_you_mean for each in found.value.problems}
