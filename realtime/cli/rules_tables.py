"""What ``cytoloop rules`` prints: firings, differences and explanations, for people and for scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from ...acquire.errors import nearest_name
from ...acquire.explanation import Clause, Explanation
from ...acquire.reply import Reply
from ..trial.difference import Comparison, Difference
from ..trial.firings import Firings
from ..trial.why import Why

_MOST_ROWS = 20
_MOST_FRAMES = 50
_KINDS = {"first": "only the first", "second": "only the second", "when": "both, at other times"}


def write_firings(firings: Firings, folder: Path) -> None:
    """Write ``firings.jsonl``, one firing a line, into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "firings.jsonl").open("wb") as file:
        for each in firings.firings:
            file.write(msgspec.json.encode(each) + b"\n")


def same_decisions(one: Reply, other: Reply) -> bool:
    """Return whether two replies to a frame decided the same."""
    return [(each.rule, each.track, each.refused) for each in one.decisions] == [
        (each.rule, each.track, each.refused) for each in other.decisions
    ]


def difference_values(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as scripts read it."""
    return {
        "first": comparison.first or "armed",
        "second": comparison.second or "armed",
        "cells_first": len(comparison.fired[0]),
        "cells_second": len(comparison.fired[1]),
        "agreed": comparison.agreed,
        "cells": [_difference(each) for each in comparison.cells.values()],
    }


def _difference(cell: Difference) -> dict[str, Any]:
    return {
        "track": cell.track,
        "only": cell.kind,
        "sequence": cell.sequence,
        "time_s": cell.time_s,
        "frames_first_only": cell.first_only[:_MOST_FRAMES],
        "frames_second_only": cell.second_only[:_MOST_FRAMES],
        "frames_both": cell.both,
        "why_first": msgspec.to_builtins(cell.why_first),
        "why_second": msgspec.to_builtins(cell.why_second),
    }


def tried_table(values: Mapping[str, Any]) -> Any:
    """Return what a person reads of ``rules try``."""
    from rich.console import Group
    from rich.table import Table

    counts = Table(
        "rule", "file", "firings", "refused", title=f"{values['frames']} frames", title_justify="left"
    )
    for row in values["counts"]:
        counts.add_row(row["rule"], row["file"], str(row["firings"]), str(row["refused"]))
    first = Table("frame", "time", "cell", "rule", "does", "because", title="Firings", title_justify="left")
    for row in values["firings"][:_MOST_ROWS]:
        because = "; ".join(row["reasons"]) + (f" (refused: {row['refused']})" if row["refused"] else "")
        cell = str(row["track"] or "-")
        first.add_row(
            str(row["sequence"]), f"{row['time_s']:g} s", cell, row["rule"], row["command"], because
        )
    left = values["firings_total"] - min(_MOST_ROWS, len(values["firings"]))
    parts: list[Any] = [counts, first]
    if left > 0:
        parts.append(f"and {left} more in {values['out'] / 'firings.jsonl'}")
    if values["diff"] is not None:
        parts.append(difference_table([values["diff"]]))
    if values["figure"] is not None:
        parts.append(f"figure: {values['figure']}")
    return Group(*parts)


def difference_table(comparisons: Iterable[Mapping[str, Any]]) -> Any:
    """Return what a person reads of comparisons: each cell with what both sides say of it."""
    from rich.console import Group
    from rich.table import Table

    tables: list[Any] = []
    for each in comparisons:
        first, second = each["first"], each["second"]
        title = (
            f"{first}: {each['cells_first']} cell(s), {second}: {each['cells_second']},"
            f" {each['agreed']} decision(s) of both"
        )
        table = Table("cell", "who", "first differs", first, second, title=title, title_justify="left")
        for cell in each["cells"][:_MOST_ROWS]:
            table.add_row(
                str(cell["track"] or "-"),
                _KINDS[cell["only"]].replace("first", first).replace("second", second).replace("the ", ""),
                f"frame {cell['sequence']}",
                _sentences(cell["why_first"], cell["why_second"]),
                _sentences(cell["why_second"], cell["why_first"]),
            )
        tables.append(table)
        if (left := len(each["cells"]) - _MOST_ROWS) > 0:
            tables.append(f"and {left} more cells (--json lists all)")
    return Group(*tables)


def _sentences(explanations: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> str:
    """Return the verdicts that matter: of rules that fired, else of those like the ones that fired at the others."""
    fired = [each for each in explanations if each["fired"]]
    names = {each["rule"] for each in others if each["fired"]}
    alike = [each for each in explanations if each["rule"] in names]
    return "\n".join(f"{each['rule']}: {each['verdict']}" for each in fired or alike or explanations)


def only_rule(
    explanations: Mapping[str, tuple[Explanation, ...]], rule: str | None
) -> dict[str, tuple[Explanation, ...]]:
    """Return the explanations of one rule, or all of them if none is named.

    Raises
    ------
    click.UsageError
        If there is no rule of this name.
    """
    if rule is None:
        return dict(explanations)
    kept = {
        file: tuple(each for each in listed if each.rule == rule) for file, listed in explanations.items()
    }
    if not any(kept.values()):
        known = sorted({each.rule for listed in explanations.values() for each in listed})
        hint = nearest_name(rule, known)
        raise click.UsageError(
            f"no rule {rule!r} in this run; known: {', '.join(known) or 'none'}."
            + (f" Did you mean {hint!r}?" if hint else "")
        )
    return {file: listed for file, listed in kept.items() if listed}


def why_values(found: Why, explanations: Mapping[str, tuple[Explanation, ...]]) -> dict[str, Any]:
    """Return an answer as scripts read it."""
    return {
        "cell": found.cell,
        "track": found.track,
        "frame": found.sequence,
        "time_s": found.time_s,
        "seen": found.seen,
        "seen_from": found.frames[0],
        "seen_to": found.frames[1],
        "rules": rules_values(explanations),
    }


def rules_values(explanations: Mapping[str, tuple[Explanation, ...]]) -> list[dict[str, Any]]:
    """Return what each rule says, as scripts read it."""
    return [
        {"file": file, **msgspec.to_builtins(each)}
        for file, listed in explanations.items()
        for each in listed
    ]


def why_lines(found: Why, explanations: Mapping[str, tuple[Explanation, ...]]) -> list[str]:
    """Return an answer line by line, as a person reads it."""
    lines = [f"cell {found.cell} in frame {found.sequence} ({found.time_s:g} s)"]
    if found.track != found.cell:
        lines.append(f"was called {found.track} then, and corrected later")
    if not found.seen:
        first, last = found.frames
        lines.append(f"was not seen in this frame; it was seen in frames {first} to {last}")
    return lines + rules_lines(explanations)


def rules_lines(explanations: Mapping[str, tuple[Explanation, ...]]) -> list[str]:
    """Return what each rule says, line by line."""
    lines: list[str] = []
    for file, listed in explanations.items():
        for each in listed:
            lines.append(f"{each.rule} ({file}): {each.verdict}")
            lines += [f"  {_clause(clause)}" for clause in each.clauses]
    return lines or ["the run had no rules"]


def _clause(clause: Clause) -> str:
    unit = f" {clause.unit}" if clause.unit else ""
    numbers = [
        f"{name} {value:.6g}{unit}"
        for name, value in (("is", clause.value), ("needed", clause.threshold))
        if value is not None
    ]
    since = "" if clause.since_s is None else f" since {clause.since_s:g} s"
    verdict = f"{'holds' if clause.holds else 'does not hold'}{since}"
    return f"{'+' if clause.holds else '-'} {clause.text}: {', '.join([verdict, *numbers])}"
