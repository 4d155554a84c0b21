"""``cytoloop train``: what is learned is judged on images held out, kept on the way, and left as a package."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import ModelError, SourceError
from cytoloop.acquire.frame import Frame
from cytoloop.realtime.cli import main
from scipy import ndimage

torch = pytest.importorskip("torch", reason="the extra train is not installed")
pytest.importorskip("onnx", reason="the extra train is not installed")

from cytoloop.models.nets.segmenter import NetSegmenter  # noqa: E402
from cytoloop.models.packages.package import load_package  # noqa: E402
from cytoloop.models.training.courses import Course  # noqa: E402
from cytoloop.models.training.loop import Schedule  # noqa: E402
from cytoloop.models.training.net import Architecture, CellNet  # noqa: E402
from cytoloop.models.training.validate import package_net, template  # noqa: E402
from cytoloop.realtime import train as training  # noqa: E402
from cytoloop.realtime.training_card import rows_of  # noqa: E402

SMALL = Architecture(2, (8, 12, 16), 2, 16.0, (10.0, 30.0))


def leave(*args: object) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as left:
        main(["train", *(str(arg) for arg in args), "--threads", "1"])
    return int(left.value.code or 0)


def draw(seed: int, count: int = 14, shape: tuple[int, int] = (112, 128)) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of bright discs, and their mask."""
    random = np.random.default_rng(seed)
    y, x = np.indices(shape)
    mask, centres = np.zeros(shape, np.uint16), []
    while len(centres) < count:
        centre = random.uniform(8, np.array(shape) - 8)
        if all(np.hypot(*(centre - other)) > 18 for other in centres):
            centres.append(centre)
            mask[np.hypot(y - centre[0], x - centre[1]) <= 7.5] = len(centres)
    light = ndimage.gaussian_filter(50 + 200.0 * (mask > 0), 1)
    return random.poisson(light).astype(np.uint16), mask


def fill(folder: Path, seeds: range, keep: Callable[[np.ndarray], np.ndarray] = lambda mask: mask) -> Path:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for seed in seeds:
        image, mask = draw(seed)
        tifffile.imwrite(folder / "images" / f"field{seed:02d}.tif", image)
        tifffile.imwrite(folder / "masks" / f"field{seed:02d}.tif", keep(mask))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "data", range(8))


@pytest.fixture(autouse=True, scope="module")
def small_courses() -> Iterator[None]:
    """Small crops: the courses that ship take minutes."""

    def course(
        architecture: Architecture, *, steps: int = 60, threads: int = 1, device: str = "cpu"
    ) -> Course:
        every = max(1, steps // 4)
        return Course(
            64,
            6,
            architecture.diameter_range,
            Schedule(steps, rate=1e-2, warm=5, check_every=every, threads=threads, device=device),
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "fine_course", course)
        patch.setattr(training, "full_course", course)
        patch.setattr(training, "FEWEST_TO_CHOOSE", 10)
        yield


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of a small net that has learned nothing yet."""
    torch.manual_seed(1)
    net = CellNet(SMALL).eval()
    said = replace(template(SMALL), name="small", card="small", terms="CC0-1.0")
    return package_net(net, said, tmp_path_factory.mktemp("start") / "small").folder


def weights(package: Path) -> bytes:
    return load_package(package).weights[0].path.read_bytes()


@pytest.fixture(scope="module")
def made(start: Path, small_courses: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command printed that fitted the small net to eight images."""
    folder = tmp_path_factory.mktemp("made")
    images, others = fill(folder / "data", range(8)), fill(folder / "others", range(20, 22))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        options = ("--from", start, "--keep", "0", "--test", others, "--terms", "CC-BY-4.0", "--json")
        assert leave(images, "--out", folder / "mine", *options) == 0
    return json.loads(printed.getvalue())


def test_a_net_learns_to_find_cells_in_images_that_it_did_not_learn_from(made: dict[str, Any]):
    assert made["improved"]
    assert made["before"]["F1"]["0.5"] < 0.3 < 0.7 < made["after"]["F1"]["0.5"]
    assert made["tests"]["after"]["F1"]["0.5"] > 0.7 and made["tests"]["after"]["images"] == 2
    assert len(made["held_out"]) == 2 and made["learned_from"] == 6
    assert made["best_step"] in [step for step, _ in made["curve"]["AP"]]


def test_the_package_says_what_it_is_made_of_and_holds_pictures(made: dict[str, Any]):
    out = Path(made["out"])
    package = load_package(out)
    assert (package.name, package.terms) == ("mine", "CC-BY-4.0")
    for told in (*made["held_out"], "112 cells", "| F1 at IoU 0.5 |", "CC-BY-4.0", "chose the step"):
        assert told in package.card
    drawn = {Path(path).relative_to(out).as_posix() for path in made["figures"]}
    assert {"figures/learning.png", "figures/scores.png"} < drawn and len(drawn) == 4
    assert all((out / path).stat().st_size > 2000 for path in drawn)
    assert not out.with_name("mine.training").exists()


def test_the_segmenter_takes_the_package_and_knows_what_is_familiar(made: dict[str, Any]):
    labels = NetSegmenter(model=made["out"]).segment(Frame(draw(30)[0]))
    assert abs(labels.count - 14) <= 3
    assert labels.novelty is not None and 0.3 < labels.novelty < 2


def test_few_images_are_each_held_out_once_and_all_are_learned_from(
    tmp_path: Path, start: Path, capsys: pytest.CaptureFixture[str]
):
    folder = fill(tmp_path / "few", range(4))
    assert (
        leave(folder, "--out", tmp_path / "made", "--from", start, "--keep", "0", "--steps", "70", "--json")
        == 0
    )
    values = json.loads(capsys.readouterr().out)
    assert values["held_out_in_turn"] and values["learned_from"] == 4
    assert values["held_out"] == ["field00", "field01", "field02", "field03"]
    assert values["before"]["cells_true"] == values["after"]["cells_true"] == 4 * 14
    assert values["after"]["F1"]["0.5"] > 0.6
    assert "held out once" in load_package(tmp_path / "made").card


def interrupted(order: training.Order, at: str) -> None:
    """Train until a line of progress holds certain words, then as if Ctrl-C were pressed."""

    def progress(text: str, done: int = 0, total: int | None = None) -> None:
        if at in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(order, progress)


@pytest.mark.parametrize("count", [8, 3])
def test_an_interrupted_training_goes_on_to_the_very_same_net(tmp_path: Path, start: Path, count: int):
    folder = fill(tmp_path / "data", range(count))
    order = training.Order(folder=folder, out=tmp_path / "a", start=str(start), steps=12, threads=1, seed=5)
    whole = training.train(order)
    again = replace(order, out=tmp_path / "b")
    label = "learning" if count == 8 else "2 of 3"
    steps: list[int] = []

    def stop_at_8(text: str, done: int = 0, total: int | None = None) -> None:
        if label in text:
            steps.append(done)
            if done == 8:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(again, stop_at_8)
    kept = list(tmp_path.glob("b.training/*/checkpoint.pt"))
    assert kept and steps == list(range(1, 9))

    steps.clear()
    resumed = training.train(replace(again, resume=True), lambda text, done=0, total=None: steps.append(done))
    assert 0 < len([step for step in steps if step]) < (12 if count == 8 else 4 * 12)
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name
    assert whole.history.score == resumed.history.score
    assert [one.scores.cells_found for one in whole.after] == [
        one.scores.cells_found for one in resumed.after
    ]
    texts = [
        one.write(tmp_path / f"p{i}", name="p", card="", terms="") for i, one in enumerate((whole, resumed))
    ]
    assert weights(texts[0].folder) == weights(texts[1].folder)


def test_ctrl_c_says_how_to_go_on(
    folder: Path,
    start: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    def stopped(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", stopped)
    assert leave(folder, "--out", tmp_path / "made", "--from", start) == 130
    told = capsys.readouterr().err.replace("\n", " ")
    assert "made.training" in told and "--resume" in told


def test_going_on_needs_something_to_go_on_with_and_the_same_order(folder: Path, start: Path, tmp_path: Path):
    order = training.Order(folder=folder, out=tmp_path / "made", start=str(start), steps=8, threads=1)
    with pytest.raises(ModelError, match="no training to go on with"):
        training.train(replace(order, resume=True))
    interrupted(order, "learning")
    with pytest.raises(ModelError, match="steps was 8, is 9"):
        training.train(replace(order, resume=True, steps=9))
    tifffile.imwrite(folder / "masks" / "field00.tif", draw(77)[1])
    with pytest.raises(ModelError, match="another training was begun there: images was"):
        training.train(replace(order, resume=True))


def test_what_was_learned_is_not_lost_by_beginning_again(folder: Path, start: Path, tmp_path: Path):
    order = training.Order(folder=folder, out=tmp_path / "made", start=str(start), steps=8, threads=1)

    def stop_at_4(text: str, done: int = 0, total: int | None = None) -> None:
        if "learning" in text and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(order, stop_at_4)
    with pytest.raises(ModelError, match=r"made\.training: .*not finished.*--resume"):
        training.train(order)


def test_a_few_cells_choose_neither_step_nor_decoder(
    folder: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "FEWEST_TO_CHOOSE", 1000)
    trained = training.train(
        training.Order(folder=folder, out=tmp_path / "made", start=str(start), keep=0, threads=1)
    )
    trained.work.remove()
    assert trained.improved and trained.history.best[0] == 60 and trained.history.score == []
    assert trained.package.decoder_options == load_package(str(start)).decoder_options


def test_a_net_that_becomes_no_better_is_told(
    folder: Path,
    start: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    def hardly(architecture: Architecture, **given: object) -> Course:
        return Course(
            64, 2, architecture.diameter_range, Schedule(1, rate=1e-9, warm=1, check_every=1, threads=1)
        )

    monkeypatch.setattr(training, "fine_course", hardly)
    assert leave(folder, "--out", tmp_path / "made", "--from", start, "--json") == 1
    printed = capsys.readouterr()
    values = json.loads(printed.out)
    assert not values["improved"] and values["best_step"] == 0
    assert values["before"] == values["after"]
    assert "no better than" in printed.err.replace("\n", " ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an NVIDIA card")
def test_a_card_that_is_not_there_is_told(folder: Path, start: Path, tmp_path: Path):
    order = training.Order(folder=folder, out=tmp_path / "made", start=str(start), device="cuda")
    with pytest.raises(
        ModelError, match="device 'cuda': this torch sees no NVIDIA card; 'cpu' and 'auto' work"
    ):
        training.train(order)


def test_a_net_from_scratch_has_no_before(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert leave(folder, "--out", tmp_path / "made", "--net", "q16", "--steps", "4", "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["before"] is None and values["after"]["cells_true"] > 0
    package = load_package(tmp_path / "made")
    assert package.diameter_px == 24.0
    assert "trained from scratch" in package.card
    assert rows_of(values["before"], values["after"])[0][1] == "-"


def test_cells_that_nobody_drew_do_not_count_in_partial_masks(tmp_path: Path, made: dict[str, Any]):
    def left_half(mask: np.ndarray) -> np.ndarray:
        centres = ndimage.center_of_mass(mask > 0, mask, range(1, 15))
        kept = np.array([0] + [i + 1 if x < 60 else 0 for i, (_, x) in enumerate(centres)])
        return kept[mask].astype(np.uint16)

    folder = fill(tmp_path / "data", range(40, 48), left_half)
    order = training.Order(
        keep=0, folder=folder, out=tmp_path / "new", start=made["out"], partial=True, steps=20, threads=1
    )
    trained = training.train(order)
    counts = [(one.scores.cells_true, one.scores.cells_found, one.scores.matched[0]) for one in trained.after]
    true, found, right = np.sum(counts, axis=0)
    assert right / true > 0.7 and found <= true + 4
    found_whole = trained.write(tmp_path / "new", name="new", card="", terms="")
    labels = NetSegmenter(model=str(found_whole.folder)).segment(Frame(draw(50)[0]))
    assert labels.count > 9  # those on the right are still cells


def test_a_package_that_is_there_is_not_written_over(folder: Path, start: Path, tmp_path: Path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match="is there already"):
        training.train(training.Order(folder=folder, out=tmp_path / "made", start=str(start), threads=1))


def test_what_cannot_be_trained_is_refused(folder: Path, start: Path, tmp_path: Path):
    few = fill(tmp_path / "few", range(2))
    with pytest.raises(SourceError, match="3 or more are needed"):
        training.train(training.Order(folder=few, out=tmp_path / "made", start=str(start)))
    with pytest.raises(ModelError, match="start from a trained net"):
        training.train(training.Order(folder=folder, out=tmp_path / "made", start=None, partial=True))
    assert leave(folder, "--out", tmp_path / "made", "--from", start, "--net", "q16") == 2
    assert leave(folder, "--out", tmp_path / "made", "--from", tmp_path / "gone") in (1, 2)
