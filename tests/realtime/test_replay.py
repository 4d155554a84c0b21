"""A recording through the service: every frame once, in order, and what is left for people and programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import SourceError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.reply import Decision
from cytoloop.realtime.cli import main
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.replay import replay
from cytoloop.realtime.results import write_results
from cytoloop.trackers.export import CtcWriter

FRAMES, SIZE = 8, 160
STARTS = np.array([[30, 30], [40, 110], [90, 60], [120, 120]])
MASKS = "cytoloop.models.given:GivenSegmenter"


def disc(y: float, x: float, radius: float = 9) -> Any:
    yy, xx = np.mgrid[:SIZE, :SIZE]
    return (yy - y) ** 2 + (xx - x) ** 2 <= radius**2


def a_sequence(folder: Path, first: int = 0) -> Path:
    """Write four cells that drift, one of which divides in frame 4, with their ground truth."""
    images, truth = folder / "01", folder / "01_GT"
    for made in (images, truth / "SEG", truth / "TRA"):
        made.mkdir(parents=True)
    rng = np.random.default_rng(5)
    for t in range(FRAMES):
        labels = np.zeros((SIZE, SIZE), np.uint16)
        for number, (y, x) in enumerate(STARTS, start=1):
            if number == 4 and t >= 4:
                spread = 8 + 2 * (t - 4)
                labels[disc(y, x - spread, 6)], labels[disc(y, x + spread, 6)] = 5, 6
            else:
                labels[disc(y + t, x + 2 * t if number < 4 else x)] = number
        image = rng.normal(100, 5, labels.shape) + 400 * (labels > 0)
        tifffile.imwrite(images / f"t{first + t:03d}.tif", image.astype(np.uint16))
        tifffile.imwrite(truth / "SEG" / f"man_seg{first + t:03d}.tif", labels)
        tifffile.imwrite(truth / "TRA" / f"man_track{first + t:03d}.tif", labels)
    rows = [(1, 0, 7, 0), (2, 0, 7, 0), (3, 0, 7, 0), (4, 0, 3, 0), (5, 4, 7, 4), (6, 4, 7, 4)]
    table = "".join(f"{label} {first + begin} {first + end} {parent}\n" for label, begin, end, parent in rows)
    (truth / "TRA" / "man_track.txt").write_text(table)
    return images


def leave(*args: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(arg) for arg in args])
    return int(left.value.code or 0)


def test_every_frame_of_a_recording_is_processed_once_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    images, out = a_sequence(tmp_path), tmp_path / "out"
    assert leave("replay", images, "--out", out, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["frames"], told["processed"], told["duplicated"], told["out_of_order"]) == (
        FRAMES,
        FRAMES,
        0,
        0,
    )
    assert told["out"] == str(out)
    assert told["frames_per_s"] > 0
    assert 4 <= told["tracks"] <= 6
    assert json.loads((out / "summary.json").read_text())["tracks"] == told["tracks"]
    with (out / "tracks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted({int(row["frame"]) for row in rows}) == list(range(FRAMES))
    assert len({row["track"] for row in rows}) == told["tracks"]
    assert {row["track"] for row in rows if row["frame"] == "0"} == {"1", "2", "3", "4"}
    masks = sorted((out / "ctc" / "01_RES").glob("mask*.tif"))
    assert [mask.name for mask in masks] == [f"mask{t:03d}.tif" for t in range(FRAMES)]
    assert (out / "report.html").is_file()
    assert list((out / "log").rglob("masks/*.tif")) == []


def test_rules_of_an_experiment_file_decide_in_a_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    images = a_sequence(tmp_path)
    file = tmp_path / "experiment.toml"
    file.write_text(
        '[streams.left]\naddress = "tcp://127.0.0.1:5790"\npolicy = "latest"\n'
        '[[streams.left.rules]]\nuse = "stop_at_count"\ncount = 5\ndwell_frames = 1\n'
    )
    assert leave("replay", images, "--out", tmp_path / "out", "--config", file, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    lines = (tmp_path / "out" / "decisions.jsonl").read_bytes().splitlines()
    decisions = [msgspec.json.decode(line, type=Decision) for line in lines]
    assert told["processed"] == FRAMES
    assert told["decisions"] == len(decisions) >= 1
    assert (decisions[0].rule, decisions[0].sequence) == ("stop_at_count", 4)


def test_masks_of_an_earlier_result_are_replaced_and_other_files_kept(tmp_path: Path):
    for name in ("mask099.tif", "res_track.txt", "notes.txt"):
        (tmp_path / name).touch()
    writer = CtcWriter(tmp_path)
    writer.add(np.ones((2, 2), np.uint16), np.array([1]))
    writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask000.tif", "notes.txt", "res_track.txt"]


def test_a_broken_frame_ends_a_replay_with_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    images = a_sequence(tmp_path)
    whole = (images / "t005.tif").read_bytes()
    (images / "t005.tif").write_bytes(whole[: len(whole) // 2])
    assert leave("replay", images, "--out", tmp_path / "out") == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "frame 5" in told
    assert "Traceback" not in told


def test_what_is_no_recording_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert leave("replay", tmp_path, "--out", tmp_path / "out") == 2
    assert leave("replay", tmp_path / "nothing", "--out", tmp_path / "out") == 2
    assert leave("replay", tmp_path, "--out", tmp_path / "out", "--speed", "0") == 2
    assert "Traceback" not in capsys.readouterr().err


class TwoFields:
    """A source of two positions in turn, with the stage at two places."""

    name = "two fields"
    count = 6

    def frames(self) -> Iterator[Frame]:
        for number in range(self.count):
            position = number % 2
            pixels = (100 + 500 * disc(80, 60 + 40 * position + number)).astype(np.uint16)
            axes = {"time": number // 2, "position": f"P{position}"}
            yield Frame(
                pixels, number, number / 100, axes, stage_um=(1000.0 * position, 0.0), pixel_size_um=0.5
            )

    def close(self) -> None: ...


def test_each_field_of_view_has_its_own_tracks_and_folder(tmp_path: Path):
    replayed = replay(TwoFields(), StreamConfig(), tmp_path / "log", speed=2.0)
    results = write_results(replayed.folder, tmp_path / "out")
    assert results.fields == {"01_RES": ("P0", 0), "02_RES": ("P1", 0)}
    assert (results.tracks, results.processed) == (2, 6)
    for name in results.fields:
        assert (tmp_path / "out" / "ctc" / name / "res_track.txt").read_text() == "1 0 2 0\n"
    assert replayed.last_frame is not None
    assert replayed.last_frame.sequence == 5
    assert len(replayed.latency_ms) == 6


def test_given_masks_and_right_tracks_score_full_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("ctc_metrics", reason="the scores extra is not installed")
    images = a_sequence(tmp_path)
    truth = tmp_path / "01_GT" / "SEG"
    assert leave("evaluate", "--sequence", tmp_path, "--labels", truth, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["SEG"] == told["DET"] == 1
    assert told["TRA"] > 0.95
    assert told["LNK"] > 0.9
    assert told["frames"] == FRAMES
    assert told["latency_ms"]["p50"] <= told["latency_ms"]["p99"]
    assert told["settings"]["segmenter"]["options"] == {"path": str(truth)}
    assert images.is_dir()


def test_a_tracker_that_knows_no_divisions_scores_0_on_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("ctc_metrics", reason="the scores extra is not installed")
    images = a_sequence(tmp_path)
    truth = tmp_path / "01_GT" / "TRA"
    assert leave("evaluate", "--sequence", images, "--labels", truth, "--tracker", "nearest", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["division_f1"] == 0
    assert told["edge_f1"] > 0.8


def test_an_evaluation_without_ground_truth_or_tracker_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    images = a_sequence(tmp_path)
    assert leave("evaluate", "--sequence", images, "--tracker", "neerest") == 2
    assert "Did you mean 'nearest'?" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert leave("evaluate", "--sequence", tmp_path / "empty") == 2
    assert "01_GT" in capsys.readouterr().err


def test_a_gap_becomes_a_new_label_whose_parent_is_the_piece_before(tmp_path: Path):
    writer = CtcWriter(tmp_path, digits=4)
    labels = np.zeros((4, 4), np.uint16)
    labels[0, 0] = 1
    for tracks in ([7], [7], [], [7]):
        writer.add(labels * len(tracks), np.array(tracks, np.int64))
    writer.close()
    assert (tmp_path / "res_track.txt").read_text() == "1 0 1 0\n2 3 3 1\n"
    assert tifffile.imread(tmp_path / "mask0003.tif")[0, 0] == 2


def test_daughters_have_their_mother_as_parent(tmp_path: Path):
    writer = CtcWriter(tmp_path)
    labels = np.array([[1, 2]], np.uint16)
    writer.add(np.array([[1, 1]], np.uint16), np.array([4]))
    writer.add(labels, np.array([9, 5]), {5: 4, 9: 4})
    writer.close()
    assert (tmp_path / "res_track.txt").read_text() == "1 0 0 0\n2 1 1 1\n3 1 1 1\n"
    assert tifffile.imread(tmp_path / "mask001.tif").tolist() == [[2, 3]]


def test_given_masks_are_refused_where_they_do_not_fit(tmp_path: Path):
    given = PluginChoice(MASKS, {"path": str(tmp_path)})
    with pytest.raises(SourceError, match="no masks here"):
        given.build("segmenters")
    tifffile.imwrite(tmp_path / "man_seg007.tif", np.array([[0, 5], [9, 5]], np.uint16))
    segmenter = given.build("segmenters")
    labels = segmenter.segment(Frame(np.zeros((2, 2), np.uint8), axes={"time": 7}))
    assert labels.image.tolist() == [[0, 1], [2, 1]]
    assert labels.count == 2
    with pytest.raises(SourceError, match="frame 0: there is no mask"):
        segmenter.segment(Frame(np.zeros((2, 2), np.uint8)))
    with pytest.raises(SourceError, match="man_seg007.tif, frame 7"):
        segmenter.segment(Frame(np.zeros((3, 2), np.uint8), sequence=7))
