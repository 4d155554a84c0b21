"""Sequences of the Cell Tracking Challenge: made up, damaged, and real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import SourceError
from cytoloop.acquire.sources import open_source
from cytoloop.acquire.sources.ctc import CtcSource

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def write(folder: Path, numbers: list[int], digits: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        tifffile.imwrite(folder / f"t{number:0{digits}d}.tif", np.full((8, 9), number + 1, "uint8"))
    return folder


def refusal(path: Path) -> SourceError:
    with pytest.raises(SourceError) as refused:
        list(CtcSource(path).frames())
    return refused.value


def test_time_is_the_number_in_the_name(tmp_path: Path) -> None:
    frames = list(CtcSource(write(tmp_path / "01", [7, 8, 9, 10, 11]), interval_s=2).frames())
    assert [frame.axes["time"] for frame in frames] == [7, 8, 9, 10, 11]
    assert [frame.time_s for frame in frames] == [0, 2, 4, 6, 8]
    assert [frame.pixels[0, 0] for frame in frames] == [8, 9, 10, 11, 12]


def test_numbers_of_four_digits_are_read_in_order(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "01", list(range(12)), digits=4))
    assert isinstance(source, CtcSource) and source.name.endswith("/01")
    assert [frame.pixels[0, 0] for frame in source.frames()] == list(range(1, 13))


def test_a_gap_is_refused_with_the_missing_file(tmp_path: Path) -> None:
    error = refusal(write(tmp_path / "01", [0, 1, 2, 3, 4, 6, 7]))
    assert error.frame == 5 and "t005.tif is missing; the next one is t006.tif" in error.reason


def test_a_number_given_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "01", [0, 1, 2])
    write(tmp_path / "01", [1], digits=4)
    assert "two images with number 1" in refusal(tmp_path / "01").reason


def test_an_empty_or_truncated_or_foreign_file_is_refused_with_its_number(tmp_path: Path) -> None:
    folder = write(tmp_path / "01", [0, 1, 2, 3])
    whole = (folder / "t000.tif").read_bytes()
    for content, reason in ((b"", "empty"), (whole[:-5], "truncated"), (b"\x89PNG" * 50, "not a TIFF")):
        for number in (2, 3):
            kept = (folder / f"t00{number}.tif").read_bytes()
            (folder / f"t00{number}.tif").write_bytes(content)
            error = refusal(folder)
            assert error.frame == number and reason in error.reason
            (folder / f"t00{number}.tif").write_bytes(kept)


def test_a_three_dimensional_sequence_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "01", [0, 1])
    tifffile.imwrite(folder / "t000.tif", np.ones((5, 8, 9), "uint8"))
    error = refusal(folder)
    assert error.frame == 0 and "holds 5 images" in error.reason


def test_a_folder_without_frames_is_refused_with_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "Data" / "01", [0])
    assert open_source(tmp_path / "Data").count == 1  # the only sequence there is
    write(tmp_path / "Data" / "02", [0])
    with pytest.raises(SourceError, match="It holds the sequences 01, 02: give one of these"):
        open_source(tmp_path / "Data")
    assert "no image named t000.tif" in refusal(tmp_path / "Data").reason
    assert "cannot be listed" in refusal(tmp_path / "nothing").reason


@pytest.mark.parametrize(
    ("name", "count", "shape", "dtype"),
    [
        ("Fluo-N2DH-SIM+", 65, (690, 628), "uint16"),
        ("Fluo-N2DH-GOWT1", 92, (1024, 1024), "uint8"),
        ("Bact-trpL-early", 32, (1305, 1009), "uint8"),
    ],
)
def test_real_sequences_give_what_tifffile_reads(
    name: str, count: int, shape: tuple[int, int], dtype: str
) -> None:
    folder = DATA / name / "01"
    if not folder.is_dir():
        pytest.skip("the recorded movies are not on this machine")
    source = open_source(folder)
    assert isinstance(source, CtcSource) and source.count == count
    for index, frame in enumerate(source.frames()):
        assert frame.sequence == index and frame.pixels.shape == shape and frame.pixels.dtype == dtype
        if index % 8 == 0:
            np.testing.assert_array_equal(frame.pixels, tifffile.imread(folder / f"t{index:03d}.tif"))
    source.close()
