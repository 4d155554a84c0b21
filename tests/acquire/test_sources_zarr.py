"""OME-Zarr: metadata of both versions, positions, and chunks that are not there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.errors import MissingExtraError, SourceError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.sources.zarr import ZarrSource

zarr = pytest.importorskip("zarr", reason="the zarr extra is not installed")

UNITS = {"t": "minute", "z": "nanometer", "y": "micrometer", "x": "micrometer"}


def images(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(1, 256, shape).astype(dtype)


def attributes(letters: str, scale: list[float], form: int) -> dict[str, Any]:
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": axis, "type": kinds.get(axis, "space")} for axis in letters]
    for axis in axes:
        if axis["name"] in UNITS:
            axis["unit"] = UNITS[axis["name"]]
    transformations = [{"type": "scale", "scale": scale}]
    content: dict[str, Any] = {
        "multiscales": [
            {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transformations}]}
        ],
        "omero": {"channels": [{"label": "DAPI"}, {"label": "FITC"}]},
    }
    return content if form == 2 else {"ome": {"version": "0.5", **content}}


def write(
    path: Path,
    stack: np.ndarray,
    letters: str,
    *,
    form: int = 3,
    scale: list[float] | None = None,
    **options: Any,
) -> Path:
    group = zarr.create_group(path, zarr_format=form)
    options = {"chunks": (1,) * (stack.ndim - 2) + (5, 6), "dtype": stack.dtype} | options
    group.create_array("0", shape=stack.shape, **options)[...] = stack
    group.attrs.update(attributes(letters, scale or [1.0] * stack.ndim, form))
    return path


def frames_of(path: Path, **options: Any) -> list[Frame]:
    return list(ZarrSource(path, **options).frames())


def refusal(path: Path) -> SourceError:
    with pytest.raises(SourceError) as refused:
        frames_of(path)
    return refused.value


@pytest.mark.parametrize("form", [2, 3])
def test_axes_units_and_channel_names_come_from_the_metadata(tmp_path: Path, form: int) -> None:
    stack = images(2, 2, 3, 9, 10)
    path = write(tmp_path / "a.zarr", stack, "tczyx", form=form, scale=[0.5, 1, 400, 0.25, 0.25])
    frames = frames_of(path)
    assert [(frame.axes["time"], frame.axes["z"]) for frame in frames] == [
        (t, z) for t in range(2) for z in range(3)
    ]
    assert [frame.time_s for frame in frames] == [0, 0, 0, 30, 30, 30]
    assert [frame.z_um for frame in frames] == pytest.approx([0, 0.4, 0.8] * 2)
    assert {(frame.channels, frame.pixel_size_um) for frame in frames} == {(("DAPI", "FITC"), 0.25)}
    for frame in frames:
        np.testing.assert_array_equal(frame.pixels, stack[frame.axes["time"], :, frame.axes["z"]])


@pytest.mark.parametrize(
    "options",
    [
        {"form": 2, "dtype": ">u2"},
        {"form": 2, "compressors": None},
        {"form": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
        {"form": 3, "compressors": None},
        {"form": 3, "chunk_key_encoding": {"name": "v2", "separator": "."}},
        {"form": 3, "chunks": (3, 9, 10)},
        {"form": 3, "compressors": zarr.codecs.GzipCodec()},
        {"form": 3, "compressors": zarr.codecs.BloscCodec(typesize=2), "shards": (1, 5, 6)},
        {"form": 3, "shards": (3, 10, 12)},
        {"form": 3, "shards": (1, 5, 6)},
    ],
    ids=str,
)
def test_every_way_of_storing_gives_the_same_pixels(tmp_path: Path, options: dict[str, Any]) -> None:
    stack = images(3, 9, 10)
    for frame, image in zip(
        frames_of(write(tmp_path / "a.zarr", stack, "tyx", **options)), stack, strict=True
    ):
        np.testing.assert_array_equal(frame.pixels, image)
        assert frame.pixels.dtype.isnative and frame.pixels.flags.c_contiguous


@pytest.mark.parametrize("letters", ["yx", "cyx", "zyx"])
def test_images_without_time_are_frames_too(tmp_path: Path, letters: str) -> None:
    stack = images(*(2,) * (len(letters) - 2), 9, 10)
    frames = frames_of(write(tmp_path / "a.zarr", stack, letters))
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames]).reshape(stack.shape), stack)


def test_the_images_of_a_bioformats2raw_layout_are_positions(tmp_path: Path) -> None:
    stacks = [images(2, 9, 10), images(2, 9, 10) + 1]
    zarr.create_group(tmp_path / "a.zarr").attrs.update({"ome": {"bioformats2raw.layout": 3}})
    for number, stack in enumerate(stacks):
        write(tmp_path / "a.zarr" / str(number), stack, "tyx")
    frames = frames_of(tmp_path / "a.zarr")
    assert [frame.axes for frame in frames] == [
        {"time": t, "position": p} for t in range(2) for p in range(2)
    ]
    for frame in frames:
        np.testing.assert_array_equal(frame.pixels, stacks[frame.axes["position"]][frame.axes["time"]])


@pytest.mark.parametrize("options", [{"form": 2}, {"form": 3}, {"form": 3, "shards": (1, 10, 12)}], ids=str)
def test_a_missing_chunk_is_refused_at_its_frame_and_not_taken_for_black(
    tmp_path: Path, options: Any
) -> None:
    path = write(tmp_path / "a.zarr", images(4, 9, 10), "tyx", **options)
    name = "2.1.0" if options["form"] == 2 else "c/2/0/0" if "shards" in options else "c/2/1/0"
    (path / "0" / name).unlink()
    assert zarr.open_array(path / "0", mode="r")[2].min() == 0, "zarr itself takes it for black"
    error = refusal(path)
    assert error.frame == 2 and "missing" in error.reason and Path(error.path) == path / "0" / name


@pytest.mark.parametrize("options", [{}, {"shards": (2, 10, 12)}], ids=str)
def test_chunks_of_zeros_that_were_left_out_may_be_allowed(tmp_path: Path, options: Any) -> None:
    stack = images(4, 9, 10)
    stack[2, :5, :6] = 0
    path = write(tmp_path / "a.zarr", stack, "tyx", **options)
    error = refusal(path)
    assert error.frame == 2 and "allow_missing" in error.reason
    for frame, image in zip(frames_of(path, allow_missing=True), stack, strict=True):
        np.testing.assert_array_equal(frame.pixels, image)


def blosc(form: int) -> Any:
    numcodecs = pytest.importorskip("numcodecs")
    return numcodecs.Blosc() if form == 2 else zarr.codecs.BloscCodec(typesize=2)


@pytest.mark.parametrize("form", [2, 3])
def test_a_blosc_chunk_cut_off_anywhere_is_refused_before_it_is_decoded(tmp_path: Path, form: int) -> None:
    path = write(tmp_path / "a.zarr", images(3, 9, 10), "tyx", form=form, compressors=blosc(form))
    chunk = path / "0" / ("1.0.0" if form == 2 else "c/1/0/0")
    content = chunk.read_bytes()
    for cut in range(len(content)):
        chunk.write_bytes(content[:cut])
        assert refusal(path).frame == 1


def test_a_shard_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", images(4, 9, 10), "tyx", shards=(2, 10, 12), compressors=None)
    shard = path / "0" / "c" / "1" / "0" / "0"
    content = shard.read_bytes()
    for cut in range(0, len(content), 11):
        shard.write_bytes(content[:cut])
        assert refusal(path).frame == 2


def test_other_pixel_types_are_refused_by_name_and_frame_sizes_before_reading(tmp_path: Path) -> None:
    for dtype in ("float32", "int16", "uint32"):
        assert dtype in refusal(write(tmp_path / dtype, images(3, 9, 10, dtype=dtype), "tyx")).reason
    path = write(tmp_path / "huge", images(3, 9, 10), "tyx")
    metadata = json.loads((path / "0" / "zarr.json").read_text())
    metadata["shape"] = [3, 50_000, 50_000]
    (path / "0" / "zarr.json").write_text(json.dumps(metadata))
    assert "each side must be" in refusal(path).reason
    metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"] = [3, 9, 10], [1, 10**5, 10**5]
    (path / "0" / "zarr.json").write_text(json.dumps(metadata))
    assert "decoded at once" in refusal(path).reason


def edited(path: Path, change: dict[str, Any]) -> Path:
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["ome"].update(change)
    (path / "zarr.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"multiscales": []}, "damaged"),
        ({"multiscales": "none"}, "damaged"),
        ({"multiscales": [{"axes": ["t", "y", "x"], "datasets": [{"path": "9"}]}]}, "missing"),
        ({"multiscales": [{"axes": ["t", "y", "x"], "datasets": [{"path": "../b"}]}]}, "not inside"),
        ({"multiscales": [{"axes": ["t", "x", "y"], "datasets": [{"path": "0"}]}]}, "not supported"),
        (
            {"multiscales": [{"axes": ["c", "t", "y", "x"], "datasets": [{"path": "0"}]}]},
            "the array has 3 axes",
        ),
        ({"multiscales": [{"axes": ["angle", "y", "x"], "datasets": [{"path": "0"}]}]}, "not supported"),
    ],
)
def test_metadata_that_contradict_the_array_are_refused(tmp_path: Path, change: Any, reason: str) -> None:
    path = write(tmp_path / "a.zarr", images(3, 9, 10), "tyx")
    with pytest.raises(SourceError, match=reason):
        ZarrSource(edited(path, change))


def test_what_is_not_an_image_is_refused_with_advice(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", images(3, 9, 10), "tyx")
    assert "give the folder above" in refusal(path / "0").reason
    zarr.create_group(tmp_path / "plate.zarr").attrs.update({"ome": {"plate": {}}})
    assert "one field" in refusal(tmp_path / "plate.zarr").reason


def test_without_the_zarr_package_the_error_names_the_extra(tmp_path: Path, monkeypatch: Any) -> None:
    path = write(tmp_path / "a.zarr", images(3, 9, 10), "tyx")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingExtraError, match=r"cytoloop\[zarr\]"):
        ZarrSource(path)
