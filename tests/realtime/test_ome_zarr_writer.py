"""A recording is readable at any moment, holds each acknowledged plane exactly once, and survives its writer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.errors import ConfigurationError, FrameError, SourceError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.sources.source import open_source
from cytoloop.realtime.recording.layout import ImageLayout
from cytoloop.realtime.recording.ome_zarr import OmeZarrWriter
from cytoloop.realtime.recording.side_index import Plane, read_planes
from msgspec.structs import replace

zarr = pytest.importorskip("zarr", reason="the zarr extra is not installed")
yaozarrs = pytest.importorskip("yaozarrs")

SHAPE = (24, 31)
LAYOUT = ImageLayout(
    shape=SHAPE,
    dtype="uint16",
    channels=("phase", "red"),
    pixel_size_um=0.65,
    interval_s=2.0,
    affine=(0.65, 0.01, -0.01, 0.65),
    frames_per_shard=4,
)


def pixels_of(sequence: int, shape: tuple[int, ...] = (2, *SHAPE)) -> Any:
    return np.random.default_rng(sequence).integers(0, 65_536, shape, np.uint16)


def a_frame(sequence: int, **changes: Any) -> Frame:
    about: dict[str, Any] = {
        "time_s": sequence * 2.0,
        "channels": LAYOUT.channels,
        "stage_um": (1.5, -2.0),
        "z_um": 3.0,
        "exposure_ms": 20.0,
    }
    return Frame(about.pop("pixels", pixels_of(sequence)), sequence, **(about | changes))


def read(folder: Path, image: str = "0/0") -> Any:
    return zarr.open_array(folder / image, mode="r")


def lines(folder: Path, name: str = "frames.jsonl") -> list[Plane]:
    return list(read_planes(folder / name))


def left_by_a_killed_writer(folder: Path, count: int, *, synced: int = 0) -> None:
    """Write frames as a writer does that never closes the recording."""
    writer = OmeZarrWriter(folder, LAYOUT)
    for t in range(count):
        writer.append(a_frame(t), t=t)
        if t + 1 == synced:
            writer.sync()
    writer._frames._pool.close()
    writer._frames._side.close()


@pytest.mark.parametrize("codec", ["raw", "blosc-lz4"])
def test_frames_come_back_as_they_were_written(tmp_path: Path, codec: Any):
    if codec == "blosc-lz4":
        pytest.importorskip("numcodecs")
    with OmeZarrWriter(tmp_path / "run", replace(LAYOUT, codec=codec)) as writer:
        assert [writer.append(a_frame(t), t=t) for t in range(10)] == [True] * 10
    array = read(tmp_path / "run")
    assert array.shape == (10, 2, 1, *SHAPE)
    for t in range(10):
        assert np.array_equal(array[t, :, 0], pixels_of(t))
    source = open_source(tmp_path / "run")
    frames = list(source.frames())
    assert [frame.sequence for frame in frames] == list(range(10))
    assert all(np.array_equal(frame.pixels, pixels_of(frame.sequence)) for frame in frames)
    assert frames[3].channels == LAYOUT.channels
    assert (frames[3].time_s, frames[3].pixel_size_um) == (6.0, 0.65)


@pytest.mark.parametrize("codec", ["raw", "blosc-lz4"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tensorstore_reads_the_same(tmp_path: Path, codec: Any, dtype: Any):
    tensorstore: Any = pytest.importorskip("tensorstore")
    if codec == "blosc-lz4":
        pytest.importorskip("numcodecs")
    image = pixels_of(7, SHAPE).astype(dtype)
    writer = OmeZarrWriter(tmp_path / "run", ImageLayout(shape=SHAPE, dtype=dtype, codec=codec))
    writer.append(Frame(image, 0), t=5)
    for _ in ("while it is written", "closed"):
        store = {"driver": "file", "path": str(tmp_path / "run" / "0" / "0")}
        array = tensorstore.open({"driver": "zarr3", "kvstore": store}).result()
        assert np.array_equal(array[5, 0, 0].read().result(), image)
        assert not array[4, 0, 0].read().result().any()
        writer.close()
        writer = OmeZarrWriter(tmp_path / "run")
    writer.close()


def test_a_reader_sees_exactly_what_was_acknowledged_at_every_moment(tmp_path: Path):
    with OmeZarrWriter(tmp_path / "run", LAYOUT, time_points=3) as writer:
        for t in range(9):  # over two shards and two growths of the time axis
            writer.append(a_frame(t), t=t)
            array = read(tmp_path / "run")
            assert all(np.array_equal(array[at, :, 0], pixels_of(at)) for at in range(t + 1))
            assert not array[t + 1 :].any()
            frames = open_source(tmp_path / "run").frames()
            assert all(np.array_equal(next(frames).pixels, pixels_of(at)) for at in range(t + 1))
            if t + 1 < array.shape[0]:
                with pytest.raises(SourceError, match=f"frame {t + 1}: .*missing"):
                    next(frames)
            assert {(plane.t, plane.c) for plane in lines(tmp_path / "run")} == {
                (at, c) for at in range(t + 1) for c in range(2)
            }
    assert read(tmp_path / "run").shape[0] == 9


def test_the_side_index_tells_of_each_plane_what_zarr_cannot(tmp_path: Path):
    with OmeZarrWriter(tmp_path / "run", LAYOUT) as writer:
        writer.append(a_frame(41), t=2)
    plane = lines(tmp_path / "run")[1]
    assert (plane.sequence, plane.position, plane.t, plane.c, plane.z) == (41, 0, 2, 1, 0)
    assert (plane.time_s, plane.stage_um, plane.z_um, plane.exposure_ms) == (82.0, (1.5, -2.0), 3.0, 20.0)
    shard = (tmp_path / "run/0/0/c/0/1/0/0/0").read_bytes()
    stored = shard[plane.offset : plane.offset + plane.bytes]
    assert stored == pixels_of(41)[1].tobytes()


def test_two_positions_with_masks_and_a_stack_are_valid_for_others(tmp_path: Path):
    folder, masks = tmp_path / "run", {}
    layout = ImageLayout(shape=SHAPE, dtype="uint16", z_planes=3, z_step_um=0.5, labels="uint32")
    writer = OmeZarrWriter(folder, layout, positions=["A1"])
    assert writer.add_position('B <2> "&"') == 1
    for number in range(12):
        t, position, z = number // 6, number // 3 % 2, number % 3
        frame = Frame(pixels_of(number, SHAPE), number, stage_um=(position * 100.0, 0.0))
        writer.append(frame, t=t, position=position, z=z)
        masks[t, position, z] = (pixels_of(number, SHAPE) // 1000).astype(np.uint16)
        writer.append_labels(masks[t, position, z], frame, t=t, position=position, z=z)
    for _ in ("while it is written", "closed"):
        for path in (folder, folder / "0", folder / "1/labels", folder / "1/labels/cells"):
            yaozarrs.validate_zarr_store(str(path))
        writer.close()
    writer.close()  # a second time is nothing
    for (t, position, z), mask in masks.items():
        array = read(folder, f"{position}/labels/cells/0")
        assert (array.shape, array.dtype) == ((2, 3, *SHAPE), np.uint32)
        assert np.array_equal(array[t, z], mask)
    frames = list(open_source(folder).frames())
    assert [dict(frame.axes) for frame in frames[2:4]] == [
        {"time": 0, "position": 0, "z": 2},
        {"time": 0, "position": 1, "z": 0},
    ]
    assert all(np.array_equal(frame.pixels, pixels_of(frame.sequence, SHAPE)) for frame in frames)
    assert len(lines(folder, "labels.jsonl")) == 12


def test_the_ome_xml_is_valid_and_tells_the_time_and_place_of_each_plane(tmp_path: Path):
    ome_types: Any = pytest.importorskip("ome_types")
    with OmeZarrWriter(tmp_path / "run", LAYOUT, positions=["A", 'B <2> "&"']) as writer:
        writer.append(a_frame(3), t=0, position=1)
    ome = ome_types.from_xml((tmp_path / "run/OME/METADATA.ome.xml").read_bytes(), validate=True)
    assert [image.name for image in ome.images] == ["A", 'B <2> "&"']
    plane = ome.images[1].pixels.planes[1]
    assert (plane.the_c, plane.delta_t, plane.exposure_time, plane.position_y) == (1, 6.0, 0.02, -2.0)
    assert ome.images[0].pixels.physical_size_x == 0.65


KILLED = """
import sys
from pathlib import Path
import numpy as np
from cytoloop.acquire.frame import Frame
from cytoloop.realtime.recording.layout import ImageLayout
from cytoloop.realtime.recording.ome_zarr import OmeZarrWriter

folder, codec, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
layout = ImageLayout(shape=(200, 300), dtype="uint16", channels=("a", "b"), codec=codec, frames_per_shard=8)
writer = OmeZarrWriter(folder, layout, time_points=2)
first = max(0, writer.next_sequence - 3)  # what may not have been acknowledged is sent again
for t in range(first, first + 1000):
    pixels = np.random.default_rng(t).integers(0, 5000, (2, 200, 300), np.uint16)
    writer.append(Frame(pixels, t, t / 10, channels=("a", "b")), t=t)
    print(t, flush=True)
    if t % 11 == seed % 11:
        writer.sync()
"""


@pytest.mark.parametrize("codec", ["raw", "blosc-lz4"])
def test_what_was_acknowledged_survives_a_kill_at_any_moment(tmp_path: Path, codec: str):
    if codec == "blosc-lz4":
        pytest.importorskip("numcodecs")
    folder, acknowledged = tmp_path / "run", set[int]()
    for seed in range(12):
        random = np.random.default_rng(seed)
        command = [sys.executable, "-c", KILLED, str(folder), codec, str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(int(random.integers(1, 25))):
                acknowledged.add(int(writer.stdout.readline()))
            for _ in range(int(random.integers(0, 20_000))):  # a moment of another length each time
                pass
            writer.kill()
            acknowledged |= {int(line) for line in writer.stdout.read().split("\n") if line.isdigit()}
        places = [plane.place for plane in lines(folder)]
        assert len(places) == len(set(places))
        assert set(places) >= {(0, t, c, 0) for t in acknowledged for c in range(2)}
        array = read(folder)
        for t in acknowledged:
            assert np.array_equal(array[t, :, 0], killed_pixels(t)), (seed, t)
    with OmeZarrWriter(folder) as again:
        count = again.next_sequence
        for t in range(count + 2):
            assert again.append(Frame(killed_pixels(t), t, t / 10, channels=("a", "b")), t=t) == (t >= count)
    planes = lines(folder)
    assert [(plane.t, plane.c) for plane in planes] == [(t, c) for t in range(count + 2) for c in range(2)]
    assert acknowledged == set(range(count)) or acknowledged == set(range(count - 1))
    array = read(folder)
    assert all(np.array_equal(array[t, :, 0], killed_pixels(t)) for t in range(count + 2))


def killed_pixels(t: int) -> Any:
    return np.random.default_rng(t).integers(0, 5000, (2, 200, 300), np.uint16)


@pytest.mark.parametrize("cut", [1, 30, 170, 200])
def test_a_plane_whose_line_is_torn_is_written_again(tmp_path: Path, cut: int):
    left_by_a_killed_writer(tmp_path, 6)
    side = tmp_path / "frames.jsonl"
    os.truncate(side, side.stat().st_size - cut)
    lost = 1 + (cut > 165)  # a line is some 165 bytes long
    writer = OmeZarrWriter(tmp_path)
    assert len(lines(tmp_path)) == 12 - lost
    assert not read(tmp_path)[5, 2 - lost :].any()
    assert writer.append(a_frame(5), t=5)
    writer.close()
    assert len(lines(tmp_path)) == 12
    assert np.array_equal(read(tmp_path)[5, :, 0], pixels_of(5))


def test_after_a_loss_of_power_only_whole_planes_are_kept(tmp_path: Path):
    left_by_a_killed_writer(tmp_path, 8, synced=3)
    first, second = (tmp_path / f"0/0/c/{block}/0/0/0/0" for block in range(2))
    damage(first, 0, 60)  # half of an index
    damage(second, lines(tmp_path)[2 * 6].offset + 100, 50)  # a plane that never reached the disk
    with OmeZarrWriter(tmp_path) as writer:
        there = {(plane.t, plane.c) for plane in lines(tmp_path)}
        assert there == {(t, c) for t in range(8) for c in range(2)} - {(6, 0)}
        assert [writer.append(a_frame(t), t=t) for t in range(8)] == [t == 6 for t in range(8)]
    array = read(tmp_path)
    assert all(np.array_equal(array[t, :, 0], pixels_of(t)) for t in range(8))


def damage(path: Path, offset: int, count: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\x00" * count)


@pytest.mark.parametrize("loss", ["the file", "synced lines"])
def test_nothing_is_touched_where_the_side_index_was_lost(tmp_path: Path, loss: str):
    left_by_a_killed_writer(tmp_path, 4, synced=4)
    side = tmp_path / "frames.jsonl"
    if loss == "the file":
        side.unlink()
    else:
        os.truncate(side, 200)
    with pytest.raises(SourceError, match="put it back"):
        OmeZarrWriter(tmp_path)
    assert np.array_equal(read(tmp_path)[3, :, 0], pixels_of(3))


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from cytoloop.acquire.frame import Frame
from cytoloop.realtime.recording.layout import ImageLayout
from cytoloop.realtime.recording.ome_zarr import OmeZarrWriter

limit, side, per_shard = map(int, sys.argv[2:])
writer = OmeZarrWriter(
    Path(sys.argv[1]), ImageLayout(shape=(side, side), dtype="uint8", frames_per_shard=per_shard)
)
frames = [Frame(np.full((side, side), t + 1, np.uint8), t) for t in range(40)]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
done = 0
try:
    for done in range(40):
        writer.append(frames[done], t=done)
except OSError as error:
    print(done, error.errno)
if len(list(writer._frames.planes())) != done:
    sys.exit("more lines than planes")
print(sum(path.stat().st_size for path in Path(sys.argv[1]).rglob("c/**/0") if path.is_file()), flush=True)
input()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for t in range(40):
    assert writer.append(frames[t], t=t) == (t >= done)
writer.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit for the size of a file")
@pytest.mark.parametrize(
    ("limit", "side", "per_shard"),
    [(60_000, 90, 64), (4_300, 8, 1)],
    ids=["in the middle of a plane", "in the middle of a line"],
)
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, limit: int, side: int, per_shard: int):
    arguments = [str(tmp_path / "run"), str(limit), str(side), str(per_shard)]
    pipes: Any = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    with subprocess.Popen([sys.executable, "-c", FULL, *arguments], **pipes) as writer:
        assert writer.stdout is not None
        done = int(writer.stdout.readline().split()[0])
        size = int(writer.stdout.readline())
        assert 0 < done < 40
        array = read(tmp_path / "run")
        assert [int(array[t, 0, 0].max()) for t in range(40)] == [t + 1 if t < done else 0 for t in range(40)]
        assert size <= done * 4096 + (side**2 + 4096) * done
        _, errors = writer.communicate("\n")
    assert (writer.returncode, errors) == (0, "")
    assert [plane.t for plane in lines(tmp_path / "run")] == list(range(40))
    assert all((read(tmp_path / "run")[t] == t + 1).all() for t in range(40))


def test_a_place_is_written_once(tmp_path: Path):
    with OmeZarrWriter(tmp_path / "run", LAYOUT) as writer:
        assert writer.append(a_frame(0), t=0)
        assert not writer.append(a_frame(0), t=0)
        with pytest.raises(FrameError, match="is taken by other pixels"):
            writer.append(Frame(pixels_of(9), 0, channels=LAYOUT.channels), t=0)
        with pytest.raises(
            FrameError, match=r"frame 1: its place \(position 0, t 0, c 0, z 0\) is taken by frame 0"
        ):
            writer.append(Frame(pixels_of(0), 1, channels=LAYOUT.channels), t=0)
    assert len(lines(tmp_path / "run")) == 2


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path):
    with OmeZarrWriter(tmp_path / "run", LAYOUT) as writer:
        for frame, place, reason in (
            (
                Frame(pixels_of(0, (24, 30)), 4, channels=("red",)),
                {"t": 0},
                r"frame 4: uint16 of \(24, 30\) px",
            ),
            (Frame(np.zeros(SHAPE, np.uint8), 4, channels=("red",)), {"t": 0}, "takes uint16 of"),
            (a_frame(0), {"t": -1}, "t is -1; allowed: 0 to"),
            (a_frame(0), {"t": 0, "position": 1}, "position is 1; allowed: 0 to 0"),
            (a_frame(0), {"t": 0, "z": 1}, "z is 1; allowed: 0 to 0"),
            (Frame(pixels_of(0, SHAPE), 4, channels=("rad",)), {"t": 0}, "Did you mean 'red'"),
        ):
            with pytest.raises(FrameError, match=reason):
                writer.append(frame, **place)
        with pytest.raises(FrameError, match="labels=None"):
            writer.append_labels(np.zeros(SHAPE, np.uint16), a_frame(0), t=0)
    assert lines(tmp_path / "run") == []
    with pytest.raises(SourceError, match="shape is .* asked for was"):
        OmeZarrWriter(tmp_path / "run", ImageLayout(shape=(5, 5), dtype="uint16", channels=LAYOUT.channels))
    with pytest.raises(SourceError, match="needs a layout"):
        OmeZarrWriter(tmp_path / "none")
    with pytest.raises(ConfigurationError, match=r"layout.frames_per_shard: 256: must be 1 to 255"):
        ImageLayout(shape=(5, 5), dtype="uint16", frames_per_shard=256)


def test_a_damaged_recording_is_refused_and_not_a_crash(tmp_path: Path):
    left_by_a_killed_writer(tmp_path, 2)
    side = tmp_path / "frames.jsonl"
    hostile = json.loads(side.read_text().splitlines()[0])
    for wrong in ({"position": 7}, {"t": -1}, {"offset": -5}, {"offset": 2**70}, {"bytes": 2**61}, {"c": 2}):
        side.write_text(json.dumps(hostile | wrong) + "\nnot a line\n")
        OmeZarrWriter(tmp_path).close()
        assert lines(tmp_path) == []
    for content in ("", "[]", "{}", '{"attributes": {"cytoloop": 3}}', "[" * 100_000):
        (tmp_path / "zarr.json").write_text(content)
        with pytest.raises(SourceError, match="not a recording of cytoloop"):
            OmeZarrWriter(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_recording_that_leads_out_of_its_folder_is_refused(tmp_path: Path):
    left_by_a_killed_writer(tmp_path / "run", 2)
    (tmp_path / "run/0/0").rename(tmp_path / "elsewhere")
    (tmp_path / "run/0/0").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "run/frames.jsonl").write_text("")
    with pytest.raises(SourceError, match="leads out of the recording"):
        OmeZarrWriter(tmp_path / "run")
    assert sum(path.is_file() for path in (tmp_path / "elsewhere/c").rglob("0")) == 2


def test_a_writer_works_where_there_is_no_pwrite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "pwrite", raising=False)
    with OmeZarrWriter(tmp_path, LAYOUT) as writer:
        for t in range(6):
            writer.append(a_frame(t), t=t)
    assert all(np.array_equal(read(tmp_path)[t, :, 0], pixels_of(t)) for t in range(6))


def test_more_shards_than_are_kept_open_are_written(tmp_path: Path):
    layout = ImageLayout(shape=(4, 4), dtype="uint8", z_planes=140, frames_per_shard=4)
    with OmeZarrWriter(tmp_path, layout) as writer:
        for number in range(280):
            frame = Frame(np.full((4, 4), number % 251 + 1, np.uint8), number)
            writer.append(frame, t=number // 140, z=number % 140)
    assert [int(value) for value in read(tmp_path)[:, 0, :, 0, 0].ravel()] == [
        number % 251 + 1 for number in range(280)
    ]
