"""Act 3: the engine of the service is killed, and hung, in the middle of an acquisition that keeps every frame."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from ...acquire.reply import Reply, encode_array
from ...acquire.simulated import presets
from ..experiment.stream import StreamConfig
from ..faults import CAN_HANG, Recovery, break_engine, quiet
from ..pipeline import Pipeline
from ..service.journal import read_journal
from .follow import beside, distance_um, follow_stream, positions
from .promise import Promise, cells_found, every_frame, late_ones_counted
from .record import Take, record
from .stage import Cast, Scene, Show

PERIOD_S = 0.15
HANG_S = 1.0
_WARM_UP_S = 20.0
_AROUND = 4
SAME_AT_LEAST = 0.9


@dataclass(frozen=True, slots=True)
class Fault:
    """The engine process broken on purpose.

    Attributes
    ----------
    kind
        ``kill -9`` or ``hang``.
    frame
        The first frame after it.
    at_s, recovery_ms
        When, in s since the first frame, and how long until the next answer.
    same, both
        True cells found both shortly before and shortly after, and those of them with the same identity.
    """

    kind: str
    frame: int
    at_s: float
    recovery_ms: float
    same: int = 0
    both: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Survived:
    """The third act.

    Attributes
    ----------
    take, promises
        How it was played, and what came of what was promised.
    faults
        What was done to the engine.
    restarts
        How often the service replaced it.
    acquired_s, decided_s
        (frames,) when each frame was taken and decided, in s since the first one was taken.
    distance_um
        (frames,) true distance of the followed cell from the centre of the field.
    differing
        Frames in which an engine that was never broken would have given other identities or decisions.
    """

    take: Take
    promises: list[Promise]
    faults: list[Fault]
    restarts: int
    acquired_s: NDArray[np.float64]
    decided_s: NDArray[np.float64]
    distance_um: NDArray[np.float64]
    differing: int


def play(core: Any, work: Path, out: Path, show: Show, *, seed: int, frames: int, size_px: int) -> Survived:
    """Play the act: free-running, because the microscope shall wait for nobody."""
    microscope = presets.runaway(seed, size_px=size_px)
    microscope.interval_s /= 2  # the cell must not leave the field while nobody steers
    stream = follow_stream(HANG_S, expires_after_s=None)
    cast = Cast(
        "survive",
        "The service dies; no frame is lost",
        microscope,
        stream,
        mode="free",
        deadline_s=0.0,
        frames=frames,
        start_um=beside(microscope),
    )
    show.tell(
        f"Free-running, a frame every {PERIOD_S * 1000:.0f} ms: the acquisition never waits for the service."
    )
    plan = {frames * 3 // 10: "kill -9", frames * 6 // 10: "hang" if CAN_HANG else "kill -9"}
    watches: dict[int, Recovery] = {}
    told: set[int] = set()
    with quiet(), Scene(core, cast, work, show) as scene:
        scene.take_image(0)
        scene.loop.client.drain(_WARM_UP_S)
        start_s = time.monotonic()
        for frame in range(1, frames):
            if frame in plan:
                _let_recover(watches, show)
                watches[frame] = _break(scene, show, frame, plan[frame])
            time.sleep(max(0.0, start_s + frame * PERIOD_S - time.monotonic()))
            scene.take_image(frame)
            waiting = {at: watch for at, watch in watches.items() if at not in told}
            for at, watch in waiting.items():
                if watch.recovery_ms is not None:
                    told.add(at)
                    kept = f"{frame - at} frames taken meanwhile"
                    show.tell(f"  frame {frame}: answers again after {watch.recovery_ms:.0f} ms; {kept}")
        for watch in watches.values():
            watch.join()
        restarts = scene.service.restarts["default"]
    take = record(scene, out, show)
    return _survived(take, stream, plan, watches, restarts, show)


def _let_recover(watches: dict[int, Recovery], show: Show) -> None:
    """Wait until the engine that was broken last is replaced: on a very slow machine, that takes this long."""
    for watch in watches.values():
        if watch.is_alive():
            show.tell("  the next fault waits for the recovery from the last one")
            watch.join()


def _break(scene: Scene, show: Show, frame: int, kind: str) -> Recovery:
    pid = scene.service.pids["default"]
    show.tell(f"  frame {frame}: {'kill -9' if kind != 'hang' else 'SIGSTOP'} of engine process {pid}")
    return break_engine(scene.service, scene.loop.client, hang=kind == "hang")


def _survived(
    take: Take,
    stream: StreamConfig,
    plan: dict[int, str],
    watches: dict[int, Recovery],
    restarts: int,
    show: Show,
) -> Survived:
    entries = list(read_journal(take.run / "journal"))
    sent = np.array([entry.header.sent_s for entry in entries])
    start = sent[0]
    answered = {reply.sequence: reply.timings_ms["round_trip"] / 1000 for reply in take.replies}
    decided = np.array(
        [s + answered.get(e.header.sequence, np.nan) for s, e in zip(sent, entries, strict=True)]
    )
    faults: list[Fault] = []
    for frame, watch in watches.items():
        same, both = _kept_identities(take, frame)
        recovery = float("nan") if watch.recovery_ms is None else watch.recovery_ms
        faults.append(Fault(plan[frame], frame, watch.broken_s - start, recovery, same, both))
    differing = _differing(stream, take)
    same, both = sum(fault.same for fault in faults), sum(fault.both for fault in faults)
    recovered = all(watch.recovery_ms is not None for watch in watches.values())
    show.tell(f"  {same} of {both} cells kept their identity across the faults; every frame is there.")
    promises = [
        every_frame(take),
        late_ones_counted(take),
        cells_found(take),
        Promise(
            "engine killed and hung on purpose, each time replaced",
            " and ".join(f"{f.kind} {f.recovery_ms:.0f} ms" for f in faults),
            recovered and restarts >= len(faults),
        ),
        Promise(
            "identities and decisions as if it had never been broken",
            f"{differing} frames differ",
            differing == 0,
        ),
        Promise(
            f"{SAME_AT_LEAST:.0%} of true cells keep their identity across them",
            f"{same} of {both}",
            both > 0 and same >= SAME_AT_LEAST * both,
        ),
    ]
    return Survived(
        take,
        promises,
        faults,
        restarts,
        sent - start,
        decided - start,
        distance_um(*positions(take)),
        differing,
    )


def _kept_identities(take: Take, frame: int) -> tuple[int, int]:
    """Return how many true cells found before and after a frame have the same identity, and how many there are."""
    before = take.matches[max(frame - _AROUND, 0)].track_of
    after = take.matches[min(frame + _AROUND, len(take.matches) - 1)].track_of
    both = before.keys() & after.keys()
    return sum(before[cell] == after[cell] for cell in both), len(both)


def _differing(stream: StreamConfig, take: Take) -> int:
    """Return in how many frames a fresh engine, given the same detections at one go, answers otherwise."""
    undisturbed = Pipeline(stream)
    answers = {reply.sequence: reply for reply in take.replies}
    different = 0
    for entry in read_journal(take.run / "journal"):
        expected = replace(
            undisturbed.restore(entry.frame, entry.restore_detections(), entry.memory), timings_ms={}
        )
        given = answers.get(entry.header.sequence)
        different += given is None or not _same(replace(given, timings_ms={}), expected)
    return different


def _same(one: Reply, other: Reply) -> bool:
    return msgspec.msgpack.encode(one, enc_hook=encode_array) == msgspec.msgpack.encode(
        other, enc_hook=encode_array
    )
