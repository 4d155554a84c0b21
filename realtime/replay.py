"""Replaying a recording: the service's own path, from the client's link to the journal, over frames from disk."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from ..acquire.errors import LinkError
from ..acquire.frame import Frame
from ..acquire.link.client import Client
from ..acquire.sources.pace import paced
from ..acquire.sources.source import Source
from .experiment.config import single_stream
from .experiment.stream import StreamConfig
from .pixel_maps import ANY_AGE
from .progress import Progress, silent
from .service.server import Service

# At recorded pace a slow service may fall behind by this many frames before the replay waits for it.
_MOST_UNANSWERED = 64
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """How a replay went, as the client saw it.

    Attributes
    ----------
    name
        Of the recording.
    frames
        Frames that were sent.
    answered
        Frames whose reply came.
    seconds
        From the first frame sent to the last reply.
    latency_ms
        (answered,) from handing a frame over to its reply. As fast as possible, one frame is under way at a time,
        so that this is the service's own time and not that of a queue.
    folder
        The run's folder of the service: its journal and masks.
    last_frame
        The last one that was segmented, for pictures; None if none was.
    messages
        What the service said, each once.
    """

    name: str
    frames: int
    answered: int
    seconds: float
    latency_ms: NDArray[np.float64]
    folder: Path
    last_frame: Frame | None
    messages: tuple[str, ...]

    @property
    def frames_per_s(self) -> float:
        """Frames answered per second."""
        return self.answered / self.seconds if self.seconds > 0 else 0.0


def replay(
    source: Source,
    stream: StreamConfig,
    log: Path,
    progress: Progress = silent,
    *,
    speed: float | None = None,
) -> Replayed:
    """Send every frame of a recording through a service of its own and wait for all replies.

    Memory does not grow with the recording but for one latency per frame.

    Parameters
    ----------
    source
        The recording; it is not closed here.
    stream
        What the service does; its address and policy are replaced, and masks are saved.
    log
        Folder for the service's log.
    progress
        Told about each frame.
    speed
        1 is the recorded pace, 2 twice as fast; None sends a frame as soon as the one before is answered.

    Raises
    ------
    SourceError
        If a frame is broken; what was answered before is in the log.
    LinkError
        If the service cannot be started or falls silent for good.
    """
    private = replace(
        stream,
        address="tcp://127.0.0.1:0",
        policy="lossless",
        keys="",
        save_masks=True,
        armed=True,  # rules decide as in a run; there is nobody who carries it out
        calibration_days=ANY_AGE,
    )
    with Service(single_stream(private, log=log)) as service:
        address = service.addresses[private.name]
        with Client(address, stream=private.name) as client:
            if not client.wait_connected(_PATIENCE_S):
                raise LinkError(f"the service at {address} did not answer: {'; '.join(service.messages())}")
            return _Run(client, service, progress, source.count).through(source, speed)


class _Run:
    """The loop of one replay and what it counts."""

    def __init__(self, client: Client, service: Service, progress: Progress, total: int | None) -> None:
        self._client, self._service, self._progress, self._total = client, service, progress, total
        self._latencies: list[float] = []
        self._messages: dict[str, None] = {}
        self._under_way: dict[int, Frame] = {}
        self._last_frame: Frame | None = None

    def through(self, source: Source, speed: float | None) -> Replayed:
        ahead = 0 if speed is None else _MOST_UNANSWERED
        frames = 0
        started = time.perf_counter()
        with _read_ahead(source) as upcoming:
            for frame in paced(upcoming, speed):
                sequence = self._client.send(frame)
                frames, self._under_way[sequence] = sequence + 1, frame
                if sequence >= ahead:
                    self._await(sequence - ahead)
                self._collect(source.name, frames)
        if frames:
            self._await(frames - 1)
        seconds = time.perf_counter() - started
        self._collect(source.name, frames)
        self._messages |= dict.fromkeys(self._service.messages())
        return Replayed(
            name=source.name,
            frames=frames,
            answered=len(self._latencies),
            seconds=seconds,
            latency_ms=np.asarray(self._latencies, np.float64),
            folder=Path(self._client.stats().folder),
            last_frame=self._last_frame,
            messages=tuple(self._messages),
        )

    def _await(self, sequence: int) -> None:
        """Wait for a reply; an engine that is being restarted is given its time."""
        if self._client.wait(sequence, _PATIENCE_S) is None:
            stats = self._client.stats()
            raise LinkError(
                f"no reply to frame {sequence} within {_PATIENCE_S:g} s: the link is {stats.state} {stats.reason};"
                f" the service says: {'; '.join(self._service.messages()) or 'nothing'}"
            )

    def _collect(self, name: str, frames: int) -> None:
        """Take in the replies so far and tell how far the replay is."""
        for reply in self._client.replies():
            self._latencies.append(reply.timings_ms["round_trip"])
            self._messages |= dict.fromkeys(reply.messages)
            frame = self._under_way.pop(reply.sequence, None)
            if "segment" in reply.timings_ms:
                self._last_frame = frame
        self._progress(f"replaying {name}", frames, self._total)


@contextmanager
def _read_ahead(source: Source) -> Generator[Iterator[Frame]]:
    """Read the next frame in a thread while the service works on this one."""
    frames = source.frames()
    with ThreadPoolExecutor(1, thread_name_prefix="cytoloop reader") as reader:

        def upcoming() -> Iterator[Frame]:
            following = reader.submit(next, frames, None)
            while (frame := following.result()) is not None:
                following = reader.submit(next, frames, None)
                yield frame

        yield upcoming()
