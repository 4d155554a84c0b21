"""Spans: the frames in which a track has a cell, as sorted (first, last) pairs, both inclusive, apart by a gap."""

from __future__ import annotations

from typing import TypeAlias

Spans: TypeAlias = list[tuple[int, int]]


def cut(spans: Spans, first: int) -> tuple[Spans, Spans]:
    """Return the spans before a frame and those from it on."""
    before = [(begin, min(end, first - 1)) for begin, end in spans if begin < first]
    return before, [(max(begin, first), end) for begin, end in spans if end >= first]


def joined(one: Spans, other: Spans) -> Spans | None:
    """Return the spans of both, or None if they have a frame in common."""
    whole: Spans = []
    for begin, end in sorted(one + other):
        if whole and begin <= whole[-1][1]:
            return None
        if whole and begin == whole[-1][1] + 1:
            whole[-1] = (whole[-1][0], end)
        else:
            whole.append((begin, end))
    return whole
