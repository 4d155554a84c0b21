"""Two channels as separate events of the real engine, joined in the service, against the simulated truth."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytoloop.acquire.micromanager.loop import connect
from cytoloop.acquire.reply import Cells
from cytoloop.acquire.simulated.microscope import SimulatedMicroscope
from cytoloop.acquire.simulated.presets import translocation
from cytoloop.acquire.simulated.twin import install_behind
from cytoloop.realtime.experiment.config import single_stream
from cytoloop.realtime.experiment.stream import PluginChoice, StreamConfig
from cytoloop.realtime.service.journal import read_journal
from cytoloop.realtime.service.server import Service

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
TIMES, KILLED_AT = 8, 4
KILLED_AFTER = 2 * KILLED_AT + 1  # images: the last of them has been answered and waits for its other channel
PAIRED = PluginChoice("paired", {"nuclei": {"use": "classical", "channel": "DAPI"}, "cells": {"ring_um": 3}})
DARK = 100.0  # counts of the simulated camera without light


def wait_until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def matched(cells: Cells, microscope: SimulatedMicroscope, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the whole cells of a frame that were found, and their rows in the truth."""
    truth = microscope.truth(frame)
    pairs = []
    for row in np.flatnonzero(truth.visible > 0.99):
        distance = np.hypot(cells.x_px - truth.xy_px[row, 0], cells.y_px - truth.xy_px[row, 1])
        if distance.min() < 5:
            pairs.append((int(distance.argmin()), row))
    found, true = np.array(pairs).T
    assert len(found) >= 0.8 * (truth.visible > 0.99).sum()
    return found, true


@pytest.fixture
def core(engine: Any) -> Iterator[Any]:
    """The real core, its channel and exposure put back afterwards."""
    channel = engine.getCurrentConfig("Channel")
    yield engine
    if channel:
        engine.setConfig("Channel", channel)
    engine.setExposure(10)
    engine.waitForSystem()


def test_two_channels_of_the_engine_are_measured_together_and_a_killed_service_loses_none(
    core: Any, tmp_path: Path
) -> None:
    from pycromanager import Acquisition, multi_d_acquisition_events

    microscope = translocation(4, size_px=320)
    stream = StreamConfig(address="tcp://127.0.0.1:0", channels=("DAPI", "FITC"), segmenter=PAIRED)
    events = multi_d_acquisition_events(
        num_time_points=TIMES,
        channel_group="Channel",
        channels=["DAPI", "FITC"],
        channel_exposures_ms=[20, 10],
    )
    with (
        install_behind(core, microscope),
        Service(single_stream(stream, log=tmp_path)) as service,
        connect(service.addresses["default"], mode="barrier", deadline_s=20.0) as loop,
    ):

        def with_a_kill() -> Iterator[dict[str, Any]]:
            for number, event in enumerate(events):
                if number == KILLED_AFTER:
                    wait_until(lambda: loop.stats.images == KILLED_AFTER and loop.client.drain(20))
                    assert loop.stats.late == 0
                    os.kill(service.pids["default"], KILL)
                yield event

        with Acquisition(
            None, "two channels", image_process_fn=loop.on_image, pre_hardware_hook_fn=loop.before_event
        ) as acquisition:
            taken = loop.guard(acquisition).acquire(with_a_kill())
        assert loop.client.drain(30)
        stats = loop.stats
        replies = loop.client.replies()
        assert service.restarts["default"] == 1
    assert taken == stats.images == stats.link.acknowledged == 2 * TIMES
    assert (stats.errors, stats.link.dropped) == (0, 0)
    assert [reply.sequence for reply in replies] == list(range(2 * TIMES))
    journal = read_journal(Path(stats.link.folder) / "journal")
    assert [entry.header.sequence for entry in journal] == list(range(2 * TIMES))
    assert not any(reply.messages for reply in replies), [reply.messages for reply in replies]
    held, whole = replies[::2], replies[1::2]
    assert not any(len(reply.cells) for reply in held)
    assert [microscope.truth(frame).channel for frame in range(4)] == ["DAPI", "FITC"] * 2
    # Tracks go on over the death of the engine.
    assert whole[-1].cells.columns["age"].max() == TIMES - 1
    reporter = microscope.channels["FITC"]
    for reply in (whole[0], whole[KILLED_AT], whole[-1]):
        cells = reply.cells
        found, true = matched(cells, microscope, reply.sequence)
        identity = microscope.truth(reply.sequence).identity[true]
        medium = DARK + 2.0 * 10 * 0.8
        nuclear = cells.columns["nuclear_mean_FITC"][found] - medium
        cytoplasmic = cells.columns["cytoplasm_mean_FITC"][found] - medium
        ratio, (inside, around) = nuclear / cytoplasmic, reporter.amounts(identity)
        assert ratio == pytest.approx(inside / around, rel=0.25)
        assert np.median(np.abs(ratio / (inside / around) - 1)) < 0.1
        dapi_inside, dapi_around = (
            cells.columns[f"{part}_mean_DAPI"][found] for part in ("nuclear", "cytoplasm")
        )
        assert (dapi_inside > dapi_around).all()
        assert cells.columns["mean"] == pytest.approx(cells.columns["mean_DAPI"])
