"""The report of a run: a picture, and one page that needs nothing else."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from cytoloop.acquire.commands import MoveStage, Stimulate, Stop
from cytoloop.acquire.reply import Cells, Decision
from cytoloop.realtime.report.contents import Curve, Mark, Picture, RunReport, percentiles, write_report
from cytoloop.realtime.report.figure import contrast, outlines
from cytoloop.realtime.report.page import MOST_DECISIONS, describe

pytest.importorskip("matplotlib", reason="the report extra is not installed")


def two_cells() -> Picture:
    """A picture of two cells, one of which is marked."""
    image = np.full((60, 90), 100, np.uint16)
    labels = np.zeros((60, 90), np.int32)
    labels[10:25, 10:25], labels[30:45, 60:80] = 1, 2
    image[labels > 0] = 900
    cells = Cells(np.array([3, 8]), np.float32([17, 70]), np.float32([17, 37]))
    tails = {3: np.float32([[5, 5], [17, 17]]), 8: np.float32([[70, 37]])}
    marks = [Mark("stimulate", 17, 17, "light"), Mark("move_stage", 70, 37), Mark("snap_extra", 200, 2)]
    return Picture("two cells", image, labels, cells, tails, marks, 0.65)


def a_decision(**changes: object) -> Decision:
    values = {
        "rule": "on_division",
        "command": Stop("<done>"),
        "sequence": 3,
        "time_s": 1.5,
        "expires_s": 3.0,
    }
    return Decision(**{**values, **changes})  # type: ignore[arg-type]


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG")
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


@pytest.mark.parametrize("pictures", [0, 1, 3])
def test_a_report_of_any_number_of_pictures_is_drawn(tmp_path: Path, pictures: int):
    times = np.arange(20.0)
    report = RunReport(
        "A run",
        "of a test",
        [two_cells()] * pictures,
        {"first": times + 1, "second": times * 2 + 1},
        [
            Curve("Cells", "s", "", {"in view": (times, times)}, limit=10),
            Curve("Stage", "x", "y", {"": (times, -times)}, is_path=True),
        ],
        {"frames": "20"},
        {"SEG": 0.9, "division F1": float("nan")},
        [a_decision()],
    )
    page = write_report(report, tmp_path / "out")
    width, height = size_of((tmp_path / "out" / "report.png").read_bytes())
    assert (page.name, width) == ("report.html", 1920)
    assert height >= 1080


def test_a_report_of_nothing_is_a_report(tmp_path: Path):
    assert write_report(RunReport("Nothing"), tmp_path).is_file()
    assert write_report(RunReport("Nothing", latency_ms={"none": np.empty(0)}), tmp_path).is_file()


def test_the_page_holds_its_picture_and_loads_nothing_from_elsewhere(tmp_path: Path):
    page = write_report(RunReport("A <run>", pictures=[two_cells()]), tmp_path).read_text(encoding="utf-8")
    (embedded,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert base64.b64decode(embedded) == (tmp_path / "report.png").read_bytes()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "A &lt;run&gt;" in page


def test_the_page_gives_reasons_and_says_what_was_refused(tmp_path: Path):
    decisions = [
        a_decision(track=7, reasons=("age 1 < 3 & bright",)),
        a_decision(command=MoveStage(1e6, 0.0), refused="x_um is above 500"),
    ]
    page = write_report(RunReport("A run", decisions=decisions), tmp_path).read_text(encoding="utf-8")
    assert "age 1 &lt; 3 &amp; bright" in page
    assert "stop (reason &lt;done&gt;)" in page
    assert '<tr class="refused">' in page
    assert "refused: x_um is above 500" in page


def test_a_page_of_very_many_decisions_says_how_many_are_left_out(tmp_path: Path):
    decisions = [a_decision()] * (MOST_DECISIONS + 5)
    page = write_report(RunReport("A run", decisions=decisions), tmp_path).read_text(encoding="utf-8")
    assert page.count("<td>on_division</td>") == MOST_DECISIONS
    assert "and 5 more" in page


def test_commands_are_described_by_what_is_set():
    assert describe(MoveStage(12.3456789, 4.0)) == "move_stage (x_um 12.35, y_um 4)"
    assert "mask (9 values)" in describe(Stimulate(mask=(1,) * 9))


def test_an_outline_runs_around_its_cell():
    labels = np.zeros((40, 40), np.int32)
    labels[0:12, 0:12], labels[20:31, 15:36] = 1, 2
    ((corner,), (inner,)) = outlines(labels)
    assert np.abs(inner.min(axis=0) - (14.5, 19.5)).max() < 0.6
    assert np.abs(inner.max(axis=0) - (35.5, 30.5)).max() < 0.6
    assert corner.min() > -1.1
    assert (inner[0] == inner[-1]).all()


def test_contrast_shows_dim_cells_on_a_dark_background_and_leaves_bright_fields_alone():
    rng = np.random.default_rng(0)
    dark = rng.normal(100, 5, (100, 100))
    dark[:10] += 200
    shown = contrast(dark.astype(np.uint16))
    assert np.median(shown) < 0.15
    assert shown[:10].mean() > 0.8
    bright = rng.normal(30000, 3000, (100, 100)).astype(np.uint16)
    assert 0.3 < np.median(contrast(bright)) < 0.7
    assert not contrast(np.full((4, 4), 7, np.uint8)).any()


def test_percentiles_of_nothing_are_not_a_number():
    assert np.isnan(list(percentiles(np.empty(0)).values())).all()
    assert percentiles(np.arange(101.0)) == {"p50": 50.0, "p99": 99.0, "max": 100.0}
