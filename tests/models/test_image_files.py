"""Reading single images and masks, and finding which belong together."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import SourceError
from cytoloop.models.image_files import read_image, read_mask
from cytoloop.models.image_pairs import pair_files, read_names
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

GREY = np.arange(30, dtype=np.uint8).reshape(5, 6) * 8


def save_png(path, array, mode=None):
    Image.fromarray(array, mode).save(path)
    return path


def save_tiff(path, array, **options):
    tifffile.imwrite(path, array, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif", "TIFF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_images_come_back_as_they_were_saved(tmp_path, suffix, dtype):
    pixels = GREY.astype(dtype) * (200 if dtype is np.uint16 else 1)
    path = tmp_path / f"image.{suffix}"
    (save_png if suffix == "png" else save_tiff)(path, pixels)
    image = read_image(path)
    assert image.dtype == dtype
    assert image.tolist() == pixels.tolist()
    assert read_mask(path).tolist() == pixels.tolist()
    assert read_mask(path).dtype == np.int32


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_that_is_stored_as_colour_stays_as_it_is(tmp_path, suffix, bands):
    colour = np.repeat(GREY[..., np.newaxis], bands, axis=2)
    colour[..., 3:] = 255
    path = tmp_path / f"image.{suffix}"
    save_png(path, colour) if suffix == "png" else save_tiff(path, colour, photometric="rgb")
    assert read_image(path).tolist() == GREY.tolist()
    assert read_mask(path).tolist() == GREY.tolist()


def test_colour_becomes_luminance(tmp_path):
    colour = np.zeros((1, 4, 3), np.uint8)
    colour[0, 0], colour[0, 1], colour[0, 2], colour[0, 3] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255,) * 3
    assert read_image(save_png(tmp_path / "a.png", colour)).tolist() == [[76, 150, 29, 255]]
    wide = colour.astype(np.uint16) * 257
    planar = save_tiff(
        tmp_path / "a.tif", np.moveaxis(wide, -1, 0), photometric="rgb", planarconfig="separate"
    )
    assert read_image(planar).tolist() == [[19595, 38469, 7471, 65535]]


def test_a_palette_is_colour_in_an_image_and_numbers_in_a_mask(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([0, 0, 0, 200, 200, 200, 90, 90, 90])
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[0, 200, 90]]
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1, 2]]


def test_float_images_are_stretched_over_16_bits(tmp_path):
    image = read_image(save_tiff(tmp_path / "a.tif", np.array([[-1.5, 0.0, 1.5]], np.float32)))
    assert (image.dtype, image.tolist()) == (np.uint16, [[0, 32768, 65535]])
    assert read_image(save_tiff(tmp_path / "b.tif", np.full((2, 2), 7.0))).tolist() == [[0, 0], [0, 0]]


def test_other_integers_are_taken_if_16_bits_hold_them(tmp_path):
    image = read_image(save_tiff(tmp_path / "a.tif", np.array([[0, 65535]], np.int32)))
    assert (image.dtype, image.tolist()) == (np.uint16, [[0, 65535]])
    assert read_mask(save_tiff(tmp_path / "b.tif", np.array([[0, 2**31 - 1]], np.uint32))).max() == 2**31 - 1
    assert read_mask(save_tiff(tmp_path / "c.tif", np.array([[0.0, 3.0]], np.float32))).tolist() == [[0, 3]]


def test_channels_are_kept_apart_if_the_file_calls_them_so(tmp_path):
    stack = np.stack([GREY, GREY + 1]).astype(np.uint16)
    path = save_tiff(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "CYX"})
    assert read_image(path).tolist() == stack.tolist()
    with pytest.raises(SourceError, match="axes TYX"):
        read_image(save_tiff(tmp_path / "b.tif", stack, imagej=True, metadata={"axes": "TYX"}))
    with pytest.raises(SourceError, match="axes CYX"):
        read_mask(path)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([[0.0, 1.5]]), "whole numbers"),
        (np.array([[0.0, np.nan]]), "whole numbers"),
        (np.array([[-1, 1]], np.int16), "from -1 to 1"),
        (np.array([[0, 2**31]], np.uint32), "2147483647 are allowed"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, array, reason):
    with pytest.raises(SourceError, match=reason):
        read_mask(save_tiff(tmp_path / "a.tif", array))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([[0, 65536]], np.uint32), "0 to 65535 are allowed"),
        (np.array([[-1, 1]], np.int16), "from -1 to 1"),
        (np.array([[0.0, np.inf]]), "infinite or no number"),
        (np.array([[1j, 2]]), "complex"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
    ],
)
def test_what_no_camera_gives_is_refused(tmp_path, array, reason):
    with pytest.raises(SourceError, match=reason):
        read_image(save_tiff(tmp_path / "a.tif", array, photometric="rgb" if array.ndim == 3 else None))


def test_missing_files_and_other_kinds_are_named(tmp_path):
    with pytest.raises(SourceError, match=r"a\.png: there is no such file"):
        read_image(tmp_path / "a.png")
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(SourceError, match=r"a\.jpg: .*\.png, \.tif"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(SourceError, match=r"b\.png: cannot be read"):
        read_image(save_tiff(tmp_path / "b.tif", GREY).rename(tmp_path / "b.png"))


def png_header(width, height, depth, colour):
    fields = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + fields + struct.pack(">I", zlib.crc32(b"IHDR" + fields))


def test_a_header_that_claims_a_huge_image_is_refused_before_anything_is_allocated(tmp_path):
    (tmp_path / "a.png").write_bytes(png_header(60_000, 60_000, 8, 0))
    with pytest.raises(SourceError, match=r"\(60000, 60000\)"):
        read_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(png_header(8, 8, 16, 2))
    with pytest.raises(SourceError, match="16 bits"):
        read_image(tmp_path / "b.png")


@pytest.mark.parametrize("kind", ["png", "tif", "deflate"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_that_was_cut_off_is_refused_or_whole(tmp_path, kind, data):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 20), dtype=np.uint8)
    whole = io.BytesIO()
    if kind == "png":
        Image.fromarray(pixels).save(whole, "PNG")
    else:
        tifffile.imwrite(whole, pixels, compression=None if kind == "tif" else "deflate", rowsperstrip=5)
    content = whole.getvalue()
    path = tmp_path / ("a.png" if kind == "png" else "a.tif")
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        image = read_image(path)
    except SourceError as error:
        assert str(path) in str(error)
    else:
        assert image.tolist() == pixels.tolist()


def folders(tmp_path, images, masks):
    for name, files in (("images", images), ("masks", masks)):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_bytes(b"")
    return tmp_path / "images", tmp_path / "masks"


def test_masks_belong_to_the_images_of_their_name(tmp_path):
    images, masks = folders(
        tmp_path,
        ["a2.png", "a10.tif", "b_mask.tif", ".hidden.png", "notes.txt"],
        ["a10_label.tif", "a2.PNG", "b_mask_cp_masks.png"],
    )
    found = pair_files(images, masks)
    assert [(pair.name, pair.image.name, pair.mask.name) for pair in found.pairs] == [
        ("a2", "a2.png", "a2.PNG"),
        ("a10", "a10.tif", "a10_label.tif"),
        ("b_mask", "b_mask.tif", "b_mask_cp_masks.png"),
    ]
    assert found.without_mask == ()


def test_images_and_masks_may_share_a_folder(tmp_path):
    images, _ = folders(tmp_path, ["a.png", "a_mask.png", "b.tif", "b_masks.tif"], [])
    assert [(p.name, p.mask.name) for p in pair_files(images, images).pairs] == [
        ("a", "a_mask.png"),
        ("b", "b_masks.tif"),
    ]


@pytest.mark.parametrize("kind", ["man_seg", "man_track", "mask"])
def test_in_the_layout_of_the_challenge_the_numbers_say_it_and_masks_may_be_few(tmp_path, kind):
    images, masks = folders(tmp_path, ["t007.tif", "t008.tif", "t009.tif"], [f"{kind}0008.tif"])
    found = pair_files(images, masks)
    assert [(pair.name, pair.mask.name) for pair in found.pairs] == [("t008", f"{kind}0008.tif")]
    assert found.without_mask == ("t007", "t009")
    with pytest.raises(SourceError, match=r"t009\.tif have no mask"):
        pair_files(images, masks, ["t008", "t009"])


@pytest.mark.parametrize(
    ("images", "masks", "reason"),
    [
        (["a.png", "b.png"], ["a.png"], r"b\.png have no mask"),
        (["a.png"], ["a.png", "b.png"], r"b\.png belong to no image"),
        (["a.png", "a.tif"], ["a.png"], r"a\.png and a\.tif claim the same name"),
        (["a.png"], ["a.png", "a_mask.png"], r"a\.png and a_mask\.png claim the same name"),
        (["a.txt"], ["a.png"], "no image is in this folder"),
        ([f"{n}.png" for n in range(8)], ["9.png", "10.png"], r"9\.png, 10\.png belong"),
    ],
)
def test_folders_that_do_not_fit_are_refused_by_name(tmp_path, images, masks, reason):
    with pytest.raises(SourceError, match=reason):
        pair_files(*folders(tmp_path, images, masks))


def test_a_list_takes_a_part_and_a_name_that_is_not_there_is_told(tmp_path):
    images, masks = folders(tmp_path, ["a.png", "b.png", "cell1.png"], ["b.png", "cell1.png"])
    (tmp_path / "list.txt").write_text("# held out\ncell1.png\n\nb  # twice\nb\n")
    names = read_names(tmp_path / "list.txt")
    assert names == ["cell1", "b"]
    assert [pair.name for pair in pair_files(images, masks, names).pairs] == ["b", "cell1"]
    with pytest.raises(SourceError, match=r"named cell2\. Did you mean 'cell1'"):
        pair_files(images, masks, ["cell2"])
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(SourceError, match="holds no name"):
        read_names(tmp_path / "empty.txt")
