"""NDTiff: what the acquisition engine saves, and index and images that contradict each other."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.errors import SourceError
from cytoloop.acquire.sources import open_source
from cytoloop.acquire.sources.ndtiff import NdtiffSource, read_index

ndstorage = pytest.importorskip("ndstorage", reason="the engine extra is not installed")

Image = tuple[dict[str, int | str], np.ndarray, dict[str, Any]]


def image(seed: int, shape: tuple[int, int] = (8, 9), dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, shape).astype(dtype)


def write(folder: Path, images: list[Image]) -> Path:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        dataset = ndstorage.NDTiffDataset(str(folder), name="rec", writable=True)
        dataset.initialize({"PixelType": "GRAY16"})
        for axes, pixels, metadata in images:
            dataset.put_image(axes, pixels, json.dumps(metadata).encode())
        dataset.finish()
        dataset.close()
    return folder / "rec_1"


def times(count: int = 4, **axes: int | str) -> list[Image]:
    return [({"time": t, **axes}, image(t), {"ElapsedTime-ms": 500.0 * t}) for t in range(count)]


def refusal(path: Path) -> SourceError:
    with pytest.raises(SourceError) as refused:
        source = NdtiffSource(path)
        try:
            list(source.frames())
        finally:
            source.close()
    return refused.value


def test_an_acquisition_of_the_real_engine_is_replayed_as_it_was_acquired(
    engine: Any, tmp_path: Path
) -> None:
    from pycromanager import Acquisition, multi_d_acquisition_events

    with Acquisition(directory=str(tmp_path), name="rec", show_display=False) as acquisition:
        acquisition.acquire(
            multi_d_acquisition_events(
                num_time_points=2, channel_group="Channel", channels=["DAPI", "FITC"], z_start=0, z_end=2, z_step=2,
                xy_positions=[(0, 0), (10, 20)],
            )
        )  # fmt: skip
    dataset = acquisition.get_dataset()
    source = open_source(tmp_path / "rec_1")
    frames = list(source.frames())
    source.close()
    assert isinstance(source, NdtiffSource)
    assert [(frame.axes["time"], frame.axes["position"], frame.axes["z"]) for frame in frames] == [
        (t, p, z) for t in range(2) for p in range(2) for z in range(2)
    ]
    assert {frame.stage_um for frame in frames} == {(0.0, 0.0), (10.0, 20.0)}
    assert {frame.z_um for frame in frames} == {0.0, 2.0}
    assert {frame.channels for frame in frames} == {("DAPI", "FITC")}
    assert all(frame.exposure_ms and frame.pixel_size_um for frame in frames)
    for frame in frames:
        for channel, name in enumerate(frame.channels):
            np.testing.assert_array_equal(
                frame.channel(channel), dataset.read_image(**frame.axes, channel=name)
            )
    dataset.close()


def test_times_without_a_record_come_from_the_interval(tmp_path: Path) -> None:
    path = write(tmp_path, [({"time": t}, image(t), {}) for t in range(3)])
    source = NdtiffSource(path, interval_s=4)
    assert [frame.time_s for frame in source.frames()] == [0, 4, 8]
    source.close()


def test_a_record_of_time_that_is_missing_in_the_middle_is_refused(tmp_path: Path) -> None:
    images = times()
    images[2][2].clear()
    assert refusal(write(tmp_path, images)).frame == 2


def test_positions_by_name_are_kept(tmp_path: Path) -> None:
    source = NdtiffSource(write(tmp_path, times(position="A1")))
    assert next(source.frames()).axes == {"time": 0, "position": "A1"}
    source.close()


def test_eight_bit_images_are_read_as_such(tmp_path: Path) -> None:
    path = write(tmp_path, [({"time": t}, image(t, dtype="uint8"), {}) for t in range(3)])
    source = NdtiffSource(path)
    for number, frame in enumerate(source.frames()):
        np.testing.assert_array_equal(frame.pixels, image(number, dtype="uint8"))
        assert frame.pixels.dtype == np.uint8
    source.close()


def test_a_channel_missing_in_one_frame_is_refused_with_its_number(tmp_path: Path) -> None:
    images = [*times(channel="DAPI"), *times(2, channel="FITC")]
    error = refusal(write(tmp_path, images))
    assert error.frame == 2 and "FITC" in error.reason


def test_a_channel_that_was_taken_at_every_third_time_is_in_the_frames_of_those(tmp_path: Path) -> None:
    rare = [entry for entry in times(8, channel="FITC") if int(entry[0]["time"]) % 3 == 0]
    source = NdtiffSource(write(tmp_path, [*times(8, channel="DAPI"), *rare]))
    frames = list(source.frames())
    source.close()
    assert [frame.channels for frame in frames] == [
        ("DAPI", "FITC") if time % 3 == 0 else ("DAPI",) for time in range(8)
    ]
    np.testing.assert_array_equal(frames[6].channel("FITC"), image(6))


@pytest.mark.parametrize("taken", [(0,), (0, 1, 2, 3, 4), (0, 2, 5), (1, 3, 5), (0, 2)])
def test_a_channel_that_was_taken_at_no_regular_times_is_refused(
    tmp_path: Path, taken: tuple[int, ...]
) -> None:
    rare = [entry for entry in times(6, channel="FITC") if entry[0]["time"] in taken]
    error = refusal(write(tmp_path, [*times(6, channel="DAPI"), *rare]))
    assert "no image of channel(s) ['FITC']" in error.reason


def test_images_of_another_size_are_refused_with_their_number(tmp_path: Path) -> None:
    images = times()
    images[2] = (images[2][0], image(0, (9, 9)), images[2][2])
    assert refusal(write(tmp_path, images)).frame == 2


def test_an_index_that_lists_less_or_more_than_the_files_hold_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, times())
    content = (path / "NDTiff.index").read_bytes()
    entry = len(content) // 4
    (path / "NDTiff.index").write_bytes(content[: 3 * entry])
    error = refusal(path)
    assert error.frame == 3 and "lists 3 images, the file holds 4" in error.reason
    more = content[3 * entry :].replace(b'"time": 3', b'"time": 9')
    (path / "NDTiff.index").write_bytes(content + more)
    error = refusal(path)
    assert error.frame == 4 and "lists 5 images, the file holds 4" in error.reason


def test_an_index_of_another_acquisition_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a", times())
    other = write(tmp_path / "b", [(axes, image(0, (8, 8)), metadata) for axes, _, metadata in times()])
    shutil.copy(other / "NDTiff.index", path / "NDTiff.index")
    assert "the index lists an image at byte" in refusal(path).reason


def test_an_image_file_that_is_missing_or_not_listed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, times())
    shutil.copy(path / "rec_NDTiffStack.tif", path / "rec_NDTiffStack_1.tif")
    assert "lists 0 images, the file holds 4" in refusal(path).reason
    (path / "rec_NDTiffStack_1.tif").unlink()
    (path / "rec_NDTiffStack.tif").unlink()
    assert refusal(path).frame == 0


def test_room_that_a_killed_writer_reserved_is_not_taken_for_images(tmp_path: Path) -> None:
    """The files as ndstorage leaves them when it is killed after an image: zeros where the next one would be."""
    path = write(tmp_path, times())
    with (path / "NDTiff.index").open("ab") as index:
        index.write(bytes(64))
    with (path / "rec_NDTiffStack.tif").open("ab") as stack:
        stack.write(bytes(4096))
    source = NdtiffSource(path)
    assert source.count == len(list(source.frames())) == 4
    source.close()


def patched(path: Path, entry: int, field: int, value: int) -> Path:
    """Overwrite one of the eight numbers at the end of an entry of the index."""
    content = bytearray((path / "NDTiff.index").read_bytes())
    end = (entry + 1) * len(content) // 4
    struct.pack_into("<I", content, end - 32 + 4 * field, value)
    (path / "NDTiff.index").write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (0, 2**31, "truncated"),
        (1, 100_000, "each side must be"),
        (1, 60_000, "truncated"),
        (3, 2, "RGB"),
        (3, 77, "number 77 is not supported"),
        (4, 1, "compression 1, 0 is not supported"),
        (6, 2**31, "truncated"),
    ],
)
def test_an_entry_that_cannot_be_right_is_refused_with_its_frame(
    tmp_path: Path, field: int, value: int, reason: str
) -> None:
    error = refusal(patched(write(tmp_path, times()), 2, field, value))
    assert error.frame == 2 and reason in error.reason


def test_the_name_of_a_file_outside_the_folder_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, times())
    content = (path / "NDTiff.index").read_bytes()
    (path / "NDTiff.index").write_bytes(content.replace(b"rec_NDTiffStack.tif", b"../NDTiffStack1.tif"))
    entries, damage = read_index(path / "NDTiff.index")
    assert not entries and "not the name of a file" in damage
    assert refusal(path).frame == 0


def test_any_file_of_a_data_set_opens_the_whole(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, times()) / "rec_NDTiffStack.tif")
    source.close()
    assert isinstance(source, NdtiffSource) and source.count == 4
