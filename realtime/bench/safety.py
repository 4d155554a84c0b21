"""``cytoloop bench safety``: faults during real acquisitions, and what reached the actuator meanwhile.

Each run is a real pycro-manager acquisition whose rule lights cells, fires an output, moves the stage and leaves a
light on, in every frame. A witness at the actuator notes what reaches it and when. Seven kinds of fault by turns: the
cable is cut, the engine process hangs, the clock of the frames jumps, a rule floods the microscope, a service is
hostile, the microscope is disarmed and armed again from outside, or the limits themselves are asked for too much.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np

from ...acquire.governor.limits import Limits
from ...acquire.governor.safe import SafeState
from ...acquire.link.control import set_standing
from ...acquire.micromanager.loop import Loop, connect
from ..demo_engine import acquisition, demo_engine
from ..experiment.config import single_stream
from ..experiment.stream import PluginChoice, StreamConfig
from ..faults import CAN_HANG, quiet
from ..progress import Progress
from ..report.contents import percentiles
from ..service.server import Service
from .blank import BLANK
from .cable import Cable
from .hostile import HostileService
from .safety_rules import (
    BOX_UM,
    BUSY,
    COMMANDS_PER_S,
    DOSE_MS,
    LENGTH_MAX_MS,
    LIGHT,
    POWER_MAX,
    PULSES,
)
from .witness import Forbidden, State, Witness

Kind: TypeAlias = Literal["cut", "hang", "clock", "flood", "beyond", "hostile", "disarmed"]

_AFTER_S = 0.6
_DOWN_S = 1.5
_SIZE_PX = 64
_FRAME_S = 0.03
_PIXEL_UM = 1.0

LIMITS = Limits(
    x_um=(-BOX_UM, BOX_UM),
    y_um=(-BOX_UM, BOX_UM),
    max_step_um=2 * BOX_UM * 2**0.5,
    stimulation_power_max=POWER_MAX,
    stimulation_ms_max=LENGTH_MAX_MS,
    dose_ms_per_run=DOSE_MS,
    triggers_max=PULSES,
    commands_per_s=COMMANDS_PER_S,
    properties=(".".join(LIGHT),),
)


class _Run:
    """One acquisition with one fault.

    Attributes
    ----------
    witness
        What reached the actuator.
    safe_ms
        From the fault to the light being off, in ms; None if that is not what the fault is about.
    """

    def __init__(self, core: Any, frames: int, random: Random) -> None:
        self.core, self.frames, self.random = core, frames, random
        self.witness = Witness(_SIZE_PX)
        self.safe_ms: float | None = None
        self.sent = self.refused = 0
        self.jump_s = 0.0
        self.at = random.randrange(frames // 4, frames // 2)

    def acquire(self, loop: Loop, fault: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        """Take the frames; the fault begins at one of them and goes on beside the acquisition until it is over."""

        def on_image(image: Any, metadata: Any) -> tuple[Any, Any]:
            if self.jump_s and "ElapsedTime-ms" in metadata:
                metadata["ElapsedTime-ms"] = float(metadata["ElapsedTime-ms"]) + 1000 * self.jump_s
            self.witness.seen_s[loop.client.stats().sent] = time.monotonic()
            return loop.on_image(image, metadata)

        with acquisition(
            directory=None,
            name="run",
            image_process_fn=on_image,
            pre_hardware_hook_fn=loop.before_event,
        ) as running:
            guard = loop.guard(running)
            with contextlib.ExitStack() as stack:
                for frame in self._frames():
                    if frame == self.at:
                        stack.enter_context(fault())
                    guard.acquire({"axes": {"time": frame}, "exposure": 1.0})
                    self._look()
        loop.client.drain(5.0)
        stats = loop.stats
        self.refused = stats.expired + stats.refused + stats.failed + stats.disarmed + stats.dry
        replies = loop.client.replies()
        self.sent = sum(not each.refused for reply in replies for each in reply.decisions)
        self.refused += sum(bool(each.refused) for reply in replies for each in reply.decisions)

    def _look(self) -> None:
        """Note how the microscope stands."""
        at_um = self.core.getXPosition(), self.core.getYPosition()
        self.witness.states.append(State(time.monotonic(), at_um, self.core.getProperty(*LIGHT) != "0"))

    def _frames(self) -> Iterator[int]:
        begin_s = time.monotonic()
        for frame in range(self.frames):
            yield frame
            time.sleep(max(0.0, begin_s + (frame + 1) * _FRAME_S - time.monotonic()))

    @contextlib.contextmanager
    def silence(self, begin: Callable[[], None], end: Callable[[], None]) -> Generator[None]:
        """Have the service be silent for a while, from another thread, and see when the light is off."""
        began = threading.Event()

        def work() -> None:
            begin()
            fault_s = time.monotonic()
            began.set()
            forbidden = Forbidden("in the safe state", fault_s + _AFTER_S, dark=True)
            self.witness.forbidden.append(forbidden)
            while time.monotonic() < fault_s + _DOWN_S:
                if self.safe_ms is None and self.core.getProperty(*LIGHT) == "0":
                    self.safe_ms = 1000 * (time.monotonic() - fault_s)
                time.sleep(0.002)
            forbidden.end_s = time.monotonic()
            end()

        thread = threading.Thread(target=work, name="cytoloop fault")
        self._light_on()
        thread.start()
        began.wait()
        try:
            yield
        finally:
            thread.join()

    def _light_on(self) -> None:
        """Have the light burn when the fault comes, whatever has been decided so far."""
        self.core.setProperty(*LIGHT, "1")


def run(
    progress: Progress,
    *,
    runs: int = 21,
    frames: int = 100,
    seed: int = 0,
    kind: Annotated[tuple[Kind, ...], "Only this kind of fault; may be given several times."] = (),
) -> dict[str, Any]:
    """Run acquisitions with one fault each, all kinds by turns; count what should not have reached the actuator."""
    random = Random(seed)
    unsafe: Counter[str] = Counter()
    by_kind: dict[str, dict[str, Any]] = {}
    safe_ms: list[float] = []
    sent = refused = reached = 0
    kinds = [name for name in kind or _KINDS if CAN_HANG or name != "hang"]
    with demo_engine() as core, quiet(), _small_camera(core):
        for number in range(runs):
            name = kinds[number % len(kinds)]
            progress(f"acquisitions with faults: {name}", number, runs)
            core.setXYPosition(0.0, 0.0)
            core.setProperty(*LIGHT, "0")
            one = _Run(core, frames, random)
            with tempfile.TemporaryDirectory() as folder:
                _KINDS[name](one, Path(folder))
            found = one.witness.unsafe()
            unsafe += found
            sent, refused, reached = (
                sent + one.sent,
                refused + one.refused,
                reached + len(one.witness.reached),
            )
            safe_ms += [] if one.safe_ms is None else [one.safe_ms]
            row = by_kind.setdefault(name, {"kind": name, "runs": 0, "sent": 0, "reached": 0, "unsafe": 0})
            for key, value in (
                ("runs", 1), ("sent", one.sent), ("reached", len(one.witness.reached)), ("unsafe", found.total()),
            ):  # fmt: skip
                row[key] += value
    fell = len(safe_ms) == sum(row["runs"] for name, row in by_kind.items() if name in _SILENT)
    return {
        "runs": runs,
        "commands_sent": sent,
        "refused": refused,
        "reached": reached,
        "unsafe_commands": unsafe.total(),
        "unsafe": dict(unsafe),
        "safe_state_ms": percentiles(np.array(safe_ms)) | {"max": max(safe_ms, default=None)},
        "safe_after_ms": 1000 * _AFTER_S,
        "kinds": list(by_kind.values()),
        "ok": unsafe.total() == 0 and fell and reached > 0,
    }


@contextlib.contextmanager
def _small_camera(core: Any) -> Generator[None]:
    sides = ("OnCameraCCDXSize", "OnCameraCCDYSize")
    before = [core.getProperty("Camera", side) for side in sides]
    for side in sides:
        core.setProperty("Camera", side, str(_SIZE_PX))
    try:
        yield
    finally:
        for side, value in zip(sides, before, strict=True):
            core.setProperty("Camera", side, value)


def _stream(**options: Any) -> StreamConfig:
    return StreamConfig(
        address="tcp://127.0.0.1:0",
        armed=True,
        segmenter=PluginChoice(BLANK),
        rules=(PluginChoice(BUSY, options),),
        limits=LIMITS,
        safe=SafeState(after_s=_AFTER_S, set=(f"{LIGHT[0]}.{LIGHT[1]}=0",)),
        pixel_size_um=_PIXEL_UM,
    )


@contextlib.contextmanager
def _served(folder: Path, one: _Run, **options: Any) -> Generator[tuple[Service, Loop]]:
    with (
        Service(single_stream(_stream(**options), log=folder)) as service,
        connect(service.addresses["default"], actuators=[one.witness]) as loop,
    ):
        yield service, loop


def _cable_cut(one: _Run, folder: Path) -> None:
    with (
        Service(single_stream(_stream(), log=folder)) as service,
        Cable(service.addresses["default"]) as cable,
        connect(cable.address, actuators=[one.witness]) as loop,
    ):
        one.acquire(loop, lambda: one.silence(cable.cut, cable.mend))


def _service_hung(one: _Run, folder: Path) -> None:
    with _served(folder, one) as (service, loop):
        pid = service.pids["default"]
        one.acquire(
            loop,
            lambda: one.silence(lambda: os.kill(pid, signal.SIGSTOP), lambda: os.kill(pid, signal.SIGCONT)),
        )


def _clock_jumps(one: _Run, folder: Path) -> None:
    @contextlib.contextmanager
    def jump() -> Generator[None]:
        one.jump_s = one.random.choice((-0.7, -3600.0, 0.4, 3600.0))
        yield

    with _served(folder, one) as (_, loop):
        one.acquire(loop, jump)


def _flood(one: _Run, folder: Path) -> None:
    with _served(folder, one, decisions=250) as (_, loop):
        one.acquire(loop, contextlib.nullcontext)


def _beyond_limits(one: _Run, folder: Path) -> None:
    with _served(folder, one, wild=True, decisions=3, seed=one.random.randrange(1 << 30)) as (_, loop):
        one.acquire(loop, contextlib.nullcontext)


def _hostile(one: _Run, folder: Path) -> None:
    with (
        HostileService(one.random.randrange(1 << 30)) as service,
        connect(service.address, actuators=[one.witness], limits=LIMITS) as loop,
    ):
        one.acquire(loop, contextlib.nullcontext)


def _disarmed(one: _Run, folder: Path) -> None:
    with _served(folder, one) as (service, loop):
        address = service.addresses["default"]

        @contextlib.contextmanager
        def disarm() -> Generator[None]:
            def work() -> None:
                set_standing("disarmed", who="bench", why="fault", address=address)
                forbidden = Forbidden("disarmed", time.monotonic())
                one.witness.forbidden.append(forbidden)
                time.sleep(0.5)
                forbidden.end_s = time.monotonic()
                set_standing("armed", who="bench", why="over", address=address)

            thread = threading.Thread(target=work, name="cytoloop fault")
            thread.start()
            try:
                yield
            finally:
                thread.join()

        one.acquire(loop, disarm)


_SILENT = ("cut", "hang")
_KINDS: dict[str, Callable[[_Run, Path], None]] = {
    "cut": _cable_cut,
    "hang": _service_hung,
    "clock": _clock_jumps,
    "flood": _flood,
    "beyond": _beyond_limits,
    "hostile": _hostile,
    "disarmed": _disarmed,
}
