"""``cytoloop replay`` of the folder of a run: what comes of its frames now, compared with what came of them then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ...acquire.errors import MissingExtraError
from .output import DONE, FAILED, Output
from .replay import examples_for, table_of

if TYPE_CHECKING:
    from ..experiment.stream import StreamConfig


def replayed_run(output: Output, run: Path, out: Path, chosen: StreamConfig | None, damaged: bool) -> int:
    """Replay a run, tell how it compares, and write what a replay leaves.

    Parameters
    ----------
    output
        Where to tell.
    run, out
        Folders of the run, and for the results.
    chosen
        Another configuration than the run's own; None: its own.
    damaged
        Replay damaged frames too.
    """
    from ..replay_run import divergence_line, replay_run
    from ..report.contents import write_report
    from ..report.replayed import drop_masks, figures_of, is_whole, report_of, settings_of
    from ..results import write_results
    from ..service.run_folder import read_stream

    stream = read_stream(run) if chosen is None else chosen
    whole = False
    with output.progress() as progress:
        replayed, compared = replay_run(run, out / "log", progress, stream=chosen, damaged=damaged)
        values: dict[str, Any] = msgspec.to_builtins(compared.values())
        report = None
        if replayed is not None:
            results = write_results(replayed.folder, out, progress=progress)
            examples = examples_for(output, replayed.folder, results, run, 1.0, progress)
            values = figures_of(replayed, results) | values | {"out": out, "settings": settings_of(stream)}
            report = report_of(replayed, results, stream, examples=examples)
            drop_masks(replayed.folder)
            whole = is_whole(replayed, results)
    if compared.first is not None:
        output.message(divergence_line(compared.first))
    for message in () if replayed is None else replayed.messages:
        output.message(message)
    try:
        values |= {} if report is None else {"report": write_report(report, out)}
    except MissingExtraError as error:
        output.message(f"No pictures: {error}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.json").write_text(json.dumps(values, default=str, indent=2) + "\n", encoding="utf-8")
    output.result(values, lambda: table_of({k: v for k, v in values.items() if k not in ("diff", "damaged")}))
    same = compared.identical and not compared.damaged
    return DONE if whole and (same or compared.changes) else FAILED
