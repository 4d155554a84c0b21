"""``cytoloop keys``: key pairs for links that leave this computer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .output import Output, command


@command(
    "keys",
    examples=(
        "cytoloop keys rig-keys",
        "cytoloop keys rig-keys --client confocal --client widefield",
    ),
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--client",
    "clients",
    multiple=True,
    default=("microscope",),
    show_default=True,
    help="A microscope computer that may connect; give it several times for several.",
)
def keys(output: Output, folder: Path, clients: tuple[str, ...]) -> None:
    """Make keys for links between computers.

    Writes CURVE key pairs for the service and for each microscope computer into FOLDER. A service on any
    address but this computer's own needs them. Existing keys are never overwritten; run it again with another
    --client to add one.
    """
    from ...acquire.link.keys import make_keys

    secrets = make_keys(folder, clients)
    values: dict[str, Any] = {
        "folder": folder,
        "clients": clients,
        "secrets": [str(path) for path in secrets],
    }
    output.result(values, lambda: _where_to(folder, clients))


def _where_to(folder: Path, clients: tuple[str, ...]) -> Any:
    """Say what belongs on which computer."""
    from rich.table import Table

    table = Table("keep or copy", "to", "and name it there", title=f"Keys in {folder}", title_justify="left")
    table.add_row(
        str(folder), "stays on the computer of the service", f'keys = "{folder.as_posix()}" in its stream'
    )
    for name in clients:
        table.add_row(str(folder / name), f"the computer {name!r}", f'connect(..., keys="{name}")')
    table.caption = (
        "Files that end in key_secret are secret."
        " To lock a client out, delete clients/NAME.key and restart the service."
    )
    table.caption_justify = "left"
    return table
