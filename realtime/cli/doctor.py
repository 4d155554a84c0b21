"""``cytoloop doctor``: what this computer has, and what to do about what it has not."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .output import DONE, FAILED, Output, command

if TYPE_CHECKING:
    from .checks import Check


@command(
    "doctor",
    examples=(
        "cytoloop doctor",
        "cytoloop doctor --json",
    ),
)
def doctor(output: Output) -> int:
    """Say what this computer has and lacks.

    Packages, devices, runtimes, transports, memory and disk. Nothing optional is a fault; the exit code is 1
    only when something needed is missing or something that is there cannot work.
    """
    from .checks import all_checks

    checks = all_checks()
    output.result({"checks": [asdict(check) for check in checks]}, lambda: _table(checks))
    return DONE if all(check.ok for check in checks) else FAILED


def _table(checks: list[Check]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("", "check", "found", "advice", box=box.SIMPLE_HEAD)
    for check in checks:
        mark = Text("ok", "green") if check.ok else Text("!!", "bold red")
        if check.ok and check.advice:
            mark = Text("--", "yellow")
        table.add_row(mark, check.name, Text(check.found), Text(check.advice))
    return table
