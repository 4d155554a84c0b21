"""Joined channels on their way through the pipeline and the journal: every image answered once, also across deaths."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec
import numpy as np
import pytest
import tifffile
from cytoloop.acquire.commands import Command, SetExposure
from cytoloop.acquire.errors import ConfigurationError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link.client import Client
from cytoloop.acquire.link.pixels import checksum, frame_of, header_of
from cytoloop.acquire.reply import Decision, Reply, encode_array
from cytoloop.acquire.sources import open_source
from cytoloop.models.labels import Labels, Nuclei
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.pipeline import Pipeline
from cytoloop.realtime.results import write_results
from cytoloop.realtime.rules.rule import Moment, Verdict
from cytoloop.realtime.service.attempts import Attempts
from cytoloop.realtime.service.engine import EngineStatus
from cytoloop.realtime.service.held import HeldImages
from cytoloop.realtime.service.journal import Journal, read_journal
from cytoloop.realtime.service.run import Run
from cytoloop.realtime.service.thread import EngineThread

SHAPE = (40, 60)


class Spots:
    """Segments squares: the value of a pixel is the number of its cell; their middle px is the nucleus."""

    def __init__(self, channel: int | str = 0) -> None:
        self.channel = channel

    def segment(self, frame: Frame) -> Labels:
        image = frame.channel(self.channel).astype(np.int32)
        nuclei = np.zeros_like(image)
        nuclei[10, 20:41:20] = image[10, 20:41:20]
        per_cell = np.array([(nuclei == cell).any() for cell in range(1, image.max() + 1)], np.int32)
        return Labels(image, int(image.max()), nuclei=Nuclei(nuclei, per_cell))


class TwoChannels(Spots):
    """Looks at two channels, of which the first is the main one."""

    def __init__(self, channel: int | str = 0, second: int | str = 1) -> None:
        super().__init__(channel)
        self.channels = (channel, second)

    def segment(self, frame: Frame) -> Labels:
        frame.channel(self.channels[1])
        return super().segment(frame)


class Expose:
    """Asks for an exposure of the segmented channel in every frame."""

    name = "expose"

    def examples(self) -> tuple[Command, ...]:
        return ()

    def decide(self, moment: Moment) -> Verdict:
        frame = moment.frame
        bright = float(moment.tracks.detections.mean[:, moment.channel].sum())
        command = SetExposure(1.0 + bright)
        return Verdict((Decision(self.name, command, frame.sequence, frame.time_s, frame.time_s + 9),))


def plugin(cls: type[Any], **options: Any) -> PluginChoice:
    return PluginChoice(f"{__name__}:{cls.__name__}", options)


def stream(**changes: Any) -> StreamConfig:
    settings: dict[str, Any] = {
        "segmenter": plugin(Spots),
        "channels": ("DAPI", "GFP"),
        "rules": (plugin(Expose),),
        "save_masks": True,
    }
    return StreamConfig(**(settings | changes))


def image(sequence: int, channel: str, time: int, *, light: int = 0, **axes: int | str) -> Frame:
    """Return two squares of 5 x 5 px: numbered from 1 in DAPI, of light and twice that in other channels."""
    pixels = np.zeros(SHAPE, np.uint8)
    for number, x in enumerate((20, 40), 1):
        pixels[8:13, x - 2 : x + 3] = number if channel == "DAPI" else light * number
    return Frame(
        pixels,
        sequence=sequence,
        time_s=0.1 * sequence,
        axes={"time": time, "channel": channel, **axes},
        channels=(channel,),
        stage_um=(float(time), 0.0),
        exposure_ms=3.0 if channel == "DAPI" else 30.0,
    )


def timeless(reply: Reply) -> bytes:
    return msgspec.msgpack.encode(msgspec.structs.replace(reply, timings_ms={}), enc_hook=encode_array)


def eventful() -> Iterator[Frame]:
    """Two positions, a channel at every second time, a stranger, a channel that fails, one that comes twice."""
    sequence = 0
    for time in range(6):
        for channel in ("DAPI", "GFP", "Cy5"):
            for position in ("A", "B"):
                skipped = (channel == "GFP" and time % 2 == 1) or (channel, time, position) == ("GFP", 2, "B")
                if not skipped and not (channel == "Cy5" and time > 1):
                    yield image(sequence, channel, time, light=30 + time, position=position)
                    sequence += 1


def run_through(run: Run, frames: list[Frame]) -> list[Reply]:
    replies: list[Reply] = []
    for frame in frames:
        header = header_of(frame, skipped=0, slot=-1, check=checksum(frame.pixels))
        # As from the ring: the memory is used again as soon as the image is answered.
        memory = bytearray(frame.pixels.tobytes())
        replies.append(run.process(header, frame_of(header, memoryview(memory).toreadonly())))
        memory[:] = bytes(len(memory))
    return replies


# --- pipeline -----------------------------------------------------------------------------------------------


def test_the_first_channel_is_answered_at_once_and_the_last_brings_cells_measured_in_both():
    pipeline = Pipeline(stream())
    held = pipeline.step(image(0, "DAPI", 0))
    assert held[1:] == (None, None, None, None)
    assert (held.reply.sequence, len(held.reply.cells), held.reply.messages) == (0, 0, ())
    assert set(held.reply.timings_ms) == {"join"}
    step = pipeline.step(image(1, "GFP", 0, light=50))
    reply = step.reply
    assert reply.sequence == 1
    assert step.frame is not None
    assert step.frame.channels == ("DAPI", "GFP")
    columns = {name: values.tolist() for name, values in reply.cells.columns.items()}
    assert columns["mean"] == columns["mean_DAPI"] == [1.0, 2.0]
    assert columns["mean_GFP"] == columns["max_GFP"] == [50.0, 100.0]
    assert columns["nuclei"] == [1.0, 1.0]
    assert columns["nuclear_mean_GFP"] == columns["cytoplasm_mean_GFP"] == [50.0, 100.0]
    assert (columns["nuclear_area_px"], columns["cytoplasm_area_px"]) == ([1.0, 1.0], [24.0, 24.0])
    assert set(reply.timings_ms) == {"join", "segment", "measure", "track", "decide"}


def test_a_decision_rests_on_the_image_that_was_segmented_not_on_the_last():
    """A command for an exposure is about the channel of the image that its decision names."""
    pipeline = Pipeline(stream(segmenter=plugin(Spots, channel="DAPI")))
    pipeline.step(image(0, "GFP", 0, light=9))
    pipeline.step(image(1, "DAPI", 0))
    pipeline.step(image(2, "DAPI", 1))
    reply = pipeline.step(image(3, "GFP", 1, light=9)).reply
    (decision,) = reply.decisions
    assert (reply.sequence, decision.sequence, decision.time_s) == (3, 2, 0.2)
    assert decision.command == SetExposure(4.0)


def test_a_channel_that_is_not_taken_at_a_time_is_not_a_number_in_its_table():
    pipeline = Pipeline(stream(every={"GFP": 2}))
    pipeline.step(image(0, "DAPI", 0))
    with_gfp = pipeline.step(image(1, "GFP", 0, light=7)).reply
    without = pipeline.step(image(2, "DAPI", 1)).reply
    assert list(with_gfp.cells.columns) == list(without.cells.columns)
    assert with_gfp.cells.columns["mean_GFP"].tolist() == [7.0, 14.0]
    assert np.isnan(without.cells.columns["mean_GFP"]).all()
    assert without.cells.columns["mean_DAPI"].tolist() == [1.0, 2.0]
    assert without.cells.columns["age"].tolist() == [1.0, 1.0]


def test_the_tracker_sees_the_brightness_of_the_segmented_channel():
    pipeline = Pipeline(stream(channels=("GFP", "DAPI"), channel="DAPI", segmenter=plugin(Spots)))
    pipeline.step(image(0, "GFP", 0, light=9))
    step = pipeline.step(image(1, "DAPI", 0))
    assert step.reply.cells.columns["mean"].tolist() == [1.0, 2.0]
    assert step.reply.cells.columns["mean_GFP"].tolist() == [9.0, 18.0]


def test_a_segmenter_of_two_channels_gets_both_and_says_what_it_misses():
    segmenter = plugin(TwoChannels, channel="DAPI", second="GFP")
    pipeline = Pipeline(stream(segmenter=segmenter))
    pipeline.step(image(0, "DAPI", 0))
    assert len(pipeline.step(image(1, "GFP", 0, light=9)).reply.cells) == 2
    pipeline.step(image(2, "DAPI", 1))
    moved = replace(image(3, "GFP", 1, light=9), stage_um=(99.0, 0.0))
    left_out, failed = pipeline.step(moved).reply.messages
    assert "channel 'GFP' is left out, it was taken 98.00 um from 'DAPI'" in left_out
    assert "needs channel 'GFP', the frame has 'DAPI'" in failed
    apart = Pipeline(stream(segmenter=segmenter, channels=()))
    message = apart.step(image(0, "DAPI", 0)).reply.messages[0]
    assert "list channels that come as separate images in 'channels'" in message


def test_a_segmenter_of_channels_that_are_not_joined_is_refused():
    with pytest.raises(ConfigurationError, match="no channel 'GPF'.*Did you mean 'GFP'"):
        Pipeline(stream(segmenter=plugin(TwoChannels, channel="DAPI", second="GPF")))


def test_several_channels_without_names_have_numbered_columns():
    both = np.stack([image(0, "DAPI", 0).pixels, image(0, "GFP", 0, light=40).pixels])
    reply = Pipeline(stream(channels=())).step(Frame(both, channels=("", ""))).reply
    assert reply.cells.columns["mean_1"].tolist() == [40.0, 80.0]
    assert "mean_GFP" not in reply.cells.columns


def test_the_pixel_size_of_the_configuration_is_what_the_segmenter_sees():
    paired = PluginChoice("paired", {"nuclei": {"use": plugin(Spots).use}, "cells": {"ring_um": 4.0}})
    step = Pipeline(stream(segmenter=paired, pixel_size_um=2.0, rules=())).step(
        Frame(np.stack([image(0, "DAPI", 0).pixels] * 2), channels=("DAPI", "GFP"), pixel_size_um=0.1)
    )
    assert step.reply.messages == ()
    assert step.detections is not None
    assert step.detections.bbox[0].tolist() == [6, 16, 15, 25]  # 5 px and 2 px around


def test_restoring_gives_the_replies_and_the_state_of_the_run():
    config = stream(every={"GFP": 2})
    live, restored = Pipeline(config), Pipeline(config)
    for frame in eventful():
        step = live.step(frame)
        again = restored.restore(
            replace(frame, pixels=np.zeros_like(frame.pixels)), step.detections, step.memory
        )
        assert timeless(again) == timeless(step.reply)
        assert live.joiner is not None and restored.joiner is not None
        assert live.joiner.held == restored.joiner.held


def test_a_recording_of_the_same_images_gives_the_same_cells_whatever_the_order_of_its_channels(
    tmp_path: Path,
):
    images = {
        (time, name): image(2 * time + index, name, time, light=30 + time)
        for time in range(4)
        for index, name in enumerate(("DAPI", "GFP"))
    } | {(time, "Cy5"): image(0, "Cy5", time) for time in range(4)}
    live = Pipeline(stream())
    expected = [live.step(each).reply for (_, name), each in images.items() if name != "Cy5"][1::2]
    movie = np.stack([[images[time, name].pixels for name in ("GFP", "Cy5", "DAPI")] for time in range(4)])
    names = {"Name": ["GFP", "Cy5", "DAPI"]}
    tifffile.imwrite(tmp_path / "movie.ome.tif", movie, metadata={"axes": "TCYX", "Channel": names})
    source, pipeline = open_source(tmp_path / "movie.ome.tif"), Pipeline(stream())
    replies = [pipeline.step(frame).reply for frame in source.frames()]
    source.close()
    assert [len(reply.cells) for reply in replies] == [2] * 4
    for reply, other in zip(replies, expected, strict=True):
        assert reply.cells.track.tolist() == other.cells.track.tolist()
        for name, values in other.cells.columns.items():
            assert np.array_equal(reply.cells.columns[name], values, equal_nan=True)
    assert "channel 'Cy5' is left alone" in replies[0].messages[0]


# --- runs ---------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The engine's end."""


def uninterrupted(tmp_path: Path, config: StreamConfig) -> list[bytes]:
    run = Run(config, tmp_path / "whole", "r", lambda: None)
    replies = run_through(run, list(eventful()))
    run.close()
    assert sum(len(reply.cells) > 0 for reply in replies) == 11
    return [timeless(reply) for reply in replies]


@pytest.mark.parametrize("moment", ["between images", "before the journal", "after the journal"])
def test_whenever_the_engine_dies_the_next_one_gives_the_answers_it_would_have_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
):
    config, frames = stream(every={"GFP": 2}), list(eventful())
    expected = uninterrupted(tmp_path, config)

    def die(*_: Any) -> None:
        raise Killed

    for at in range(len(frames)):
        log = tmp_path / f"{at}"
        run = Run(config, log, "r", lambda: None)
        replies = run_through(run, frames[:at])
        if moment != "between images":
            with monkeypatch.context() as patch, pytest.raises(Killed):
                owner, name = (Journal, "append") if moment == "before the journal" else (HeldImages, "keep")
                patch.setattr(owner, name, die)
                run_through(run, frames[at : at + 1])
        run.close()
        run = Run(config, log, "r", lambda: None)
        begun = at + (moment == "after the journal")  # written down, so its answer is known
        assert run.next_sequence == begun
        replies += run.replies_from(at) + run_through(run, frames[begun:])
        run.close()
        assert [timeless(reply) for reply in replies] == expected
        journal = next(log.rglob("journal"))
        assert [entry.header.sequence for entry in read_journal(journal)] == list(range(len(frames)))


def test_the_pixels_of_waiting_images_are_on_disk_as_long_as_they_wait(tmp_path: Path):
    run = Run(stream(), tmp_path, "r", lambda: None)
    folder = run.folder / "held"
    on_disk = []
    for frame in (image(0, "DAPI", 0), image(1, "DAPI", 0, z=1), image(2, "GFP", 0), image(3, "GFP", 0, z=1)):
        run_through(run, [frame])
        on_disk.append(sorted(path.name for path in folder.iterdir()))
    assert on_disk == [["000000.raw"], ["000000.raw", "000001.raw"], ["000001.raw"], []]
    run.close()


@pytest.mark.parametrize("damage", ["removed", "cut", "changed"])
def test_waiting_pixels_that_are_lost_cost_their_time_point_and_are_said(tmp_path: Path, damage: str):
    run = Run(stream(), tmp_path, "r", lambda: None)
    run_through(run, [image(0, "DAPI", 0)])
    run.close()
    (path,) = (run.folder / "held").iterdir()
    data = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    run = Run(stream(), tmp_path, "r", lambda: None)
    replies = run_through(run, [image(1, "GFP", 0), image(2, "DAPI", 1), image(3, "GFP", 1)])
    run.close()
    assert [len(reply.cells) for reply in replies] == [0, 0, 2]
    assert replies[0].messages == ("time 0: left out, images that waited are not in the log (1 so far)",)
    assert replies[1].messages == ("time 0: left out, channel 'DAPI' did not come (2 so far)",)


def test_an_image_that_killed_every_engine_is_left_out_alike_by_this_engine_and_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    frames = [image(n, ("DAPI", "GFP")[n % 2], n // 2, light=9) for n in range(4)]
    begin = Attempts.begin
    monkeypatch.setattr(Attempts, "begin", lambda self, number: 4 if number == 1 else begin(self, number))
    run = Run(stream(), tmp_path, "r", lambda: None)
    replies = run_through(run, frames[:3])
    run.close()
    assert "frame 1 is left out: the engine died of it 3 times" in replies[1].messages
    assert replies[2].messages == ()
    run = Run(stream(), tmp_path, "r", lambda: None)
    (last,) = run_through(run, frames[3:])
    run.close()
    assert (len(last.cells), last.messages) == (2, ())


def test_images_that_wait_at_the_end_of_a_run_are_said(tmp_path: Path):
    said: list[str] = []

    class Listening(EngineThread):
        def _keep(self, status: EngineStatus) -> None:
            said.extend(status.messages)

    with Listening(stream(address="inproc://waits"), tmp_path) as engine:
        with Client(engine.address) as client:
            for frame in (image(0, "DAPI", 0), image(1, "GFP", 0, light=9), image(2, "DAPI", 1)):
                client.send(frame)
            assert client.drain(10)
            assert [len(reply.cells) for reply in client.replies()] == [0, 2, 0]
        deadline = monotonic() + 10
        while not (left_out := [each for each in said if "left out" in each]) and monotonic() < deadline:
            sleep(0.01)
    assert left_out == ["time 1: left out, channel 'GFP' did not come (1 so far)"]


def test_the_results_hold_one_row_for_each_cell_of_each_joined_frame(tmp_path: Path):
    run = Run(stream(every={"GFP": 2}), tmp_path / "log", "r", lambda: None)
    run_through(run, list(eventful()))
    run.close()
    results = write_results(run.folder, tmp_path / "out")
    assert (results.processed, results.segmented, results.tracks) == (len(list(eventful())), 11, 4)
    with (tmp_path / "out" / "tracks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 22
    for row in rows:
        sequence, time = int(row["frame"]), round(float(row["stage_x_um"]))
        assert (
            abs(float(row["time_s"]) - 0.1 * sequence) < 0.35
        )  # that of the segmented image, a little before
        cell = float(row["mean_DAPI"])
        if time % 2 == 0:
            assert float(row["mean_GFP"]) == float(row["cytoplasm_mean_GFP"]) == cell * (30 + time)
        else:
            assert row["mean_GFP"] == row["nuclear_mean_GFP"] == "nan"
    mask, nuclei = (tifffile.imread(run.folder / "masks" / f"000002{end}.tif") for end in ("", "_nuclei"))
    assert (mask.sum(), nuclei.sum()) == (25 + 2 * 25, 1 + 2)
    assert len(list((tmp_path / "out" / "ctc" / "01_RES").glob("mask*.tif"))) == 6
