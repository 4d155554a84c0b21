"""Trackers of whole movies: refused in a stream that runs, scored on recordings; and trackers that need masks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import ConfigurationError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.pixels import checksum, header_of
from cytoloop.acquire.reply import Cells, Reply
from cytoloop.models.detections import Detections
from cytoloop.models.labels import Labels, numbered
from cytoloop.realtime.batch import STAND_IN, to_replay, track_again
from cytoloop.realtime.cli import main
from cytoloop.realtime.experiment.config import load_experiment
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.pipeline import Pipeline
from cytoloop.realtime.service.journal import Entry, Journal, read_journal
from cytoloop.realtime.service.run import Run
from cytoloop.trackers.adapters.links import first_cells, tracks_of
from cytoloop.trackers.tracks import Tracks

SIZE = (40, 60)


class Spots:
    """Segments squares: the value of a pixel is the number of its cell."""

    channel = 0

    def segment(self, frame: Frame) -> Labels:
        image, numbers = numbered(frame.channel(0))
        return Labels(image, len(numbers))


class ByRow:
    """A tracker of whole movies: row i of a frame is row i of the next; counts the frames that have a mask."""

    def __init__(self, *, skip: int = 0) -> None:
        self._skip = skip

    def track(self, movie: Sequence[Detections]) -> list[Tracks]:
        start = first_cells(movie)
        links = [
            (int(start[at] + row), int(start[at + 1] + row))
            for at in range(len(movie) - 1)
            for row in range(self._skip, min(len(movie[at]), len(movie[at + 1])))
        ]
        return tracks_of(movie, links)


class ByRowOfMasks(ByRow):
    """The same, but it looks at masks."""

    needs_masks = True

    def track(self, movie: Sequence[Detections]) -> list[Tracks]:
        for detections in movie:
            assert detections.mask is not None
            assert detections.mask.dtype == np.int32
            assert len(np.unique(detections.mask)) == len(detections) + 1
        return super().track(movie)


def plugin(cls: type[Any], **options: Any) -> PluginChoice:
    return PluginChoice(f"{__name__}:{cls.__name__}", options)


def stream(tracker: PluginChoice, **changes: Any) -> StreamConfig:
    return StreamConfig(segmenter=plugin(Spots), tracker=tracker, pixel_size_um=0.5, **changes)


def image(*centres: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return squares of 7 x 7 px at (y, x), numbered from 1."""
    pixels = np.zeros(SIZE, np.uint8)
    for number, (y, x) in enumerate(centres, start=1):
        pixels[y - 3 : y + 4, x - 3 : x + 4] = number
    return pixels


def frames(count: int = 5) -> list[Frame]:
    """Return frames of two fields of view in turn; the two cells of each change places once."""
    here, there = (10, 15), (28, 40)
    return [
        Frame(
            image(*((here, there) if number < 4 else (there, here))),
            number,
            float(number),
            {"time": number // 2, "position": number % 2},
        )
        for number in range(2 * count)
    ]


def a_run(folder: Path, tracker: PluginChoice, upto: int | None = None, first: int = 0) -> Run:
    """Return a run that has processed frames."""
    run = Run(stream(tracker, save_masks=True), folder, "abcd", lambda: None)
    for frame in frames()[first:upto]:
        run.process(header_of(frame, skipped=0, slot=-1, check=checksum(frame.pixels)), frame)
    return run


def entries_of(run: Run) -> list[Entry]:
    return list(read_journal(run.folder / "journal"))


@pytest.mark.parametrize("use", ["laptrack", "btrack", "trackastra", f"{__name__}:ByRow"])
def test_a_tracker_of_whole_movies_is_refused_in_an_experiment_file_at_its_line(use: str, tmp_path: Path):
    file = tmp_path / "experiment.toml"
    file.write_text(f'[streams.a]\n[streams.a.tracker]\nuse = "{use}"\n')
    with pytest.raises(ConfigurationError) as refused:
        load_experiment(file)
    (problem,) = refused.value.problems
    assert (problem.line, problem.key) == (3, "streams.a.tracker.use")
    assert "needs the whole movie" in problem.reason
    assert f"cytoloop evaluate --sequence FOLDER --tracker {use}" in problem.reason


def test_a_tracker_of_whole_movies_is_refused_by_a_pipeline():
    with pytest.raises(ConfigurationError, match=r"tracker: .*needs the whole movie"):
        Pipeline(stream(plugin(ByRow)))


def test_a_recording_is_replayed_with_a_stand_in_only_where_one_is_needed():
    online = stream(PluginChoice("lap"), rules=(PluginChoice("stop_at_count", {"count": 3}),))
    assert to_replay(online) is online
    replayed = to_replay(stream(plugin(ByRow), rules=online.rules))
    assert (replayed.tracker, replayed.rules) == (STAND_IN, ())


@pytest.mark.parametrize("tracker", [ByRow, ByRowOfMasks])
def test_the_journal_of_a_run_is_written_anew_with_the_tracks_of_the_whole_movie(
    tracker: type[Any], tmp_path: Path
):
    run = a_run(tmp_path, STAND_IN)
    run.close()
    before = entries_of(run)
    (said,) = track_again(run.folder, stream(plugin(tracker)))
    assert tracker.__name__ in said
    after = entries_of(run)
    assert [entry.header for entry in after] == [entry.header for entry in before]
    # Each field of view has two cells, named by their rows, and no number means two of them.
    assert [entry.reply.cells.track.tolist() for entry in after] == [[1, 2], [3, 4]] * 5
    assert [entry.reply.cells.columns["age"].tolist() for entry in after[::2]] == [
        [age] * 2 for age in range(5)
    ]
    for old, new in zip(before, after, strict=True):
        assert new.detections == old.detections
        assert new.reply.cells.x_px.tolist() == old.reply.cells.x_px.tolist()
        assert new.reply.cells.columns["area_px"].tolist() == old.reply.cells.columns["area_px"].tolist()
    assert list(run.folder.glob("journal*")) == [run.folder / "journal"]


def test_options_reach_a_tracker_of_whole_movies(tmp_path: Path):
    run = a_run(tmp_path, STAND_IN)
    run.close()
    track_again(run.folder, stream(plugin(ByRow, skip=1)))
    assert len({entry.reply.cells.track[1] for entry in entries_of(run)}) == 2
    assert len({entry.reply.cells.track[0] for entry in entries_of(run)}) == 10


def test_a_run_with_another_tracker_is_left_as_it_is(tmp_path: Path):
    run = a_run(tmp_path, STAND_IN)
    run.close()
    before = (run.folder / "journal").read_bytes()
    assert track_again(run.folder, stream(STAND_IN)) == ()
    assert (run.folder / "journal").read_bytes() == before


def test_frames_that_could_not_be_segmented_stay_without_cells(tmp_path: Path):
    header = header_of(frames()[0], skipped=0, slot=-1, check=0)
    journal = Journal(tmp_path / "journal")
    journal.append(Entry.of(header, None, Reply(0, Cells.none(), messages=("broken",))))
    journal.close()
    track_again(tmp_path, stream(plugin(ByRow)))
    (entry,) = read_journal(tmp_path / "journal")
    assert (entry.detections, entry.reply.messages) == (None, ("broken",))


def test_evaluate_scores_a_tracker_of_whole_movies(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("ctc_metrics", reason="the scores extra is not installed")
    images, truth = tmp_path / "01", tmp_path / "01_GT" / "TRA"
    for folder in (images, truth):
        folder.mkdir(parents=True)
    for number in range(4):  # two cells change places, which no tracker of a live stream would believe
        centres = [(10, 15), (28, 40)][:: 1 if number < 2 else -1]
        tifffile.imwrite(images / f"t{number:03d}.tif", image(*centres) * 50)
        tifffile.imwrite(truth / f"man_track{number:03d}.tif", image(*centres).astype(np.uint16))
    (truth / "man_track.txt").write_text("1 0 3 0\n2 0 3 0\n")
    with pytest.raises(SystemExit) as left:
        options = ("--tracker", f"{__name__}:ByRow", "--tracker-option", "skip=0", "--labels", str(truth))
        main(["evaluate", "--sequence", str(images), *options, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (left.value.code or 0, told["LNK"], told["edge_f1"]) == (0, 1, 1)
    assert told["settings"]["tracker"] == {"use": f"{__name__}:ByRow", "options": {"skip": 0}}
    assert [message for message in told["sequences"][0]["messages"] if "for the whole movie" in message]


def test_only_a_tracker_that_needs_masks_has_them_kept(tmp_path: Path):
    for name, kept in (("overlap", True), ("nearest", False)):
        run = a_run(tmp_path / name, PluginChoice(name))
        run.close()
        masks = [entry.restore_detections() for entry in entries_of(run)]
        assert [each is not None and each.mask is not None for each in masks] == [kept] * 10


def test_a_tracker_of_masks_goes_on_after_a_restart_as_if_nothing_had_happened(tmp_path: Path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    a_run(whole, PluginChoice("overlap")).close()
    a_run(cut, PluginChoice("overlap"), upto=5).close()
    restarted = a_run(cut, PluginChoice("overlap"), first=5)
    restarted.close()
    uninterrupted = Run(stream(PluginChoice("overlap")), whole, "abcd", lambda: None)
    uninterrupted.close()
    one, other = entries_of(uninterrupted), entries_of(restarted)
    assert [entry.reply.cells.track.tolist() for entry in one] == [
        e.reply.cells.track.tolist() for e in other
    ]
    assert [entry.reply.cells.columns["age"].tolist() for entry in other][-1] == [4, 4]
