"""``cytoloop bench soak``: a long run with recording; memory and file handles must stay flat, and nothing be lost.

Frames of a few simulated images, over and over, go through a real service whose recorder writes them. What is on disk
is read back and compared while the run goes on, and deleted when it was found right, so that an hour fits on any disk.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import xxhash

from ...acquire.errors import MissingExtraError
from ...acquire.frame import Frame
from ...acquire.link.client import Client
from ...acquire.simulated.presets import nuclei
from ..experiment.config import single_stream
from ..experiment.stream import PluginChoice, StreamConfig
from ..progress import Progress
from ..recording.ome_zarr import FRAMES
from ..recording.run_writer import FRAMES_FOLDER
from ..recording.settings import Record
from ..recording.side_index import read_planes
from ..report.contents import percentiles
from ..service.server import Service

_IMAGES = 4
_LOOK_S = 5.0
_SETTLED = 1 / 3  # of the run, before which caches and pools still fill
_GROWTH_MB_PER_H = 60.0
_GROWTH_HANDLES = 8


class _Sample(NamedTuple):
    at_s: float
    memory_mb: float
    handles: int


class _Watch:
    """Memory and handles of the processes of a run."""

    def __init__(self, pids: Callable[[], dict[str, int]]) -> None:
        self._pids = pids
        self.samples: dict[str, list[_Sample]] = {}

    def look(self, at_s: float) -> None:
        """Take a sample of each process."""
        import psutil

        for name, pid in self._pids().items():
            process = psutil.Process(pid)
            count: Any = getattr(process, "num_fds", None) or getattr(process, "num_handles", None)  # Windows
            handles = int(count())
            memory = process.memory_info()
            own = memory.rss - getattr(memory, "shared", 0)  # the ring is shared, and fills as it is used
            self.samples.setdefault(name, []).append(_Sample(at_s, own / 1e6, handles))

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for each process."""
        rows: list[dict[str, Any]] = []
        for name, samples in self.samples.items():
            settled = samples[int(len(samples) * _SETTLED) :]
            times = np.array([each.at_s for each in settled]) / 3600
            memory = np.array([each.memory_mb for each in settled])
            slope = float(np.polyfit(times, memory, 1)[0]) if len(settled) > 2 else float("nan")
            rows.append(
                {
                    "process": name,
                    "memory_mb": round(memory[-1], 1),
                    "memory_mb_max": round(max(each.memory_mb for each in samples), 1),
                    "growth_mb_per_h": round(slope, 1),
                    "growth_mb": round(float(memory[-1] - memory[0]), 1),
                    "handles": settled[-1].handles,
                    "handles_growth": settled[-1].handles - settled[0].handles,
                }
            )
        return rows


class _Reader:
    """Reads back what was recorded, and deletes files that were found right."""

    def __init__(self, pool: list[Frame], per_file: int) -> None:
        self.right = self.wrong = 0
        self._checks = [f"{xxhash.xxh3_64_intdigest(frame.pixels.data):016x}" for frame in pool]  # pyright: ignore[reportArgumentType]
        self._bytes = [frame.pixels.tobytes() for frame in pool]
        self._per_file, self._seen, self._kept = per_file, 0, 0

    def look(self, folder: Path) -> None:
        """Compare the planes that have come since the last look."""
        side = folder / FRAMES
        if not side.is_file():
            return
        for number, plane in enumerate(read_planes(side)):
            if number < self._seen:
                continue
            self._seen += 1
            block = plane.t // self._per_file
            path = folder / f"{plane.position}/0/c/{block}/{plane.c}/{plane.z}/0/0"
            with path.open("rb") as file:
                file.seek(plane.offset)
                pixels = file.read(plane.bytes)
            wanted = plane.sequence % len(self._bytes)
            same = pixels == self._bytes[wanted] and plane.xxh3 == self._checks[wanted]
            self.right, self.wrong = self.right + same, self.wrong + (not same)
            while self._kept < block - 1:
                old = folder / f"{plane.position}/0/c/{self._kept}/{plane.c}/{plane.z}/0/0"
                old.unlink(missing_ok=True)
                self._kept += 1


def run(
    progress: Progress,
    *,
    minutes: float = 60.0,
    size_px: int = 2048,
    frames_per_s: Annotated[float, "0: as many as the machine holds."] = 0.0,
    segmenter: str = "classical",
    seed: int = 0,
) -> dict[str, Any]:
    """Send frames for so long, and say what grew and what was lost."""
    try:
        import psutil
    except ImportError as error:
        raise MissingExtraError("psutil, which looks at processes,", "test") from error
    microscope = nuclei(seed, size_px=size_px)
    pool = [Frame(microscope.snap(), stage_um=(0.0, 0.0), pixel_size_um=0.5) for _ in range(_IMAGES)]
    stream = StreamConfig(
        address="tcp://127.0.0.1:0",
        segmenter=PluginChoice(segmenter),
        record=Record(frames=True, buffer_mb=512),
    )
    latencies: list[float] = []
    reader = _Reader(pool, 64)
    with tempfile.TemporaryDirectory() as log:
        with (
            Service(single_stream(stream, log=log)) as service,
            Client(service.addresses["default"]) as client,
        ):
            own = psutil.Process().pid
            watch = _Watch(
                lambda: {
                    "microscope and supervisor": own,
                    "engine": service.pids["default"],
                    "recorder": service.recorder_pids["default"],
                }
            )
            begin_s, sent, looked_s = time.monotonic(), 0, 0.0
            while (now_s := time.monotonic() - begin_s) < 60 * minutes:
                frame = pool[sent % _IMAGES]
                client.send(replace(frame, axes={"time": sent}, time_s=float(sent)))
                sent += 1
                if frames_per_s:
                    time.sleep(max(0.0, sent / frames_per_s - now_s))
                while client.stats().sent - client.stats().acknowledged > 2 * stream.credit:
                    time.sleep(0.002)
                latencies += [reply.timings_ms["round_trip"] for reply in client.replies()]
                if now_s - looked_s > _LOOK_S:
                    looked_s = now_s
                    watch.look(now_s)
                    reader.look(Path(client.stats().folder) / FRAMES_FOLDER)
                    progress("soaking", int(now_s), int(60 * minutes))
            client.drain(60.0)
            stats = client.stats()
            restarts = service.restarts["default"]
            folder = Path(stats.folder) / FRAMES_FOLDER
        reader.look(folder)
    rows = watch.rows()
    lost = sent - reader.right
    thirds = np.array_split(np.array(latencies), 3)
    flat = all(
        not row["growth_mb_per_h"] > _GROWTH_MB_PER_H and row["handles_growth"] <= _GROWTH_HANDLES
        for row in rows
    )
    return {
        "minutes": minutes,
        "size_px": size_px,
        "frames": sent,
        "frames_per_s": round(sent / (60 * minutes), 2),
        "mb_per_s": round(sent * pool[0].pixels.nbytes / (60e6 * minutes), 1),
        "acknowledged": stats.acknowledged,
        "on_disk_and_right": reader.right,
        "lost": lost,
        "wrong": reader.wrong,
        "restarts": restarts,
        "reply_ms_first_third": percentiles(thirds[0]),
        "reply_ms_last_third": percentiles(thirds[2]),
        "rows": rows,
        # Growth per hour says nothing of a few minutes.
        "ok": lost == reader.wrong == restarts == 0 and stats.acknowledged == sent and (flat or minutes < 10),
    }
