"""What a person should read once, however often it happens."""

from __future__ import annotations

_MOST = 256


class Notices:
    """Lets each message through the first time; remembers at most 256 of them, and lets none through after."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def once(self, message: str) -> tuple[str, ...]:
        """Return the message, or nothing if it has been said."""
        if message in self._said or len(self._said) >= _MOST:
            return ()
        self._said.add(message)
        return (message,)
