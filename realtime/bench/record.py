"""``cytoloop bench record``: what a disk takes through each writer, and what recording costs a reply."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from ...acquire.simulated.presets import nuclei
from ..progress import Progress
from ..recording.files import sync_file
from .record_replies import measure_replies
from .record_writers import WRITERS, Image, Writer

_IMAGES = 4
_LEAST_FRAMES = 4
_SPARE = 4  # times what one writer writes must be free; it is deleted before the next one writes


def run(
    progress: Progress,
    *,
    sizes: Annotated[tuple[int, ...], "Edge of the images in px."] = (512, 1024, 2048),
    megabytes: Annotated[float, "What each writer writes at most, in each round."] = 400.0,
    rounds: Annotated[int, "How often each writer has its turn; rows are medians."] = 3,
    folder: Annotated[str, "Where to write; else where the system keeps temporary files."] = "",
    size_px: Annotated[int, "Edge of the images whose replies are timed."] = 1024,
    frames_per_s: Annotated[float, "Pace of these."] = 20.0,
    frames: Annotated[int, "How many of these in each round."] = 150,
    seed: int = 0,
) -> dict[str, Any]:
    """Let all writers write the same images by turns, then time replies with and without recording.

    Speed never fails the run: on a shared machine it says nothing of a change. A frame that is not on the disk does.
    """
    with tempfile.TemporaryDirectory(dir=folder or None) as name:
        place = Path(name)
        most, note = _allowed(place, megabytes * 1e6)
        if note:
            progress(note)
        skipped = [{"writer": writer.name, "reason": why} for writer in WRITERS if (why := writer.missing())]
        rows: list[dict[str, Any]] = []
        for size in sizes:
            found, failed = _rows(progress, place, size, most, rounds, seed)
            rows += found
            skipped += failed
        replies = measure_replies(
            progress,
            place,
            size_px=size_px,
            frames=frames,
            frames_per_s=frames_per_s,
            rounds=rounds,
            seed=seed,
        )
    result: dict[str, Any] = {"rows": rows, "skipped": skipped, **replies}
    return result | ({"note": note} if note else {})


def images(seed: int, size_px: int) -> list[Image]:
    """Return a few images (y, x), uint16, of simulated nuclei with the noise of a camera, all different."""
    microscope = nuclei(seed, size_px=size_px)
    return [np.ascontiguousarray(microscope.snap(), np.uint16) for _ in range(_IMAGES)]


def _allowed(folder: Path, wanted: float) -> tuple[float, str]:
    """Return how many bytes a writer may write, and what to say if it is less than wanted."""
    free = shutil.disk_usage(folder).free
    most = min(wanted, free / _SPARE)
    note = f"{free / 1e6:.0f} MB are free: {most / 1e6:.0f} MB per writer instead of {wanted / 1e6:.0f}"
    return most, note if most < wanted else ""


def _rows(
    progress: Progress, place: Path, size: int, most: float, rounds: int, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Measure all writers at one size, by turns; return a row for each, and those that failed with the reason."""
    pool = images(seed, size)
    frame_bytes = pool[0].nbytes
    count = max(_LEAST_FRAMES, int(most / frame_bytes))
    taken: dict[str, list[tuple[float, float]]] = {}
    failed: dict[str, str] = {}
    writers = [writer for writer in WRITERS if not writer.missing()]
    for number in range(rounds):
        progress(f"writers at {size} x {size}", number, rounds)
        for writer in writers[:: -1 if number % 2 else 1]:  # none has always the same neighbour before it
            if writer.name in failed:
                continue
            try:
                taken.setdefault(writer.name, []).append(_seconds(writer, place, pool, count))
            except Exception as error:  # whatever a library of others says: the other rows still count
                if writer.name.startswith(("raw", "ours")):
                    raise
                failed[writer.name] = f"{type(error).__name__}: {error}"
    rows: list[dict[str, Any]] = []
    total = count * frame_bytes / 1e6
    disk = np.median(taken["raw disk"], axis=0)
    for name, times in taken.items():
        if name in failed:
            continue
        seconds, synced = np.median(times, axis=0)
        rows.append(
            {
                "writer": name,
                "size": size,
                "MBps": round(float(total / seconds), 1),
                "fps": round(float(count / seconds), 1),
                "synced_MBps": round(float(total / synced), 1),
                "of_disk": round(float(disk[0] / seconds), 3),
                "synced_of_disk": round(float(disk[1] / synced), 3),
                "frames": count,
            }
        )
    return rows, [{"writer": name, "size": size, "reason": why} for name, why in failed.items()]


def _seconds(writer: Writer, place: Path, pool: list[Image], count: int) -> tuple[float, float]:
    """Return how long one writer takes until the system has all frames, and until the disk itself has them.

    All files are synced in the same way, whatever the writer does itself, and are deleted before the next one, so
    that none writes while the pages of another wait in memory.
    """
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        with ExitStack() as stack:
            begin = time.perf_counter()
            opened = stack.enter_context(writer.open(folder, count, pool[0].shape[0]))
            for number in range(count):
                opened.append(number, pool[number % len(pool)])
            opened.hand_over()
            handed = time.perf_counter()
        for parent, _, files in os.walk(folder):
            for each in files:
                with (Path(parent) / each).open("r+b", buffering=0) as file:
                    sync_file(file)
        return handed - begin, time.perf_counter() - begin
