"""On which line of a TOML document each key stands; tomllib does not tell.

The document has been parsed by tomllib before, so this scanner finds keys and steps over values and need not
check them.
"""

from __future__ import annotations

import re
import tomllib
from typing import TypeAlias

KeyPath: TypeAlias = "tuple[str | int, ...]"

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
# White space, line ends and comments, as they may stand between the items of an array.
_GAP = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BASIC = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL = re.compile(r"'[^'\n]*'")
# A multi-line string may end in up to five quotes: two of them its own.
_LONG_BASIC = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}(?!")', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''.*?'{3,5}(?!')", re.DOTALL)
_PLAIN = re.compile(r"[^,\]}#\n]*")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line, counted from 1, of every table and key of a valid TOML document.

    A path is the sequence of names from the root, with the index where an array holds tables. A table that is
    named by several headers stands where it was named first.
    """
    scanner = _Scanner(text)
    scanner.scan()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.lines: dict[KeyPath, int] = {}
        self._items: dict[KeyPath, int] = {}  # arrays of tables: how many items so far

    def scan(self) -> None:
        table: KeyPath = ()
        while True:
            self._skip(_GAP)
            if self.at >= len(self.text):
                return
            if self.text.startswith("[[", self.at):
                self._advance(2)
                table = self._header(array=True)
                self._advance(2)
            elif self.text[self.at] == "[":
                self._advance(1)
                table = self._header(array=False)
                self._advance(1)
            else:
                self._key_value(table)

    def _header(self, *, array: bool) -> KeyPath:
        self._skip(_BLANK)
        names = self._key()
        path: KeyPath = ()
        for name in names[:-1]:
            path = self._enter((*path, name))
        path = (*path, names[-1])
        self.lines.setdefault(path, self.line)
        if array:
            self._items[path] = self._items.get(path, 0) + 1
            path = self._enter(path)
            self.lines[path] = self.line
        return path

    def _enter(self, path: KeyPath) -> KeyPath:
        """Note a table on the way; of an array of tables, its last item is meant."""
        self.lines.setdefault(path, self.line)
        return (*path, self._items[path] - 1) if path in self._items else path

    def _key_value(self, table: KeyPath) -> None:
        path = table
        for name in self._key():
            path = (*path, name)
            self.lines.setdefault(path, self.line)
        self._advance(1)  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _key(self) -> list[str]:
        names: list[str] = []
        while True:
            quote = self.text[self.at]
            pattern = {'"': _BASIC, "'": _LITERAL}.get(quote, _BARE)
            raw = self._take(pattern)
            names.append(raw if pattern is _BARE else next(iter(tomllib.loads(f"{raw}=0"))))
            self._skip(_BLANK)
            if self.text[self.at] != ".":
                return names
            self._advance(1)
            self._skip(_BLANK)

    def _value(self, path: KeyPath) -> None:
        start = self.text[self.at]
        if start == "[":
            self._items_of_array(path)
        elif start == "{":
            self._inline_table(path)
        elif start == '"':
            self._take(_LONG_BASIC if self.text.startswith('"""', self.at) else _BASIC)
        elif start == "'":
            self._take(_LONG_LITERAL if self.text.startswith("'''", self.at) else _LITERAL)
        else:
            self._take(_PLAIN)

    def _items_of_array(self, path: KeyPath) -> None:
        self._advance(1)
        index = 0
        while True:
            self._skip(_GAP)
            if self.text[self.at] == "]":
                break
            self.lines.setdefault((*path, index), self.line)
            self._value((*path, index))
            index += 1
            self._skip(_GAP)
            if self.text[self.at] == ",":
                self._advance(1)
        self._advance(1)

    def _inline_table(self, path: KeyPath) -> None:
        self._advance(1)
        while True:
            self._skip(_GAP)
            if self.text[self.at] == "}":
                break
            self._key_value(path)
            self._skip(_GAP)
            if self.text[self.at] == ",":
                self._advance(1)
        self._advance(1)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        if match:
            self._advance(match.end() - self.at)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None or not match.group():
            raise ValueError(f"line {self.line}: not valid TOML")
        self._advance(match.end() - self.at)
        return match.group()

    def _advance(self, count: int) -> None:
        self.line += self.text.count("\n", self.at, self.at + count)
        self.at += count
