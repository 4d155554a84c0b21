from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import tifffile
from cytoloop.acquire.commands import Stimulate
from cytoloop.acquire.outcome import Fate, Outcome
from cytoloop.acquire.reply import Cells, Decision, Reply
from cytoloop.acquire.simulated import presets
from cytoloop.realtime.demo import Length, Show, run_demo
from cytoloop.realtime.demo.play import broken_promises, fresh_folder
from cytoloop.realtime.demo.promise import Promise, late_ones_counted
from cytoloop.realtime.demo.record import f1, match
from cytoloop.realtime.outcomes import count_outcomes
from cytoloop.realtime.progress import silent

SHORT = Length(follow=34, stimulate=48, survive=30, size_px=256)


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_the_demo_keeps_its_promises_on_the_real_engine(engine: Any, tmp_path: Path, capfd: Any) -> None:
    pytest.importorskip("matplotlib", reason="the report extra is not installed")
    told: list[str] = []
    values = run_demo(tmp_path / "demo", Show(silent, told.append), seed=4, length=SHORT)

    assert values["promises_broken"] == [] and values["ok"]
    assert [act["name"] for act in values["acts"]] == ["follow", "stimulate", "survive"]
    for act, frames in zip(values["acts"], (34, 48, 30), strict=True):
        counts = {act["frames_expected"], act["frames_acquired"], act["frames_decided"]}
        assert counts == {frames}
        assert act["latency_ms"]["p50"] > 0
    assert values["follow"]["distance_um_p95_last_half"] < 10
    assert values["stimulation"]["on_true_division"] >= 0.9 * values["stimulation"]["fired"] > 0
    assert values["survival"]["restarts"] >= 2
    assert values["survival"]["frames_unlike_undisturbed"] == 0
    assert any("kill -9" in line for line in told)

    for act in values["acts"]:
        assert act["outcomes"]["on_time"] > 0
        assert act["outcomes"]["age_ms"]["p50"] <= act["outcomes"]["age_ms"]["max"]
    assert values["acts"][1]["outcomes"]["on_time"] == values["stimulation"]["fired"]

    folder = tmp_path / "demo"
    page = (folder / "report.html").read_text("utf-8")
    assert "carried out in time" in page
    assert "New daughters are stimulated: on_division" in page
    assert page.count('<div class="example chosen"><img') >= 2
    assert "At the microscope: carried out" in page
    assert Path(values["report"]) == folder / "report.html"
    assert (folder / "report.png").stat().st_size > 100_000
    assert json.loads((folder / "summary.json").read_text("utf-8"))["detection"] == values["detection"]
    for name, frames in (("follow", 34), ("stimulate", 48), ("survive", 30)):
        assert _overlap_on_disk(folder / name / "ctc", frames) > 0.9
    assert capfd.readouterr().out == ""


def _overlap_on_disk(ctc: Path, frames: int) -> float:
    """Return the share of true foreground px, in whole files on disk, that lie in a cell that was found."""
    both = true = 0
    assert len(list((ctc / "01").glob("t*.tif"))) == frames
    for frame in range(frames):
        truth = tifffile.imread(ctc / "01_GT" / "SEG" / f"man_seg{frame:03d}.tif") > 0
        found = tifffile.imread(ctc / "01_RES" / f"mask{frame:03d}.tif") > 0
        both += int((truth & found).sum())
        true += int(truth.sum())
    return both / true


def _truth() -> Any:
    microscope = presets.nuclei(3, size_px=256)
    microscope.snap()
    return microscope.truth(0)


def _perfect(truth: Any) -> tuple[np.ndarray, np.ndarray]:
    labels = np.searchsorted(truth.identity, truth.mask).astype(np.int32) + 1
    return np.where(truth.mask > 0, labels, 0), truth.identity + 100


def test_what_is_found_as_it_is_has_an_f1_of_1_and_the_right_identities() -> None:
    truth = _truth()
    labels, tracks = _perfect(truth)

    found = match(truth, labels, tracks)

    assert f1([found]) == 1 and found.true == found.both > 5
    assert found.track_of == {int(i): int(i) + 100 for i in truth.identity}


def test_a_cell_that_is_missed_and_one_that_is_made_up_cost_f1() -> None:
    truth = _truth()
    labels, tracks = _perfect(truth)
    whole = int(np.flatnonzero(truth.visible == 1)[0]) + 1
    empty = np.argwhere(labels == 0)[0]

    missed = match(truth, np.where(labels == whole, 0, labels), tracks)
    labels[tuple(empty)] = len(tracks) + 1
    made_up = match(truth, labels, np.append(tracks, 999))

    assert missed.both == missed.true - 1 and int(truth.identity[whole - 1]) not in missed.track_of
    assert (made_up.found, made_up.both) == (made_up.true + 1, made_up.true)
    assert f1([missed]) < 1 and f1([made_up]) < 1


def test_a_cell_of_which_little_is_in_the_image_is_neither_asked_for_nor_held_against_the_service() -> None:
    truth = _truth()
    labels, tracks = _perfect(truth)
    cut = np.flatnonzero(truth.visible < 0.5) + 1
    assert len(cut), "the sample must have a cell on the border"

    without = match(truth, np.where(np.isin(labels, cut), 0, labels), tracks[: len(tracks)])
    with_them = match(truth, labels, tracks)

    assert with_them.true == with_them.found == with_them.both == len(tracks) - len(cut)
    assert without.true == without.both


def test_nothing_found_is_an_f1_of_0() -> None:
    truth = _truth()
    assert f1([match(truth, np.zeros_like(truth.mask), np.empty(0, np.int64))]) == 0


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    first = fresh_folder(tmp_path / "demo")
    (first / "mine.txt").write_text("keep me")
    second = fresh_folder(tmp_path / "demo")
    (second / "mine.txt").write_text("keep me too")

    assert (first.name, second.name) == ("demo", "demo-2")
    assert fresh_folder(tmp_path / "demo").name == "demo-3"
    assert fresh_folder(tmp_path / "demo").name == "demo-3", "an empty folder is used"


def test_a_broken_promise_is_named_with_its_act() -> None:
    kept, broken = Promise("no frame is lost", "100 of 100", True), Promise("all is well", "it is not", False)
    act: Any = SimpleNamespace(take=SimpleNamespace(name="follow"), promises=[kept, broken])
    assert broken_promises([act]) == ["follow: all is well (it is not)"]


def _told(folder: Path, *fates: Fate) -> Any:
    """Return a take of two decisions, and what a microscope told of cells 1, 2, ... in its folder."""
    decisions = tuple(Decision("light", Stimulate(), 0, 0.0, 1.0, track=track) for track in (1, 2))
    outcomes = [
        Outcome(0, "light", track, "Stimulate", fate, 0.1) for track, fate in enumerate(fates, start=1)
    ]
    lines = b"".join(msgspec.json.encode(each) + b"\n" for each in outcomes)
    (folder / "outcomes.jsonl").write_bytes(lines)
    results = SimpleNamespace(outcomes=count_outcomes(outcomes))
    return SimpleNamespace(out=folder, results=results, replies=[Reply(0, Cells.none(), decisions=decisions)])


def test_any_number_of_late_decisions_keeps_the_promise_as_long_as_they_are_counted(tmp_path: Path) -> None:
    for fates, carried_out in ((("applied", "expired"), 1), (("expired", "expired"), 0), (("applied",), 1)):
        assert late_ones_counted(_told(tmp_path, *fates), carried_out).kept
    promise = late_ones_counted(_told(tmp_path, "applied", "expired"))
    assert promise.found == "1 in time, 1 late"


def test_light_that_nobody_told_of_or_an_outcome_of_no_decision_breaks_the_promise(tmp_path: Path) -> None:
    assert not late_ones_counted(_told(tmp_path, "applied", "expired"), carried_out=2).kept
    assert not late_ones_counted(_told(tmp_path, "applied", "applied", "applied")).kept
