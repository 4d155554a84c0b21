"""The stage on which every act is played: real engine, simulated microscope, service and loop; and what stays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ...acquire.actuators import Actuator
from ...acquire.commands import MoveStage, Stimulate
from ...acquire.micromanager.loop import Loop, Mode, connect
from ...acquire.reply import Decision, Reply
from ...acquire.simulated.microscope import SimulatedMicroscope
from ...acquire.simulated.twin import install_behind
from ..demo_engine import acquisition
from ..experiment.config import single_stream
from ..experiment.stream import StreamConfig
from ..progress import Progress
from ..report.page import describe
from ..service.server import Service

EXPOSURE_MS = 10.0
_DRAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Show:
    """Where a demo tells what happens: ``progress`` for the line that changes, ``tell`` for those that stay."""

    progress: Progress
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays an act, and how.

    Attributes
    ----------
    name, title
        Of the act, in a word and in a sentence.
    microscope
        Fresh; no frame has been taken.
    stream
        What the service does.
    mode, deadline_s
        Of the loop.
    frames
        How many are taken.
    actuators
        Beyond what the core can do.
    start_um
        (x, y) of the stage at the beginning in um.
    """

    name: str
    title: str
    microscope: SimulatedMicroscope
    stream: StreamConfig
    mode: Mode
    deadline_s: float
    frames: int
    actuators: tuple[Actuator, ...] = ()
    start_um: tuple[float, float] = (0.0, 0.0)


class Scene:
    """One acquisition by the real engine, steered by a real service; a context manager.

    Parameters
    ----------
    core
        Of the engine that runs.
    cast
        Who plays.
    work
        Folder for what pycro-manager and the service write.
    show
        Told about every frame.

    Attributes
    ----------
    service, loop
        To be broken, and to be asked how it goes.
    acquired
        Images that the engine took.
    replies
        All answers so far, in the order in which they came.
    run
        The service's folder of this run; known at the end.
    dataset
        What pycro-manager wrote.
    """

    def __init__(self, core: Any, cast: Cast, work: Path, show: Show) -> None:
        self.cast = cast
        self.acquired = 0
        self.replies: list[Reply] = []
        self.run = self.dataset = work
        self._core, self._show, self._work = core, show, work
        self._last = "no decision yet"
        self._cells = 0
        self._exit = ExitStack()

    def __enter__(self) -> Scene:
        cast, core = self.cast, self._core
        with ExitStack() as stack:
            stage = str(core.get_xy_stage_device())
            stack.callback(core.set_xy_position, float(core.get_x_position()), float(core.get_y_position()))
            stack.callback(core.set_exposure, float(core.get_exposure()))
            core.set_xy_position(*cast.start_um)
            core.wait_for_device(stage)
            stack.enter_context(install_behind(core, cast.microscope))
            self._show.progress(f"{cast.name}: starting the service", 0, cast.frames)
            self.service = stack.enter_context(Service(single_stream(cast.stream, log=self._work / "log")))
            self.loop: Loop = stack.enter_context(
                connect(
                    self.service.addresses["default"],
                    mode=cast.mode,
                    deadline_s=cast.deadline_s,
                    actuators=cast.actuators,
                )
            )
            stack.callback(self._collect)
            running = stack.enter_context(
                acquisition(
                    directory=str(self._work),
                    name=cast.name,
                    image_process_fn=self.loop.on_image,
                    pre_hardware_hook_fn=self.loop.before_event,
                )
            )
            self._guard = self.loop.guard(running)
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.__exit__(kind, error, trace)

    def take_image(self, number: int) -> None:
        """Take one image, and tell what the answers say that came meanwhile."""
        self.acquired += self._guard.acquire({"axes": {"time": number}, "exposure": EXPOSURE_MS})
        self._look()

    def _look(self) -> None:
        fresh = self.loop.client.replies()
        self.replies += fresh
        for reply in fresh:
            self._tell(reply)
        text = f"{self.cast.name}: {self._cells} cells, {self._last}"
        self._show.progress(text, self.acquired, self.cast.frames)

    def _tell(self, reply: Reply) -> None:
        self._cells = len(reply.cells)
        for division in reply.divisions:
            one, other = division.daughters
            self._show.tell(
                f"  frame {reply.sequence}: cell {division.mother} divided into {one} and {other}"
            )
        for message in reply.messages:
            self._show.tell(f"  frame {reply.sequence}: {message}")
        for decision in reply.decisions:
            self._last = in_words(decision)

    def _collect(self) -> None:
        """Wait for the last answers, before the link ends."""
        self.loop.client.drain(_DRAIN_S)
        self._look()
        self.run = Path(self.loop.client.stats().folder)
        self.dataset = self._work / f"{self.cast.name}_1"


def in_words(decision: Decision) -> str:
    """Return what was decided, in a few words."""
    match decision.command:
        case MoveStage(x_um=x, y_um=y):
            return f"stage to ({x:.0f}, {y:.0f}) µm"
        case Stimulate():
            return f"light on cell {decision.track}"
        case command:
            return describe(command)
