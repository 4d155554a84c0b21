"""``cytoloop annotate``: the frames that need it most go out, and what people drew comes back checked."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import SourceError
from cytoloop.acquire.frame import Frame
from cytoloop.models.labels import Labels
from cytoloop.models.training.folder import read_annotated
from cytoloop.realtime import annotate
from cytoloop.realtime.annotation_folder import change, problems_of
from cytoloop.realtime.cli import main
from PIL import Image
from scipy import ndimage

onnx = pytest.importorskip("onnx", reason="the int8 extra is not installed")

HARD = (7, 8, 21)


def leave(*args: object) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as left:
        main(["annotate", *(str(arg) for arg in args)])
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that finds bright discs: a net made by hand of one blur."""
    from cytoloop.models.packages.contents import ModelPackage
    from cytoloop.models.packages.saving import save_package, weights_file
    from onnx import TensorProto, helper, numpy_helper

    along = np.arange(-4, 5)
    blur = np.exp(-(along[:, np.newaxis] ** 2 + along**2) / 8.0)
    weights = {
        "blur": (blur / blur.sum())[np.newaxis, np.newaxis],
        "head": np.array([20.0, 20.0, 0.0]).reshape(3, 1, 1, 1),
        "bias": np.array([-8.0, -12.0, 0.0]),
    }
    nodes = [
        helper.make_node("Conv", ["planes", "blur"], ["blurred"], pads=[4] * 4),
        helper.make_node("Conv", ["blurred", "head", "bias"], ["maps"]),
    ]
    graph = helper.make_graph(
        nodes,
        "finder",
        [helper.make_tensor_value_info("planes", TensorProto.FLOAT, [1, 1, "y", "x"])],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, [1, 3, "y", "x"])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    folder = tmp_path_factory.mktemp("finder")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    said = ModelPackage(
        "finder",
        folder,
        (weights_file(folder / "net.onnx"),),
        channel_names=("cells",),
        novelty={"doubt_p95": 1.0},
        decoder="core",
    )
    return save_package(said, folder / "package").folder


def field(seed: int, *, hard: bool = False) -> np.ndarray:
    """Return an image of nine bright discs; in hard ones some are so dim that it is open whether they are there."""
    random = np.random.default_rng(seed)
    y, x = np.indices((96, 96))
    light = np.full((96, 96), 100.0)
    for place in range(9):
        cy, cx = 18 + 30 * (place // 3), 18 + 30 * (place % 3)
        dim = 0.42 if hard and place % 2 else 1.0
        light[np.hypot(y - cy, x - cx) <= 8] = 100 + dim * 800
    return random.poisson(ndimage.gaussian_filter(light, 1)).astype(np.uint16)


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = np.stack([field(seed, hard=seed in HARD) for seed in range(24)])
    path = tmp_path_factory.mktemp("movie") / "movie.tif"
    tifffile.imwrite(path, frames, metadata={"axes": "TYX"}, photometric="minisblack")
    return path


@pytest.fixture
def chosen(movie: Path, finder: Path, tmp_path: Path) -> Path:
    assert leave(movie, "--out", tmp_path / "corrected", "--frames", "5", "--model", finder) == 0
    return tmp_path / "corrected"


def test_the_worst_frames_are_chosen_from_different_parts_of_the_recording(
    movie: Path, finder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert leave(movie, "--out", tmp_path / "out", "--frames", "4", "--model", finder, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    sequences = [frame["sequence"] for frame in values["frames"]]
    assert values["frames_looked_at"] == 24 and len(sequences) == 4 and sequences == sorted(sequences)
    assert set(sequences) & set(HARD) in ({7, 21}, {8, 21})  # 7 and 8 are neighbours, in one part
    assert len({sequence // 3 for sequence in sequences}) == 4
    reasons = {frame["sequence"]: frame["reason"] for frame in values["frames"]}
    assert "novelty" in reasons[21]


def test_the_folder_holds_images_and_masks_that_open_side_by_side(chosen: Path, movie: Path):
    images, masks = sorted((chosen / "images").iterdir()), sorted((chosen / "masks").iterdir())
    assert [file.name for file in images] == [file.name for file in masks] and len(images) == 5
    frames = tifffile.imread(movie)
    for image_file, mask_file in zip(images, masks, strict=True):
        image, mask = tifffile.imread(image_file), tifffile.imread(mask_file)
        assert np.array_equal(image, frames[int(image_file.stem.removeprefix("frame"))])
        assert mask.shape == image.shape and mask.dtype == np.uint16
        assert ndimage.label(mask > 0)[1] == mask.max() > 3
    with (chosen / "worst.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [file.stem for file in images] and all(
        row["reason"] for row in rows
    )
    picture = np.asarray(Image.open(chosen / "previews" / f"{images[0].stem}.png"))
    assert picture.shape == (96, 96, 3)
    assert (picture[..., 0] != picture[..., 1]).sum() > 100  # outlines in colour


def test_the_lines_for_napari_write_masks_back(chosen: Path, monkeypatch: pytest.MonkeyPatch):
    """napari itself is not needed for this: what the lines ask of it is little."""
    import sys
    from types import ModuleType

    class Viewer:
        def __init__(self, title: str) -> None:
            self.title = title

        def add_image(self, data: np.ndarray) -> None:
            assert data.shape == (96, 96)

        def add_labels(self, data: np.ndarray) -> Any:
            data[data == 1] = 0
            self.data = data
            return self

    napari = ModuleType("napari")
    napari.Viewer, napari.run = Viewer, lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "napari", napari)
    monkeypatch.chdir(chosen)
    code = re.search(r"```python\n(.*?)```", (chosen / "README.md").read_text("utf-8"), re.DOTALL)
    assert code
    exec(compile(code[1], "README.md", "exec"), {})
    for file in (chosen / "masks").iterdir():
        before, now = tifffile.imread(chosen / "found" / file.name), tifffile.imread(file)
        assert np.array_equal(now, np.where(before == 1, 0, before))


def test_corrected_masks_are_taken_back_with_what_was_changed_and_can_be_trained_on(
    chosen: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SourceError, match=f"cytoloop annotate --back {re.escape(str(chosen))}"):
        read_annotated(chosen)
    files = sorted((chosen / "masks").iterdir())
    mask = tifffile.imread(files[0])
    mask[mask == 1] = 0  # removed
    mask[ndimage.binary_dilation(mask == 2)] = 2  # reshaped
    mask[88:94, 0:6] = 60  # added
    tifffile.imwrite(files[0], mask)
    (chosen / "images" / files[1].name).unlink()
    files[1].unlink()
    capsys.readouterr()
    assert leave("--back", chosen, "--json") == 0
    printed = capsys.readouterr()
    values = json.loads(printed.out)
    assert values["ok"] and [image["name"] for image in values["images"]] == [
        files[i].stem for i in (0, 2, 3, 4)
    ]
    first = values["images"][0]
    assert (first["added"], first["removed"], first["reshaped"]) == (1, 1, 1)
    assert first["unchanged"] == tifffile.imread(chosen / "found" / files[0].name).max() - 2
    assert files[2].stem in printed.err and files[0].stem not in printed.err  # those that nobody touched
    assert [one.name for one in read_annotated(chosen)] == [files[i].stem for i in (0, 2, 3, 4)]

    mask[88:94, 0:6] = 0
    tifffile.imwrite(files[0], mask)
    with pytest.raises(SourceError, match=rf"{files[0].stem} have not been checked"):
        read_annotated(chosen)


def test_slips_are_named_and_may_be_meant(chosen: Path, capsys: pytest.CaptureFixture[str]):
    files = sorted((chosen / "masks").iterdir())
    mask = tifffile.imread(files[0])
    mask[88:94, 2:8] = 3
    mask[0, 0] = 99
    tifffile.imwrite(files[0], mask)
    capsys.readouterr()
    assert leave("--back", chosen, "--json") == 1
    values = json.loads(capsys.readouterr().out)
    assert not values["ok"] and len(values["problems"]) == 2
    told = " ".join(problem["reason"] for problem in values["problems"])
    assert (
        "cell 3 " in told
        and "2 pieces" in told
        and "36 px" in told
        and "cell 99 at y 0, x 0 has only 1 px" in told
    )
    with pytest.raises(SourceError):
        read_annotated(chosen)
    assert leave("--back", chosen, "--accept") == 0
    assert len(read_annotated(chosen)) == 5


@pytest.mark.parametrize("how", ["shape", "empty", "gone", "broken"])
def test_masks_that_cannot_be_used_are_named_and_never_accepted(
    chosen: Path, how: str, capsys: pytest.CaptureFixture[str]
):
    file = sorted((chosen / "masks").iterdir())[2]
    mask = tifffile.imread(file)
    if how == "shape":
        tifffile.imwrite(file, mask[:90])
    elif how == "empty":
        tifffile.imwrite(file, 0 * mask)
    elif how == "gone":
        file.unlink()
    else:
        file.write_bytes(b"II*")
    capsys.readouterr()
    assert leave("--back", chosen, "--accept", "--json") == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["file"] == str(file) and not problem["doubtful"]


def test_a_folder_of_images_is_taken_too_and_each_stands_alone(finder: Path, tmp_path: Path):
    for seed in range(4):
        Image.fromarray((field(seed, hard=seed == 2) // 4).astype(np.uint8)).save(
            tmp_path / f"well{seed}.png"
        )
    chosen, looked_at = annotate.worst_frames(tmp_path, count=2, model=str(finder))
    assert looked_at == 4 and "well2" in [one.name for one in chosen] and len(chosen) == 2


def test_a_recording_of_unknown_length_gives_its_worst_frames(
    finder: Path, tmp_path: Path, movie: Path, monkeypatch: pytest.MonkeyPatch
):
    class Endless:
        count = None

        def frames(self):
            for sequence, pixels in enumerate(tifffile.imread(movie)):
                yield Frame(pixels, sequence)

        def close(self) -> None:
            pass

    monkeypatch.setattr(annotate, "open_source", lambda path: Endless())
    chosen, looked_at = annotate.worst_frames(tmp_path, count=3, model=str(finder))
    sequences = [one.frame.sequence for one in chosen]
    assert looked_at == 24 and len(sequences) == 3 and sequences == sorted(sequences)
    assert set(sequences) & set(HARD) in ({7, 21}, {8, 21})


def test_signs_become_reasons_the_strongest_first():
    plane = field(0)
    labels = Labels(np.zeros((96, 96), np.int32), 0)
    calm = annotate.Candidate("a", Frame(plane), plane, labels, unsure=0.0, unsteady=0.0, novelty=0.5)
    assert calm.badness == 0.25 and "worst of its part" in calm.reason
    both = replace(calm, unsure=0.3, unsteady=0.5, novelty=3.0)
    assert both.badness == pytest.approx(1.8)
    assert re.search(r"novelty 3\.0.*50% of the cells.*confidence of the cells 0\.70", both.reason)
    assert replace(calm, novelty=1.0).badness > calm.badness


def test_what_was_changed_is_counted_cell_by_cell():
    found = np.zeros((30, 60), np.int32)
    for number, x in enumerate((2, 14, 26, 38), start=1):
        found[4:14, x : x + 10] = number
    corrected = found.copy()
    corrected[corrected == 2] = 1  # joined: the two that were there are gone
    corrected[4:14, 38:43] = 9  # split: none of its halves is the cell that was found
    corrected[20:28, 4:12] = 7
    one = change("a", found, corrected)
    assert (one.added, one.removed, one.reshaped, one.unchanged) == (2, 1, 2, 1)
    assert change("a", found, np.where(found > 0, found + 10, 0)).unchanged == 4  # numbers do not matter


def test_sound_masks_have_no_problem():
    mask = np.zeros((40, 40), np.int32)
    mask[2:12, 2:12], mask[12:20, 12:20] = 5, 6  # cells that touch at a corner
    assert problems_of(Path("a.tif"), mask, (40, 40)) == []


def test_the_command_says_what_it_needs(movie: Path, chosen: Path, capsys: pytest.CaptureFixture[str]):
    assert (
        leave(movie) == leave("--back", chosen, "--out", "x") == leave(movie, "--out", "x", "--accept") == 2
    )
    assert leave("--back", movie.parent) == 2
    assert leave(movie, "--out", chosen) == 2
    assert "not empty" in capsys.readouterr().err.replace("\n", " ")
