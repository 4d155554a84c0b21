"""A run's journal as results and in every format, with what was corrected; and everything that is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import SourceError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.pixels import header_of
from cytoloop.acquire.reply import Cells, Correction, Division, Merge, Reply
from cytoloop.models.detections import Detections
from cytoloop.realtime.amended import amended, read_lineages
from cytoloop.realtime.cli import main
from cytoloop.realtime.export import FORMATS, export_run, read_graphs
from cytoloop.realtime.results import write_results
from cytoloop.realtime.service.journal import Entry, Journal, read_journal

SAID = [  # one cell in each row of the image, as the tracker said them
    [1, 4, 5],
    [1, 4, 5],
    [2, 3, 5],  # 1 divides; 4 is hidden in 5
    [2, 3, 4, 5],
    [1, 3, 4, 5],  # 1 did not divide: 2 was she
    [1, 3, 4, 5],
    [1, 3, 6, 7],  # 5 has divided in frame 5, and 4 is not there: a late division
]
DIVISIONS = {2: (Division(1, (2, 3)),)}
MERGES = {2: (Merge(5, (4,)),)}
HOLDS = {1: range(7), 3: range(2, 7), 4: (0, 1, 3, 4), 5: range(5), 6: (5, 6), 7: (5, 6)}
PARENTS = {6: 5, 7: 5}
SIZE = (40, 30)


def corrections(at: Callable[[int], int]) -> dict[int, tuple[Correction, ...]]:
    """Return the corrections that come with each frame; ``at`` gives the sequence number of a frame."""
    return {
        4: (Correction(at(2), 2, 1, 0, "it is round no more"), Correction(at(2), 3, 3, 0, "new")),
        6: (Correction(at(5), 5, 6, 5, "late"), Correction(at(5), 4, 7, 5, "late")),
    }


def cells_of(said: list[int], frame: int) -> Cells:
    track = np.array(said, np.int64)
    y = np.arange(len(said)) * 10 + 4.5
    wrong = {"parent": np.full(len(said), 99), "age": np.full(len(said), 99)}
    columns = wrong | {"area_px": track + 20, "mean": y + frame, "mean_GFP": y / 3, "mean_RFP": y / 7}
    return Cells(
        track,
        np.float32(y * 0 + 9.5),
        np.float32(y),
        {name: np.float32(each) for name, each in columns.items()},
    )


def detections_of(header: Any, count: int) -> Detections:
    shape = (count, 2)
    return Detections(
        sequence=header.sequence,
        time_s=header.time_s,
        shape=SIZE,
        yx=np.zeros(shape),
        area=np.zeros(count),
        bbox=np.zeros((count, 4), np.int32),
        mean=np.zeros(shape),
        maximum=np.zeros(shape),
        moments=np.zeros((count, 3)),
        channels=("GFP", "RFP"),
    )


def mask_of(count: int) -> Any:
    mask = np.zeros(SIZE, np.uint16)
    for row in range(count):
        mask[10 * row : 10 * row + 10, :20] = row + 1
    return mask


def a_run(folder: Path, positions: tuple[str, ...] = ("P0",), masks: bool = True) -> Path:
    """Write the run of these positions as the service does, with an image between that was not segmented."""
    (folder / "masks").mkdir(parents=True)
    journal = Journal(folder / "journal")
    step = len(positions) + 1
    for frame, said in enumerate(SAID):
        for place in range(step):
            sequence = frame * step + place
            whole = place < len(positions)
            axes: dict[str, int | str] = {"time": frame} | ({"position": positions[place]} if whole else {})
            pixels = np.zeros((2, *SIZE), np.uint16)
            image = Frame(
                pixels, sequence, frame / 4, axes, ("GFP", "RFP"), (100.0 * place, 7.0), pixel_size_um=0.5
            )
            header = header_of(image, skipped=0, slot=-1, check=0)
            if not whole:
                journal.append(Entry.of(header, None, Reply(sequence, Cells.none())))
                continue
            came = corrections(lambda frame, place=place: frame * step + place).get(frame, ())
            reply = Reply(
                sequence,
                cells_of(said, frame),
                DIVISIONS.get(frame, ()),
                merges=MERGES.get(frame, ()),
                corrections=came,
            )
            journal.append(Entry.of(header, detections_of(header, len(said)), reply))
            if masks:
                tifffile.imwrite(folder / "masks" / f"{sequence:06d}.tif", mask_of(len(said)))
    journal.close()
    return folder


def leave(*args: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(arg) for arg in args])
    return int(left.value.code or 0)


def held(pairs: Any) -> dict[int, list[int]]:
    """Return the frames of each track."""
    frames: dict[int, list[int]] = {}
    for track, frame in pairs:
        frames.setdefault(int(track), []).append(int(frame))
    return {track: sorted(each) for track, each in frames.items()}


WANTED = {track: list(frames) for track, frames in HOLDS.items()}


# --- results ------------------------------------------------------------------------------------------------


def test_results_are_those_after_corrections(tmp_path: Path):
    results = write_results(a_run(tmp_path / "run"), tmp_path / "out")
    assert (results.processed, results.segmented) == (14, 7)
    assert (results.tracks, results.divisions, results.divided) == (6, 1, [0, 0, 0, 0, 0, 1, 0])
    assert (results.corrections, results.ignored) == (4, 0)
    with (tmp_path / "out" / "tracks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert held((row["track"], int(row["frame"]) // 2) for row in rows) == WANTED
    assert {(int(row["track"]), int(float(row["parent"]))) for row in rows} == {
        (track, PARENTS.get(track, 0)) for track in WANTED
    }
    for row in rows:
        assert float(row["age"]) == int(row["frame"]) // 2 - WANTED[int(row["track"])][0]
    assert results.recent[2].reply.cells.track.tolist() == [1, 3, 5]
    assert results.recent[2].reply.divisions == ()
    assert results.recent[5].reply.divisions == (Division(5, (6, 7)),)


def test_masks_and_table_of_a_corrected_run_are_valid(tmp_path: Path):
    validate = pytest.importorskip("ctc_metrics.scripts.validate", reason="needs cytoloop[scores]")
    write_results(a_run(tmp_path / "run"), tmp_path / "out")
    folder = tmp_path / "out" / "ctc" / "01_RES"
    assert validate.validate_sequence(str(folder), threads=1)["Valid"] == 1
    table = np.loadtxt(folder / "res_track.txt", dtype=int).tolist()
    # Tracks 1, 4, 5, 3; 4 again after the frame in which it was hidden; the daughters of 5.
    assert table == [
        [1, 0, 6, 0],
        [2, 0, 1, 0],
        [3, 0, 4, 0],
        [4, 2, 6, 0],
        [5, 3, 4, 2],
        [6, 5, 6, 3],
        [7, 5, 6, 3],
    ]


def test_a_correction_that_cannot_be_is_left_out_and_counted(tmp_path: Path):
    journal = Journal(tmp_path / "journal")
    for frame in range(3):
        header = header_of(Frame(np.zeros(SIZE, np.uint16), frame), skipped=0, slot=-1, check=0)
        wrong = (Correction(0, 1, 2, 0, "no"),) if frame == 2 else ()
        reply = Reply(frame, cells_of([1, 2], frame), corrections=wrong)
        journal.append(Entry.of(header, detections_of(header, 2), reply))
    journal.close()
    results = write_results(tmp_path, tmp_path / "out")
    assert (results.tracks, results.corrections, results.ignored) == (2, 1, 1)


def test_a_run_that_goes_on_is_written_as_far_as_it_was_read(tmp_path: Path):
    run = a_run(tmp_path / "run")
    lineages = read_lineages(run)
    assert lineages.entries == 14
    (lineage,) = lineages.of.values()
    last = [entry for entry in read_journal(run / "journal") if entry.detections is not None][-1]
    assert amended(last, lineage).reply.cells.track.tolist() == SAID[-1]


# --- formats ------------------------------------------------------------------------------------------------


def test_the_graph_of_a_run_is_that_after_corrections(tmp_path: Path):
    (graph,) = read_graphs(a_run(tmp_path)).values()
    assert held(zip(graph.track, graph.number, strict=True)) == WANTED
    assert (graph.parents, graph.divisions) == (PARENTS, 1)
    assert (graph.pixel_size_um, graph.shape) == (0.5, SIZE)
    assert graph.frames.stage_um.tolist() == [[0.0, 7.0]] * 7
    assert graph.columns["mean_RFP"].tolist() == [
        float(np.float32(y)) for said in SAID for y in (np.arange(len(said)) * 10 + 4.5) / 7
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_written_by_the_command(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for package in ("geff", "pyarrow"):
        pytest.importorskip(package, reason="needs cytoloop[formats]")
    run, out = a_run(tmp_path / "run"), tmp_path / "out"
    assert leave("export", run, "--format", name, "--out", out, "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)["fields"]
    assert told["path"] == str(out)
    assert (told["frames"], told["cells"], told["tracks"], told["divisions"]) == (7, 25, 6, 1)
    assert out.exists()
    assert leave("export", run, "--format", name, "--out", out) == 2
    assert "exists already; name another, or replace it with --force" in capsys.readouterr().err
    assert leave("export", run, "--format", name, "--out", out, "--force") == 0
    assert " 25 " in capsys.readouterr().out


def test_every_format_holds_the_same_tracks(tmp_path: Path):
    geff = pytest.importorskip("geff", reason="needs cytoloop[formats]")
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    loaders = pytest.importorskip("traccuracy.loaders", reason="needs cytoloop[scores]")
    run = a_run(tmp_path / "run")
    for name in FORMATS:
        export_run(run, name, tmp_path / name)
    graph, _ = geff.read(tmp_path / "geff", backend="networkx")
    assert held((each["track"], each["t"]) for _, each in graph.nodes(data=True)) == WANTED
    for table in (pandas.read_csv(tmp_path / "csv"), pandas.read_parquet(tmp_path / "parquet")):
        assert held(zip(table["track"], table["frame"], strict=True)) == WANTED
        assert set(zip(table["track"], table["parent"], strict=True)) == {
            (track, PARENTS.get(track, 0)) for track in WANTED
        }
    rows = pandas.read_csv(tmp_path / "napari" / "tracks.csv")
    assert held(zip(rows["track_id"], rows["t"], strict=True)) == WANTED
    assert json.loads((tmp_path / "napari" / "graph.json").read_text()) == {"6": [5], "7": [5]}
    ctc = loaders.load_ctc_data(str(tmp_path / "ctc"), str(tmp_path / "ctc" / "res_track.txt"))
    assert (ctc.graph.number_of_nodes(), ctc.graph.number_of_edges()) == (25, len(graph.edges))
    text = (tmp_path / "trackmate").read_text(encoding="utf-8")
    assert (text.count("<Spot "), text.count("<Edge ")) == (25, len(graph.edges))


def test_several_fields_of_view_are_one_output_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = a_run(tmp_path / "run", positions=("left", "right"))
    assert leave("export", run, "--format", "csv", "--out", tmp_path / "tracks.csv", "--json") == 0
    told = json.loads(capsys.readouterr().out)["fields"]
    assert [(each["path"], each["position"]) for each in told] == [
        (str(tmp_path / "tracks_01.csv"), "left"),
        (str(tmp_path / "tracks_02.csv"), "right"),
    ]
    for graph in read_graphs(run).values():
        assert held(zip(graph.track, graph.number, strict=True)) == WANTED


def test_a_replayed_recording_can_be_exported_from_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    yy, xx = np.mgrid[:96, :96]
    movie = np.stack(
        [100 + 400 * (np.hypot(yy - y, xx - x - 2 * t) < 8) for t in range(5) for y, x in [(48, 30)]]
    )
    tifffile.imwrite(tmp_path / "movie.tif", movie.astype(np.uint16), metadata={"axes": "TYX"}, imagej=True)
    assert leave("replay", tmp_path / "movie.tif", "--out", tmp_path / "out", "--json") == 0
    replayed = json.loads(capsys.readouterr().out)
    (journal,) = (tmp_path / "out" / "log").rglob("journal")
    assert leave("export", journal.parent, "--format", "csv", "--out", tmp_path / "a.csv", "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)["fields"]
    assert (told["tracks"], told["frames"], told["divisions"]) == (replayed["tracks"], 5, 0)
    table = pandas.read_csv(tmp_path / "a.csv")
    assert table["frame"].tolist() == list(range(5))
    assert np.allclose(np.diff(table["x_px"]), 2, atol=0.2)


@pytest.mark.filterwarnings("ignore:Empty frame")
def test_a_frame_in_which_tracking_failed_is_a_gap_in_everything(tmp_path: Path):
    validate = pytest.importorskip("ctc_metrics.scripts.validate", reason="needs cytoloop[scores]")
    (tmp_path / "run" / "masks").mkdir(parents=True)
    journal = Journal(tmp_path / "run" / "journal")
    for frame in range(3):
        header = header_of(Frame(np.zeros(SIZE, np.uint16), frame), skipped=0, slot=-1, check=0)
        cells = Cells.none() if frame == 1 else cells_of([1, 2], frame)
        journal.append(Entry.of(header, detections_of(header, 2), Reply(frame, cells)))
        tifffile.imwrite(tmp_path / "run" / "masks" / f"{frame:06d}.tif", mask_of(2))
    journal.close()
    results = write_results(tmp_path / "run", tmp_path / "out")
    assert (results.tracks, results.cells) == (2, [2, 0, 2])
    export_run(tmp_path / "run", "ctc", tmp_path / "ctc")
    for folder in (tmp_path / "out" / "ctc" / "01_RES", tmp_path / "ctc"):
        assert validate.validate_sequence(str(folder), threads=1)["Valid"] == 1
    (graph,) = read_graphs(tmp_path / "run").values()
    assert graph.missed.tolist() == [1, 1]


# --- refused ------------------------------------------------------------------------------------------------


def test_an_unknown_format_names_the_known_and_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = a_run(tmp_path / "run")
    assert leave("export", run, "--format", "trakmate", "--out", tmp_path / "out") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "no format 'trakmate'; known: geff, ctc, trackmate, napari, csv, parquet." in told
    assert "Did you mean 'trackmate'?" in told


def test_a_folder_without_a_journal_is_refused_with_a_hint_at_one_that_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = a_run(tmp_path / "log" / "default" / "2026-01-01_run")
    assert leave("export", tmp_path, "--out", tmp_path / "out") == 2
    told = "".join(capsys.readouterr().err.split())
    assert "nojournalinthisfolder" in told
    assert f"Didyoumean{str(run)!r}?" in told
    shutil.rmtree(tmp_path / "log")
    assert leave("export", tmp_path, "--out", tmp_path / "out", "--json") == 2
    assert json.loads(capsys.readouterr().out)["kind"] == "SourceError"


def test_a_file_that_is_no_journal_and_a_run_without_cells_are_refused(tmp_path: Path):
    (tmp_path / "journal").write_bytes(b"notes of last week")
    with pytest.raises(SourceError, match="not a cytoloop journal"):
        export_run(tmp_path, "csv", tmp_path / "out")
    (tmp_path / "journal").unlink()
    Journal(tmp_path / "journal").close()
    with pytest.raises(SourceError, match="nothing to export"):
        export_run(tmp_path, "csv", tmp_path / "out")


def test_masks_that_are_needed_and_missing_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = a_run(tmp_path / "run", masks=False)
    assert leave("export", run, "--format", "ctc", "--out", tmp_path / "out") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "save_masks = true" in told
    assert "missing: 000000.tif" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    for sequence in range(0, 14, 2):
        tifffile.imwrite(run / "masks" / f"{sequence:06d}.tif", mask_of(1))
    assert leave("export", run, "--format", "ctc", "--out", tmp_path / "out") == 1
    assert "holds 1 cells, the journal 3" in " ".join(capsys.readouterr().err.split())


def test_a_target_that_cannot_be_written_fails_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = a_run(tmp_path / "run")
    assert leave("export", run, "--format", "csv", "--out", run / "journal" / "out.csv") == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "out.csv: cannot be written" in told
    assert "Traceback" not in told


def test_two_cells_of_one_identity_are_told_with_their_frame(tmp_path: Path):
    journal = Journal(tmp_path / "journal")
    header = header_of(Frame(np.zeros(SIZE, np.uint16), 3), skipped=0, slot=-1, check=0)
    journal.append(Entry.of(header, detections_of(header, 2), Reply(3, cells_of([5, 5], 0))))
    journal.close()
    with pytest.raises(SourceError, match="frame 3: two cells are track 5"):
        export_run(tmp_path, "csv", tmp_path / "out")
