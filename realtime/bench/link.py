"""``cytoloop bench link``: the wire beside memcpy, and what the hook adds to a real acquisition."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from ...acquire.frame import Frame
from ...acquire.link.client import Client
from ...acquire.micromanager.loop import Loop
from ..demo_engine import acquisition, demo_engine
from ..experiment.config import single_stream
from ..experiment.stream import PluginChoice, StreamConfig
from ..progress import Progress
from ..report.contents import percentiles
from ..service.server import Service
from ..service.thread import EngineThread
from .blank import BLANK

_MB = 1e6
_SHAPES = ((512, 512), (1000, 1000), (2000, 2000))  # uint16: 0.5, 2 and 8 MB
_WARM_UP = 10


def run(
    progress: Progress,
    *,
    frames: int = 200,
    images: int = 50,
    rounds: int = 4,
    exposure_ms: tuple[float, ...] = (10.0, 50.0),
) -> dict[str, Any]:
    """Measure round trips on each transport and size, then a real acquisition with and without the link.

    ``frames`` are sent per row; the hook is measured over ``rounds`` of ``images`` each, with and without the
    link by turns. An exposure of 10 ms is a hard case, 50 ms a usual one.
    """
    result: dict[str, Any] = {"memcpy_GBps": _memcpy_gbps(), "rows": []}
    for name in _transports():
        progress(f"round trips over {name}")
        with _serving(name) as client:
            result["rows"] += [_row(client, name, shape, frames) for shape in _SHAPES]
    with demo_engine(1024) as core:
        result["hook"] = [
            _hook(core, size, images, rounds, exposure, progress)
            for exposure in exposure_ms
            for size in (512, 1024, 2048)
        ]
    lost = sum(row["lost"] for row in result["hook"])
    return result | {"ok": lost == 0}


def _memcpy_gbps() -> float:
    source = np.ones(int(64 * _MB), np.uint8)
    target = np.empty_like(source)
    best = min(_timed(lambda: np.copyto(target, source)) for _ in range(10))
    return source.nbytes / best / 1e9


def _timed(action: Any) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _transports() -> list[str]:
    return [
        "inproc",
        *(["ipc", "ipc + shared memory"] if zmq.has("ipc") else []),
        "tcp",
        "tcp + shared memory",
    ]


@contextmanager
def _serving(transport: str) -> Generator[Client]:
    """Serve a stream that finds no cells; in a process of its own wherever the transport allows it."""
    scheme = transport.split()[0]
    with tempfile.TemporaryDirectory() as folder:
        address = {
            "inproc": "inproc://bench",
            "ipc": f"ipc://{Path(folder) / 'link'}",
            "tcp": "tcp://127.0.0.1:0",
        }[scheme]
        stream = StreamConfig(address=address, segmenter=PluginChoice(BLANK))
        if scheme == "inproc":
            with EngineThread(stream, folder) as engine, Client(engine.address) as client:
                yield client
        else:
            with (
                Service(single_stream(stream, log=folder)) as service,
                Client(service.addresses["default"], shared_memory="shared memory" in transport) as client,
            ):
                yield client


def _row(client: Client, transport: str, shape: tuple[int, int], frames: int) -> dict[str, Any]:
    image = np.random.default_rng(0).integers(0, 65_536, shape, dtype=np.uint16)
    rtt_ms: list[float] = []
    step_ms: list[float] = []
    for number in range(frames + _WARM_UP):
        reply = client.wait(client.send(Frame(image)), 30.0)
        if reply is not None and number >= _WARM_UP:
            rtt_ms.append(reply.timings_ms["round_trip"])
            step_ms.append(sum(reply.timings_ms.values()) - rtt_ms[-1])
    start = time.perf_counter()
    for _ in range(frames):
        client.send(Frame(image))
    client.drain(60.0)
    seconds = time.perf_counter() - start
    return {
        "transport": transport,
        "bytes": image.nbytes,
        "rtt_ms": percentiles(np.array(rtt_ms)),
        "step_ms": percentiles(np.array(step_ms)),  # the part of it that is not the link's
        "GBps": image.nbytes * frames / seconds / 1e9,
    }


def _hook(
    core: Any, size: int, images: int, rounds: int, exposure_ms: float, progress: Progress
) -> dict[str, Any]:
    """Compare the frame period of a real acquisition with and without the link, by turns in one run."""
    camera = core.get_camera_device()
    before = {
        name: core.get_property(camera, name)
        for name in ("OnCameraCCDXSize", "OnCameraCCDYSize", "PixelType")
    }
    for name, value in (("OnCameraCCDXSize", size), ("OnCameraCCDYSize", size), ("PixelType", "16bit")):
        core.set_property(camera, name, str(value))
    try:
        with _serving("tcp + shared memory") as client, Loop(client) as loop:
            with_ms: list[float] = []
            without_ms: list[float] = []
            for number in range(rounds):
                progress(f"real acquisition at {size} x {size}", number, rounds)
                turns: list[tuple[list[float], Loop | None]] = [(without_ms, None), (with_ms, loop)]
                for periods_ms, hooked in turns[:: -1 if number % 2 else 1]:  # neither always goes first
                    periods_ms += _acquire(images, exposure_ms, hooked)
                    client.drain(60.0)
            stats = client.stats()
    finally:
        for name, value in before.items():
            core.set_property(camera, name, value)
    period_without, period_with = float(np.median(without_ms)), float(np.median(with_ms))
    return {
        "size": size,
        "exposure_ms": exposure_ms,
        "period_ms_without": period_without,
        "period_ms_with": period_with,
        "added_ms": period_with - period_without,
        "added_ratio": period_with / period_without - 1,
        "p99_ms_without": float(np.percentile(without_ms, 99)),
        "p99_ms_with": float(np.percentile(with_ms, 99)),
        "lost": images * rounds - stats.acknowledged,
    }


def _acquire(images: int, exposure_ms: float, loop: Loop | None) -> list[float]:
    """Take single images one after the other with the real engine; return the time between them in ms."""
    stamps: list[float] = []

    def stamp(image: Any, metadata: Any) -> None:
        """Take the image and keep it from being stored: the memory for that costs more, and less evenly, than us."""
        stamps.append(time.perf_counter())
        if loop is not None:
            loop.on_image(image, metadata)

    hooks: dict[str, Any] = {"image_process_fn": stamp, "pre_hardware_hook_fn": _unchanged}
    if loop is not None:
        hooks["pre_hardware_hook_fn"] = loop.before_event
    # One event per submission, so that the engine does not merge them into a burst: the hook runs every time.
    with acquisition(**hooks) as running:
        for number in range(images):
            running.acquire({"axes": {"time": number}, "exposure": exposure_ms})
    return [1000 * (later - earlier) for earlier, later in pairwise(stamps[1:])]


def _unchanged(event: Any) -> Any:
    return event
