"""``cytoloop bench track``: from detections to identities, beside trackers of other projects, on the same crowds.

Crowds are simulated (:mod:`cytoloop.trackers.recipes.crowd`), without images: the truth is known, and only tracking is
timed. Every tracker runs in a process of its own with one thread. A row's keys, beside its names:

``ms``
    Of a frame: p50, p95, max and mean by the clock, and the mean and p95 of the processor's time (``cpu``,
    ``cpu_p95``), which stand when other programs run. For a tracker that takes whole movies the mean stands for
    all of them.
``edge_f1``, ``division_f1``, ``id_switches``
    After all corrections; with ``_at_once`` as first said.
``ece``
    Expected calibration error of the confidence of links; NaN if the tracker gives none.
``frames``, ``frames_not_timed``
    What the row rests on: slow trackers get through a part of the movie only.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any, get_args

import msgspec
import numpy as np

from ...acquire.errors import FrameError, PluginError
from ...acquire.plugins import find_class, known_names
from ...trackers.recipes.crowd import Density, crowd
from ..progress import Progress
from .track_peers import PEERS
from .track_scores import Judged
from .track_worker import FEWEST_FRAMES, Job

OURS = "lap"
"""The tracker that a service takes if nothing else is said."""
SIZES = (100, 1000, 5000, 10_000)
LONG_OBJECTS = 50
_PATIENCE_S = 180.0
"""A tracker that says nothing for so long is ended."""
_THREADS_OF = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMBA", "NUMEXPR")
_WORKER = f"{__package__}.track_worker"


def run(
    progress: Progress,
    *,
    objects: Annotated[tuple[int, ...], "Cells in a frame; 100, 1000, 5000, 10000 if not given."] = (),
    density: Annotated[tuple[Density, ...], "Mean spacing of 30 or of 18 px."] = ("easy", "hard"),
    frames: Annotated[int, "Length of each movie; slow trackers get through less."] = 60,
    seed: Annotated[int, "Of the simulation."] = 0,
    tracker: Annotated[tuple[str, ...], "Only these; all that need no masks if not given."] = (),
    peers: Annotated[bool, "Trackers of other projects as well."] = True,
    budget: Annotated[float, "Seconds that a tracker may take for a movie."] = 6.0,
    long: Annotated[int, "Instead, run the default tracker alone for so many frames."] = 0,
) -> dict[str, Any]:
    """Measure every tracker on crowds of every size and density; or one tracker for very long."""
    sizes = tuple(sorted(set(objects or SIZES)))
    if min(sizes) < 1 or frames < FEWEST_FRAMES or budget <= 0 or long < 0:
        raise FrameError(
            f"1 object or more, {FEWEST_FRAMES} frames or more and a budget above 0 s are needed; got"
            f" {min(sizes)} objects, {max(frames, long)} frames, {budget} s"
        )
    if unknown := set(density) - set(get_args(Density)):
        raise FrameError(f"density {unknown.pop()!r}: allowed are {', '.join(get_args(Density))}")
    skipped: list[dict[str, str]] = []
    names = _trackers(tracker, peers, skipped)
    if long:
        job = Job(
            tracker[0] if tracker else OURS,
            long_frames=long,
            long_objects=objects[0] if objects else LONG_OBJECTS,
            seed=seed,
        )
        result = _long_run(job, progress, skipped)
        return {"rows": [], "long": result, "skipped": skipped, "ok": result is not None}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        movies = tuple(_movies(sizes, density, frames, seed, Path(folder), progress))
        for number, name in enumerate(names):
            done = partial(progress, done=number, total=len(names))
            done(f"tracking with {name}")
            rows += _rows(Job(name, movies, budget), skipped, done)
    ratio = _ratios(rows)
    for row in rows:
        del row["edges_by_frame"]
    ours = {each["tracker"] for each in skipped} - set(PEERS)
    return {
        "rows": sorted(rows, key=lambda row: (row["objects"], row["density"])),
        "ratio": ratio,
        "skipped": skipped,
        "ok": not ours,
    }


def shown(values: dict[str, Any]) -> dict[str, Any]:
    """Return of a result what fits into a terminal."""
    rows = [
        {"tracker": row["tracker"], "cells": f"{row['objects']} {row['density']}"}
        | {f"ms {key}": f"{row['ms'][key]:.3g}" for key in ("p50", "p95", "cpu")}
        | {"edges": f"{row['edge_f1']:.3f}", "divisions": f"{row['division_f1']:.3f}"}
        | {"switches": row["id_switches"], "ece": f"{row['ece']:.3f}", "frames": row["frames"]}
        for row in values["rows"]
    ]
    return values | {"rows": rows}


def _trackers(only: Sequence[str], peers: bool, skipped: list[dict[str, str]]) -> list[str]:
    """Return the names of what is to run; what is not registered but asked for is an error."""
    if only:
        for name in only:
            if name not in PEERS:
                find_class("trackers", name)
        return list(only)
    registered = [name for name in known_names("trackers") if name not in PEERS]
    names: list[str] = []
    for name in sorted(registered, key=lambda name: name != OURS):
        try:
            kind = find_class("trackers", name)
        except PluginError as error:
            skipped.append({"tracker": name, "reason": str(error)})
            continue
        if not getattr(kind, "needs_masks", False):  # there are none here
            names.append(name)
    return names + (list(PEERS) if peers else [])


def _movies(
    sizes: Sequence[int],
    densities: Sequence[Density],
    frames: int,
    seed: int,
    folder: Path,
    progress: Progress,
) -> Iterator[tuple[str, int, Density]]:
    """Write a file for each movie, so that every process sees the same; yield path, objects and density."""
    for size in sizes:
        for density in densities:
            progress(f"simulating {size} cells, {density}")
            path = folder / f"{size}-{density}.pickle"
            path.write_bytes(pickle.dumps(list(islice(crowd(size, density, seed=seed), frames))))
            yield str(path), size, density


def _rows(job: Job, skipped: list[dict[str, str]], tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return one row for each movie that a tracker got through; add the reasons for the others to ``skipped``."""
    rows: list[dict[str, Any]] = []
    reasons: dict[str, list[str]] = {}
    for answer in _answers(job):
        if "tracker" in answer:
            where = f"{answer['objects']} {answer['density']}"
            tell(f"{job.tracker}: {where}")
        else:
            where = "the rest" if rows else ""
        if "reason" in answer:
            reasons.setdefault(answer["reason"], []).append(where)
        else:
            rows.append(answer)
    for reason, places in reasons.items():
        all_of_them = len(places) == len(job.movies) or places == [""]
        at = "" if all_of_them else f"{', '.join(places)}: "
        skipped.append({"tracker": job.tracker, "reason": at + reason})
    return rows


def _long_run(job: Job, progress: Progress, skipped: list[dict[str, str]]) -> dict[str, Any] | None:
    for answer in _answers(job):
        if "done" in answer:
            progress(f"tracking with {job.tracker}", answer["done"], job.long_frames)
        elif "reason" in answer:
            skipped.append({"tracker": job.tracker, "reason": answer["reason"]})
        else:
            return answer
    return None


def _answers(job: Job) -> Iterator[dict[str, Any]]:
    """Yield what the process of a tracker says; a reason is the last if it did not come to its end."""
    with tempfile.TemporaryFile() as complaints, _process(job, complaints) as process:
        assert process.stdout is not None
        while True:
            late = threading.Timer(_PATIENCE_S, process.kill)
            late.start()
            line = process.stdout.readline()
            late.cancel()
            late.join()
            if not line:
                break
            yield json.loads(line)
        code = process.wait()
        if code:
            yield {"reason": f"its process ended with code {code}{_last_line(complaints)}"}


@contextlib.contextmanager
def _process(job: Job, complaints: IO[bytes]) -> Generator[subprocess.Popen[bytes]]:
    """Start a process with one thread for everything that computes; it ends with the block."""
    limits = {f"{library}_NUM_THREADS": "1" for library in _THREADS_OF}
    process = subprocess.Popen(
        [sys.executable, "-m", _WORKER],
        env={**os.environ, **limits, "VECLIB_MAXIMUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
    )
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:  # if it has died already, its code says so
            process.stdin.write(msgspec.json.encode(job))
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _last_line(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    lines = complaints.read().decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1]}" if lines else ""


def _ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how many times as fast ours is as the fastest peer of equal or better quality, for each movie.

    Speed is the mean, which all have; quality the F1 of links over the frames that both got through. If no peer is as
    good, it is the fastest. The best peer is the one of highest quality, however slow.
    """
    ratios: list[dict[str, Any]] = []
    for ours in (row for row in rows if row["tracker"] == OURS):
        there = [
            row
            for row in rows
            if row["tracker"] in PEERS and all(row[key] == ours[key] for key in ("objects", "density"))
        ]
        good = [row for row in there if _edge_f1(row, row["frames"]) >= _edge_f1(ours, row["frames"])]
        if there:
            peer = min(good or there, key=lambda row: row["ms"]["mean"])
            best = max(there, key=lambda row: row["edge_f1"])
            ratios.append(
                {
                    "objects": ours["objects"],
                    "density": ours["density"],
                    "tracker": OURS,
                    "peer": peer["tracker"],
                    "as_good": bool(good),
                    "times_as_fast": peer["ms"]["mean"] / ours["ms"]["mean"],
                    "times_as_fast_cpu": peer["ms"]["cpu"] / ours["ms"]["cpu"],
                    "best_peer": best["tracker"],
                    "times_as_fast_as_best": best["ms"]["mean"] / ours["ms"]["mean"],
                }
            )
    return ratios


def _edge_f1(row: dict[str, Any], frames: int) -> float:
    return Judged(*np.array(row["edges_by_frame"], np.int64).reshape(3, -1)).f1(frames)
