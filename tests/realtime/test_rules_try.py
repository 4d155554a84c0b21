"""Rules tried on a recording and on a run, beside those that are armed, and asked why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tifffile
from cytoloop.acquire.commands import Command
from cytoloop.acquire.errors import ConfigurationError, WireError
from cytoloop.acquire.explanation import Explanation
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.governor.limits import Limits
from cytoloop.acquire.link import messages as wire
from cytoloop.acquire.link.pixels import header_of
from cytoloop.acquire.simulated.source import SimulatedSource
from cytoloop.realtime.cli import main
from cytoloop.realtime.experiment.config import load_experiment
from cytoloop.realtime.experiment.rule_files import read_rules_file
from cytoloop.realtime.experiment.stream import PluginChoice, RuleSet, StreamConfig
from cytoloop.realtime.pipeline import Pipeline
from cytoloop.realtime.results import write_results
from cytoloop.realtime.rules.rule import Moment, Verdict
from cytoloop.realtime.service.journal import read_journal
from cytoloop.realtime.service.run import Run
from cytoloop.realtime.service.run_folder import read_stream

EXAMPLES = Path(__file__).parents[2] / "examples" / "rules"
FRAMES, SIZE = 9, 160
DIVIDES = 4  # the frame in which cell 4 is two
STARTS = np.array([[30, 30], [40, 110], [90, 60], [120, 120]])

EARLY = '[[rules]]\nuse = "on_division"\ndelay_frames = 0\nduration_ms = 20\n'
LATE = '[[rules]]\nuse = "on_division"\ndelay_frames = 2\nduration_ms = 20\n'
ENOUGH = '[[rules]]\nuse = "stop_at_count"\ncount = 5\ndwell_frames = 2\n'


def disc(y: float, x: float, radius: float) -> Any:
    yy, xx = np.mgrid[:SIZE, :SIZE]
    return (yy - y) ** 2 + (xx - x) ** 2 <= radius**2


def image(t: int) -> Any:
    """Return four cells that drift; the last of them divides."""
    rng = np.random.default_rng(t)
    cells = np.zeros((SIZE, SIZE), bool)
    for number, (y, x) in enumerate(STARTS, start=1):
        if number == 4 and t >= DIVIDES:
            spread = 8 + 2 * (t - DIVIDES)
            cells |= disc(y, x - spread, 6) | disc(y, x + spread, 6)
        else:
            cells |= disc(y + t, x + 2 * t if number < 4 else x, 9)
    return (rng.normal(100, 5, cells.shape) + 400 * cells).astype(np.uint16)


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("movie") / "01"
    folder.mkdir()
    for t in range(FRAMES):
        tifffile.imwrite(folder / f"t{t:03d}.tif", image(t))
    return folder


@pytest.fixture(scope="module")
def colony(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a movie of the simulated microscope in which nuclei divide."""
    folder = tmp_path_factory.mktemp("colony") / "01"
    folder.mkdir()
    for frame in SimulatedSource(kind="dividing", frames=30, size_px=256, seed=3).frames():
        tifffile.imwrite(folder / f"t{frame.sequence:03d}.tif", frame.pixels)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with rules files and an experiment that arms the late one beside the early one as a shadow."""
    (tmp_path / "early.toml").write_text(EARLY)
    (tmp_path / "late.toml").write_text(LATE)
    (tmp_path / "enough.toml").write_text(ENOUGH)
    (tmp_path / "experiment.toml").write_text(
        '[streams.s]\nsegmenter = "classical"\nshadow = ["early.toml", "enough.toml"]\n'
        + LATE.replace("[[rules]]", "[[streams.s.rules]]")
    )
    return tmp_path


def leave(*args: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(arg) for arg in args])
    return int(left.value.code or 0)


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


class Kept:
    """A rule that keeps its moments."""

    name = "kept"

    def __init__(self) -> None:
        self.moments: list[Moment] = []

    def examples(self) -> tuple[Command, ...]:
        return ()

    def decide(self, moment: Moment) -> Verdict:
        self.moments.append(moment)
        return Verdict()


def a_run(stream: StreamConfig, log: Path) -> Path:
    """Put the movie through the service's own run, and return its folder."""
    run = Run(stream, log, "abc", lambda: None)
    try:
        for t in range(FRAMES):
            frame = Frame(image(t), t, float(t), {"time": t})
            run.process(header_of(frame, skipped=0, slot=-1, check=0), frame)
    finally:
        run.close()
    return run.folder


def armed_and_shadows(files: Path) -> StreamConfig:
    return load_experiment(files / "experiment.toml").streams["s"]


def test_rules_are_tried_on_a_recording_with_firings_reasons_and_a_figure(
    movie: Path, files: Path, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("matplotlib", reason="the report extra is not installed")
    config, out = files / "experiment.toml", files / "tried"
    assert leave("rules", "try", files / "early.toml", movie, "--config", config, "--out", out, "--json") == 0
    found = told(capsys)
    assert found["frames"] == FRAMES
    assert [(each["sequence"], each["rule"], each["command"]) for each in found["firings"]] == [
        (DIVIDES, "on_division", "stimulate")
    ] * 2
    assert "divided into" in found["firings"][0]["reasons"][0]
    assert found["counts"] == [{"file": "early", "rule": "on_division", "firings": 2, "refused": 0}]
    assert found["diff"] is None
    assert found["figure"] == str(out / "firings.png")
    assert (out / "firings.png").read_bytes().startswith(b"\x89PNG")
    lines = (out / "firings.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == found["firings"]


def test_two_files_are_compared_cell_by_cell_with_the_reasons_of_both(
    movie: Path, files: Path, capsys: pytest.CaptureFixture[str]
):
    config = files / "experiment.toml"
    arguments = ("--against", files / "late.toml", "--config", config, "--out", files / "tried")
    assert leave("rules", "try", files / "early.toml", movie, *arguments, "--json") == 0
    diff = told(capsys)["diff"]
    assert (diff["first"], diff["second"], diff["agreed"]) == ("early", "late", 0)
    assert (diff["cells_first"], diff["cells_second"]) == (2, 2)
    for cell in diff["cells"]:
        assert (cell["only"], cell["sequence"]) == ("when", DIVIDES)
        assert (cell["frames_first_only"], cell["frames_second_only"]) == ([DIVIDES], [DIVIDES + 2])
        (early,), (late,) = cell["why_first"], cell["why_second"]
        assert early["fired"] and early["verdict"].startswith("yes: it was born by division")
        assert not late["fired"] and "the rule waits for 2" in late["verdict"]
    assert leave("rules", "try", files / "early.toml", movie, *arguments) == 0
    assert "early: 2 cell(s), late: 2, 0 decision(s) of both" in " ".join(capsys.readouterr().out.split())


def test_a_file_against_itself_under_one_name_differs_in_nothing(
    movie: Path, files: Path, capsys: pytest.CaptureFixture[str]
):
    early, config = files / "early.toml", files / "experiment.toml"
    assert (
        leave("rules", "try", early, movie, "--against", early, "--config", config, "--out", files, "--json")
        == 0
    )
    diff = told(capsys)["diff"]
    assert (diff["second"], diff["agreed"], diff["cells"]) == ("early-2", 2, [])


def test_what_the_limits_of_a_rules_file_refuse_is_told(
    movie: Path, files: Path, capsys: pytest.CaptureFixture[str]
):
    (files / "early.toml").write_text(f"{EARLY}[limits]\ncommands_per_s = 1\n")
    arguments = ("--config", files / "experiment.toml", "--out", files, "--json")
    assert leave("rules", "try", files / "early.toml", movie, *arguments) == 0
    found = told(capsys)
    assert found["counts"] == [{"file": "early", "rule": "on_division", "firings": 2, "refused": 1}]
    assert "commands per second" in found["firings"][1]["refused"]
    assert any(message.startswith("shadow early: limits: ") for message in found["messages"])


def test_a_run_of_the_service_is_tried_from_its_journal_with_the_same_result(
    movie: Path, files: Path, capsys: pytest.CaptureFixture[str]
):
    run = a_run(armed_and_shadows(files), files / "log")
    arguments = ("--config", files / "experiment.toml", "--out", files / "a", "--json")
    assert leave("rules", "try", files / "early.toml", movie, *arguments) == 0
    of_images = told(capsys)
    assert leave("rules", "try", files / "early.toml", run, "--out", files / "b", "--json") == 0
    of_run = told(capsys)
    assert of_run["firings"] == of_images["firings"] != []
    assert of_run["frames"] == FRAMES


def test_shadow_rules_decide_beside_the_armed_ones_and_change_nothing(files: Path):
    stream = armed_and_shadows(files)
    both, alone = Pipeline(stream), Pipeline(msgspec.structs.replace(stream, shadow=()))
    for t in range(FRAMES):
        frame = Frame(image(t), t, float(t), {"time": t})
        reply, other = both.step(frame).reply, alone.step(frame).reply
        assert reply.decisions == other.decisions
        assert reply.commands == other.commands
        assert list(reply.shadow) == ["early", "enough"]
        assert len(reply.shadow["early"]) == (2 if t == DIVIDES else 0)
        assert len(reply.shadow["enough"]) == (t > DIVIDES)
        assert len(reply.decisions) == (2 if t == DIVIDES + 2 else 0)
        assert other.shadow == {}


def test_a_rule_that_counts_is_told_what_its_own_limits_let_pass_and_not_those_of_others(files: Path):
    """A refused decision is tried again by 'when'; so each file must hear of its own limits."""
    pytest.importorskip("cytoloop.realtime.rules.when")
    (files / "when.toml").write_text(
        '[[rules]]\nuse = "when"\ncondition = "age >= 1 frame"\nquota = { per_cell = 1 }\n'
        'action = { do = "stimulate" }\n'
    )
    rules = read_rules_file(files / "when.toml")
    slow = msgspec.structs.replace(rules, name="slow", limits=Limits(commands_per_s=1.0))
    pipeline = Pipeline(
        StreamConfig(segmenter=PluginChoice("classical"), shadow=(rules, slow), rules=rules.rules)
    )
    passed: dict[str, list[int]] = {"": [], "when": [], "slow": []}
    for t in range(DIVIDES):
        reply = pipeline.step(Frame(image(t), t, float(t))).reply
        for name, decisions in {"": reply.decisions, **reply.shadow}.items():
            passed[name].append(sum(not each.refused for each in decisions))
    assert passed == {"": [0, 4, 0, 0], "when": [0, 4, 0, 0], "slow": [0, 1, 1, 1]}


def test_the_log_keeps_masks_for_a_rule_that_looks_at_outlines_and_gives_the_same_light_again(files: Path):
    pytest.importorskip("cytoloop.realtime.rules.when")
    for action, kept in (({"do": "isolate"}, True), ({"do": "stimulate"}, False)):
        rule = PluginChoice("when", {"condition": "age >= 2 frames", "action": action})
        stream = StreamConfig(segmenter=PluginChoice("classical"), rules=(rule,))
        run = a_run(stream, files / action["do"])
        again, lit = Pipeline(stream), 0
        for entry in read_journal(run / "journal"):
            detections = entry.restore_detections()
            assert detections is not None
            assert (detections.mask is not None) is kept
            assert again.restore(entry.frame, detections, entry.memory).decisions == entry.reply.decisions
            lit += len(entry.reply.decisions)
        assert lit > 0


def test_a_rule_that_looks_at_outlines_is_tried_on_a_run_without_them_and_says_so(
    files: Path, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("cytoloop.realtime.rules.when")
    run = a_run(StreamConfig(segmenter=PluginChoice("classical")), files / "log")
    (files / "isolate.toml").write_text('[[rules]]\nuse = "when"\naction = { do = "isolate" }\n')
    assert leave("rules", "try", files / "isolate.toml", run, "--out", files, "--json") == 0
    found = told(capsys)
    assert found["firings_total"] > 0
    assert any("an ellipse stands for it" in message for message in found["messages"])


def test_what_rules_keep_of_a_frame_holds_no_memory_of_its_image():
    pipeline = Pipeline(
        StreamConfig(segmenter=PluginChoice("classical"), rules=(PluginChoice(f"{__name__}:Kept"),))
    )
    pixels = image(0)
    pipeline.step(Frame(pixels, 0))
    assert pipeline.judged is not None
    (rule,) = pipeline.judged.rules[""]
    assert isinstance(rule, Kept)
    for moment in (pipeline.judged.moment, *rule.moments):
        assert moment.frame.pixels.size == 1
        assert not np.shares_memory(moment.frame.pixels, pixels)


def test_two_shadows_of_one_name_are_refused():
    one = RuleSet(name="a", rules=(PluginChoice("follow"),))
    for shadow in ((one, one), (RuleSet(name=""),)):
        with pytest.raises(ConfigurationError, match="a name of its own"):
            StreamConfig(shadow=shadow)


def test_shadow_decisions_travel_and_those_that_are_not_finite_are_refused(files: Path):
    pipeline = Pipeline(armed_and_shadows(files))
    replies = [pipeline.step(Frame(image(t), t, float(t))).reply for t in range(DIVIDES + 1)]
    answer = wire.decode_from_service(wire.encode(wire.Answer(replies[-1])))
    assert isinstance(answer, wire.Answer)
    assert answer.reply.shadow == replies[-1].shadow
    assert len(answer.reply.shadow["early"]) == 2
    (decision, _) = replies[-1].shadow["early"]
    wrong = msgspec.structs.replace(decision, time_s=float("nan"))
    broken = msgspec.structs.replace(replies[-1], shadow={"early": (wrong,)})
    with pytest.raises(WireError, match="nan"):
        wire.decode_from_service(wire.encode(wire.Answer(broken)))


def test_shadows_have_limits_of_their_own(files: Path):
    shadow = (read_rules_file(files / "early.toml"),)
    strict = Limits(commands_per_s=1.0)
    limited = (msgspec.structs.replace(shadow[0], limits=strict),)
    for sets, refused in ((shadow, [False, False]), (limited, [False, True])):
        stream = StreamConfig(
            segmenter=PluginChoice("classical"), shadow=sets, rules=(PluginChoice("on_division"),)
        )
        pipeline = Pipeline(stream)
        replies = [pipeline.step(Frame(image(t), t, float(t))).reply for t in range(DIVIDES + 1)]
        assert [bool(each.refused) for each in replies[-1].shadow["early"]] == refused
        assert [bool(each.refused) for each in replies[-1].decisions] == [False, False]


def test_shadow_decisions_are_in_the_journal_and_in_the_results(files: Path):
    run = a_run(armed_and_shadows(files), files / "log")
    entries = list(read_journal(run / "journal"))
    assert len(entries[DIVIDES].reply.shadow["early"]) == 2
    results = write_results(run, files / "out")
    lines = [json.loads(line) for line in (files / "out" / "shadow.jsonl").read_text().splitlines()]
    assert results.shadow == {"early": 2, "enough": FRAMES - DIVIDES - 1}
    assert [(line["file"], line["sequence"]) for line in lines[:2]] == [("early", DIVIDES)] * 2
    assert len(lines) == sum(results.shadow.values())
    assert len((files / "out" / "decisions.jsonl").read_text().splitlines()) == 2


def test_a_run_keeps_its_configuration_with_the_shadow_rules_themselves(files: Path):
    stream = armed_and_shadows(files)
    run = a_run(stream, files / "log")
    for name in ("early.toml", "enough.toml", "experiment.toml"):
        (files / name).unlink()
    assert read_stream(run) == stream


def test_the_shadows_of_a_run_are_compared_with_what_was_armed(
    files: Path, capsys: pytest.CaptureFixture[str]
):
    run = a_run(armed_and_shadows(files), files / "log")
    assert leave("rules", "diff", run, "--json") == 0
    found = told(capsys)
    assert found["decided_otherwise"] == 0
    early, enough = found["files"]
    assert (early["first"], early["second"]) == ("armed", "early")
    assert [cell["only"] for cell in early["cells"]] == ["when", "when"]
    assert [(cell["track"], cell["only"]) for cell in enough["cells"] if not cell["track"]] == [(0, "second")]
    assert leave("rules", "diff", run) == 0
    assert "only enough" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_a_run_without_shadows_cannot_be_compared(files: Path, capsys: pytest.CaptureFixture[str]):
    run = a_run(StreamConfig(segmenter=PluginChoice("classical")), files / "log")
    assert leave("rules", "diff", run) == 2
    assert "--against" in capsys.readouterr().err


def daughters(run: Path) -> tuple[int, int]:
    return next(
        entry.reply.divisions[0].daughters for entry in read_journal(run / "journal") if entry.reply.divisions
    )


def test_why_tells_each_clause_of_each_rule_with_value_and_threshold(
    files: Path, capsys: pytest.CaptureFixture[str]
):
    run = a_run(armed_and_shadows(files), files / "log")
    daughter = daughters(run)[0]
    assert leave("rules", "why", run, "--cell", daughter, "--frame", DIVIDES + 1, "--json") == 0
    found = told(capsys)
    assert (found["seen"], found["track"], found["seen_from"]) == (True, daughter, DIVIDES)
    late, early, enough = found["rules"]
    assert (late["file"], late["fired"]) == ("armed", False)
    assert "the rule waits for 2" in late["verdict"]
    assert (late["clauses"][1]["value"], late["clauses"][1]["threshold"]) == (1.0, 2.0)
    assert (early["file"], early["verdict"]) == ("early", "no: it was acted on before.")
    assert (enough["fired"], enough["clauses"][0]["since_s"]) == (True, DIVIDES)
    assert (
        leave("rules", "why", run, "--cell", daughter, "--frame", DIVIDES + 2, "--rule", "on_division") == 0
    )
    shown = capsys.readouterr().out
    assert "on_division (armed): yes: it was born by division 2 frame(s) ago." in " ".join(shown.split())
    assert "stop_at_count" not in shown


def test_why_draws_the_cell_if_the_recording_is_given(
    movie: Path, files: Path, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("matplotlib", reason="the report extra is not installed")
    run = a_run(armed_and_shadows(files), files / "log")
    cell = ("--cell", 1, "--frame", 3)
    assert leave("rules", "why", run, *cell, "--frames", movie, "--out", files / "why.png", "--json") == 0
    assert told(capsys)["picture"] == str(files / "why.png")
    assert (files / "why.png").read_bytes().startswith(b"\x89PNG")
    assert leave("rules", "why", run, *cell, "--out", files / "why.png") == 2
    tifffile.imwrite(files / "t000.tif", np.zeros((8, 8), np.uint16))
    assert leave("rules", "why", run, "--cell", 1, "--frame", 0, "--frames", files / "t000.tif") == 2
    assert "another recording" in " ".join(capsys.readouterr().err.split())


def test_why_of_a_cell_that_is_not_there_says_when_it_was_seen(
    files: Path, capsys: pytest.CaptureFixture[str]
):
    run = a_run(armed_and_shadows(files), files / "log")
    daughter = daughters(run)[0]
    assert leave("rules", "why", run, "--cell", daughter, "--frame", 1) == 0
    assert f"seen in frames {DIVIDES} to {FRAMES - 1}" in " ".join(capsys.readouterr().out.split())
    for cell, frame, words in (
        (999, 1, "no cell 999"),
        (1, 999, "no frame 999"),
        (1, 1, "no rule 'on_divsion'"),
    ):
        wrong = ("--rule", "on_divsion") if "rule" in words else ()
        assert leave("rules", "why", run, "--cell", cell, "--frame", frame, *wrong) == 2
        shown = " ".join(capsys.readouterr().err.split())
        assert words in shown
        assert "Traceback" not in shown
    assert leave("rules", "why", files, "--cell", 1, "--frame", 1) == 2
    assert "holds no journal" in " ".join(capsys.readouterr().err.split())


def test_a_run_explained_frame_by_frame_says_what_the_running_pipeline_said(files: Path):
    from cytoloop.realtime.trial.why import why

    stream = armed_and_shadows(files)
    run = a_run(stream, files / "log")
    pipeline = Pipeline(stream)
    live: dict[int, tuple[Explanation, ...]] = {}
    for t in range(FRAMES):
        pipeline.step(Frame(image(t), t, float(t), {"time": t}))
        assert pipeline.judged is not None
        live[t] = pipeline.judged.explain(2)
    for t in (0, DIVIDES, FRAMES - 1):
        assert why(run, 2, t).explanations["armed"] == live[t]


@pytest.mark.parametrize("name", ["isolate_daughters", "stimulate_fast_growers", "follow_the_brightest"])
def test_the_example_rules_fire_on_a_simulated_movie(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], colony: Path
):
    pytest.importorskip("cytoloop.realtime.rules.when")
    (tmp_path / "e.toml").write_text('[streams.s]\nsegmenter = "classical"\n')
    arguments = (
        "--config",
        tmp_path / "e.toml",
        "--pixel-size",
        0.6,
        "--interval",
        60,
        "--out",
        tmp_path,
        "--json",
    )
    assert leave("rules", "try", EXAMPLES / f"{name}.toml", colony, *arguments) == 0
    found = told(capsys)
    assert found["firings_total"] == len(found["firings"]) >= 1
    assert all(each["reasons"] and not each["refused"] for each in found["firings"])
    assert {each["command"] for each in found["firings"]} == {
        "move_stage" if "follow" in name else "stimulate"
    }
    assert any("taken to stand still" in message for message in found["messages"])


def test_why_of_a_rule_as_data_gives_numbers_units_and_since_when(
    files: Path, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("cytoloop.realtime.rules.when")
    options = {"condition": "age >= 3 frames and area > 20 px^2", "action": {"do": "stimulate"}}
    stream = StreamConfig(segmenter=PluginChoice("classical"), rules=(PluginChoice("when", options),))
    run = a_run(stream, files / "log")
    assert leave("rules", "why", run, "--cell", 1, "--frame", 5, "--json") == 0
    (rule,) = told(capsys)["rules"]
    age, area = rule["clauses"]
    assert (age["value"], age["threshold"], age["unit"], age["holds"], age["since_s"]) == (
        5,
        3,
        "frames",
        True,
        3,
    )
    assert (area["threshold"], area["unit"], area["since_s"]) == (20, "px^2", 0)
    assert area["value"] > 200
    assert leave("rules", "why", run, "--cell", 1, "--frame", 2, "--json") == 0
    (rule,) = told(capsys)["rules"]
    assert not rule["fired"] and rule["verdict"].startswith("no")
    assert rule["clauses"][0]["holds"] is False


def problems_of(files: Path, shadow: str) -> list[tuple[str, int, str]]:
    text = (files / "experiment.toml").read_text()
    (files / "experiment.toml").write_text(text.replace('["early.toml", "enough.toml"]', shadow))
    with pytest.raises(ConfigurationError) as caught:
        load_experiment(files / "experiment.toml")
    return [(Path(each.file).name, each.line, each.key) for each in caught.value.problems]


def test_a_shadow_file_is_checked_when_the_experiment_is_read(files: Path):
    (files / "early.toml").write_text(EARLY.replace("delay", "dely"))
    assert problems_of(files, '["early.toml"]') == [("early.toml", 3, "rules[0].dely_frames")]


@pytest.mark.parametrize(
    ("shadow", "key"),
    [
        ('["nowhere.toml"]', "streams.s.shadow[0]"),
        ('["early.toml", "enough.toml", "./early.toml"]', "streams.s.shadow[2]"),
        ("3", "streams.s.shadow"),
    ],
)
def test_a_shadow_that_is_missing_or_named_twice_is_refused(files: Path, shadow: str, key: str):
    assert problems_of(files, shadow) == [("experiment.toml", 3, key)]
