"""``cytoloop demo``: the real acquisition engine on a simulated sample, steered by its cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .output import DONE, FAILED, Output, command


@command("demo", examples=("cytoloop demo --out my-demo",))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("cytoloop-demo"),
    show_default=True,
    help="Folder for the report, the figures and the recordings; NAME-2 is made where NAME is not empty.",
)
@click.option("--seed", default=0, show_default=True, help="Another seed is another sample.")
def demo(output: Output, out: Path, seed: int) -> int:
    """Watch cells steer a real acquisition; needs no hardware.

    Three acts in about two minutes: the stage follows a cell, cells that divide are stimulated, and the
    service is killed and restarted while the acquisition goes on. Needs cytoloop[demo].
    """
    from ..demo import Show, run_demo

    with output.progress() as progress:
        values = run_demo(out, Show(progress, output.message), seed)
    output.result(values, lambda: _summary(values))
    return DONE if values["ok"] else FAILED


def _summary(values: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(
        "act", "frames expected", "acquired", "decided", "p50 ms", "p99 ms", "carried out", "too late"
    )
    for act in values["acts"]:
        latency = act["latency_ms"]
        counts = (act["frames_expected"], act["frames_acquired"], act["frames_decided"])
        times = (f"{latency['p50']:.1f}", f"{latency['p99']:.1f}")
        outcomes = act["outcomes"] or {"on_time": "-", "late": "-"}
        fates = (outcomes["on_time"], outcomes["late"])
        table.add_row(act["name"], *map(str, counts), *times, *map(str, fates))
    promises = Table("promise", "found", "kept", box=None)
    for act in values["acts"]:
        for promise in act["promises"]:
            kept = Text("yes", "green") if promise["kept"] else Text("NO", "bold red")
            promises.add_row(f"{act['name']}: {promise['text']}", promise["found"], kept)
    return Group(table, promises, Text(f"Look at {values['report']}"))
