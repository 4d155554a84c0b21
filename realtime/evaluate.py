"""Scores of the service against ground truth: its own path over a sequence in the Cell Tracking Challenge's layout."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..acquire.errors import SourceError
from ..acquire.sources.ctc import CtcSource
from ..trackers.scores import score_sequence
from .batch import to_replay, track_again
from .experiment.stream import StreamConfig
from .progress import Progress, silent
from .replay import Replayed, replay
from .report.contents import percentiles
from .report.replayed import figures_of
from .results import Results, write_results

_TRUTH_FILE = re.compile(r"man_track(\d+)\.tif", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """A replay with its scores.

    Attributes
    ----------
    replayed, results
        How it went and what came of it.
    scores
        ``SEG``, ``DET``, ``TRA``, ``LNK``, ``BIO``, ``edge_f1``, ``division_f1``: 0 to 1, NaN where the truth
        does not define one.
    """

    replayed: Replayed
    results: Results
    scores: dict[str, float]


def find_sequences(folder: Path) -> list[tuple[Path, Path]]:
    """Return (images, ground truth) of a sequence, or of all sequences of a data set.

    Parameters
    ----------
    folder
        A folder of images such as ``01`` that has ``01_GT`` beside it, or the folder that holds both.

    Raises
    ------
    SourceError
        If there is none.
    """
    truth = folder.resolve().parent / f"{folder.resolve().name}_GT"
    if (truth / "TRA").is_dir():
        return [(folder, truth)]
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and (folder / f"{p.name}_GT" / "TRA").is_dir())
    if not inside:
        raise SourceError(
            folder, "no sequence with ground truth: images such as 01/t000.tif and 01_GT/TRA are needed"
        )
    return [(images, folder / f"{images.name}_GT") for images in inside]


def evaluate(images: Path, truth: Path, stream: StreamConfig, progress: Progress = silent) -> Evaluated:
    """Replay a sequence through a service of its own and score what it found and followed.

    Parameters
    ----------
    images
        Folder of ``t000.tif``, ...
    truth
        Folder with ``TRA`` and, for SEG, ``SEG``.
    stream
        What finds and what follows the cells; also a tracker that needs the whole movie.

    Raises
    ------
    SourceError
        If images or ground truth are broken.
    MissingExtraError
        Without the packages that score.
    """
    source = CtcSource(images)
    try:
        with tempfile.TemporaryDirectory(prefix="cytoloop-") as name:
            folder = Path(name)
            replayed = replay(source, to_replay(stream), folder / "log", progress)
            said = track_again(replayed.folder, stream, progress)
            results = write_results(replayed.folder, folder, _digits(truth), progress)
            progress("scoring", 0, None)
            scores = score_sequence(folder / "ctc" / "01_RES", truth)
    finally:
        source.close()
    return Evaluated(replace(replayed, messages=replayed.messages + said), results, scores)


def _digits(truth: Path) -> int:
    """Return how many digits the ground truth's file names have; the scores compare names."""
    for file in (truth / "TRA").iterdir():
        if match := _TRUTH_FILE.fullmatch(file.name):
            return len(match[1])
    raise SourceError(truth / "TRA", "no ground truth named man_track000.tif, ... is here")


def figures_of_all(evaluated: Sequence[Evaluated]) -> dict[str, Any]:
    """Return scores and speed under the names that scripts read: means over sequences, and each by itself."""
    listed = [_figures(one) for one in evaluated]
    values: dict[str, Any] = {
        key: round(float(np.mean([each[key] for each in listed])), 6) for key in evaluated[0].scores
    }
    seconds = sum(one.replayed.seconds for one in evaluated)
    frames = sum(one.replayed.frames for one in evaluated)
    latency = percentiles(np.concatenate([one.replayed.latency_ms for one in evaluated]))
    whole = {"frames": frames, "frames_per_s": round(frames / seconds, 3), "latency_ms": latency}
    return values | whole | {"sequences": listed}


def _figures(one: Evaluated) -> dict[str, Any]:
    return {"sequence": one.replayed.name} | one.scores | figures_of(one.replayed, one.results)
