"""A process of its own that runs one tracker on simulated crowds, with one thread, and says what it took.

The job comes as one JSON object on standard input. Answers go to standard output, one JSON object a line; whatever
a tracker prints goes to standard error. It is started by :mod:`cytoloop.realtime.bench.track`.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...acquire.plugins import find_class
from ...trackers.recipes.crowd import CROWDS, Crowd, CrowdFrame, Density, crowd
from ...trackers.tracks import Tracks
from .track_peers import PEERS
from .track_scores import score_tracks

WARM_UP_FRAMES = 5
"""Of every movie so many frames are not timed, or a quarter of those that a slow tracker gets through."""
FEWEST_FRAMES = 4
_TRIAL_FRAMES = 6
"""Before the first movie so many frames are tracked, that everything is loaded and compiled."""
_SAMPLES = 200
"""How often memory is looked at in a long run."""

Floats = NDArray[np.float64]


class Job(msgspec.Struct, frozen=True):
    """What is to be measured.

    Attributes
    ----------
    tracker
        Name of a tracker or of a peer.
    movies
        Files of pickled frames, with objects and density; the smallest is the first.
    budget_s
        A movie is left after so many seconds, or after ``FEWEST_FRAMES``.
    long_frames, long_objects, seed
        For a long run instead, if there are frames.
    """

    tracker: str
    movies: tuple[tuple[str, int, Density], ...] = ()
    budget_s: float = 10.0
    long_frames: int = 0
    long_objects: int = 50
    seed: int = 0


def build_tracker(name: str, habits: Crowd) -> Any:
    """Return a tracker that has seen nothing."""
    return PEERS[name](habits) if name in PEERS else find_class("trackers", name)()


def work(job: Job) -> Iterator[dict[str, Any]]:
    """Yield one answer for each movie: a row, or the reason why there is none. Or the progress of a long run."""
    if job.long_frames:
        yield from _long_run(job)
        return
    for number, (path, objects, density) in enumerate(job.movies):
        movie: list[CrowdFrame] = pickle.loads(Path(path).read_bytes())
        names = {"tracker": job.tracker, "objects": objects, "density": density}
        build = _builder(job.tracker, CROWDS[density])
        try:
            if number == 0:
                _run(build, movie[:_TRIAL_FRAMES], np.inf)
            yield names | _row(build, movie, job.budget_s)
        except Exception as error:  # whatever it raises, the other movies are still to be measured
            yield names | {"reason": f"{type(error).__name__}: {error}"}


def _builder(name: str, habits: Crowd) -> Callable[[], Any]:
    return lambda: build_tracker(name, habits)


def _row(build: Callable[[], Any], movie: list[CrowdFrame], budget_s: float) -> dict[str, Any]:
    said, wall, cpu, online = _run(build, movie, budget_s)
    frames = len(said)
    scores = score_tracks(movie[:frames], said)
    skipped = min(WARM_UP_FRAMES, max(frames // 4, 1)) if online else 0
    wall, cpu = (1000 * each[min(skipped, frames - 1) :] for each in (wall, cpu))
    return {
        "ms": {
            "p50": float(np.median(wall)),
            "p95": float(np.percentile(wall, 95)),
            "max": float(wall.max()),
            "mean": float(wall.mean()),
            "cpu": float(cpu.mean()),
            "cpu_p95": float(np.percentile(cpu, 95)),
        },
        **scores.figures(),
        "cells": round(float(np.mean([len(frame.identity) for frame in movie[:frames]]))),
        "divisions": int((scores.divisions.right + scores.divisions.missing).sum()),
        "frames": frames,
        "frames_not_timed": skipped,
        "online": online,
        "edges_by_frame": [
            each.tolist() for each in (scores.edges.right, scores.edges.wrong, scores.edges.missing)
        ],
    }


def _run(
    build: Callable[[], Any], movie: Sequence[CrowdFrame], budget_s: float
) -> tuple[list[Tracks], Floats, Floats, bool]:
    """Return what a tracker said of the frames that it got through, and the s per frame by the clock and of work."""
    gc.collect()
    tracker = build()
    if hasattr(tracker, "update"):
        return *_run_online(tracker, movie, budget_s), True
    frames = min(FEWEST_FRAMES, len(movie))
    while True:  # a movie at once: first a short one, then as long a one as fits
        detections = [frame.detections for frame in movie[:frames]]
        start, worked = time.perf_counter(), time.process_time()
        said = tracker.track(detections)
        wall, cpu = time.perf_counter() - start, time.process_time() - worked
        fitting = int(min(frames * budget_s / max(wall, 1e-6), len(movie)))
        if fitting < 2 * frames:
            return said, np.full(frames, wall / frames), np.full(frames, cpu / frames), False
        frames, tracker = fitting, build()


def _run_online(
    tracker: Any, movie: Sequence[CrowdFrame], budget_s: float
) -> tuple[list[Tracks], Floats, Floats]:
    said: list[Tracks] = []
    took: list[tuple[float, float]] = []
    began = time.perf_counter()
    for frame in movie:
        start, worked = time.perf_counter(), time.process_time()
        said.append(tracker.update(frame.detections))
        took.append((time.perf_counter() - start, time.process_time() - worked))
        if len(said) >= FEWEST_FRAMES and time.perf_counter() - began > budget_s:
            break
    wall, cpu = np.array(took).T
    return said, wall, cpu


def _long_run(job: Job) -> Iterator[dict[str, Any]]:
    """Track frame after frame of a crowd that is made on the way; keep times and memory, and nothing else."""
    frames, every = job.long_frames, max(job.long_frames // _SAMPLES, 1)
    ms, cpu = np.full(
        (2, frames), np.nan
    )  # all that is kept, in memory from the start, which zeros would not be
    memory: list[float] = []
    tracker = build_tracker(job.tracker, CROWDS["easy"])
    for number, frame in enumerate(islice(crowd(job.long_objects, "easy", seed=job.seed), frames)):
        start, worked = time.perf_counter(), time.process_time()
        tracker.update(frame.detections)
        ms[number] = 1000 * (time.perf_counter() - start)
        cpu[number] = 1000 * (time.process_time() - worked)
        if number % every == every - 1:
            memory.append(memory_mb())
            yield {"done": number + 1}
    tenth, samples = max(frames // 10, 1), max(len(memory) // 10, 1)
    ends = {"first": slice(0, tenth), "last": slice(frames - tenth, frames)}
    yield {
        "tracker": job.tracker,
        "frames": frames,
        "objects": job.long_objects,
        # The first sample is taken after the first frames: all code is loaded and compiled by then.
        "rss_mb": {"first": float(np.mean(memory[:samples])), "last": float(np.mean(memory[-samples:]))},
        "ms": {name: float(np.median(ms[part])) for name, part in ends.items()},
        "ms_p95": {name: float(np.percentile(ms[part], 95)) for name, part in ends.items()},
        "cpu_ms": {name: float(cpu[part].mean()) for name, part in ends.items()},
    }


def memory_mb() -> float:
    """Return the MB (10^6 bytes) of this process in memory; the most so far without psutil, NaN if nothing says."""
    try:
        import psutil
    except ImportError:
        pass
    else:
        return psutil.Process().memory_info().rss / 1e6
    try:
        import resource
    except ImportError:  # on Windows
        return float("nan")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


def main() -> None:
    """Do the job that standard input says."""
    # What a tracker prints, from compiled code too, must not come between the answers.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for answer in work(msgspec.json.decode(sys.stdin.buffer.read(), type=Job)):
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
