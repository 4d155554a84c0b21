"""Scores of a tracking result against ground truth, both in the layout of the Cell Tracking Challenge.

SEG, DET, TRA, LNK and BIO come from py-ctcmetrics, edge and division F1 from traccuracy. The two packages
agree on TRA but not on the biological measures, so each figure has one source and they are never mixed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ..acquire.errors import MissingExtraError, SourceError

_NUMBER = re.compile(r"(\d+)\.tif$")
MARKER_IOU = 0.1
"""Overlap from which a cell counts as found when links are judged: ground truth for tracking may be markers
smaller than the cells, and how well masks fit is what SEG says."""


def score_sequence(result: Path, truth: Path) -> dict[str, float]:
    """Return how well a result matches the ground truth.

    Parameters
    ----------
    result
        Folder with ``maskNNN.tif`` for every frame and ``res_track.txt``.
    truth
        Folder such as ``01_GT``: ``TRA/man_trackNNN.tif`` for every frame with ``TRA/man_track.txt``; and
        ``SEG/man_segNNN.tif`` for some or all frames, without which SEG is NaN.

    Returns
    -------
    dict
        ``SEG``, ``DET``, ``TRA``, ``LNK``, ``BIO``, ``edge_f1``, ``division_f1``, each 0 to 1; NaN where there
        is nothing to judge (no masks in SEG, no links, no divisions either side). BIO takes its branching
        correctness without tolerance in time. A division counts if mother and both daughters are right, in
        the right frame.

    Raises
    ------
    SourceError
        If files are missing, numbers do not match, or the result breaks the layout's rules.
    MissingExtraError
        Without py-ctcmetrics and traccuracy.
    """
    with_masks = _check_files(result, truth)
    with _quietly() as said:
        scores = _challenge_scores(result, truth, with_masks, said)
        scores |= _graph_scores(result, truth)
    return scores


def _check_files(result: Path, truth: Path) -> bool:
    """Refuse folders that the scoring packages would trip over; return whether there are masks for SEG."""
    tra, seg = truth / "TRA", truth / "SEG"
    for folder, table in ((tra, "man_track.txt"), (result, "res_track.txt")):
        if not folder.is_dir():
            raise SourceError(folder, "there is no such folder; truth needs TRA, a result maskNNN.tif files")
        if not (folder / table).is_file():
            raise SourceError(folder / table, "there is no such file; it lists label, begin, end and parent")
    wanted, found = _numbers(tra, "man_track"), _numbers(result, "mask")
    if not wanted:
        raise SourceError(tra, "no man_trackNNN.tif is here")
    if missing := sorted(set(wanted) - set(found)):
        raise SourceError(
            result, f"{len(missing)} masks are missing, the first is that of a frame", missing[0]
        )
    if extra := sorted(set(found) - set(wanted)):
        raise SourceError(result, "the ground truth ends before this mask", extra[0])
    if wanted != list(range(len(wanted))) or found != wanted:
        raise SourceError(tra, "file names in order must be numbered 000, 001, ... with equally many digits")
    if not (result / "res_track.txt").read_text(encoding="ascii").strip():
        raise SourceError(result / "res_track.txt", "the result holds no track; nothing can be scored")
    numbers = _numbers(seg, "man_seg") if seg.is_dir() else []
    if beyond := sorted(set(numbers) - set(wanted)):
        raise SourceError(seg, "there is no TRA mask for this frame", beyond[0])
    return bool(numbers)


def _numbers(folder: Path, stem: str) -> list[int]:
    """Return the frame numbers of the masks of a folder in the order of their names."""
    names = sorted(path.name for path in folder.glob(f"{stem}*.tif"))
    return [int(match[1]) for name in names if (match := _NUMBER.search(name.removeprefix(stem)))]


def _challenge_scores(
    result: Path, truth: Path, with_masks: bool, said: list[warnings.WarningMessage]
) -> dict[str, float]:
    try:
        from ctc_metrics.scripts.evaluate import evaluate_sequence
    except ImportError as error:
        raise MissingExtraError("py-ctcmetrics", "scores") from error
    metrics = ["Valid", "DET", "TRA", "LNK", "CT", "TF", "BC", "CCA"]
    if with_masks:
        metrics.append("SEG")
    try:
        values: dict[str, Any] = evaluate_sequence(str(result), str(truth), metrics=metrics, threads=1)
    except ZeroDivisionError:  # LNK of a truth without a single link
        metrics.remove("LNK")
        values = evaluate_sequence(str(result), str(truth), metrics=metrics, threads=1)
    except (AssertionError, IndexError, TypeError, ValueError) as error:
        raise SourceError(result, f"not a valid result: the table or a mask is broken ({error})") from error
    if not values["Valid"]:
        reasons = "; ".join(str(message.message) for message in said[:3])
        raise SourceError(result, f"not a valid result: {reasons or 'masks and res_track.txt do not agree'}")
    names = {"SEG": "SEG", "DET": "DET", "TRA": "TRA", "LNK": "LNK", "BIO": "BIO(0)"}
    return {name: _number(values.get(key)) for name, key in names.items()}


def _graph_scores(result: Path, truth: Path) -> dict[str, float]:
    try:
        from tqdm import tqdm
        from traccuracy import run_metrics
        from traccuracy.loaders import load_ctc_data
        from traccuracy.matchers import IOUMatcher
        from traccuracy.metrics import BasicMetrics, DivisionMetrics
    except ImportError as error:
        raise MissingExtraError("traccuracy", "scores") from error
    tra = truth / "TRA"
    tqdm.monitor_interval = 0  # its progress bars would start a thread that stays
    graphs = [
        load_ctc_data(str(folder), str(folder / table), run_checks=False)
        for folder, table in ((tra, "man_track.txt"), (result, "res_track.txt"))
    ]
    # A division is judged by a one-to-one match only; a link to a single child is a gap, and counts as one.
    matcher = IOUMatcher(iou_threshold=MARKER_IOU, one_to_one=True)
    rows, _ = run_metrics(graphs[0], graphs[1], matcher, [BasicMetrics(), DivisionMetrics()])
    links, divisions = (row["results"] for row in rows)
    divisions = divisions["Frame Buffer 0"]
    return {
        "edge_f1": _f1(links["Edge F1"], links["Total GT Edges"]),
        "division_f1": _f1(divisions["Division F1"], divisions["Total GT Divisions"]),
    }


def _f1(value: float, true_ones: int) -> float:
    """Return an F1; traccuracy gives NaN also where nothing right was found, which is 0 if there was something."""
    return 0.0 if true_ones and math.isnan(value) else _number(value)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


@contextlib.contextmanager
def _quietly() -> Generator[list[warnings.WarningMessage]]:
    """Keep what the scoring packages print, warn and log from the caller's streams; give their warnings."""
    log = logging.getLogger("traccuracy")
    disabled, log.disabled = log.disabled, True
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(record=True) as said,
        ):
            warnings.simplefilter("always")
            yield said
    finally:
        log.disabled = disabled
