"""``cytoloop serve``: the service of one experiment file, until it is told to stop."""

from __future__ import annotations

import time
from collections import deque
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import Output, command

if TYPE_CHECKING:
    from ..service.server import Service

_REFRESH_S = 0.5
_SHOWN_MESSAGES = 8
_KEPT_STEPS = 400


@command(
    "serve",
    examples=(
        "cytoloop serve experiment.toml --check",
        "cytoloop serve experiment.toml",
        "cytoloop serve experiment.toml --standby",
    ),
)
@click.argument("experiment", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--check", "check_only", is_flag=True, help="Only check the file; start nothing.")
@click.option(
    "--standby",
    is_flag=True,
    help="Wait, warm, until the service that serves this file is gone; then take over.",
)
def serve(output: Output, experiment: Path, check_only: bool, standby: bool) -> None:
    """Serve an experiment file until Ctrl-C.

    Ctrl-C is the normal end: exit code 0. The file EXPERIMENT is checked completely before
    anything starts; an engine that dies or hangs is replaced.
    """
    from ..experiment.config import load_experiment
    from ..service.server import Service

    loaded = load_experiment(experiment)
    if check_only:
        values: dict[str, Any] = {"ok": True, "streams": {s.name: s.address for s in loaded.streams.values()}}
        output.result(values, lambda: f"{experiment}: {len(loaded.streams)} stream(s), nothing wrong")
        return
    if standby:
        output.message("Standing by: takes over when the service that has the addresses is gone.")
    try:
        service = Service(loaded, standby=standby)
    except KeyboardInterrupt:
        if not standby:
            raise
        output.result({"streams": [], "messages": []}, lambda: "Never needed.")
        return
    with service:
        watch = Watch(service)
        try:
            _show_until_interrupted(watch)
        except KeyboardInterrupt:
            output.message("stopping")
        values = watch.summary()
    output.result(values, lambda: _table(values["streams"]))


class Watch:
    """Follows a service: rates and percentiles from the status that its engines report."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._steps_ms: dict[str, deque[float]] = {}
        self._seen: dict[str, deque[tuple[float, int]]] = {}
        self.messages: deque[str] = deque(maxlen=_SHOWN_MESSAGES)

    def look(self) -> list[str]:
        """Take in what the engines reported since the last look; return what they said."""
        said = self._service.messages()
        self.messages.extend(said)
        for name, status in self._service.status().items():
            seen = self._seen.setdefault(name, deque(maxlen=10))
            if seen and status.processed != seen[-1][1]:
                self._steps_ms.setdefault(name, deque(maxlen=_KEPT_STEPS)).append(status.step_ms)
            seen.append((time.monotonic(), status.processed))
        return said

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for each stream; ``step_ms`` is sampled, not taken of every frame."""
        import numpy as np

        from ..report.contents import percentiles

        restarts, statuses = self._service.restarts, self._service.status()
        rows: list[dict[str, Any]] = []
        for name, address in self._service.addresses.items():
            status = statuses.get(name)
            rows.append(
                {
                    "stream": name,
                    "address": address,
                    "state": "starting" if status is None else status.client or "waiting for a client",
                    "frames": 0 if status is None else status.processed,
                    "frames_per_s": round(self._rate(name), 1),
                    "step_ms": percentiles(np.array(self._steps_ms.get(name, ()))),
                    "restarts": restarts[name],
                    "damaged": 0 if status is None else status.damaged,
                    "standing": "" if status is None else status.standing,
                    "safe_state": status is not None and status.safe,
                }
            )
        return rows

    def summary(self) -> dict[str, Any]:
        """Return what the service did, by stream."""
        self.look()
        return {"streams": self.rows(), "messages": list(self.messages)}

    def _rate(self, name: str) -> float:
        seen = self._seen.get(name)
        if not seen or seen[-1][0] == seen[0][0]:
            return 0.0
        return max((seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0]), 0.0)


def _show_until_interrupted(watch: Watch) -> None:
    """Keep a table on standard error up to date; without a terminal, only write what changes."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True)
    if not console.is_terminal:
        for row in watch.rows():
            console.print(f"stream {row['stream']} at {row['address']}", markup=False, highlight=False)
        while True:
            for message in watch.look():
                console.print(message, markup=False, highlight=False)
            time.sleep(_REFRESH_S)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            watch.look()
            below = [Text(message) for message in (*watch.messages, "Ctrl-C ends the service.")]
            live.update(Group(_table(watch.rows()), *below), refresh=True)
            time.sleep(_REFRESH_S)


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for head in ("stream", "address", "client", "microscope"):
        table.add_column(head)
    for head in ("frames", "frames/s", "step p50 ms", "p99 ms", "restarts"):
        table.add_column(head, justify="right")
    for row in rows:
        step = ("-" if isnan(row["step_ms"][key]) else f"{row['step_ms'][key]:.1f}" for key in ("p50", "p99"))
        figures = (row["frames"], row["frames_per_s"], *step, row["restarts"])
        standing = "safe state" if row["safe_state"] else row["standing"] or "-"
        table.add_row(row["stream"], row["address"], row["state"], standing, *map(str, figures))
    return table
