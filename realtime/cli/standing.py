"""``cytoloop arm``, ``disarm`` and ``dry-run``: whether decisions reach the hardware, said from anywhere."""

from __future__ import annotations

import getpass
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...acquire.link.addresses import DEFAULT_ADDRESS
from .output import DONE, Output, command

if TYPE_CHECKING:
    from ...acquire.governor.standing import Standing


def service_address(text: str, stream: str | None) -> tuple[str, str]:
    """Return address and stream of a service that is given by its address or by its experiment file.

    Raises
    ------
    ConfigurationError
        If the file is wrong.
    click.UsageError
        If it has several streams and none is named, or the name is unknown.
    """
    if "://" in text:
        return text, stream or "default"
    from .streams import chosen_stream

    path = Path(text)
    if not path.is_file():
        raise click.UsageError(f"{text!r} is neither an address (tcp://HOST:PORT, ipc://PATH) nor a file")
    found = chosen_stream(path, stream)
    return found.address, found.name


def _made(name: str, standing: Standing, help_text: str) -> click.Command:
    def change(output: Output, service: str, stream: str | None, why: str, keys: Path | None) -> int:
        from ...acquire.link.control import set_standing

        address, named = service_address(service, stream)
        who = f"{getpass.getuser()} on {platform.node()}"
        stands = set_standing(standing, who=who, why=why, address=address, stream=named, keys=keys)
        values = {
            "address": address,
            "stream": named,
            "standing": stands.standing,
            "why": stands.why,
            "safe_state": stands.safe,
        }
        fallen = " It is in its safe state until the service is heard." if stands.safe else ""
        output.result(values, lambda: f"The microscope is {stands.standing}: {stands.why}.{fallen}")
        return DONE

    change.__doc__ = help_text
    options: tuple[Callable[..., object], ...] = (
        click.argument("service", default=DEFAULT_ADDRESS),
        click.option("--stream", help="Name of the stream, if it is not called default."),
        click.option("--why", default=f"cytoloop {name}", show_default=True, help="Told in the logs."),
        click.option(
            "--keys",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            help="Folder of this computer's keys, for a service that is not on loopback.",
        ),
    )
    decorated: object = change
    for option in reversed(options):
        decorated = option(decorated)
    examples = (
        f"cytoloop {name}",
        f"cytoloop {name} experiment.toml --stream left --why 'new sample'",
        f"cytoloop {name} tcp://192.168.1.20:5790 --keys keys/desk --json",
    )
    return command(name, examples=examples)(decorated)  # pyright: ignore[reportArgumentType]


_WHERE = """

    SERVICE is the address of the service, or its experiment file. The command ends when the microscope has confirmed.
"""
arm = _made("arm", "armed", "Let decisions reach the hardware." + _WHERE)
disarm = _made("disarm", "disarmed", "Let nothing that is decided reach the hardware." + _WHERE)
dry_run = _made(
    "dry-run", "dry", "Do everything but what reaches the hardware, and say what that is." + _WHERE
)
