"""One contract for every registered kind of source, on recordings written by the libraries that own the formats."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cytoloop.acquire.errors import CytoloopError, SourceError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.client import Client
from cytoloop.acquire.plugins import find_class, known_names
from cytoloop.acquire.sources import Source, open_source
from cytoloop.realtime.bench.blank import BLANK
from cytoloop.realtime.experiment.config import single_stream
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.recording.settings import Record
from cytoloop.realtime.service.server import Service
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FRAMES = 5
Written = tuple[Path, list[np.ndarray]]


def images(count: int = FRAMES, *, seed: int = 0, shape: tuple[int, ...] = (11, 13)) -> np.ndarray:
    """Never 0, so that a frame filled up with zeros cannot pass for the right one."""
    return np.random.default_rng(seed).integers(1, 65_536, (count, *shape), dtype=np.uint16)


def write_ctc(folder: Path) -> Written:
    stack = images()
    (folder / "01").mkdir(parents=True)
    for number, image in enumerate(stack):
        tifffile.imwrite(folder / "01" / f"t{number:03d}.tif", image, compression="zlib", rowsperstrip=4)
    return folder / "01", list(stack)


def write_stack(folder: Path) -> Written:
    stack = images(seed=1)
    folder.mkdir(parents=True)
    tifffile.imwrite(folder / "stack.tif", stack)
    return folder / "stack.tif", list(stack)


def write_page_by_page(folder: Path) -> Written:
    stack = images(seed=2)
    folder.mkdir(parents=True)
    with tifffile.TiffWriter(folder / "stack.tif") as writer:
        for image in stack:
            writer.write(image)
    return folder / "stack.tif", list(stack)


def write_imagej(folder: Path) -> Written:
    stack = images(seed=3, shape=(2, 11, 13))
    folder.mkdir(parents=True)
    tifffile.imwrite(folder / "imagej.tif", stack, imagej=True, metadata={"axes": "TCYX", "finterval": 2.0})
    return folder / "imagej.tif", list(stack)


def write_folder(folder: Path) -> Written:
    stack = images(12, seed=4)
    folder.mkdir(parents=True)
    for number, image in enumerate(stack):
        tifffile.imwrite(folder / f"image {number}.TIFF", image, byteorder=">")
    return folder, list(stack)


def write_ome_tiff(folder: Path) -> Written:
    stack = images(seed=5, shape=(2, 11, 13))
    folder.mkdir(parents=True)
    metadata = {
        "axes": "TCYX",
        "Channel": {"Name": ["DAPI", "FITC"]},
        "Plane": {"DeltaT": [0.0, 0.1, 2.0, 2.1, 4.5, 4.6, 6.0, 6.1, 8.0, 8.1], "DeltaTUnit": ["s"] * 10},
    }
    tifffile.imwrite(folder / "a.ome.tif", stack, metadata=metadata)
    return folder / "a.ome.tif", list(stack)


def write_zarr(folder: Path, **options: Any) -> Written:
    import zarr

    stack = images(seed=6, shape=(2, 11, 13))
    form = options.pop("zarr_format", 3)
    group = zarr.create_group(folder / "a.zarr", zarr_format=form)
    group.create_array("0", shape=stack.shape, chunks=(1, 1, 6, 7), dtype="u2", **options)[:] = stack
    axes = [{"name": "t", "type": "time", "unit": "second"}, {"name": "c", "type": "channel"}]
    axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    scale = [{"type": "scale", "scale": [2.5, 1, 0.5, 0.5]}]
    multiscales = [
        {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    ]
    attributes: dict[str, Any] = {"multiscales": multiscales}
    group.attrs.update(attributes if form == 2 else {"ome": {"version": "0.5", **attributes}})
    return folder / "a.zarr", list(stack)


def write_ndtiff(folder: Path) -> Written:
    from ndstorage import NDTiffDataset

    stack = images(seed=7, shape=(2, 11, 13))
    folder.mkdir(parents=True)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        dataset = NDTiffDataset(str(folder), name="rec", writable=True)
        dataset.initialize({"PixelType": "GRAY16"})
        for time, planes in enumerate(stack):
            for name, plane in zip(("DAPI", "FITC"), planes, strict=True):
                metadata = json.dumps(
                    {"ElapsedTime-ms": 1500.0 * time, "PixelSize_um": 0.65, "Exposure": 10.0}
                )
                dataset.put_image({"time": time, "channel": name}, plane, metadata.encode())
        dataset.finish()
        dataset.close()
    return folder / "rec_1", list(stack)


WRITERS: dict[str, dict[str, Callable[[Path], Written]]] = {
    "ctc": {"ctc": write_ctc},
    "tiff": {
        "stack": write_stack,
        "page by page": write_page_by_page,
        "imagej": write_imagej,
        "folder": write_folder,
        "ome": write_ome_tiff,
    },
    "zarr": {
        "0.5": write_zarr,
        "0.5 sharded": lambda folder: write_zarr(folder, shards=(2, 2, 12, 14)),
        "0.4": lambda folder: write_zarr(
            folder, zarr_format=2, chunk_key_encoding={"name": "v2", "separator": "/"}
        ),
    },
    "ndtiff": {"ndtiff": write_ndtiff},
}
RECORDINGS = [(kind, name) for kind, writers in WRITERS.items() for name in writers]


@pytest.fixture(params=RECORDINGS, ids=lambda pair: "-".join(pair))
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Written]:
    kind, name = request.param
    return kind, WRITERS[kind][name](tmp_path / "recording")


def read_all(source: Source) -> list[Frame]:
    try:
        return list(source.frames())
    finally:
        source.close()


def check_contract(source: Source) -> list[Frame]:
    assert isinstance(source, Source)
    assert source.name
    frames = read_all(source)
    source.close()
    assert [frame.sequence for frame in frames] == list(range(len(frames)))
    assert source.count is None or source.count == len(frames)
    assert all(after.time_s >= before.time_s for before, after in pairwise(frames))
    assert len({(frame.pixels.shape, frame.pixels.dtype, frame.channels) for frame in frames}) == 1
    assert all(frame.pixels.flags.c_contiguous and frame.pixels.dtype.isnative for frame in frames)
    assert len(
        {tuple(sorted((axis, str(at)) for axis, at in frame.axes.items())) for frame in frames}
    ) == len(frames)
    return frames


def test_every_registered_source_is_under_contract() -> None:
    assert set(known_names("sources")) == {*WRITERS, "simulated", "run"}


def test_a_recording_gives_every_frame_as_it_was_written(recording: tuple[str, Written]) -> None:
    kind, (path, expected) = recording
    source = find_class("sources", kind)(path)
    frames = check_contract(source)
    assert len(frames) == len(expected)
    for frame, image in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.pixels, image)


def test_open_source_finds_the_kind_of_a_recording(recording: tuple[str, Written]) -> None:
    kind, (path, expected) = recording
    source = open_source(path)
    source.close()
    assert type(source) is find_class("sources", kind)
    assert source.count == len(expected)


def test_the_simulated_source_keeps_the_same_contract() -> None:
    frames = check_contract(find_class("sources", "simulated")(frames=3, size_px=64))
    assert len(frames) == 3


def test_a_run_whose_frames_were_recorded_keeps_the_same_contract(tmp_path: Path) -> None:
    stream = StreamConfig(
        address="tcp://127.0.0.1:0", segmenter=PluginChoice(BLANK), record=Record(frames=True, buffer_mb=16)
    )
    stack = images(seed=8)
    with (
        Service(single_stream(stream, log=tmp_path)) as service,
        Client(service.addresses["default"]) as client,
    ):
        for time, image in enumerate(stack):
            client.send(Frame(image, axes={"time": time}, time_s=float(time)))
        assert client.drain(30)
        run = Path(client.stats().folder)
    source = open_source(run)
    assert type(source) is find_class("sources", "run")
    frames = check_contract(source)
    for frame, image in zip(frames, stack, strict=True):
        np.testing.assert_array_equal(frame.pixels, image)


def test_closing_a_source_that_was_never_read_leaves_nothing_open(recording: tuple[str, Written]) -> None:
    kind, (path, _) = recording
    source = find_class("sources", kind)(path)
    source.close()
    source.close()


def test_a_source_may_be_left_in_the_middle(recording: tuple[str, Written]) -> None:
    kind, (path, expected) = recording
    source = find_class("sources", kind)(path)
    frames = source.frames()
    np.testing.assert_array_equal(next(frames).pixels, expected[0])
    frames.close()
    source.close()


def test_an_interval_that_is_no_time_is_refused(recording: tuple[str, Written]) -> None:
    kind, (path, _) = recording
    for interval_s in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SourceError, match="interval_s"):
            find_class("sources", kind)(path, interval_s=interval_s)


def read_damaged(kind: str, path: Path) -> tuple[list[Frame], SourceError | None]:
    """Return the frames that came, and the refusal; any other exception fails the test that calls."""
    frames: list[Frame] = []
    source = None
    try:
        source = find_class("sources", kind)(path)
        frames.extend(source.frames())
    except SourceError as error:
        return frames, error
    finally:
        if source is not None:
            source.close()
    return frames, None


def check_damaged(kind: str, path: Path, expected: list[np.ndarray]) -> SourceError | None:
    """Frames before the damage are right, the error has the number of the next, and nothing else is raised."""
    frames, error = read_damaged(kind, path)
    for frame, image in zip(frames, expected, strict=False):
        np.testing.assert_array_equal(frame.pixels, image)
    if error is None:
        assert len(frames) == len(expected), "frames were lost without a word"
    elif frames:
        assert error.frame == len(frames)
    return error


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Written]:
    folder = tmp_path_factory.mktemp("originals")
    return {
        (kind, name): WRITERS[kind][name](folder / f"{kind} {name}".replace(" ", "_").replace(".", "_"))
        for kind, name in RECORDINGS
    }


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def copy_of(path: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    copy = shutil.copytree if path.is_dir() else shutil.copy2
    return Path(copy(path, target / path.name))


SETTINGS = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize(("kind", "name"), RECORDINGS)
@SETTINGS
@given(data=st.data())
def test_a_file_cut_off_at_any_byte_is_refused_at_the_right_frame(
    kind: str, name: str, data: st.DataObject, originals: dict[tuple[str, str], Written], tmp_path: Path
) -> None:
    original, expected = originals[kind, name]
    path = copy_of(original, tmp_path / "damaged")
    file = data.draw(st.sampled_from(files_of(path)))
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(data.draw(st.integers(0, size - 1)))
    check_damaged(kind, path, expected)


@pytest.mark.parametrize(("kind", "name"), RECORDINGS)
@SETTINGS
@given(data=st.data())
def test_overwritten_bytes_never_raise_anything_but_our_errors(
    kind: str, name: str, data: st.DataObject, originals: dict[tuple[str, str], Written], tmp_path: Path
) -> None:
    path = copy_of(originals[kind, name][0], tmp_path / "damaged")
    file = data.draw(st.sampled_from(files_of(path)))
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=8))
    content[place : place + len(noise)] = noise
    file.write_bytes(content)
    read_damaged(kind, path)


def test_a_file_that_vanishes_between_opening_and_reading_is_refused_by_number(
    recording: tuple[str, Written],
) -> None:
    kind, (path, _) = recording
    source = find_class("sources", kind)(path)
    # A file that is already open stays readable (Windows would not let it be removed).
    source.close()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(SourceError, match=r"missing|removed") as refused:
        list(source.frames())
    assert refused.value.frame == 0


def test_open_source_names_the_known_kinds_when_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    for path in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(SourceError) as refused:
            open_source(path)
        assert all(kind in str(refused.value) for kind in WRITERS)
    with pytest.raises(SourceError, match="no such file"):
        open_source(tmp_path / "nothing")


def test_every_refusal_is_one_of_our_errors() -> None:
    assert issubclass(SourceError, CytoloopError)
