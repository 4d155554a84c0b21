from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import SourceError
from cytoloop.models.training.folder import FEWEST_CELLS, read_annotated
from cytoloop.models.training.split import folds, hold_out
from PIL import Image


@pytest.fixture
def pair(draw_nuclei):
    def make(seed: int = 0, count: int = 12, shape: tuple[int, int] = (160, 160)):
        return draw_nuclei(shape, count, seed=seed)

    return make


def fill(folder: Path, pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for name, (image, mask) in pairs.items():
        tifffile.imwrite(folder / "images" / f"{name}.tif", image)
        tifffile.imwrite(folder / "masks" / f"{name}.tif", mask.astype(np.uint16))
    return folder


@pytest.fixture
def folder(tmp_path: Path, pair) -> Path:
    return fill(tmp_path / "data", {f"f{i}": pair(i) for i in range(3)})


def test_images_and_masks_of_the_same_names_are_read(folder: Path, pair):
    read = read_annotated(folder)
    assert [one.name for one in read] == ["f0", "f1", "f2"]
    for seed, one in enumerate(read):
        image, mask = pair(seed)
        assert np.array_equal(one.image, image) and np.array_equal(one.mask, mask)
    assert read[0].cells == 12


def test_masks_may_lie_beside_their_images(tmp_path: Path, pair):
    for i in range(2):
        image, mask = pair(i)
        Image.fromarray((image // 2).clip(0, 255).astype(np.uint8)).save(tmp_path / f"well {i}.png")
        tifffile.imwrite(tmp_path / f"well {i}_masks.tif", mask.astype(np.uint16))
    assert [one.name for one in read_annotated(tmp_path)] == ["well 0", "well 1"]


def test_sequences_of_the_cell_tracking_challenge_are_read_where_masks_are_drawn(tmp_path: Path, pair):
    for name in ("01", "02"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}_GT" / "SEG").mkdir(parents=True)
        for i in range(3):
            image, mask = pair(i)
            tifffile.imwrite(tmp_path / name / f"t{i:03d}.tif", image)
            if i != 1:
                tifffile.imwrite(
                    tmp_path / f"{name}_GT" / "SEG" / f"man_seg{i:03d}.tif", mask.astype(np.uint16)
                )
    assert [one.name for one in read_annotated(tmp_path)] == ["01_t000", "01_t002", "02_t000", "02_t002"]
    assert [one.name for one in read_annotated(tmp_path / "02")] == ["02_t000", "02_t002"]


def test_masks_that_leave_cells_out_are_refused_unless_partial_ones_are_wanted(tmp_path: Path, pair):
    image, mask = pair(0, count=30, shape=(256, 256))
    (tmp_path / "01").mkdir()
    for kind, drawn in (("SEG", np.where(mask > 25, 0, mask)), ("TRA", mask)):
        (tmp_path / "01_GT" / kind).mkdir(parents=True)
        name = "man_seg000.tif" if kind == "SEG" else "man_track000.tif"
        tifffile.imwrite(tmp_path / "01_GT" / kind / name, drawn.astype(np.uint16))
    tifffile.imwrite(tmp_path / "01" / "t000.tif", image)
    with pytest.raises(SourceError, match="man_seg000.tif: holds 25 of the 30 cells"):
        read_annotated(tmp_path)
    assert read_annotated(tmp_path, partial=True)[0].cells == 25


def spoil(folder: Path, how: str) -> None:
    mask_file, image_file = folder / "masks" / "f1.tif", folder / "images" / "f1.tif"
    mask = tifffile.imread(mask_file)
    if how == "shape":
        tifffile.imwrite(mask_file, mask[:-1])
    elif how == "empty":
        tifffile.imwrite(mask_file, mask * 0)
    elif how == "foreground":
        tifffile.imwrite(mask_file, (mask > 0).astype(np.uint8) * 255)
    elif how == "broken":
        mask_file.write_bytes(mask_file.read_bytes()[:-2000])
    elif how == "channels":
        both = np.stack([tifffile.imread(image_file)] * 2)
        tifffile.imwrite(image_file, both, metadata={"axes": "CYX"}, photometric="minisblack")
    elif how == "fractions":
        tifffile.imwrite(mask_file, mask.astype(np.float32) + 0.5)
    elif how == "small":
        tifffile.imwrite(mask_file, mask[:50])
        tifffile.imwrite(image_file, tifffile.imread(image_file)[:50])


@pytest.mark.parametrize(
    ("how", "file", "reason"),
    [
        ("shape", "masks.f1.tif", "159 x 160 px, its image 160 x 160"),
        ("empty", "masks.f1.tif", "no cell"),
        ("foreground", "masks.f1.tif", "one number, 255, in .* pieces: .*--foreground"),
        ("broken", "masks.f1.tif", ""),
        ("channels", "images.f1.tif", "2 channels; choose one with --channel"),
        ("fractions", "masks.f1.tif", "whole numbers"),
        ("small", "images.f1.tif", "50 x 160 px; sides of 64"),
    ],
)
def test_a_pair_that_cannot_be_learned_from_is_named_with_its_reason(
    folder: Path, how: str, file: str, reason: str
):
    spoil(folder, how)
    with pytest.raises(SourceError, match=f"(?s)1 of 3 .*{file}: .*{reason}") as caught:
        read_annotated(folder)
    assert "f0.tif" not in str(caught.value) and "f2.tif" not in str(caught.value)


def test_all_that_is_wrong_is_told_at_once(folder: Path):
    spoil(folder, "shape")
    tifffile.imwrite(folder / "masks" / "f2.tif", np.zeros((160, 160), np.uint8))
    with pytest.raises(SourceError, match=r"(?s)2 of 3 .*f1\.tif.*f2\.tif"):
        read_annotated(folder)


def test_pieces_of_foreground_become_cells_when_asked_for(folder: Path, pair):
    spoil(folder, "foreground")
    assert [one.cells for one in read_annotated(folder, foreground=True)] == [12, 12, 12]


def test_a_named_channel_is_taken(folder: Path):
    spoil(folder, "channels")
    assert read_annotated(folder, channel=1)[1].image.shape == (160, 160)
    with pytest.raises(SourceError, match="channels 0 to 1, not 2"):
        read_annotated(folder, channel=2)


def test_an_image_without_a_mask_is_named(folder: Path):
    (folder / "masks" / "f1.tif").unlink()
    with pytest.raises(SourceError, match=r"f1\.tif have no mask"):
        read_annotated(folder)


def test_too_little_to_learn_from_is_refused(folder: Path, tmp_path: Path, pair):
    with pytest.raises(SourceError, match=r"3 image\(s\) with masks; 5 or more"):
        read_annotated(folder, fewest=5)
    few = fill(tmp_path / "few", {"a": pair(0, count=FEWEST_CELLS - 1, shape=(256, 256))})
    with pytest.raises(SourceError, match=f"{FEWEST_CELLS - 1} cells are in the masks"):
        read_annotated(few)


def test_a_folder_of_something_else_says_what_is_looked_for(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(SourceError, match=r"(?s)no images with masks.*images/ and masks/.*_GT/SEG.*_masks"):
        read_annotated(tmp_path)
    with pytest.raises(SourceError, match="no such folder"):
        read_annotated(tmp_path / "gone")


def test_neighbours_of_a_series_are_held_out_together():
    held = hold_out([f"t{i:03d}" for i in range(20)], 0.25, seed=4)
    assert len(held) == 5 and held == list(range(held[0], held[0] + 5))


def test_every_series_gives_its_share_and_short_ones_count_together():
    names = [f"a_{i}" for i in range(8)] + [f"b_{i}" for i in range(4)] + ["w", "x", "y", "z"]
    held = hold_out(names, 0.25, seed=0)
    assert [sum(names[p].startswith(s) for p in held) for s in ("a_", "b_")] == [2, 1]
    assert sum(names[p] in "wxyz" for p in held) == 1


@pytest.mark.parametrize("count", [2, 3, 5, 40])
@pytest.mark.parametrize("share", [0.01, 0.25, 0.9])
def test_something_is_held_out_and_something_is_left(count: int, share: float):
    for seed in range(5):
        held = hold_out([f"t{i}" for i in range(count)], share, seed)
        assert 1 <= len(held) < count
        assert held == hold_out([f"t{i}" for i in range(count)], share, seed)


def test_folds_hold_every_image_out_once():
    assert [[p for fold in folds(n, 3) for p in fold] for n in (2, 7)] == [[0, 1], [0, 1, 2, 3, 4, 5, 6]]
    assert [len(folds(n, 3)) for n in (2, 3, 7)] == [2, 3, 3]
