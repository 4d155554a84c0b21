"""How long work tells a person how far it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then by the thread that does the work; it must return at once."""

    def __call__(self, text: str, done: int = 0, total: int | None = None) -> None:
        """Say what is being done, how much of it is done and, if known, of how much."""
        ...


def silent(text: str, done: int = 0, total: int | None = None) -> None:
    """Tell nobody."""
