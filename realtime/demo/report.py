"""The demo's report: one picture and the page that holds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from numpy.typing import NDArray

from ...acquire.errors import CytoloopError, MissingExtraError
from ..report.contents import RunReport
from ..report.page import page
from ..report.replayed import decided_of
from ..trial.examples import MOST_EXAMPLES, Example, examples_of
from ..trial.images import Wanted
from .record import Take

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
    figures = _promises(played)
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
        decided={take.name: decided_of(take.results) for take in takes},
        examples=_examples(played),
    )


def _promises(played: Played) -> dict[str, str]:
    """Return what came of each promise but the first; one that several acts make has the act's name before it."""
    listed = [(act.take.name, promise) for act in played.acts for promise in act.promises[1:]]
    often = Counter(promise.text for _, promise in listed)
    return {
        f"{name}: {promise.text}" if often[promise.text] > 1 else promise.text: (
            promise.found if promise.kept else f"NOT KEPT: {promise.found}"
        )
        for name, promise in listed
    }


def _examples(played: Played) -> dict[str, Sequence[Example]]:
    """Return cells that were and were not chosen in the first two acts; the third has the rule of the first."""
    found: dict[str, Sequence[Example]] = {}
    for take in (played.followed.take, played.stimulated.take):
        try:
            rules = examples_of(
                take.run, take.results.first_decisions, _images_of(take), most=MOST_EXAMPLES // 2
            )
        except CytoloopError:  # the report is more than its examples
            continue
        found |= {f"{take.title}: {rule}": examples for rule, examples in rules.items()}
    return found


def _images_of(take: Take) -> Callable[[Sequence[Wanted]], Iterator[tuple[int, NDArray[Any]]]]:
    def images(wanted: Sequence[Wanted]) -> Iterator[tuple[int, NDArray[Any]]]:
        for number in (each.frame.sequence for each in wanted):
            if number < len(take.matches):  # those that are on disk
                yield number, take.image(number)

    return images
