"""What recording costs a reply: round trips through a real service, with and without it, and with a slow disk."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...acquire.errors import SourceError
from ...acquire.frame import Frame
from ...acquire.link.client import Client
from ...acquire.reply import Reply
from ...acquire.simulated.presets import nuclei
from ..experiment.config import single_stream
from ..experiment.stream import PluginChoice, StreamConfig
from ..progress import Progress
from ..recording.reader import RecordedFrames
from ..recording.settings import Record
from ..report.contents import percentiles
from ..service.server import Service
from .blank import BLANK

_IMAGES = 4
_WARM_UP = 10
_SLOW_S = 2.0
_BUFFER_MB = 512
_PATIENCE_S = 60.0
_STOP, _GO_ON = getattr(signal, "SIGSTOP", None), getattr(signal, "SIGCONT", None)


class _Microscope:
    """Sends images at a steady pace through one service, and keeps how long each reply took."""

    def __init__(self, pool: list[Frame], service: Service, client: Client) -> None:
        self._pool, self._client, self.service = pool, client, service
        self.sent = self.answered = 0

    def send(self, frames: int, period_s: float) -> list[float]:
        """Send frames; return the round trip of each in ms."""
        begin_s = time.perf_counter()
        replies: list[Reply] = []
        for number in range(frames):
            time.sleep(max(0.0, begin_s + number * period_s - time.perf_counter()))
            pixels = self._pool[self.sent % len(self._pool)].pixels
            self._client.send(Frame(pixels, time_s=float(self.sent), axes={"time": self.sent}))
            self.sent += 1
            replies += self._client.replies()  # the client keeps the last ones only
        self._client.drain(_PATIENCE_S)
        replies += self._client.replies()
        self.answered += len(replies)
        return [reply.timings_ms["round_trip"] for reply in replies]

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(self._client.stats().folder)


@contextmanager
def _microscope(pool: list[Frame], log: str, *, recorded: bool) -> Generator[_Microscope]:
    stream = StreamConfig(
        address="tcp://127.0.0.1:0",
        segmenter=PluginChoice(BLANK),
        record=Record(frames=recorded, buffer_mb=_BUFFER_MB),
    )
    with (
        Service(single_stream(stream, log=log)) as service,
        Client(service.addresses["default"]) as client,
    ):
        yield _Microscope(pool, service, client)


def measure_replies(
    progress: Progress,
    place: Path,
    *,
    size_px: int,
    frames: int,
    frames_per_s: float,
    rounds: int,
    seed: int,
) -> dict[str, Any]:
    """Time replies of two services by turns, one of which records; then stop its recorder for two seconds.

    Returns
    -------
    dict
        ``reply_p50_ms``, ``reply_p99_ms`` (``off``, ``on``, and ``slow`` with a recorder that stands still),
        ``sent``, ``recorded``, ``lost``, ``unanswered`` and ``ok``: every frame is answered and on the disk.
    """
    camera = nuclei(seed, size_px=size_px)
    pool = [Frame(camera.snap()) for _ in range(_IMAGES)]
    period_s = 1 / frames_per_s
    times: dict[str, list[float]] = {"off": [], "on": [], "slow": []}
    with tempfile.TemporaryDirectory(dir=place) as off_log, tempfile.TemporaryDirectory(dir=place) as on_log:
        with ExitStack() as stack:
            off = stack.enter_context(_microscope(pool, off_log, recorded=False))
            on = stack.enter_context(_microscope(pool, on_log, recorded=True))
            for each in (off, on):
                each.send(_WARM_UP, period_s)
            for number in range(rounds):
                progress("replies with and without recording", number, rounds)
                turns = [("off", off), ("on", on)]
                for name, each in turns[:: -1 if number % 2 else 1]:
                    times[name] += each.send(frames, period_s)
            if _STOP is not None and _GO_ON is not None:
                progress("replies while the recorder stands still")
                times["slow"] += _stopped(on, period_s, pool[0].pixels.nbytes)
            folder = on.folder
        recorded = _recorded(folder, pool, on.sent)
    figures = {name: percentiles(np.array(taken)) for name, taken in times.items() if taken}
    lost, unanswered = on.sent - recorded, on.sent + off.sent - on.answered - off.answered
    return {
        "reply_p50_ms": {name: each["p50"] for name, each in figures.items()},
        "reply_p99_ms": {name: each["p99"] for name, each in figures.items()},
        "reply_max_ms": {name: each["max"] for name, each in figures.items()},
        "sent": on.sent,
        "recorded": recorded,
        "lost": lost,
        "unanswered": unanswered,
        "ok": lost == unanswered == 0,
    }


def _stopped(microscope: _Microscope, period_s: float, frame_bytes: int) -> list[float]:
    """Return round trips in ms while the recorder is stopped: as a disk that takes nothing, with room in the ring."""
    fitting = int(_BUFFER_MB * 2**20 / frame_bytes / 2)
    pid = microscope.service.recorder_pids["default"]
    begin_s = time.monotonic()
    os.kill(pid, _STOP)  # pyright: ignore[reportArgumentType]
    try:
        times = microscope.send(max(1, min(int(_SLOW_S / period_s), fitting)), period_s)
        time.sleep(max(0.0, begin_s + _SLOW_S - time.monotonic()))
    finally:
        os.kill(pid, _GO_ON)  # pyright: ignore[reportArgumentType]
    return times


def _recorded(folder: Path, pool: list[Frame], sent: int) -> int:
    """Return how many frames are on the disk with the pixels that were sent."""
    found = RecordedFrames(folder)
    right = 0
    for number in range(sent):
        image = pool[number % len(pool)].pixels
        try:
            right += bool(np.array_equal(found.pixels(number, image.shape), image))
        except SourceError:  # it is missing or damaged
            continue
    return right
