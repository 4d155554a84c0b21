"""The demo's report: one picture and the page that holds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ...acquire.errors import MissingExtraError
from ..report.contents import RunReport
from ..report.page import page

if TYPE_CHECKING:
    from .play import Played


Draw: TypeAlias = "Callable[[Played, RunReport, Path], None]"


def drawing() -> Draw:
    """Return what draws the picture; asked for at the beginning, so that it is not missed after a minute.

    Raises
    ------
    MissingExtraError
        Without matplotlib.
    """
    try:
        from .picture import draw
    except ImportError as error:
        raise MissingExtraError("matplotlib, which draws reports,", "report") from error
    return draw


def write(played: Played, folder: Path, seed: int, seconds: float, draw: Draw) -> Path:
    """Write ``report.png`` and ``report.html`` and return the page's path."""
    report = _report(played, seed, seconds)
    target = folder / "report.png"
    draw(played, report, target)
    html = folder / "report.html"
    html.write_text(page(report, target.read_bytes()), encoding="utf-8")
    return html


def _report(played: Played, seed: int, seconds: float) -> RunReport:
    stimulated, survived = played.stimulated, played.survived
    takes = [act.take for act in played.acts]
    same = sum(fault.same for fault in survived.faults) / max(sum(f.both for f in survived.faults), 1)
    scores = {f"F1, {take.name}": take.f1 for take in takes}
    scores["light on daughters"] = stimulated.on_true_division / max(stimulated.fired, 1)
    scores["identities kept"] = same
    frames = sum(take.expected for take in takes)
    figures = {
        promise.text: f"{promise.found}" if promise.kept else f"NOT KEPT: {promise.found}"
        for act in played.acts
        for promise in act.promises[1:]
    }
    whole = sum(take.acquired for take in takes)
    return RunReport(
        title="cytoloop demo: cells steer a real acquisition",
        subtitle=(
            "the real pycro-manager engine on a simulated microscope that knows the truth"
            f"  ·  seed {seed}, {frames} frames, {seconds:.0f} s"
        ),
        latency_ms={take.name: take.latency_ms for take in takes},
        figures={"frames acquired": f"{whole} of {frames}"} | figures,
        scores=scores,
        decisions=[decision for take in takes for decision in take.results.first_decisions],
    )
