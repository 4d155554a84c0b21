"""``cytoloop bench faults --record``: faults while frames and masks are recorded, and what is on the disk afterwards.

Each run is a real pycro-manager acquisition of a simulated sample whose frames and masks the service records, with
faults of one kind at random frames. Afterwards each frame must be recorded as pycro-manager has it, once and in order,
or its reply must say that it is not; and tracks and decisions must be those of a pipeline that nothing happened to.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeAlias

import numpy as np

from ...acquire.commands import Stimulate
from ...acquire.governor.limits import Limits
from ...acquire.micromanager.loop import Loop, connect
from ...acquire.reply import Decision
from ...acquire.simulated.microscope import SimulatedMicroscope
from ...acquire.simulated.presets import nuclei
from ...acquire.simulated.twin import install_behind
from ..demo_engine import acquisition, demo_engine
from ..experiment.config import single_stream
from ..experiment.stream import PluginChoice, StreamConfig
from ..faults import CAN_HANG, LONGEST_RECOVERY_S, Recovery, break_engine, images_on_disk, quiet
from ..progress import Progress
from ..recording.ome_zarr import FRAMES
from ..recording.run_writer import part_folders
from ..recording.settings import Record
from ..report.contents import percentiles
from ..service.server import Service
from .cable import Cable
from .recording_check import Found, examine, open_unfinished, over_quota
from .small_disk import SmallDisk, small_disk

Kind: TypeAlias = Literal["engine", "recorder", "hang", "stop", "full", "slow", "leave_out", "cut"]

KINDS: dict[str, str] = {
    "engine": "kill -9 of the engine",
    "recorder": "kill -9 of the recorder",
    "hang": "SIGSTOP of the engine",
    "stop": "SIGSTOP of the recorder, for less than the ring holds",
    "full": "the disk is full, when_full leave_out",
    "slow": "SIGSTOP of the recorder beyond the ring, when_full wait",
    "leave_out": "SIGSTOP of the recorder beyond the ring, when_full leave_out",
    "cut": "the cable is cut",
}
_OVERFLOWS = ("full", "slow", "leave_out")
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_STOP, _GO_ON = getattr(signal, "SIGSTOP", 0), getattr(signal, "SIGCONT", 0)
_HANG_S = 1.0
_BOX_UM = 40.0
_RING_MB = 16
_RING_SIZE_PX = 512  # frames and masks of this size fill the ring within 17 frames
_WAITED = 4  # frames that wait at the microscope, more than ever do without a fault
_SHORT, _LONG = 10, 30  # frames for which a fault goes on
_LEAD = 5
_RULE = "light"


@dataclass
class _Light:
    """An actuator that only counts."""

    commands: tuple[type, ...] = (Stimulate,)
    reached: int = 0

    def actuate(self, decision: Decision) -> None:
        """Count one."""
        self.reached += 1

    def close(self) -> None:
        """Do nothing."""


class _RecorderRecovery(threading.Thread):
    """Measures, beside the acquisition, the time until the recorder has written another frame.

    Parameters
    ----------
    ready
        Tells when a recorder is there that can write; what was written before does not count.
    folder
        Of the run.
    """

    def __init__(self, ready: Callable[[], bool], folder: Path) -> None:
        super().__init__(name="cytoloop recorder watch")
        self.recovery_ms: float | None = None
        self._begun_s, self._ready, self._folder = time.monotonic(), ready, folder
        self.start()

    def run(self) -> None:
        """Wait until a recorder is there, then for a line more."""
        deadline, before = self._begun_s + LONGEST_RECOVERY_S, None
        while time.monotonic() < deadline:
            if before is None:
                before = self._written() if self._ready() else None
            elif self._written() > before:
                self.recovery_ms = (time.monotonic() - self._begun_s) * 1000
                return
            time.sleep(0.002)

    def _written(self) -> int:
        sides = (folder / FRAMES for folder in part_folders(self._folder))
        return sum(side.stat().st_size for side in sides if side.is_file())


@dataclass
class _Run:
    """One acquisition with faults of one kind.

    Attributes
    ----------
    found
        What came of it.
    faults, waited
        How many faults there were; most frames that waited at the microscope.
    """

    kind: str
    frames: int
    service: Service
    loop: Loop
    cable: Cable
    disk: SmallDisk | None
    microscope: SimulatedMicroscope
    found: Found = field(default_factory=Found)
    faults: int = 0
    waited: int = 0
    watches: list[Recovery | _RecorderRecovery] = field(default_factory=list[Any])
    _ends: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.loop.client.stats().folder)

    def acquire(self, folder: Path, places: dict[int, int]) -> None:
        """Take the frames; ``places`` says at which a fault begins, and at which it is over."""
        with acquisition(
            directory=str(folder),
            name="run",
            image_process_fn=self.loop.on_image,
            pre_hardware_hook_fn=self.loop.before_event,
        ) as running:
            guard = self.loop.guard(running)
            over = set(places.values())
            for frame in range(self.frames):
                if frame in over:
                    self._end()
                if frame in places:
                    self._begin()
                    open_unfinished(self.found, self.folder)
                self.found.acquired += guard.acquire({"axes": {"time": frame}, "exposure": 1.0})
                self.found.unsafe_commands += any(
                    abs(position) > _BOX_UM + 1e-6 for position in self.microscope.stage_um
                )
                stats = self.loop.client.stats()
                self.waited = max(self.waited, stats.sent - stats.acknowledged)
        self._end()
        self.loop.client.drain(LONGEST_RECOVERY_S)
        for watch in self.watches:
            watch.join()
        open_unfinished(self.found, self.folder)
        self.found.acknowledged = self.loop.client.stats().acknowledged

    def _begin(self) -> None:
        self.faults += 1
        self.loop.client.drain(LONGEST_RECOVERY_S)  # recovery from two faults at once cannot be told apart
        client, recorder = self.loop.client, self.service.recorder_pids["default"]
        match self.kind:
            case "engine" | "hang":
                self.watches.append(break_engine(self.service, client, hang=self.kind == "hang"))
            case "recorder":
                os.kill(recorder, _KILL)
                self._watch(lambda: self.service.recorder_pids["default"] != recorder)
            case "cut":
                self.watches.append(Recovery(client, "cut"))
                self.cable.cut()
                self._ends.append(self._mend)
            case "full" if self.disk is not None:
                disk = self.disk
                disk.fill(recorder)
                self._ends.append(lambda: self._go_on(disk.free))
            case _:
                os.kill(recorder, _STOP)
                self._ends.append(lambda: self._go_on(lambda: os.kill(recorder, _GO_ON)))

    def _end(self) -> None:
        while self._ends:
            self._ends.pop()()

    def _mend(self) -> None:
        for watch in self.watches:
            if isinstance(watch, Recovery) and watch.recovery_ms is None:
                watch.broken_s = time.monotonic()  # before that nothing can be done
        self.cable.mend()

    def _go_on(self, end: Callable[[], None]) -> None:
        self._watch(lambda: True)
        end()

    def _watch(self, ready: Callable[[], bool]) -> None:
        self.watches.append(_RecorderRecovery(ready, self.folder))


@dataclass
class _Row:
    """What came of all runs of one kind."""

    runs: int = 0
    faults: int = 0
    waited: int = 0
    found: Found = field(default_factory=Found)
    recovery_ms: list[float] = field(default_factory=list[float])

    def figures(self, kind: str) -> dict[str, Any]:
        """Return the row."""
        times = percentiles(np.array(self.recovery_ms))
        return {
            "kind": kind,
            "fault": KINDS[kind],
            "runs": self.runs,
            "faults": self.faults,
            **self.found.figures(),
            "waited": self.waited,
            "recovered": len(self.recovery_ms),
            "recovery_ms_p50": times["p50"],
            "recovery_ms_max": times["max"],
        }

    def sound(self, kind: str) -> bool:
        """Tell whether nothing is wrong, each fault was recovered from, and the fault did what it should."""
        met = {
            "slow": self.waited >= _WAITED and not self.found.left_out,
            "leave_out": self.found.left_out > 0,
            "full": self.found.left_out > 0,
        }.get(kind, not self.found.left_out)
        return met and self.found.sound() and len(self.recovery_ms) == self.faults


def run(
    progress: Progress,
    *,
    runs: int,
    frames: int,
    faults: int,
    seed: int,
    size_px: int,
    kinds: tuple[str, ...],
) -> dict[str, Any]:
    """Run acquisitions with ``faults`` faults of one kind in each, kinds by turns; see ``bench faults``."""
    random = Random(seed)
    rows: dict[str, _Row] = {}
    skipped: dict[str, str] = {}
    disk_full_by = ""
    possible = [kind for kind in kinds or tuple(KINDS) if CAN_HANG or kind in ("engine", "recorder", "cut")]
    with demo_engine() as core, quiet():
        for number in range(runs):
            kind = possible[number % len(possible)]
            progress(f"acquisitions with faults: {KINDS[kind]}", number, runs)
            size = max(size_px, _RING_SIZE_PX) if kind in _OVERFLOWS else size_px
            row = rows.setdefault(kind, _Row())
            with (
                tempfile.TemporaryDirectory() as folder,
                _disk(kind, Path(folder) / "log", 2 * frames * size * size * 2 + (64 << 20)) as disk,
            ):
                if kind == "full" and disk is None:
                    skipped[kind] = "this system can neither mount a tmpfs nor limit a process"
                    del rows[kind]
                    continue
                disk_full_by = disk.how if disk else disk_full_by
                places = _places(random, kind, frames, faults)
                with install_behind(core, nuclei(seed + number, size_px=size)) as twin:
                    _one_run(row, kind, Path(folder), frames, places, twin.microscope, disk)
    total = Found()
    for row in rows.values():
        total.add(row.found)
    recovery = [each for row in rows.values() for each in row.recovery_ms]
    return {
        "runs": runs,
        "kills": sum(rows[kind].faults for kind in ("engine", "recorder") if kind in rows),
        "hangs": sum(rows[kind].faults for kind in ("hang", "stop", "slow", "leave_out") if kind in rows),
        **total.figures(),
        "recovery_ms": percentiles(np.array(recovery)),
        "hang_noticed_after_ms": 1000 * _HANG_S,
        "disk_full_by": disk_full_by,
        "said": sorted(set(total.unopened))[:10],
        "skipped": skipped,
        "kinds": [row.figures(kind) for kind, row in rows.items()],
        "ok": bool(rows) and all(row.sound(kind) for kind, row in rows.items()),
    }


@contextlib.contextmanager
def _disk(kind: str, folder: Path, size_bytes: int) -> Generator[SmallDisk | None]:
    if kind != "full":
        yield None
        return
    with small_disk(folder, size_bytes) as disk:
        yield disk


def _places(random: Random, kind: str, frames: int, faults: int) -> dict[int, int]:
    """Return at which frames faults begin and are over: one fault in each of as many equal parts of the run."""
    part = (frames - 2 * _LEAD) // (faults if kind not in _OVERFLOWS else 1)
    length = {"cut": _SHORT, "stop": _SHORT}.get(kind, _LONG if kind in _OVERFLOWS else 1)
    length = min(length, max(1, part - 2))
    begins = [_LEAD + n * part + random.randrange(part - length) for n in range((frames - 2 * _LEAD) // part)]
    return {begin: begin + length for begin in begins}


def _stream(kind: str, quota: int) -> StreamConfig:
    light = {"do": "stimulate", "duration_ms": 1.0}
    return StreamConfig(
        address="tcp://127.0.0.1:0",
        hang_s=_HANG_S,
        armed=True,
        rules=(
            PluginChoice("follow", {"name": "follow"}),
            PluginChoice(
                "when",
                {
                    "name": _RULE,
                    "action": light,
                    "cooldown": "0 s",
                    "quota": {"per_run": quota, "per_frame": 1},
                },
            ),
        ),
        limits=Limits(x_um=(-_BOX_UM, _BOX_UM), y_um=(-_BOX_UM, _BOX_UM), commands_per_s=1000.0),
        record=Record(
            frames=True,
            masks=True,
            buffer_mb=_RING_MB,
            when_full="leave_out" if kind in ("full", "leave_out") else "wait",
        ),
    )


def _one_run(
    row: _Row,
    kind: str,
    folder: Path,
    frames: int,
    places: dict[int, int],
    microscope: SimulatedMicroscope,
    disk: SmallDisk | None,
) -> None:
    quota = frames * 3 // 4  # one for each frame: it would be used up far earlier if a restart forgot it
    stream, light = _stream(kind, quota), _Light()
    with (
        Service(single_stream(stream, log=folder / "log")) as service,
        Cable(service.addresses["default"]) as cable,
        connect(cable.address, mode="lockstep", deadline_s=0.1, actuators=[light]) as loop,
    ):
        one = _Run(kind, frames, service, loop, cable, disk, microscope)
        one.acquire(folder, places)
        replies, run_folder = loop.client.replies(), one.folder
    images = {axes["time"]: pixels for axes, pixels in images_on_disk(folder / "run_1")}
    found = one.found
    found.add(examine(stream, run_folder, images, replies, frames))
    found.over_quota = over_quota(replies, light.reached, _RULE, quota)
    row.found.add(found)
    row.runs, row.faults, row.waited = row.runs + 1, row.faults + one.faults, max(row.waited, one.waited)
    row.recovery_ms += [each.recovery_ms for each in one.watches if each.recovery_ms is not None]
