"""``cytoloop``: the group of all commands, and the exit codes that they share.

0 done, 1 a check failed or a run ended with loss, 2 wrong usage or configuration, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import FrameType

import click

from ...acquire.errors import nearest_name
from .annotate import annotate
from .bench import bench
from .calibrate import calibrate
from .demo import demo
from .doctor import doctor
from .engine import engine
from .evaluate import evaluate
from .export import export
from .keys import keys
from .output import INTERRUPTED
from .replay import replay
from .rules import rules
from .serve import serve
from .standing import arm, disarm, dry_run
from .train import train
from .verify import recover, verify


class Commands(click.Group):
    """A group that names the nearest command when one is mistyped, and keeps the order of its commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which they were added."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or fail with the nearest known name."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            hint = nearest_name(name, self.commands)
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {hint!r}?" if hint else ""))
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cytoloop", prog_name="cytoloop")
def cytoloop() -> None:
    """Close the loop between a microscope and its cells.

    Frames go out of the acquisition, cells are found and followed, and decisions go back into it. Start with
    "cytoloop doctor", then "cytoloop demo".
    """


for _command in (
    demo,
    serve,
    arm,
    disarm,
    dry_run,
    replay,
    rules,
    verify,
    recover,
    export,
    evaluate,
    annotate,
    train,
    engine,
    bench,
    doctor,
    keys,
    calibrate,
):
    cytoloop.add_command(_command)


def main(args: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code.

    Parameters
    ----------
    args
        What stands behind ``cytoloop``; the process's own arguments if None.
    """
    with _terminated_as_interrupted():
        try:
            code = cytoloop.main(args, prog_name="cytoloop", standalone_mode=False)
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            code = INTERRUPTED
    sys.exit(code)


@contextmanager
def _terminated_as_interrupted() -> Generator[None]:
    """Let a request to terminate unwind like Ctrl-C, so that no engine process or socket is left behind."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
