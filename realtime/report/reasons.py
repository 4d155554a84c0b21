"""The page's section on why cells were and were not chosen: clause by clause, with their images."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from ...acquire.explanation import Clause
from ..outcomes import in_words

if TYPE_CHECKING:
    from ..trial.examples import Example

_ABOUT = (
    "Some of the first cells that each rule chose, and cells near them in the same frames that it did not choose. "
    "For any other cell and frame: cytoloop rules why."
)


def reasons(examples: Mapping[str, Sequence[Example]]) -> str:
    """Return the section; ``""`` without examples. Everything is escaped, and the images are in it.

    Parameters
    ----------
    examples
        Under a heading for each rule. Where there are images, matplotlib draws them.
    """
    rules = "".join(
        f"<h3>{escape(heading)}</h3>{_none_chosen(listed)}"
        f'<div class="examples">{"".join(_example(each) for each in listed)}</div>'
        for heading, listed in examples.items()
        if listed
    )
    return f'<h2>Why, and why not</h2><p class="note">{escape(_ABOUT)}</p>{rules}' if rules else ""


def _none_chosen(examples: Sequence[Example]) -> str:
    if any(each.explanation.fired for each in examples):
        return ""
    return '<p class="note">It chose nothing in the frames that were looked at.</p>'


def _example(example: Example) -> str:
    explanation = example.explanation
    what = f"Cell {explanation.track}" if explanation.track else "The whole image"
    chosen = "chosen" if explanation.fired else "not chosen"
    paint = "yes" if explanation.fired else "no"
    title = f"{what}, frame {explanation.sequence} ({example.time_s:.4g} s)"
    outcome = (
        "" if example.outcome is None else f"<p>At the microscope: {escape(in_words(example.outcome))}.</p>"
    )
    return (
        f'<div class="example{" chosen" if explanation.fired else ""}">{_image(example, title)}<div>'
        f'<b>{escape(title)}: <span class="{paint}">{chosen}</span></b>'
        f"<p>{escape(explanation.verdict)}</p>{_clauses(explanation.clauses)}{outcome}</div></div>"
    )


def _image(example: Example, title: str) -> str:
    if example.crop is None:
        return ""
    from .firings import crop_png  # only here: without images, a page needs no matplotlib

    picture = b64encode(crop_png(example.crop)).decode()
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{picture}">'


def _clauses(clauses: Sequence[Clause]) -> str:
    if not clauses:
        return ""
    heads = "".join(f"<th>{text}</th>" for text in ("", "clause", "is", "needed", "since"))
    return f"<table><tr>{heads}</tr>{''.join(_clause(each) for each in clauses)}</table>"


def _clause(clause: Clause) -> str:
    paint, sign = ("yes", "✓") if clause.holds else ("no", "✗")
    since = "" if clause.since_s is None else f"{clause.since_s:.4g} s"
    texts = (clause.text, _number(clause.value, clause.unit), _number(clause.threshold, clause.unit), since)
    cells = "".join(f"<td>{escape(text)}</td>" for text in texts)
    return f'<tr><td class="{paint}" title="{"holds" if clause.holds else "does not hold"}">{sign}</td>{cells}</tr>'


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.4g} {unit}".rstrip()
