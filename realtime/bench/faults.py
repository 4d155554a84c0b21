"""``cytoloop bench faults``: kill and hang the service during real acquisitions, and count what is lost.

Each run is a real pycro-manager acquisition of a simulated sample, saved to disk by pycro-manager, steered by
a service whose engine is killed (SIGKILL) or stopped (SIGSTOP) at random frames. Afterwards every frame must
be on disk, acknowledged, and in the service's journal exactly once and in order.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Annotated, Any

import numpy as np

from ...acquire.governor.limits import Limits
from ...acquire.micromanager.loop import Loop, connect
from ...acquire.simulated.microscope import SimulatedMicroscope
from ...acquire.simulated.presets import nuclei
from ...acquire.simulated.twin import install_behind
from ..demo_engine import acquisition, demo_engine
from ..experiment.config import single_stream
from ..experiment.stream import PluginChoice, StreamConfig
from ..faults import CAN_HANG, LONGEST_RECOVERY_S, Recovery, break_engine, count, images_on_disk, quiet
from ..progress import Progress
from ..report.contents import percentiles
from ..service.journal import read_journal
from ..service.server import Service
from . import faults_record

_HANG_S = 1.0
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
    record: Annotated[bool, "Record frames and masks meanwhile, and check what is on the disk."] = False,
    kind: Annotated[tuple[faults_record.Kind, ...], "With --record: only this kind; several times."] = (),
) -> dict[str, Any]:
    """Run acquisitions with faults at random frames; ``faults`` of them in each, kills and hangs by turns."""
    if record:
        return faults_record.run(
            progress, runs=runs, frames=frames, faults=faults, seed=seed, size_px=size_px, kinds=kind
        )
    random = Random(seed)
    tally = _Tally()
    with demo_engine() as core, quiet():
        for number in range(runs):
            progress("acquisitions with faults", number, runs)
            places = sorted(random.sample(range(5, frames - 5), faults))
            hang = [CAN_HANG and (number + place) % 2 == 1 for place in range(faults)]
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
        armed=True,
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
            watches: list[Recovery] = []
            for frame in range(frames):
                if frame in faults:
                    watches.append(break_engine(service, loop.client, hang=faults[frame]))
                tally.acquired += guard.acquire({"axes": {"time": frame}, "exposure": 1.0})
                tally.unsafe_commands += any(
                    abs(position) > _BOX_UM + 1e-6 for position in microscope.stage_um
                )
        loop.client.drain(LONGEST_RECOVERY_S)
        for watch in watches:
            watch.join()
            tally.kills += watch.fault == "kill"
            tally.hangs += watch.fault == "hang"
            if watch.recovery_ms is not None:
                tally.recovery[watch.fault].append(watch.recovery_ms)
        _count(tally, loop, frames)
    tally.on_disk += sum(pixels.size > 0 for _, pixels in images_on_disk(folder / "run_1"))


def _count(tally: _Tally, loop: Loop, frames: int) -> None:
    """Compare what the client was answered and what the journal holds with what was acquired."""
    stats = loop.client.stats()
    replied = [reply.sequence for reply in loop.client.replies()]
    written = [entry.header.sequence for entry in read_journal(Path(stats.folder) / "journal")]
    tally.acknowledged += stats.acknowledged
    tally.decided += len(set(replied))
    for found in (count(replied, frames), count(written, frames)):
        tally.lost += found.lost
        tally.duplicated += found.duplicated
        tally.out_of_order += found.out_of_order
