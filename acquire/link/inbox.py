"""The replies that nobody has read yet, in bounded memory."""

from __future__ import annotations

from collections import deque

from ..reply import Reply


class FreshReplies:
    """Keeps the latest replies until they are taken; the oldest give way.

    Parameters
    ----------
    most, most_cells
        How many replies, and how many cells in all of them, are kept.
    """

    def __init__(self, most: int, most_cells: int) -> None:
        self._most, self._most_cells = most, most_cells
        self._replies: deque[Reply] = deque()
        self._cells = 0

    def add(self, reply: Reply) -> None:
        """Keep a reply."""
        self._replies.append(reply)
        self._cells += len(reply.cells)
        while len(self._replies) > self._most or (self._cells > self._most_cells and len(self._replies) > 1):
            self._cells -= len(self._replies.popleft().cells)

    def take(self) -> list[Reply]:
        """Return what is kept, oldest first, and forget it."""
        taken = list(self._replies)
        self._replies.clear()
        self._cells = 0
        return taken
