"""On time, late, refused: what a microscope told of its decisions, in figures and in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.client import Client
from cytoloop.acquire.outcome import Fate, Outcome
from cytoloop.realtime.bench.blank import BLANK
from cytoloop.realtime.cli import main
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.outcomes import MOST_KINDS, OutcomeFigures, count_outcomes, in_words
from cytoloop.realtime.report.contents import Decided
from cytoloop.realtime.report.fates import fates
from cytoloop.realtime.results import write_results
from cytoloop.realtime.service.outcome_log import read_outcomes
from cytoloop.realtime.service.thread import EngineThread


def an_outcome(fate: Fate, age_s: float = 0.0, reason: str = "", rule: str = "light") -> Outcome:
    return Outcome(3, rule, 7, "Stimulate", fate, age_s, reason)


def test_every_fate_is_counted_and_ages_are_of_those_carried_out():
    found = count_outcomes(
        [
            *(an_outcome("applied", number / 1000) for number in range(101)),
            *[an_outcome("expired", 9.0, "stale by 8 s")] * 4,
            *[an_outcome("refused", 9.0, "limits: too bright")] * 3,
            *[an_outcome("disarmed", 9.0, "disarmed: by hand")] * 2,
            *[an_outcome("dry", 9.0)] * 5,
            an_outcome("failed", 9.0, "no such device"),
        ]
    )
    assert (found.on_time, found.late, found.refused, found.disarmed, found.dry, found.failed) == (
        101,
        4,
        3,
        2,
        5,
        1,
    )
    assert found.age_ms == {"p50": 50.0, "p99": 99.0, "max": 100.0}
    assert found.told == 116
    assert [(each.fate, each.times) for each in found.missed] == [
        ("expired", 4),
        ("refused", 3),
        ("disarmed", 2),
        ("failed", 1),
    ]


def test_nothing_carried_out_has_no_age():
    found = count_outcomes([an_outcome("expired", 2.0, "stale by 1 s")])
    assert found.age_ms is None
    assert found.values()["age_ms"] == {"p50": None, "p99": None, "max": None}
    assert json.loads(json.dumps(found.values()))["late"] == 1


def test_reasons_that_differ_only_in_numbers_are_one_kind():
    reasons = [f"stale by {number / 7:.3f} s" for number in range(500)]
    found = count_outcomes(an_outcome("expired", 1.0, reason) for reason in reasons)
    assert [(each.reason, each.times) for each in found.missed] == [("stale by 0.000 s", 500)]


def test_very_many_kinds_of_reasons_are_counted_and_few_are_kept():
    rules = [f"rule {'x' * number}" for number in range(3 * MOST_KINDS)]
    found = count_outcomes(an_outcome("refused", 1.0, "no", rule) for rule in rules)
    assert found.refused == 3 * MOST_KINDS
    assert len(found.missed) == MOST_KINDS


def test_an_outcome_is_told_in_words():
    assert in_words(an_outcome("applied", 0.035)) == "carried out, 35 ms after the frame"
    late = in_words(an_outcome("expired", 2.0, "stale by 1 s"))
    assert late == "too late, and dropped, 2000 ms after the frame (stale by 1 s)"


def test_the_results_of_a_run_hold_what_the_microscope_told_and_none_where_nobody_did(tmp_path: Path):
    stream = StreamConfig(address="tcp://127.0.0.1:0", segmenter=PluginChoice(BLANK))
    folders: list[Path] = []
    told = [an_outcome("applied", 0.02), an_outcome("expired", 2.0, "stale by 1 s")]
    for outcomes in (told, []):
        with EngineThread(stream, tmp_path / "log") as engine, Client(engine.address) as client:
            client.send(Frame(np.zeros((16, 16), np.uint8)))
            for outcome in outcomes:
                client.safeguard.report(outcome)
            assert client.drain(30)
            folders.append(Path(client.stats().folder))
    heard, silent = folders
    found = write_results(heard, tmp_path / "out").outcomes
    assert found is not None
    assert (found.on_time, found.late, found.age_ms) == (1, 1, {"p50": 20.0, "p99": 20.0, "max": 20.0})
    assert list(read_outcomes(tmp_path / "out")) == told
    assert write_results(silent, tmp_path / "out").outcomes is None
    assert not (tmp_path / "out" / "outcomes.jsonl").exists()


def test_results_written_into_the_folder_of_the_run_leave_its_outcomes_alone(tmp_path: Path):
    stream = StreamConfig(address="tcp://127.0.0.1:0", segmenter=PluginChoice(BLANK))
    with EngineThread(stream, tmp_path) as engine, Client(engine.address) as client:
        client.send(Frame(np.zeros((16, 16), np.uint8)))
        client.safeguard.report(an_outcome("dry", 0.02))
        assert client.drain(30)
        run = Path(client.stats().folder)
    found = write_results(run, run).outcomes
    assert found is not None and found.dry == 1
    assert list(read_outcomes(run)) == [an_outcome("dry", 0.02)]


def test_a_replay_says_that_no_microscope_took_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib", reason="the report extra is not installed")
    movie = tmp_path / "01"
    movie.mkdir()
    for t in range(2):
        tifffile.imwrite(movie / f"t{t:03d}.tif", np.full((64, 64), 100, np.uint16))
    config = tmp_path / "experiment.toml"
    config.write_text('[streams.s]\nsegmenter = "classical"\n')
    with pytest.raises(SystemExit) as left:
        main(["replay", str(movie), "--out", str(tmp_path / "out"), "--config", str(config), "--json"])
    assert left.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["outcomes"] is None
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "No microscope reported what came of its decisions" in page
    assert "carried out in time</td>" not in page


def test_a_page_tells_what_came_of_decisions_and_what_is_not_known():
    figures = OutcomeFigures(on_time=5, late=2, age_ms={"p50": 20.0, "p99": 30.4, "max": 31.0})
    page = fates({"one": Decided(9, 1, figures), "two": Decided(4, 0)})
    assert "<th>one</th><th>two</th>" in page
    for row in (
        ("decisions of the rules", "10", "4"),
        ("refused by the limits before it was sent", "1", "0"),
        ("carried out in time", "5", "-"),
        ("came too late, so it was dropped", "2", "-"),
        ("nothing was heard of it *", "2", "-"),
        ("from the image to the action: 99 of 100 within", "30 ms", "-"),
    ):
        assert f"<td>{row[0]}</td>" + "".join(f'<td class="number">{cell}</td>' for cell in row[1:]) in page
    assert fates({}) == ""


def test_reasons_on_a_page_are_escaped():
    found = count_outcomes([an_outcome("failed", 1.0, "<script>1</script>", "<b>")] * 3)
    page = fates({"<i>": Decided(3, 0, found), "other": Decided(0, 0)})
    assert "<script>" not in page and "<b>" not in page and "<i>" not in page
    assert "&lt;script&gt;1&lt;/script&gt;" in page
    assert '<td class="number">3</td>' in page
