"""What all commands share: ``--json``, progress, messages and the way errors are told.

A command's result goes to standard output, as tables for people or as exactly one JSON object for machines;
everything else goes to standard error.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import update_wrapper
from importlib.metadata import version
from typing import Any

import click

from ...acquire.errors import (
    AddressError,
    ConfigurationError,
    CytoloopError,
    ExportError,
    FrameError,
    MissingExtraError,
    PluginError,
    SourceError,
)
from ..progress import Progress

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class Output:
    """Where one run of one command writes.

    Parameters
    ----------
    as_json
        Print the result as one JSON object instead of tables.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._began = time.perf_counter()

    def message(self, text: str) -> None:
        """Tell a person something on standard error."""
        from rich.console import Console

        Console(stderr=True, soft_wrap=True).print(text, markup=False, highlight=False)

    @contextmanager
    def progress(self) -> Generator[Progress]:
        """Show a bar on standard error while the block runs; its value is what the work calls."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None)

            def show(text: str, done: int = 0, total: int | None = None) -> None:
                bar.update(task, description=text, completed=done, total=total)

            yield show

    def result(self, values: Mapping[str, Any], show: Callable[[], Any]) -> None:
        """Print the result.

        Parameters
        ----------
        values
            The keys that scripts read; version, machine and seconds are added.
        show
            Returns what rich shall print for people; not called with ``--json``.
        """
        if self.as_json:
            self._print_json(values)
            return
        from rich.console import Console

        Console().print(show(), markup=False)  # brackets in what people wrote are no markup

    def error(self, error: CytoloopError) -> None:
        """Tell what was wrong: problem by problem for a configuration, never as a traceback."""
        problems = error.problems if isinstance(error, ConfigurationError) else ()
        if self.as_json:
            listed = [asdict(problem) for problem in problems]
            self._print_json({"error": str(error), "kind": type(error).__name__, "problems": listed})
        from rich.console import Console
        from rich.text import Text

        console = Console(stderr=True, soft_wrap=True)
        for line in [str(problem) for problem in problems] or [str(error)]:
            console.print(Text("error: ", style="bold red").append(line, style="default not bold"))

    def _print_json(self, values: Mapping[str, Any]) -> None:
        from ..machine import describe_machine

        about = {
            "version": version("cytoloop"),
            "machine": describe_machine(),
            "seconds": round(time.perf_counter() - self._began, 3),
        }
        text = json.dumps({**values, **about}, default=_plain)
        if "NaN" in text or "Infinity" in text:  # not JSON: what could not be measured is null
            text = json.dumps(json.loads(text, parse_constant=lambda _: None))
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def exit_code(error: CytoloopError) -> int:
    """Return 2 if what was asked for cannot be done as it was written, 1 if a run failed on its way."""
    asked_wrongly = (ConfigurationError, PluginError, AddressError, FrameError, MissingExtraError)
    if isinstance(error, asked_wrongly) or (isinstance(error, SourceError) and error.frame is None):
        return USAGE
    if isinstance(error, ExportError) and not error.begun:
        return USAGE
    return FAILED


def examples_text(examples: Sequence[str]) -> str:
    """Return example lines as click prints them unwrapped at the end of a help text."""
    return "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)


def command(name: str, *, examples: Sequence[str]) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a click command of a function that takes an :class:`Output` first and may return an exit code.

    It adds ``--json`` and the examples, and turns every :class:`~cytoloop.acquire.errors.CytoloopError` into a
    message and an exit code.
    """

    def make(function: Callable[..., int | None]) -> click.Command:
        def run(*, as_json: bool, **options: Any) -> int:
            output = Output(as_json)
            try:
                return function(output, **options) or DONE
            except CytoloopError as error:
                output.error(error)
                return exit_code(error)

        option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
        return click.command(name, epilog=examples_text(examples))(option(update_wrapper(run, function)))

    return make


def short(value: Any) -> str:
    """Write a figure with as many digits as a person reads; percentiles on one line."""
    if isinstance(value, dict):
        return "  ".join(f"{key} {short(inner)}" for key, inner in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """Turn numpy scalars, paths and the like into what JSON knows."""
    if hasattr(value, "item"):
        return value.item()
    return str(value)
