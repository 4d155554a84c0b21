"""The page's section on what came of the decisions at the microscope: in time, late, refused."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from ..outcomes import OutcomeFigures
from .contents import Decided
from .tables import table

_MOST_REASONS = 20
_ROWS = (
    ("carried out in time", "on_time"),
    ("came too late, so it was dropped", "late"),
    ("refused by the limits at the microscope", "refused"),
    ("not done: the microscope was disarmed, or in its safe state", "disarmed"),
    ("dry run: would have been carried out", "dry"),
    ("replaced by a newer one before its turn came", "replaced"),
    ("not done: the hardware or the acquisition did not take it", "failed"),
)
_AGES = (("half of them within", "p50"), ("99 of 100 within", "p99"), ("the slowest", "max"))
_FATES = {
    "expired": "came too late",
    "disarmed": "microscope disarmed",
    "refused": "refused by the limits",
    "failed": "not taken",
}
_UNKNOWN = "-"
_NOBODY = (
    "No microscope reported what came of its decisions, so nothing is known of what was in time or late. "
    "That is always so where a recording is replayed: nothing is carried out then."
)


def fates(decided: Mapping[str, Decided]) -> str:
    """Return the section; ``""`` where nothing is said of decisions.

    Parameters
    ----------
    decided
        Counts by name; each name is a column.
    """
    if not decided:
        return ""
    every = list(decided.values())
    rows = [
        ("decisions of the rules", *(str(each.passed + each.refused) for each in every)),
        ("refused by the limits before it was sent", *(str(each.refused) for each in every)),
    ]
    if any(each.outcomes for each in every):
        rows += [(words, *(_count(each.outcomes, name) for each in every)) for words, name in _ROWS]
        rows.append(("nothing was heard of it *", *(_unheard(each) for each in every)))
        rows += [
            (f"from the image to the action: {words}", *(_age(each.outcomes, name) for each in every))
            for words, name in _AGES
        ]
        note = f"* The run had ended. {_UNKNOWN}: not known, or none."
    else:
        note = _NOBODY
    heads = ("", *(name if len(decided) > 1 else "number" for name in decided))
    return (
        "<h2>What came of the decisions</h2>"
        + table(heads, rows)
        + f'<p class="note">{escape(note)}</p>'
        + _missed(decided)
    )


def _count(outcomes: OutcomeFigures | None, name: str) -> str:
    return _UNKNOWN if outcomes is None else str(getattr(outcomes, name))


def _unheard(decided: Decided) -> str:
    return _UNKNOWN if decided.outcomes is None else str(max(0, decided.passed - decided.outcomes.told))


def _age(outcomes: OutcomeFigures | None, name: str) -> str:
    return _UNKNOWN if outcomes is None or outcomes.age_ms is None else f"{outcomes.age_ms[name]:.0f} ms"


def _missed(decided: Mapping[str, Decided]) -> str:
    """Return why decisions were not carried out, the most frequent reasons first."""
    listed = [
        (name, each)
        for name, counts in decided.items()
        for each in (counts.outcomes.missed if counts.outcomes else ())
    ]
    listed.sort(key=lambda found: -found[1].times)
    if not listed:
        return ""
    rows = "".join(
        f"<tr><td>{escape(each.rule)}{escape(f' ({name})' if len(decided) > 1 else '')}</td>"
        f"<td>{escape(_FATES.get(each.fate, each.fate))}</td><td>{escape(each.reason)}</td>"
        f'<td class="number">{each.times}</td></tr>'
        for name, each in listed[:_MOST_REASONS]
    )
    left = len(listed) - _MOST_REASONS
    more = f'<p class="note">and {left} more kinds of reasons in outcomes.jsonl</p>' if left > 0 else ""
    heads = "".join(
        f"<th>{text}</th>" for text in ("rule", "not carried out", "why (the first time)", "times")
    )
    return f"<h3>Why decisions were not carried out</h3><table><tr>{heads}</tr>{rows}</table>{more}"
