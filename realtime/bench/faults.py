"""``cytoloop bench faults``: kill and hang the service during real acquisitions, and count what is lost.

Each run is a real pycro-manager acquisition of a simulated sample, saved to disk by pycro-manager, steered by
a service whose engine is killed (SIGKILL) or stopped (SIGSTOP) at random frames. Afterwards every frame must
be on disk, acknowledged, and in the service's journal exactly once and in order.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from ...acquire.client import Client
from ...acquire.loop import Loop, connect
from ...acquire.simulated.microscope import SimulatedMicroscope
from ...acquire.simulated.presets import nuclei
from ...acquire.simulated.twin import install_behind
from ..config import PluginChoice, StreamConfig, single_stream
from ..demo_engine import acquisition, demo_engine
from ..journal import read_journal
from ..limits import Limits
from ..progress import Progress
from ..report import percentiles
from ..server import Service

_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_STOP: int | None = getattr(signal, "SIGSTOP", None)
_HANG_S = 1.0
_SETTLE_S = 60.0
_BOX_UM = 40.0


@dataclass
class _Tally:
    """What was counted over all runs."""

    kills: int = 0
    hangs: int = 0
    acquired: int = 0
    acknowledged: int = 0
    on_disk: int = 0
    decided: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    unsafe_commands: int = 0
    recovery: dict[str, list[float]] = field(default_factory=lambda: {"kill": [], "hang": []})


def run(
    progress: Progress,
    *,
    runs: int = 10,
    frames: int = 80,
    faults: int = 2,
    seed: int = 0,
    size_px: int = 256,
) -> dict[str, Any]:
    """Run acquisitions with faults at random frames; ``faults`` of them in each, kills and hangs by turns."""
    random = Random(seed)
    tally = _Tally()
    with demo_engine() as core, _quiet():
        for number in range(runs):
            progress("acquisitions with faults", number, runs)
            places = sorted(random.sample(range(5, frames - 5), faults))
            hang = [_STOP is not None and (number + place) % 2 == 1 for place in range(faults)]
            with (
                tempfile.TemporaryDirectory() as folder,
                install_behind(core, nuclei(seed + number, size_px=size_px)) as twin,
            ):
                _one_run(tally, Path(folder), frames, dict(zip(places, hang, strict=True)), twin.microscope)
    result = {
        "runs": runs,
        **{name: value for name, value in vars(tally).items() if name != "recovery"},
        "recovery_ms": percentiles(np.array([*tally.recovery["kill"], *tally.recovery["hang"]])),
        "recovery_kill_ms": percentiles(np.array(tally.recovery["kill"])),
        "recovery_hang_ms": percentiles(np.array(tally.recovery["hang"])),
        "hang_noticed_after_ms": 1000 * _HANG_S,
    }
    whole = tally.acquired == tally.acknowledged == tally.on_disk == tally.decided == runs * frames
    return result | {"ok": whole and not (tally.duplicated or tally.out_of_order or tally.unsafe_commands)}


def _one_run(
    tally: _Tally, folder: Path, frames: int, faults: dict[int, bool], microscope: SimulatedMicroscope
) -> None:
    stream = StreamConfig(
        address="tcp://127.0.0.1:0",
        hang_s=_HANG_S,
        rules=(PluginChoice("follow", {"name": "follow"}),),
        limits=Limits(x_um=(-_BOX_UM, _BOX_UM), y_um=(-_BOX_UM, _BOX_UM)),
    )
    with (
        Service(single_stream(stream, log=folder / "log")) as service,
        connect(service.addresses["default"], mode="lockstep", deadline_s=0.1) as loop,
    ):
        with acquisition(
            directory=str(folder),
            name="run",
            image_process_fn=loop.on_image,
            pre_hardware_hook_fn=loop.before_event,
        ) as running:
            guard = loop.guard(running)
            watches: list[_Recovery] = []
            for frame in range(frames):
                if frame in faults:
                    watches.append(_break(tally, service, loop, hang=faults[frame]))
                tally.acquired += guard.acquire({"axes": {"time": frame}, "exposure": 1.0})
                tally.unsafe_commands += any(
                    abs(position) > _BOX_UM + 1e-6 for position in microscope.stage_um
                )
        loop.client.drain(_SETTLE_S)
        for watch in watches:
            watch.join()
            if watch.recovery_ms is not None:
                tally.recovery[watch.fault].append(watch.recovery_ms)
        _count(tally, loop, frames)
    tally.on_disk += _images_on_disk(folder / "run_1")


class _Recovery(threading.Thread):
    """Measures, beside the acquisition, the time from a fault to the first answer of the new engine."""

    def __init__(self, client: Client, fault: str) -> None:
        super().__init__(name="cytoloop recovery watch")
        self.fault = fault
        self.recovery_ms: float | None = None
        self._client, self._broken_s = client, time.monotonic()
        self._reconnects = client.stats().reconnects
        self.start()

    def run(self) -> None:
        """Wait for a new connection, then for an answer over it."""
        deadline = self._broken_s + _SETTLE_S
        acknowledged = None
        while time.monotonic() < deadline:
            stats = self._client.stats()
            if acknowledged is None and stats.reconnects > self._reconnects:
                acknowledged = stats.acknowledged
            if acknowledged is not None and stats.state == "connected" and stats.acknowledged > acknowledged:
                self.recovery_ms = (time.monotonic() - self._broken_s) * 1000
                return
            time.sleep(0.001)


def _break(tally: _Tally, service: Service, loop: Loop, *, hang: bool) -> _Recovery:
    fault, number = ("hang", _STOP) if hang and _STOP is not None else ("kill", _KILL)
    tally.kills += fault == "kill"
    tally.hangs += fault == "hang"
    watch = _Recovery(loop.client, fault)
    os.kill(service.pids["default"], number)
    return watch


def _count(tally: _Tally, loop: Loop, frames: int) -> None:
    """Compare what the client was answered and what the journal holds with what was acquired."""
    stats = loop.client.stats()
    replied = [reply.sequence for reply in loop.client.replies()]
    written = [entry.header.sequence for entry in read_journal(Path(stats.folder) / "journal")]
    tally.acknowledged += stats.acknowledged
    tally.decided += len(set(replied))
    for sequences in (replied, written):
        tally.lost += frames - len(set(sequences))
        tally.duplicated += len(sequences) - len(set(sequences))
        tally.out_of_order += sum(later < earlier for earlier, later in pairwise(sequences))


def _images_on_disk(folder: Path) -> int:
    """Read every image back from the dataset that pycro-manager wrote."""
    from ndstorage import Dataset

    with contextlib.redirect_stdout(None):  # it prints its progress
        dataset: Any = Dataset(str(folder))
    try:
        return sum(dataset.read_image(**axes).size > 0 for axes in dataset.get_image_coordinates_list())
    finally:
        dataset.close()


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep the warnings of a link that is broken on purpose from the terminal."""
    logger = logging.getLogger("cytoloop")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
