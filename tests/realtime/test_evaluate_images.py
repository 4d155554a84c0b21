"""Single images against true masks: what is scored, what is refused, and that no image knows of another."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import SourceError
from cytoloop.acquire.frame import Frame
from cytoloop.models.image_pairs import pair_files
from cytoloop.models.labels import Labels
from cytoloop.realtime.cli import main
from cytoloop.realtime.evaluate_images import evaluate_images, figures_of_images
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from PIL import Image
from scipy import ndimage

DATA = Path(__file__).parents[2].parent / "shared" / "data"
THRESHOLDS = ["0.5", "0.55", "0.6", "0.65", "0.7", "0.75", "0.8", "0.85", "0.9"]


def leave(*args: object) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as left:
        main([str(arg) for arg in args])
    return int(left.value.code or 0)


def discs(*centres: tuple[int, int], radius: float = 8.0) -> np.ndarray:
    """Return a mask 64 x 80 of discs, numbered 10, 20, ..."""
    y, x = np.indices((64, 80))
    mask = np.zeros((64, 80), np.uint16)
    for number, (cy, cx) in enumerate(centres, start=1):
        mask[np.hypot(y - cy, x - cx) <= radius] = 10 * number
    return mask


MASKS = {
    "a": discs((16, 16), (16, 48), (44, 30)),
    "b": discs((20, 20), (40, 60)),
    "c": discs((30, 40), radius=12.0),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three images of bright discs with their masks, in ``images`` and ``masks``."""
    random = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name, mask in MASKS.items():
        light = ndimage.gaussian_filter(100 + 400.0 * (mask > 0), 1)
        Image.fromarray(random.poisson(light).astype(np.uint16)).save(tmp_path / "images" / f"{name}.png")
        tifffile.imwrite(tmp_path / "masks" / f"{name}.tif", mask)
    return tmp_path


def evaluate(data: Path, *args: object) -> int:
    return leave("evaluate", "--images", data / "images", "--masks", data / "masks", *args)


class Settled:
    """Finds everything above the mean of the first image that it saw."""

    built = 0

    def __init__(self, *, channel: int | str = 0) -> None:
        type(self).built += 1
        self.channel = channel
        self.level: float | None = None

    def segment(self, frame: Frame) -> Labels:
        pixels = frame.channel(self.channel)
        self.level = float(pixels.mean()) if self.level is None else self.level
        image, count = ndimage.label(pixels > self.level)
        return Labels(image.astype(np.int32), count, novelty=0.25)


class Resettable(Settled):
    """The same, but it can be made to forget."""

    built = 0

    def reset(self) -> None:
        self.level = None

    def memory(self, frame: Frame) -> dict[str, Any]:
        return {"level": self.level}

    def recall(self, frame: Frame, memory: Any) -> None:
        self.level = memory["level"]


def stream_of(segmenter: type[Any], **options: Any) -> StreamConfig:
    return StreamConfig(segmenter=PluginChoice(f"{__name__}:{segmenter.__name__}", options))


def bright_data(folder: Path) -> tuple[Path, Path]:
    """Write two images of the same squares, the second a hundred times as bright."""
    mask = np.kron(np.arange(4).reshape(2, 2), np.pad(np.ones((4, 4), int), 3)).astype(np.uint16)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for name, gain in (("dim", 1), ("light", 100)):
        tifffile.imwrite(folder / "images" / f"{name}.tif", ((10 + 20 * (mask > 0)) * gain).astype(np.uint16))
        tifffile.imwrite(folder / "masks" / f"{name}.tif", mask)
    return folder / "images", folder / "masks"


@pytest.mark.parametrize("segmenter", [Settled, Resettable])
def test_each_image_is_the_first_of_a_stream_of_its_own(
    segmenter: type[Settled], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cytoloop.realtime.experiment.choice.find_class", lambda group, name: segmenter)
    segmenter.built = 0
    pairs = pair_files(*bright_data(tmp_path)).pairs
    evaluated = evaluate_images(pairs, stream_of(segmenter), worst=5)
    assert [result.scores.ap[0.9] for result in evaluated.results] == [1.0, 1.0]
    assert [result.novelty for result in evaluated.results] == [0.25, 0.25]
    # One that can forget is built once; the other anew for each image, the first of which is seen twice.
    assert segmenter.built == (1 if segmenter is Resettable else 4)


def test_the_figures_have_the_names_that_scripts_read(data: Path, capsys: pytest.CaptureFixture[str]):
    assert evaluate(data, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    for key in ("AP", "F1", "precision", "recall"):
        assert list(told[key]) == THRESHOLDS
    assert told["AP"]["0.5"] == told["F1"]["0.5"] == 1.0
    assert 0.7 < told["PQ"] <= 1
    assert 0.7 < told["SEG"] <= 1
    assert (told["images"], told["cells_true"], told["cells_found"]) == (3, 6, 6)
    assert told["ms_per_image"] > 0
    assert told["latency_ms"]["p50"] <= told["latency_ms"]["p99"]
    assert told["settings"]["segmenter"]["use"] == StreamConfig().segmenter.use
    assert set(told["machine"]) >= {"cpu", "cores"}


def test_given_masks_are_scored_in_place_of_the_segmenter(data: Path, capsys: pytest.CaptureFixture[str]):
    (data / "found").mkdir()
    for name, mask in MASKS.items():
        wrong = np.where(mask == 20, 0, mask) if name == "a" else mask
        tifffile.imwrite(data / "found" / f"{name}_cp_masks.tif", wrong)
    assert evaluate(data, "--labels", data / "found", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["AP"] == dict.fromkeys(THRESHOLDS, round(5 / 6, 6))
    assert told["precision"]["0.5"] == 1
    assert told["PQ"] == round(5 / 5.5, 6)
    assert told["SEG"] == round(5 / 6, 6)
    assert told["per_image"]["AP"]["0.5"] == round((2 / 3 + 1 + 1) / 3, 6)
    assert told["worst"][0]["image"] == "a"
    assert told["ms_per_image"] is None
    assert told["settings"] == {"labels": str(data / "found")}


def test_images_without_cells_count_in_the_pool_and_not_in_the_mean(data: Path):
    (data / "found").mkdir()
    for name in MASKS:
        tifffile.imwrite(data / "masks" / f"{name}.tif", np.zeros((64, 80), np.uint8))
        tifffile.imwrite(data / "found" / f"{name}.tif", np.zeros((64, 80), np.uint8))
    pairs = pair_files(data / "images", data / "masks").pairs
    figures = figures_of_images(evaluate_images(pairs, StreamConfig(), labels=data / "found"))
    assert figures["cells_true"] == figures["cells_found"] == 0
    assert np.isnan([figures["AP"]["0.5"], figures["per_image"]["AP"]["0.5"], figures["PQ"]]).all()
    tifffile.imwrite(data / "masks" / "a.tif", MASKS["a"])
    tifffile.imwrite(data / "found" / "a.tif", MASKS["a"])
    tifffile.imwrite(data / "found" / "b.tif", MASKS["b"])
    figures = figures_of_images(evaluate_images(pairs, StreamConfig(), labels=data / "found"))
    assert figures["AP"]["0.5"] == round(3 / 5, 6)
    assert figures["per_image"]["AP"]["0.5"] == 0.5  # of a: 1, of b: 0, of c there is nothing to say


def test_a_list_a_table_and_drawings(data: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib", reason="the report extra is not installed")
    (data / "list.txt").write_text("c\na\n")
    table, drawn = data / "new" / "table.csv", data / "drawn"
    assert evaluate(data, "--list", data / "list.txt", "--table", table, "--draw", drawn, "--worst", 1) == 0
    assert "images" in capsys.readouterr().out
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["height"], row["width"], row["cells_true"]) for row in rows] == [
        ("a", "64", "80", "3"),
        ("c", "64", "80", "1"),
    ]
    assert all(float(row["AP_0.5"]) == 1 and float(row["ms"]) > 0 for row in rows)
    (picture,) = drawn.iterdir()
    assert picture.name in ("001_a.png", "001_c.png")
    with Image.open(picture) as image:
        assert min(image.size) > 300


def test_what_is_found_and_what_is_missed_is_drawn_in_different_colours(tmp_path: Path):
    pytest.importorskip("matplotlib", reason="the report extra is not installed")
    from cytoloop.realtime.report.compared import draw_compared

    truth, nothing = MASKS["a"].astype(np.int32), np.zeros((64, 80), np.int32)
    pixels = (truth > 0).astype(np.uint16) * 500
    colours: dict[str, set[bytes]] = {}
    for name, true, found in (("same", truth, truth), ("missed", truth, nothing), ("wrong", nothing, truth)):
        draw_compared(name, pixels, true, found, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            drawn = np.asarray(image.convert("RGB"))[60:-60]  # without title and legend
        colours[name] = {colour.tobytes() for colour in drawn.reshape(-1, 3)}
    assert bytes.fromhex("FFEE55") in colours["missed"] - colours["same"] - colours["wrong"]
    assert bytes.fromhex("EE8866") in colours["wrong"] - colours["same"] - colours["missed"]


def test_options_reach_the_segmenter_and_wrong_ones_are_told(data: Path, capsys: pytest.CaptureFixture[str]):
    chosen = ("--segmenter", "classical", "--option", "polarity=dark", "--option", "diameter_px=16")
    assert evaluate(data, *chosen, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["segmenter"]["options"] == {"polarity": "dark", "diameter_px": 16}
    assert told["AP"]["0.5"] == 0
    assert evaluate(data, "--segmenter", "clasical") == 2
    assert "Did you mean 'classical'?" in capsys.readouterr().err
    assert evaluate(data, "--segmenter", "classical", "--option", "polarity") == 2
    assert "KEY=VALUE" in capsys.readouterr().err
    assert evaluate(data, "--segmenter", "classical", "--option", "diametre_px=3") == 2
    assert "Did you mean 'diameter_px'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("--images", "images"),
        ("--masks", "masks"),
        ("--sequence", "images", "--images", "images", "--masks", "masks"),
        ("--images", "images", "--masks", "masks", "--tracker", "lap"),
        ("--sequence", "images", "--draw", "drawn"),
        ("--sequence", "images", "--list", "images/a.png"),
        ("--images", "images", "--masks", "nowhere"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(
    args: tuple[str, ...], data: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(data)
    assert leave("evaluate", *args) == 2


def test_every_file_that_cannot_be_used_is_named_before_anything_runs(
    data: Path, capsys: pytest.CaptureFixture[str]
):
    (data / "images" / "a.png").write_bytes((data / "images" / "a.png").read_bytes()[:200])
    tifffile.imwrite(data / "masks" / "b.tif", np.zeros((80, 64), np.uint8))
    assert evaluate(data, "--table", data / "table.csv") == 2
    told = capsys.readouterr().err
    assert "2 of 3 cannot be used" in told
    assert "a.png: cannot be read" in told
    assert "b.tif: a mask of 80 x 64 px for an image of 64 x 80 px" in told
    assert "Traceback" not in told
    assert not (data / "table.csv").exists()


def test_an_image_without_a_mask_is_wrong_usage(data: Path, capsys: pytest.CaptureFixture[str]):
    (data / "masks" / "b.tif").unlink()
    assert evaluate(data) == 2
    assert "b.png have no mask" in capsys.readouterr().err


def test_foreground_masks_are_not_taken_for_instance_masks(data: Path):
    for name, mask in MASKS.items():
        tifffile.imwrite(data / "masks" / f"{name}.tif", (mask > 0).astype(np.uint8) * 255)
    pairs = pair_files(data / "images", data / "masks").pairs
    with pytest.raises(SourceError, match="foreground"):
        evaluate_images(pairs, StreamConfig())
    assert len(evaluate_images(pairs[2:], StreamConfig()).results) == 1  # one image with one cell is one


def test_channels_are_taken_by_index_and_by_the_names_of_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cytoloop.realtime.experiment.choice.find_class", lambda group, name: Settled)
    images, masks = bright_data(tmp_path)
    for file in images.iterdir():
        stack = np.stack([np.full((20, 20), 7, np.uint16), tifffile.imread(file)])
        tifffile.imwrite(file, stack, imagej=True, metadata={"axes": "CYX"})
    pairs = pair_files(images, masks).pairs
    choice = stream_of(Settled, channel=1).segmenter
    assert evaluate_images(pairs, StreamConfig(segmenter=choice)).results[0].scores.ap[0.5] == 1
    named = StreamConfig(
        channels=("a", "b"), channel="b", segmenter=stream_of(Settled, channel="b").segmenter
    )
    assert evaluate_images(pairs, named).results[0].scores.ap[0.5] == 1
    wrong = stream_of(Settled, channel=2)
    with pytest.raises(SourceError, match="no channel 2"):
        evaluate_images(pairs, wrong)


def test_images_of_a_sequence_that_have_no_mask_are_left_out_and_counted(
    data: Path, capsys: pytest.CaptureFixture[str]
):
    for number, name in enumerate(MASKS):
        (data / "images" / f"{name}.png").rename(data / "images" / f"t{number:03d}.png")
        (data / "masks" / f"{name}.tif").rename(data / "masks" / f"man_seg{number:03d}.tif")
    (data / "masks" / "man_seg001.tif").unlink()
    assert evaluate(data, "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["images"] == 2
    assert "images without a mask, left out: 1" in told.err


@pytest.mark.parametrize("masks", ["SEG", "TRA"])
def test_a_real_sequence_agrees_with_its_own_masks(
    masks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    sequence = DATA / "Bact-trpL-early"
    if not sequence.is_dir():
        pytest.skip("../shared/data/Bact-trpL-early is not here")
    truth = sequence / "01_GT" / masks
    (tmp_path / "list.txt").write_text("t000.tif\nt031.tif\n")
    args = ("--images", sequence / "01", "--masks", truth, "--labels", truth, "--list", tmp_path / "list.txt")
    assert leave("evaluate", *args, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    cells = [len(np.unique(tifffile.imread(file))) - 1 for file in sorted(truth.glob("man_*.tif"))]
    assert told["images"] == 2
    assert told["cells_true"] == cells[0] + cells[31] > 30
    assert told["AP"]["0.9"] == told["PQ"] == 1
