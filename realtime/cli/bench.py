"""``cytoloop bench NAME``: measurements, one module of ``realtime/bench`` each, imported when it is run.

The options of a measurement are the annotated keywords of its ``run(progress, *, ...)``, so that a new one is
one module with that function and one line here. Its result may hold ``"ok": False``: then the exit code is 1.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from .output import DONE, FAILED, Output, command, examples_text, short

BENCHES = {
    "link": "Round trip, throughput and what a hook adds to a real acquisition.",
    "safety": "Cut, hang, flood and mislead during real acquisitions; count what reaches the actuator that should not.",
    "faults": "Kill and hang the service during real acquisitions; count what is lost.",
    "record": "What a disk takes through our writer and those of others; what recording costs a reply.",
    "soak": "Record for an hour; memory and file handles must stay flat, and nothing be lost.",
    "decode": "Answer of a net to cells for every family of nets, beside the family's own decoder.",
    "segment": "Frame to cells for every net and runtime, beside the classical segmenter and peers.",
    "track": "Detections to identities for every tracker, beside those of other projects; or one for very long.",
    "rules": "What rules cost per frame, by cells and number of rules.",
    "sort": "Sort a simulated flow channel in real time, at rising rates of cells until that breaks.",
    "wire": "Send mutated wire messages; count what is refused, and what is not.",
}

EXAMPLES = {
    "faults": ("cytoloop bench faults --record --kind engine --kind recorder --runs 30",),
    "track": (
        "cytoloop bench track --no-peers",
        "cytoloop bench track --objects 1000 --density hard --tracker lap --tracker trackpy",
        "cytoloop bench track --long 100000",
    ),
}


class Benches(click.Group):
    """Lists the measurements without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all measurements."""
        return list(BENCHES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one measurement and make a command of its ``run``."""
        if cmd_name not in BENCHES:
            return None
        module = import_module(f"cytoloop.realtime.bench.{cmd_name}")
        return bench_command(cmd_name, BENCHES[cmd_name], module.run, getattr(module, "shown", None))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List names and purposes."""
        with formatter.section("Commands"):
            formatter.write_dl(list(BENCHES.items()))


@click.group(cls=Benches, epilog=examples_text(("cytoloop bench link", "cytoloop bench faults --json")))
def bench() -> None:
    """Measure the link, its safety, and the speed of what finds and follows cells."""


def bench_command(
    name: str,
    purpose: str,
    run: Callable[..., dict[str, Any]],
    shown: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> click.Command:
    """Make a command of a measurement's ``run(progress, *, ...)``.

    Its annotated keywords with defaults become options: ``seed: int = 0`` becomes ``--seed INTEGER``, a bool
    becomes a flag, a literal a choice, and a tuple an option that may be given several times. The help of an option
    is what it is ``Annotated`` with. ``shown`` returns of a result what tables shall hold, if that is not all.
    """

    def measure(output: Output, **options: Any) -> int:
        with output.progress() as progress:
            values = run(progress, **options)
        output.result(values, lambda: _tables(name, shown(values) if shown else values))
        return FAILED if values.get("ok") is False else DONE

    measure.__doc__ = purpose
    made = command(name, examples=(f"cytoloop bench {name} --json", *EXAMPLES.get(name, ())))(measure)
    made.params.extend(_options(run))
    return made


def _options(run: Callable[..., Any]) -> list[click.Parameter]:
    hints, annotated = get_type_hints(run), get_type_hints(run, include_extras=True)
    options: list[click.Parameter] = []
    for key, parameter in list(inspect.signature(run).parameters.items())[1:]:
        kind, default = hints[key], parameter.default
        said = getattr(annotated[key], "__metadata__", (None,))[0]
        several, name = get_origin(kind) is tuple, f"--{key.replace('_', '-')}"
        options.append(
            click.Option(
                [f"{name}/--no-{name[2:]}" if kind is bool else name, key],
                type=_type(get_args(kind)[0] if several else kind),
                is_flag=kind is bool,
                multiple=several,
                default=default,
                show_default=default != (),
                help=said,
            )
        )
    return options


def _type(kind: Any) -> Any:
    """Return what click makes of a type: a choice of a literal, else the same."""
    return click.Choice(get_args(kind)) if get_origin(kind) is Literal else kind


def _tables(name: str, values: dict[str, Any]) -> Any:
    """Lay out any measurement: its single figures first, then one table for each list of rows."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    rows = {key: value for key, value in values.items() if isinstance(value, list) and value}
    single = Table("figure", "value", title=f"bench {name}", title_justify="left")
    for key, value in values.items():
        if key not in rows:
            single.add_row(key, escape(short(value)))
    tables = [single] if single.row_count else []
    for key, listed in rows.items():
        columns = list(dict.fromkeys(column for row in listed for column in row))
        table = Table(*columns, title=key, title_justify="left")
        for row in listed:
            table.add_row(*(escape(short(row.get(column, ""))) for column in columns))
        tables.append(table)
    return Group(*tables)
