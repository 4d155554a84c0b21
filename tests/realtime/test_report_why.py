"""The report says why cells were chosen and others were not: clause by clause, with their images."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import SourceError
from cytoloop.acquire.explanation import Clause, Explanation
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.pixels import header_of
from cytoloop.acquire.outcome import Outcome
from cytoloop.realtime.cli import main
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.report.reasons import reasons
from cytoloop.realtime.results import write_results
from cytoloop.realtime.service.run import Run
from cytoloop.realtime.trial import examples as trial_examples
from cytoloop.realtime.trial.examples import MOST_EXAMPLES, Example, examples_of
from cytoloop.realtime.trial.firings import Crop
from cytoloop.realtime.trial.images import images_in

FRAMES, SIZE = 6, 160
PLACES = [(30, 30), (30, 110), (80, 70), (120, 30), (120, 120)]
RADII = [12, 8, 8, 8, 10]  # the first and the last cell are large
LARGE = {"name": "large <cells>", "condition": "age >= 2 frames and area > 250 px^2", "cooldown": "100 s"}
LIGHT = {"do": "stimulate", "duration_ms": 20}


def image(t: int) -> Any:
    yy, xx = np.mgrid[:SIZE, :SIZE]
    cells = np.zeros((SIZE, SIZE), bool)
    for (y, x), radius in zip(PLACES, RADII, strict=True):
        cells |= (yy - y) ** 2 + (xx - x - t) ** 2 <= radius**2
    return (np.random.default_rng(t).normal(100, 5, cells.shape) + 400 * cells).astype(np.uint16)


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("movie") / "01"
    folder.mkdir()
    for t in range(FRAMES):
        tifffile.imwrite(folder / f"t{t:03d}.tif", image(t))
    return folder


def when(**options: Any) -> PluginChoice:
    return PluginChoice("when", {"action": LIGHT, **LARGE, **options})


def a_run(folder: Path, *rules: PluginChoice) -> Path:
    """Put the movie through the service's own run, and return its folder."""
    stream = StreamConfig(segmenter=PluginChoice("classical"), rules=rules, save_masks=True)
    run = Run(stream, folder / "log", "abc", lambda: None)
    try:
        for t in range(FRAMES):
            frame = Frame(image(t), t, float(t), {"time": t})
            run.process(header_of(frame, skipped=0, slot=-1, check=0), frame)
    finally:
        run.close()
    return run.folder


def examples(run: Path, movie: Path, most: int = MOST_EXAMPLES) -> dict[str, list[Example]]:
    decisions = write_results(run, run.parent / "out").first_decisions
    return examples_of(run, decisions, lambda wanted: images_in(movie, wanted), most=most)


def test_cells_that_were_chosen_and_some_that_were_not_are_explained_with_their_images(
    movie: Path, tmp_path: Path
):
    found = examples(a_run(tmp_path, when()), movie)[LARGE["name"]]
    chosen = [each for each in found if each.explanation.fired]
    others = [each for each in found if not each.explanation.fired]
    assert len(chosen) == 2 and len(others) == 3
    assert len({each.explanation.track for each in found}) == 5
    for each in chosen:
        age, area = each.explanation.clauses
        assert age.holds and area.holds
        assert age.value == age.threshold == 2
        assert area.value is not None and area.value > 250 and area.threshold == 250
        assert area.since_s == 0
    for each in others:
        assert [clause.holds for clause in each.explanation.clauses] == [True, False]
        assert each.explanation.sequence == chosen[0].explanation.sequence
    for each in found:
        assert each.crop is not None and each.crop.labels is not None
        inside = each.crop.image[each.crop.labels == each.crop.label]
        assert inside.mean() > 400 and len(inside) > 150


def test_the_cell_that_lacks_least_is_shown_of_those_that_were_not_chosen(movie: Path, tmp_path: Path):
    rule = when(name="r", condition="age >= 2 frames and area > 250 px^2 and mean > 0 and area > 400 px^2")
    found = examples(a_run(tmp_path, rule), movie, most=2)["r"]
    first, second = found
    assert first.explanation.fired and not second.explanation.fired
    assert sum(clause.holds for clause in second.explanation.clauses) == 3  # the other large cell


def test_a_rule_that_chose_nothing_is_explained_too(movie: Path, tmp_path: Path):
    run = a_run(tmp_path, when(name="never", condition="area > 9000 px^2"), when())
    found = examples(run, movie)
    assert list(found) == [LARGE["name"], "never"]
    assert 1 <= len(found["never"]) <= 3
    assert not any(each.explanation.fired for each in found["never"])
    assert all(each.crop is not None for each in found["never"])


def test_only_the_first_frames_of_a_long_run_are_worked_out_again(
    movie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trial_examples, "MOST_PLAYED", 2)
    found = examples(a_run(tmp_path, when()), movie)[LARGE["name"]]
    assert {each.explanation.sequence for each in found} == {1}  # what it chose in frame 2 is not looked at
    assert not any(each.explanation.fired for each in found)


def test_a_rule_about_the_whole_image_is_explained_without_a_cell(movie: Path, tmp_path: Path):
    enough = PluginChoice("stop_at_count", {"count": 5, "dwell_frames": 2})
    (example,) = examples(a_run(tmp_path / "one", enough), movie)["stop_at_count"]
    assert example.explanation.fired and example.explanation.track == 0 and example.crop is None
    assert [clause.value for clause in example.explanation.clauses] == [5, 2]
    full = PluginChoice("stop_at_count", {"count": 50})
    (example,) = examples(a_run(tmp_path / "two", full), movie)["stop_at_count"]
    assert not example.explanation.fired and example.explanation.track == 0 and example.crop is None


def test_very_many_rules_give_no_more_examples_than_wanted(movie: Path, tmp_path: Path):
    run = a_run(tmp_path, *(when(name=f"rule {number}") for number in range(20)))
    found = examples(run, movie)
    assert sum(map(len, found.values())) <= MOST_EXAMPLES
    assert len(found) == MOST_EXAMPLES // 2


def test_a_run_without_rules_has_no_examples(movie: Path, tmp_path: Path):
    assert examples(a_run(tmp_path), movie) == {}


def test_what_came_of_a_decision_stands_with_its_example(movie: Path, tmp_path: Path):
    run = a_run(tmp_path, when())
    (decision, *_) = write_results(run, tmp_path / "out").first_decisions
    line = '{"sequence":%d,"rule":"%s","track":%d,"command":"Stimulate","fate":"applied","age_s":0.04}\n'
    (run / "outcomes.jsonl").write_text(line % (decision.sequence, decision.rule, decision.track))
    found = examples(run, movie)[LARGE["name"]]
    told = {each.explanation.track: each.outcome for each in found}
    assert told.pop(decision.track) == Outcome(
        decision.sequence, decision.rule, decision.track, "Stimulate", "applied", 0.04
    )
    assert not any(told.values())
    assert "At the microscope: carried out, 40 ms after the frame." in reasons({"r": [found[0]]})


def test_a_recording_that_is_gone_is_an_error_and_one_of_another_size_gives_no_images(
    movie: Path, tmp_path: Path
):
    run = a_run(tmp_path, when())
    with pytest.raises(SourceError, match="no such file"):
        examples(run, tmp_path / "gone")
    small = tmp_path / "02"
    small.mkdir()
    for t in range(FRAMES):
        tifffile.imwrite(small / f"t{t:03d}.tif", image(t)[:100])
    assert [each.crop for each in examples(run, small)[LARGE["name"]]] == [None] * 5


def test_the_report_of_a_replay_shows_why_in_one_file(
    movie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("matplotlib", reason="the report extra is not installed")
    config = tmp_path / "experiment.toml"
    config.write_text(
        '[streams.s]\nsegmenter = "classical"\n[[streams.s.rules]]\nuse = "when"\n'
        + "".join(f"{key} = {json.dumps(value)}\n" for key, value in LARGE.items())
        + 'action = { do = "stimulate", duration_ms = 20 }\n'
    )
    with pytest.raises(SystemExit) as left:
        main(["replay", str(movie), "--out", str(tmp_path / "out"), "--config", str(config), "--json"])
    assert left.value.code == 0
    assert json.loads(capsys.readouterr().out)["decisions"] == 2
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Why, and why not" in page
    assert "<h3>large &lt;cells&gt;</h3>" in page and "<cells>" not in page
    assert page.count('<div class="example chosen"><img') == 2
    assert page.count('<div class="example"><img') == 3
    assert page.count("<td>area &gt; 250 px^2</td>") == 5
    assert page.count("<td>250 px^2</td>") == 5
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert list((tmp_path / "out" / "log").rglob("masks/*.tif")) == []


def test_nothing_that_a_rule_says_is_markup_on_the_page():
    pytest.importorskip("matplotlib", reason="the report extra is not installed")
    evil = '"><script>alert(1)</script>'
    clause = Clause(evil, 1.0, 2.0, evil, True, 3.0)
    explanation = Explanation(evil, 5, 2, True, evil, (clause, clause))
    outcome = Outcome(2, evil, 5, evil, "failed", 0.1, evil)
    crop = Crop(np.zeros((1, 30)), None, 0, evil)
    page = reasons({evil: [Example(explanation, 0.5, crop, outcome)], "empty": []})
    assert "<script" not in page and "empty" not in page
    assert page.count("&lt;script&gt;") >= 6
