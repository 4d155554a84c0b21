"""The recorder process behind its ring: every acknowledged frame is on disk, whoever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from cytoloop.acquire.errors import SourceError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.client import Client
from cytoloop.acquire.sources import open_source
from cytoloop.realtime.bench.blank import BLANK
from cytoloop.realtime.experiment.config import single_stream
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.recording.reader import RecordedFrames
from cytoloop.realtime.recording.settings import Record
from cytoloop.realtime.service.server import Service

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
pytestmark = pytest.mark.timeout(120)


def image(number: int, shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 4000, shape, np.uint16)


def a_frame(number: int, **changes: Any) -> Frame:
    fields = {
        "pixels": image(number),
        "time_s": 0.5 * number,
        "axes": {"time": number},
        "stage_um": (1.0, float(number)),
        "pixel_size_um": 0.5,
    }
    return Frame(**{**fields, **changes})


def a_stream(**changes: Any) -> StreamConfig:
    fields = {
        "address": "tcp://127.0.0.1:0",
        "segmenter": PluginChoice(BLANK),
        "record": Record(frames=True, buffer_mb=16),
    }
    return StreamConfig(**{**fields, **changes})


def run_of(
    stream: StreamConfig, log: Path, frames: list[Frame], beside: Callable[[Service, int], None] | None = None
) -> Path:
    """Send frames through a service, and return the run's folder after everything has ended."""
    with Service(single_stream(stream, log=log)) as service, Client(service.addresses["default"]) as client:
        for number, frame in enumerate(frames):
            client.send(frame)
            if beside is not None:
                beside(service, number)
        assert client.drain(60)
        return Path(client.stats().folder)


def test_every_frame_is_on_disk_with_its_pixels_and_its_place(tmp_path: Path) -> None:
    folder = run_of(a_stream(), tmp_path, [a_frame(number) for number in range(30)])
    recorded = RecordedFrames(folder)
    assert list(recorded.sequences()) == list(range(30))
    for number in range(30):
        assert np.array_equal(recorded.pixels(number, (40, 60)), image(number))
    array = zarr.open_group(folder / "frames.ome.zarr", mode="r")["0/0"]
    assert array.shape == (30, 1, 1, 40, 60)
    assert np.array_equal(array[17, 0, 0], image(17))
    frames = list(open_source(folder).frames())
    assert [frame.time_s for frame in frames] == [0.5 * number for number in range(30)]
    assert frames[3].stage_um == (1.0, 3.0)
    assert np.array_equal(frames[29].pixels, image(29))


def test_channels_positions_and_planes_that_come_one_by_one_have_their_place(tmp_path: Path) -> None:
    frames = [
        a_frame(
            number,
            axes={"time": number // 12, "position": f"P{number // 6 % 2}", "z": number // 2 % 3},
            channels=(("DAPI", "FITC")[number % 2],),
        )
        for number in range(36)
    ]
    folder = run_of(a_stream(), tmp_path, frames)
    group = zarr.open_group(folder / "frames.ome.zarr", mode="r")
    assert [group[f"{position}/0"].shape for position in range(2)] == [(3, 2, 3, 40, 60)] * 2
    for number in range(36):
        plane = group[f"{number // 6 % 2}/0"][number // 12, number % 2, number // 2 % 3]
        assert np.array_equal(plane, image(number)), number


def test_frames_that_say_no_time_and_extra_images_are_filed_one_after_the_other(tmp_path: Path) -> None:
    plain = [a_frame(number, axes={}) for number in range(4)]
    extra = [a_frame(number, axes={"time": 0, "extra": number}) for number in range(4, 6)]
    other = [a_frame(6, pixels=image(6, (32, 32)), axes={"time": 6})]
    folder = run_of(a_stream(), tmp_path, plain + extra + other)
    recorded = RecordedFrames(folder)
    assert list(recorded.sequences()) == list(range(7))
    assert np.array_equal(recorded.pixels(5, (40, 60)), image(5))
    assert np.array_equal(recorded.pixels(6, (32, 32)), image(6, (32, 32)))
    assert (folder / "frames-2.ome.zarr").is_dir()


@pytest.mark.parametrize("who", ["recorder", "engine"])
def test_a_kill_of_recorder_or_engine_loses_no_frame_and_none_is_there_twice(
    tmp_path: Path, who: str
) -> None:
    killed: list[int] = []

    def beside(service: Service, number: int) -> None:
        time.sleep(0.005)
        if number in (20, 90):
            pid = service.recorder_pids["default"] if who == "recorder" else service.pids["default"]
            killed.append(pid)
            os.kill(pid, KILL)

    frames = [a_frame(number) for number in range(160)]
    folder = run_of(a_stream(), tmp_path, frames, beside)
    assert len(set(killed)) == 2
    recorded = RecordedFrames(folder)
    assert list(recorded.sequences()) == list(range(160))
    lines = (folder / "frames.ome.zarr" / "frames.jsonl").read_text().splitlines()
    assert len(lines) == 160
    for number in range(160):
        assert np.array_equal(recorded.pixels(number, (40, 60)), image(number)), number


def test_masks_lie_beside_the_frames_as_a_label_image(tmp_path: Path) -> None:
    spots = np.zeros((40, 60), np.uint16)
    spots[10:20, 10:20] = spots[25:33, 40:50] = 3000
    frames = [a_frame(number, pixels=spots + image(number) // 40) for number in range(5)]
    stream = a_stream(
        segmenter=PluginChoice("classical"), record=Record(frames=True, masks=True, buffer_mb=16)
    )
    folder = run_of(stream, tmp_path, frames)
    labels = zarr.open_group(folder / "frames.ome.zarr", mode="r")["0/labels/cells/0"]
    assert labels.shape == (5, 1, 40, 60)
    assert {len(np.unique(labels[t, 0])) for t in range(5)} == {3}  # background and two cells
    assert labels[2, 0, 15, 15] != labels[2, 0, 28, 45] != 0


def test_a_damaged_recording_is_told_frame_by_frame(tmp_path: Path) -> None:
    folder = run_of(a_stream(), tmp_path, [a_frame(number) for number in range(6)])
    chunks = folder / "frames.ome.zarr" / "0" / "0" / "c"
    (shard,) = (path for path in chunks.rglob("*") if path.is_file())
    data = bytearray(shard.read_bytes())
    data[data.rfind(image(4).tobytes()[:64])] ^= 1
    shard.write_bytes(data)
    recorded = RecordedFrames(folder)
    assert np.array_equal(recorded.pixels(3, (40, 60)), image(3))
    with pytest.raises(SourceError, match="not those that were written") as found:
        recorded.pixels(4, (40, 60))
    assert found.value.frame == 4
    with pytest.raises(SourceError, match="not in the recording"):
        recorded.pixels(6, (40, 60))


def test_a_run_without_recorded_frames_says_how_to_have_them(tmp_path: Path) -> None:
    folder = run_of(a_stream(record=Record()), tmp_path, [a_frame(0)])
    with pytest.raises(SourceError, match="frames = true"):
        open_source(folder)
