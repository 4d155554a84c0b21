"""Writes a report as one self-contained page: it can be mailed, and opens without a network."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from importlib.resources import files
from string import Template

import msgspec

from ...acquire.commands import Command
from ...acquire.reply import Decision
from .contents import RunReport, percentiles
from .fates import fates
from .reasons import reasons
from .tables import table

MOST_DECISIONS = 500


def page(report: RunReport, picture: bytes) -> str:
    """Return the page's HTML.

    Parameters
    ----------
    report
        What it shows.
    picture
        The PNG file to embed.
    """
    template = Template(files("cytoloop.realtime.report").joinpath("page.html").read_text(encoding="utf-8"))
    sections = [
        _figures(report),
        _latency(report),
        _scores(report),
        fates(report.decided),
        reasons(report.examples),
        _decisions(report.decisions),
    ]
    return template.substitute(
        title=escape(report.title),
        subtitle=escape(report.subtitle),
        alternative=escape("; ".join(shown.title for shown in report.pictures) or report.title),
        picture=b64encode(picture).decode(),
        sections="\n".join(section for section in sections if section),
        version=escape(version("cytoloop")),
    )


def describe(command: Command) -> str:
    """Return a command in words: its tag and the fields that are set."""
    values = {name: value for name, value in msgspec.to_builtins(command).items() if name != "type"}
    shown = ", ".join(
        f"{name} {_short(value)}" for name, value in values.items() if value not in (None, "", ())
    )
    return f"{command.__struct_config__.tag} ({shown})"


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        if len(value) > 8:
            return f"({len(value)} values)"
        return "(" + ", ".join(_short(item) for item in value) + ")"
    return str(value)


def _figures(report: RunReport) -> str:
    if not report.figures:
        return ""
    cards = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in report.figures.items()
    )
    return f'<h2>This run</h2><div class="cards">{cards}</div>'


def _latency(report: RunReport) -> str:
    if not report.latency_ms:
        return ""
    rows: list[Sequence[str]] = []
    for name, values in report.latency_ms.items():
        found = percentiles(values)
        rows.append((name, str(len(values)), *(f"{found[key]:.2f}" for key in ("p50", "p99", "max"))))
    return "<h2>Frame to decision</h2>" + table(("", "frames", "p50 ms", "p99 ms", "longest ms"), rows)


def _scores(report: RunReport) -> str:
    if not report.scores:
        return ""
    rows = [(name, f"{value:.4f}") for name, value in report.scores.items()]
    return "<h2>Against ground truth</h2>" + table(("score", "value"), rows)


def _decisions(decisions: Sequence[Decision]) -> str:
    if not decisions:
        return ""
    heads = ("frame", "time", "rule", "cell", "what", "why")
    rows = "".join(_decision(decision) for decision in decisions[:MOST_DECISIONS])
    left = len(decisions) - MOST_DECISIONS
    more = f"<p>and {left} more in decisions.jsonl</p>" if left > 0 else ""
    head = "".join(f"<th>{text}</th>" for text in heads)
    return f"<h2>Decisions</h2><table><tr>{head}</tr>{rows}</table>{more}"


def _decision(decision: Decision) -> str:
    reasons = "; ".join(decision.reasons)
    if decision.refused:
        reasons = f"refused: {decision.refused}" + (f" ({reasons})" if reasons else "")
    cells = (
        f'<td class="number">{decision.sequence}</td><td class="number">{decision.time_s:.2f} s</td>'
        f"<td>{escape(decision.rule)}</td><td>{decision.track or ''}</td>"
        f'<td class="what">{escape(describe(decision.command))}</td><td>{escape(reasons)}</td>'
    )
    return f'<tr class="refused">{cells}</tr>' if decision.refused else f"<tr>{cells}</tr>"
