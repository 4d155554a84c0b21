"""``cytoloop verify`` and ``recover``: is all of a run there, and finishing one that was cut off."""

from __future__ import annotations

from pathlib import Path

import click

from .output import DONE, FAILED, Output, command

_SHOWN = 20


@command(
    "verify",
    examples=(
        "cytoloop verify runs/default/2026-05-04_101500_a1b2",
        "cytoloop verify RUN --json",
    ),
)
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
def verify(output: Output, run: Path) -> int:
    """Check that all that was acknowledged is on disk, every pixel of it.

    RUN is the folder that the service made for a run (log/STREAM/DATE_RUN), also of one that goes on. What is missing
    or damaged is named frame by frame; then the exit code is 1.
    """
    from ..recording.verify import verify as check

    with output.progress() as progress:
        found = check(run, progress)
    values = {
        "run": run,
        "ok": found.ok,
        "acknowledged": found.acknowledged,
        "recorded": found.recorded,
        "masks": found.masks,
        "left_out": found.left_out,
        "unacknowledged": found.unacknowledged,
        "missing": [{"frame": frame, "reason": why} for frame, why in found.missing],
        "damaged": [{"frame": frame, "reason": why} for frame, why in found.damaged],
        "other": found.other,
        "notes": found.notes,
    }
    faults = [f"frame {frame}: {why}" for frame, why in (*found.missing, *found.damaged)]
    lines = [
        f"{found.acknowledged} frames were acknowledged, {found.recorded} are recorded, {found.masks} masks",
        *(f"{found.left_out} were left out, as their replies say" for _ in range(found.left_out > 0)),
        *faults[:_SHOWN],
        *(f"and {len(faults) - _SHOWN} more (--json lists up to 2000)" for _ in range(len(faults) > _SHOWN)),
        *found.other,
        *found.notes,
        "All that was acknowledged is there." if found.ok else "Not all of it is there and whole.",
    ]
    output.result(values, lambda: "\n".join(lines))
    return DONE if found.ok else FAILED


@command(
    "recover",
    examples=("cytoloop recover runs/default/2026-05-04_101500_a1b2", "cytoloop recover RUN --json"),
)
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--anyway", is_flag=True, help="Also if the journal was written a moment ago.")
def recover(output: Output, run: Path, anyway: bool) -> int:
    """Finish the folder of a run whose service was killed.

    Torn ends are cut, and the recordings get the length that they have. Nothing that was acknowledged is lost; doing it
    again changes nothing.
    """
    from ..recording.recover import recover as finish

    done = finish(run, anyway=anyway)
    values = {"run": run, "entries": done.entries, "cut_bytes": done.cut_bytes, "recordings": done.recordings}
    said = f"{done.entries} frames in the journal, {done.cut_bytes} torn bytes cut"
    output.result(values, lambda: f"{said}, {done.recordings} recordings finished")
    return DONE
