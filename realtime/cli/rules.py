"""``cytoloop rules``: check rules, try them on a recording, compare them, and ask why a cell was chosen."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import DONE, USAGE, Output, command, examples_text
from .rules_why import need_drawing, why
from .streams import interval_option

if TYPE_CHECKING:
    from ...acquire.errors import Problem
    from ..experiment.stream import RuleSet, StreamConfig
    from ..trial.firings import Firings

_MOST_LISTED = 2000
_MOST_MESSAGES = 20
EXAMPLES = (
    "cytoloop rules check rules.toml",
    "cytoloop rules try rules.toml movie/01 --out tried",
    "cytoloop rules why RUN --cell 7 --frame 40",
)


@click.group(epilog=examples_text(EXAMPLES))
def rules() -> None:
    """Check, try and compare rules, and ask why a cell was or was not chosen."""


@command("check", examples=("cytoloop rules check rules.toml", "cytoloop rules check experiment.toml --json"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--stream", "stream_name", help="Which of an experiment file's streams; needed if it has several."
)
def check(output: Output, file: Path, stream_name: str | None) -> int:
    """Check a rules file or an experiment file; every problem is told with its line and the nearest known name."""
    from ...acquire.errors import ConfigurationError
    from ..experiment.any_rules import load_rules

    errors: list[Problem] = []
    count = 0
    try:
        count = len(load_rules(file, stream_name).rules)
    except ConfigurationError as error:
        errors.extend(error.problems)
    values = {"ok": not errors, "errors": [asdict(error) for error in errors], "file": file, "rules": count}
    for error in errors if not output.as_json else ():
        output.message(f"error: {error}")
    if output.as_json or not errors:
        output.result(values, lambda: f"{file}: {count} rule(s), nothing wrong")
    return USAGE if errors else DONE


@command(
    "try",
    examples=(
        "cytoloop rules try rules.toml movie/01 --out tried",
        "cytoloop rules try rules.toml movie/01 --config experiment.toml --against former.toml --json",
        "cytoloop rules try rules.toml runs/default/2026-05-04_101500_a1b2",
    ),
)
@click.argument("file", metavar="RULES", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.argument("recording", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Experiment file: what finds and follows the cells. Default: net and lap; for a run, as it was made.",
)
@click.option("--stream", "stream_name", help="Which of the experiment's streams; needed if it has several.")
@click.option(
    "--against", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Rules to compare with."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for firings.png and firings.jsonl. Default: RULES-tried, in this folder.",
)
@click.option(
    "--pixel-size",
    type=click.FloatRange(min=0, min_open=True),
    help="Edge of a pixel in um, for recordings that do not say. Goes before what the file says.",
)
@interval_option
def try_(
    output: Output,
    file: Path,
    recording: Path,
    config: Path | None,
    stream_name: str | None,
    against: Path | None,
    out: Path | None,
    pixel_size: float | None,
    interval: float,
) -> int:
    """Try rules on a recording, with no effect.

    RECORDING is anything that "cytoloop replay" reads, or the folder of a run of the service: then nothing is
    segmented again. Prints which cells the rules would have acted on, when and why, and draws them.
    """
    from ..trial.difference import Comparison
    from ..trial.firings import MOST_CROPS, Firings
    from ..trial.played import Played, playing
    from .rules_tables import difference_values, tried_table, write_firings

    stream = _stream_of(output, recording, config, stream_name)
    sets = _candidates(file, against, stream_name, stream)
    stream = _with_shadows(stream, sets, pixel_size)
    names = tuple(each.name for each in sets)
    keys = [(each.name, str(rule.build("rules").name)) for each in sets for rule in each.rules]
    if not keys:
        raise click.UsageError(f"{file} holds no rules, so there is nothing to try")
    firings, played = Firings(names, max(2, MOST_CROPS // len(keys))), Played()
    comparison = Comparison(*names) if against else None
    with output.progress() as progress, playing(recording, stream, played, progress, interval) as frames:
        for seen in frames:
            firings.add(seen)
            if comparison is not None:
                comparison.add(seen.judged)
    for message in list(played.messages)[:_MOST_MESSAGES]:
        output.message(message)
    if (left := len(played.messages) - _MOST_MESSAGES) > 0:
        output.message(f"and {left} more messages (--json lists them)")
    target = out or Path(f"{file.stem}-tried")
    write_firings(firings, target)
    values: dict[str, Any] = {
        "recording": recording,
        "frames": played.frames,
        "firings": [asdict(each) for each in firings.firings[:_MOST_LISTED]],
        "firings_total": firings.counts.total(),
        "counts": [
            {"file": key[0], "rule": key[1], "firings": firings.counts[key], "refused": firings.refused[key]}
            for key in keys
        ],
        "messages": list(played.messages),
        "diff": None if comparison is None else difference_values(comparison),
        "out": target,
        "figure": _draw(output, f"{file.name} on {recording.name}", firings, keys, played.frames, target),
    }
    output.result(values, lambda: tried_table(values))
    return DONE


@command(
    "diff",
    examples=("cytoloop rules diff runs/default/2026-05-04_101500_a1b2", "cytoloop rules diff RUN --json"),
)
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
def diff(output: Output, run: Path) -> int:
    """Compare the shadow rules of a run with those that were armed.

    RUN is the folder that the service made for a run (log/STREAM/DATE_RUN). Lists the cells about which only one
    of them decided, when, and why, by working the run out again from its journal.
    """
    from ..service.run_folder import read_stream
    from ..trial.difference import Comparison
    from ..trial.played import Played, playing
    from .rules_tables import difference_table, difference_values, same_decisions

    stream = read_stream(run)
    if not stream.shadow:
        raise click.UsageError(
            f"{run} ran no shadow rules; compare files with: cytoloop rules try A {run} --against B"
        )
    comparisons = [Comparison("", each.name) for each in stream.shadow]
    played, otherwise = Played(), 0
    with output.progress() as progress, playing(run, stream, played, progress) as frames:
        for seen in frames:
            otherwise += seen.recorded is not None and not same_decisions(seen.reply, seen.recorded)
            for comparison in comparisons:
                comparison.add(seen.judged)
    if otherwise:
        output.message(f"in {otherwise} frame(s) the run decided otherwise than it would now")
    values: dict[str, Any] = {
        "run": run,
        "frames": played.frames,
        "decided_otherwise": otherwise,
        "files": [difference_values(each) for each in comparisons],
    }
    output.result(values, lambda: difference_table(values["files"]))
    return DONE


def _draw(
    output: Output, title: str, firings: Firings, keys: list[tuple[str, str]], frames: int, target: Path
) -> Path | None:
    from ...acquire.errors import MissingExtraError

    try:
        need_drawing()
    except MissingExtraError as error:
        output.message(f"No figure: {error}")
        return None
    from ..report.firings import draw_firings

    figure = target / "firings.png"
    draw_firings(title, firings.firings, keys, frames, firings.crops, figure)
    return figure


def _stream_of(output: Output, recording: Path, config: Path | None, name: str | None) -> StreamConfig:
    """Return what finds and follows the cells: of the file, of the run, or the default."""
    from ..experiment.stream import StreamConfig
    from ..service.run_folder import has_stream, is_run, read_stream
    from .streams import chosen_stream

    if config is not None:
        return chosen_stream(config, name)
    if is_run(recording) and has_stream(recording):
        return read_stream(recording)
    if is_run(recording):
        output.message(
            f"{recording} does not say how it was made: cells are followed as by default (--config)"
        )
    return StreamConfig()


def _candidates(file: Path, against: Path | None, name: str | None, stream: StreamConfig) -> list[RuleSet]:
    """Return the rules to try, each under a name of its own."""
    from msgspec.structs import replace

    from ...acquire.errors import ConfigurationError
    from ..experiment.any_rules import load_rules

    found: list[RuleSet] = []
    problems: list[Problem] = []
    for each in (file, against):
        if each is None:
            continue
        try:
            found.append(load_rules(each, name, stream.limits))
        except ConfigurationError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigurationError(problems)
    if len(found) == 2 and found[0].name == found[1].name:
        found[1] = replace(found[1], name=f"{found[1].name}-2")
    return found


def _with_shadows(stream: StreamConfig, sets: list[RuleSet], pixel_size: float | None) -> StreamConfig:
    from msgspec.structs import replace

    if pixel_size is not None:
        stream = replace(stream, pixel_size_um=pixel_size, affine=None)
    return replace(stream, rules=(), shadow=tuple(sets))


for _command in (check, try_, diff, why):
    rules.add_command(_command)
