"""TIFF recordings as programs really write them, and the ways in which they are wrong."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import SourceError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.sources import open_source
from cytoloop.acquire.sources.tiff import TiffSource
from cytoloop.acquire.sources.tiff_folder import natural_key


def images(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(1, 256, shape).astype(dtype)


def frames_of(path: Path, **options: Any) -> list[Frame]:
    source = TiffSource(path, **options)
    try:
        return list(source.frames())
    finally:
        source.close()


def refusal(path: Path) -> SourceError:
    with pytest.raises(SourceError) as refused:
        frames_of(path)
    return refused.value


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    "options",
    [
        {"byteorder": ">"},
        {"bigtiff": True, "byteorder": ">"},
        {"rowsperstrip": 5},
        {"tile": (16, 16)},
        {"tile": (16, 32), "compression": "zlib", "predictor": 2},
        {"compression": "zlib", "predictor": 2, "byteorder": ">", "rowsperstrip": 3},
        {"compression": "packbits"},
        {"compression": "lzw", "predictor": 2},
        {"compression": "zstd"},
    ],
    ids=str,
)
def test_every_lossless_way_of_storing_gives_the_same_pixels(
    tmp_path: Path, dtype: str, options: Any
) -> None:
    if options.get("compression") in ("lzw", "zstd", "packbits"):
        pytest.importorskip("imagecodecs", reason="tifffile needs imagecodecs to write this compression")
    image = images(21, 32, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", image, **options)
    frame = frames_of(tmp_path / "a.tif")[0]
    np.testing.assert_array_equal(frame.pixels, image)
    assert (
        frame.pixels.dtype == image.dtype and frame.pixels.dtype.isnative and frame.pixels.flags.c_contiguous
    )


@pytest.mark.parametrize(
    ("image", "options", "named"),
    [
        (np.ones((9, 9, 3), "uint8"), {"photometric": "rgb"}, "RGB"),
        (np.ones((3, 9, 9), "uint16"), {"photometric": "rgb", "planarconfig": "separate"}, "minisblack"),
        (np.ones((9, 9), "float32"), {}, "float32.*allowed: uint8, uint16.*Scale"),
        (np.ones((9, 9), "int16"), {}, "int16.*allowed"),
        (np.ones((9, 9), "uint32"), {}, "uint32.*allowed"),
        (np.ones((9, 9), bool), {}, "uint1 .*allowed"),
    ],
    ids=["rgb", "planar rgb", "float", "signed", "32 bit", "bool"],
)
def test_other_pixel_types_are_refused_by_name(
    tmp_path: Path, image: np.ndarray, options: Any, named: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", image, **options)
    with pytest.raises(SourceError, match=named) as refused:
        TiffSource(tmp_path / "a.tif")
    assert refused.value.frame == 0


def test_a_compression_that_cannot_be_read_exactly_is_refused_by_number(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", images(9, 9))
    patch_tag(tmp_path / "a.tif", 259, 7)
    assert "compression 7 is not supported; allowed: none, LZW" in refusal(tmp_path / "a.tif").reason


def test_without_imagecodecs_the_error_says_how_to_install_it(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", images(9, 9))
    patch_tag(tmp_path / "a.tif", 259, 50000)
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from cytoloop.acquire.sources.tiff import TiffSource\n"
        f"list(TiffSource({str(tmp_path / 'a.tif')!r}).frames())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "SourceError" in done.stderr
    assert "compressed with Zstandard; to read it: python -m pip install imagecodecs" in done.stderr


def patch_tag(path: Path, tag: int, value: int) -> None:
    """Overwrite the inline value of a tag of every page."""
    with tifffile.TiffFile(path) as file:
        places = [(page.tags[tag].valueoffset, page.tags[tag].dtype) for page in file.pages]
    with path.open("r+b") as opened:
        for place, kind in places:
            opened.seek(place)
            opened.write(struct.pack("<H" if kind == 3 else "<I", value))


@pytest.mark.parametrize("sides", [(32_000, 32_000), (4_000_000_000, 1), (0, 9)], ids=str)
def test_a_header_that_claims_too_much_is_refused_before_allocating(
    tmp_path: Path, sides: tuple[int, int]
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", images(9, 9), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        for tag, value in zip((256, 257), sides, strict=True):
            file.pages[0].tags[tag].overwrite(value, dtype="I")
    assert "each side must be" in refusal(tmp_path / "a.tif").reason


def test_a_strip_that_decodes_to_too_much_is_not_decoded_further(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4096, 64), "uint8"), compression="zlib", rowsperstrip=4096)
    patch_tag(tmp_path / "a.tif", 257, 16)
    assert [frame.pixels.shape for frame in frames_of(tmp_path / "a.tif")] == [(16, 64)]


def test_strips_that_were_never_written_are_refused_and_not_taken_for_black(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", images(9, 9))
    patch_tag(tmp_path / "a.tif", 273, 0)
    assert "never written" in refusal(tmp_path / "a.tif").reason


def test_files_that_are_no_tiff_are_refused_by_what_they_are(tmp_path: Path) -> None:
    for content, reason in (
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n" * 9, "not a TIFF file"),
        (b"II*\0", "truncated"),
    ):
        (tmp_path / "a.tif").write_bytes(content)
        with pytest.raises(SourceError, match=reason):
            open_source(tmp_path / "a.tif")


def test_a_stack_cut_off_is_refused_at_the_frame_that_is_not_whole(tmp_path: Path) -> None:
    stack = images(6, 12, 10)
    with tifffile.TiffWriter(tmp_path / "whole.tif") as writer:
        for image in stack:
            writer.write(image)
    with tifffile.TiffFile(tmp_path / "whole.tif") as file:
        ends = [page.dataoffsets[0] + page.databytecounts[0] for page in file.pages]
    content = (tmp_path / "whole.tif").read_bytes()
    for cut in range(ends[0], ends[-1], 13):
        (tmp_path / "cut.tif").write_bytes(content[:cut])
        with pytest.raises(SourceError) as refused:
            TiffSource(tmp_path / "cut.tif")
        assert refused.value.frame == sum(end <= cut for end in ends)


def test_directories_that_run_in_a_circle_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", images(5, 9, 9))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset = file.pages[3].offset
        first = file.pages[0].offset
        count = len(file.pages[3].tags)
    with (tmp_path / "a.tif").open("r+b") as opened:
        opened.seek(offset + 2 + 12 * count)
        opened.write(struct.pack("<I", first))
    error = refusal(tmp_path / "a.tif")
    assert "points back" in error.reason and error.frame == 4


def test_a_page_of_another_size_or_type_is_refused_at_its_frame(tmp_path: Path) -> None:
    for odd in (images(9, 8), images(9, 9, dtype="uint8")):
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            for image in (images(9, 9), images(9, 9), odd):
                writer.write(image, metadata=None)
        error = refusal(tmp_path / "a.tif")
        assert error.frame == 2 and "differs from frame 0" in error.reason


def test_a_plain_stack_is_a_time_series_at_the_given_interval(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", images(5, 9, 9), metadata=None)
    frames = frames_of(tmp_path / "a.tif", interval_s=2.5)
    assert [frame.time_s for frame in frames] == [0, 2.5, 5, 7.5, 10]
    assert [frame.axes for frame in frames] == [{"time": time} for time in range(5)]


def test_axes_that_tifffile_wrote_are_followed(tmp_path: Path) -> None:
    stack = images(2, 2, 5, 9, 9)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", metadata={"axes": "CTZYX"})
    frames = frames_of(tmp_path / "a.tif")
    assert [frame.axes for frame in frames] == [{"time": time, "z": z} for time in range(2) for z in range(5)]
    np.testing.assert_array_equal(frames[7].pixels, stack[:, 1, 2])


def test_a_stack_whose_axes_are_not_stated_is_refused_with_advice(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", images(5, 2, 9, 9))
    assert "metadata={'axes': 'TCYX'}" in refusal(tmp_path / "a.tif").reason


def test_imagej_hyperstacks_have_channels_slices_times_and_pixel_size(tmp_path: Path) -> None:
    stack = images(3, 2, 2, 9, 9)
    metadata = {"axes": "TZCYX", "finterval": 0.5, "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, resolution=(4, 4), metadata=metadata)
    frames = frames_of(tmp_path / "a.tif")
    assert [(frame.axes["time"], frame.axes["z"], frame.time_s) for frame in frames] == [
        (0, 0, 0), (0, 1, 0), (1, 0, 0.5), (1, 1, 0.5), (2, 0, 1), (2, 1, 1)
    ]  # fmt: skip
    assert {frame.pixel_size_um for frame in frames} == {0.25}
    np.testing.assert_array_equal(frames[3].pixels, stack[1, 1])


def test_slices_of_a_plain_imagej_stack_are_times_unless_they_have_a_spacing(tmp_path: Path) -> None:
    plain = "ImageJ=1.54f\nimages=5\nslices=5\n"
    for text, axes in ((plain, {"time": 2}), (plain + "spacing=0.3\n", {"time": 0, "z": 2})):
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            for image in images(5, 9, 9):
                writer.write(image, metadata=None, description=text)
        assert frames_of(tmp_path / "a.tif")[2].axes == axes


def test_a_large_imagej_stack_behind_one_directory_is_read_and_its_end_checked(tmp_path: Path) -> None:
    stack = images(5, 9, 10).astype(">u2")
    description = "ImageJ=1.54f\nimages=5\nslices=5\n"
    tifffile.imwrite(tmp_path / "a.tif", stack[0], byteorder=">", description=description, metadata=None)
    with (tmp_path / "a.tif").open("ab") as opened:
        opened.write(stack[1:].tobytes())
    frames = frames_of(tmp_path / "a.tif")
    for frame, image in zip(frames, stack, strict=True):
        np.testing.assert_array_equal(frame.pixels, image)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: -9 * 10 * 2 - 1])
    assert refusal(tmp_path / "a.tif").frame == 3


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        ("ImageJ=1.54f\nimages=7\nframes=7\nhyperstack=true\n", "states 7 images, the file holds 5"),
        ("ImageJ=1.54f\nimages=3\nframes=3\nhyperstack=true\n", "states 3 images, the file holds 5"),
        ("ImageJ=1.54f\nimages=5\nframes=2\nchannels=2\nhyperstack=true\n", "states 5 images but"),
        ("ImageJ=1.54f\nimages=many\n", "damaged"),
        ('{"shape": [3, 9, 9]}', "states 3 images, the file holds 5"),
        ('{"shape": [8, 9, 9]}', "states 8 images, the file holds 5"),
        ('{"shape": [5, 9, 9], "axes": "TYXS"}', "do not end in YX"),
        ('{"shape": ', "damaged|shape"),
    ],
)
def test_a_description_that_contradicts_the_file_is_refused(
    tmp_path: Path, description: str, reason: str
) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for number, image in enumerate(images(5, 9, 9)):
            writer.write(image, metadata=None, description=description if number == 0 else None)
    with pytest.raises(SourceError, match=reason):
        TiffSource(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [((20_000, 20_000), 3, 0.5), ((1, 1), 3, None), ((72, 72), 2, None), ((20_000, 10_000), 3, None)],
)
def test_pixel_size_comes_only_from_a_resolution_that_means_it(
    tmp_path: Path, resolution: tuple[int, int], unit: int, expected: float | None
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", images(9, 9), resolution=resolution, resolutionunit=unit)
    assert frames_of(tmp_path / "a.tif")[0].pixel_size_um == expected


def test_a_folder_is_read_in_natural_order_whatever_the_case_of_its_names(tmp_path: Path) -> None:
    stack = images(12, 9, 9)
    for number, image in enumerate(stack):
        tifffile.imwrite(tmp_path / f"T{number}.{'TIF' if number % 2 else 'tiff'}", image)
    (tmp_path / "notes.txt").write_text("not an image")
    frames = frames_of(tmp_path)
    for frame, image in zip(frames, stack, strict=True):
        np.testing.assert_array_equal(frame.pixels, image)
    names = ["t10", "t2", "T1", "a", "t2b"]
    assert sorted(names, key=natural_key) == ["a", "T1", "t2", "t2b", "t10"]


def test_a_stack_among_the_images_of_a_folder_is_refused_with_its_number(tmp_path: Path) -> None:
    for number in range(3):
        tifffile.imwrite(tmp_path / f"a{number}.tif", images(*((5, 9, 9) if number == 2 else (9, 9))))
    error = refusal(tmp_path)
    assert error.frame == 2 and "holds 5 images" in error.reason and error.path.endswith("a2.tif")


def test_a_file_that_vanishes_from_a_folder_is_refused_with_its_number(tmp_path: Path) -> None:
    for number in range(3):
        tifffile.imwrite(tmp_path / f"a{number}.tif", images(9, 9))
    source = TiffSource(tmp_path)
    (tmp_path / "a1.tif").unlink()
    frames = source.frames()
    assert next(frames).sequence == 0
    with pytest.raises(SourceError, match="missing or has been removed") as refused:
        next(frames)
    source.close()
    assert refused.value.frame == 1


def write_micro_manager(folder: Path, *, skip: tuple[int, ...] = ()) -> dict[tuple[int, ...], np.ndarray]:
    """Write Micro-Manager's separate image files: 2 channels, 2 positions, 3 times."""
    written = {}
    for at in np.ndindex(2, 2, 3, 1):
        channel, position, time, z = at
        written[at] = images(9, 9) + channel + 10 * position + 100 * time
        if at != skip:
            name = f"img_channel{channel:03d}_position{position:03d}_time{time:09d}_z{z:03d}.tif"
            tifffile.imwrite(folder / name, written[at])
    return written


def test_micro_manager_image_files_become_frames_of_all_channels(tmp_path: Path) -> None:
    written = write_micro_manager(tmp_path)
    frames = frames_of(tmp_path)
    assert [frame.axes for frame in frames] == [
        {"time": t, "position": p} for t in range(3) for p in range(2)
    ]
    np.testing.assert_array_equal(frames[3].pixels, np.stack([written[0, 1, 1, 0], written[1, 1, 1, 0]]))


def test_a_missing_channel_of_micro_manager_image_files_is_refused_with_its_frame(tmp_path: Path) -> None:
    write_micro_manager(tmp_path, skip=(1, 0, 2, 0))
    error = refusal(tmp_path)
    assert error.frame == 4 and "no image of channel 1 at position 0, time 2" in error.reason
