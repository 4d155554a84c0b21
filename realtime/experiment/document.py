"""Reading a TOML document into typed values, and gathering everything that is wrong with it."""

from __future__ import annotations

import math
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from ...acquire.errors import ConfigurationError, Problem, nearest_name
from ...acquire.plugins import OptionError, convert_option
from .toml_lines import KeyPath, key_lines

LARGEST_FILE = 1 << 18
DEEPEST = 16
_MOST_HINTS = 100

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_KEY_OR_TABLE = re.compile(r"\s*(?:\[\[?\s*([^\]\n]+?)\s*\]|([A-Za-z0-9_.-]+)\s*=)")


class Document:
    """A parsed file, the lines of its keys, and the problems found in it so far.

    Attributes
    ----------
    file, folder
        The file as given by the user, and the folder that paths in it are relative to.
    values
        What tomllib made of it.
    problems
        In the order in which they were found.
    """

    def __init__(self, file: str, folder: Path, values: dict[str, Any], lines: dict[KeyPath, int]) -> None:
        self.file, self.folder, self.values = file, folder, values
        self.problems: list[Problem] = []
        self._lines = lines

    def report(self, path: KeyPath, reason: str, did_you_mean: str = "") -> None:
        """Note a problem at a key, or at the innermost table that exists if the key is missing."""
        where = path
        while where and where not in self._lines:
            where = where[:-1]
        line = self._lines.get(where, 0)
        self.problems.append(Problem(self.file, line, dotted(path), reason, did_you_mean))

    def adopt(self, error: ConfigurationError, path: KeyPath) -> None:
        """Note the problems of a value that was made from the table at ``path``."""
        for problem in error.problems:
            self.report((*path, problem.key) if problem.key else path, problem.reason, problem.did_you_mean)

    def table(self, path: KeyPath, value: Any) -> dict[str, Any]:
        """Return a table; anything else is reported, and none of its keys are there."""
        if isinstance(value, dict):
            return value
        self.report(path, f"expected a table, got {_kind(value)}.")
        return {}

    def fields(self, path: KeyPath, table: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
        """Return the expected keys of a table, each converted to its type.

        Unknown keys and values that do not fit are reported and left out.
        """
        values: dict[str, Any] = {}
        for key, value in table.items():
            if key not in expected:
                allowed = f"unknown key; allowed: {', '.join(expected)}."
                # A hint costs more than all the rest of reading a key.
                hint = nearest_name(key, expected) if len(self.problems) < _MOST_HINTS else ""
                self.report((*path, key), allowed, hint)
                continue
            try:
                values[key] = convert_option(key, value, expected[key])
            except OptionError as error:
                self.report((*path, key), error.reason, error.did_you_mean)
        return values

    def finish(self) -> None:
        """Raise everything that was reported, in the order of the lines; what is wrong in other files stands last.

        Raises
        ------
        ConfigurationError
            If there is any problem.
        """
        if self.problems:
            order = sorted(self.problems, key=lambda problem: (problem.file != self.file, problem.line))
            raise ConfigurationError(order)


def read_document(path: Path) -> Document:
    """Read a TOML file: UTF-8, with or without a byte order mark, any line ends, at most 256 KiB.

    Raises
    ------
    ConfigurationError
        If it cannot be read or is not TOML; one problem, with its line.
    """
    file = str(path)
    text = _read_text(path, file)
    if _longest_chain(text) > 100:  # tomllib takes time with the square of it
        raise ConfigurationError([_too_deep(file)])
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([_syntax_problem(file, text, str(error))]) from None
    except RecursionError:
        raise ConfigurationError([_too_deep(file)]) from None
    except ValueError as error:  # a decimal number of thousands of digits
        raise ConfigurationError([Problem(file, 0, "", f"not usable: {error}.")]) from None
    if _depth(values) > DEEPEST:
        raise ConfigurationError([_too_deep(file)])
    document = Document(file, path.parent, values, key_lines(text))
    _check_numbers(document)
    return document


def see_modules_of(document: Document) -> None:
    """Let ``module:Class`` be found beside a file: its folder joins the end of ``sys.path``."""
    folder = str(document.folder.absolute())
    if folder not in sys.path:
        sys.path.append(folder)


def field_types(cls: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the fields of a struct with their types, for :meth:`Document.fields`."""
    return {field.name: field.type for field in msgspec.structs.fields(cls)}


def dotted(path: KeyPath) -> str:
    """Return a path as a person writes it: ``streams.left.rules[0].use``."""
    text = ""
    for name in path:
        if isinstance(name, int):
            text += f"[{name}]"
        else:
            text += "." * bool(text) + (name if _BARE.fullmatch(name) else repr(name))
    return text


def _read_text(path: Path, file: str) -> str:
    def refuse(reason: str, line: int = 0) -> ConfigurationError:
        return ConfigurationError([Problem(file, line, "", reason)])

    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise refuse(f"cannot be read: {error}.") from None
    if len(data) > LARGEST_FILE:
        raise refuse(f"larger than {LARGEST_FILE} bytes; an experiment file is a few kilobytes.")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise refuse("the text is UTF-16; save the file as UTF-8.", 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise refuse(
            f"not UTF-8 text (byte 0x{data[error.start]:02x}); save the file as UTF-8.", line
        ) from None
    return text.replace("\r\n", "\n")


def _too_deep(file: str) -> Problem:
    return Problem(file, 0, "", f"nested deeper than {DEEPEST} levels.")


def _syntax_problem(file: str, text: str, message: str) -> Problem:
    """Return tomllib's complaint with the line and, if it can be told, the key that it is about."""
    lines = text.split("\n")
    position = _POSITION.search(message)
    line = int(position[1]) if position and position[1] else len(text.rstrip().split("\n"))
    reason = _POSITION.sub("", message)
    if reason == "Invalid value":
        reason += ", text stands in quotes"
    table = ""
    for before in lines[: line - 1]:
        header = _KEY_OR_TABLE.match(before)
        table = header[1] if header and header[1] else table
    here = _KEY_OR_TABLE.match(lines[line - 1])
    key = (here[1] or here[2]) if here else ""
    key = f"{table}.{key}" if table and key and here and here[2] else key or table
    return Problem(file, line, key, f"not valid TOML: {reason}.")


def _longest_chain(text: str) -> int:
    """Return the length of the longest dotted key, or of anything that looks like one."""
    longest = chain = 0
    for part in text.split("."):
        chain = 0 if set(part) & set(",=#\n[]{}") else chain + 1
        longest = max(longest, chain)
    return longest


def _depth(values: dict[str, Any]) -> int:
    """Return how deep tables and arrays are nested, without recursion."""
    depth, level = 0, [values]
    while level and depth <= DEEPEST:
        children = [
            child for value in level for child in (value.values() if isinstance(value, dict) else value)
        ]
        level = [child for child in children if isinstance(child, dict | list)]
        depth += 1
    return depth


def _check_numbers(document: Document) -> None:
    """Report every number that no setting can take; NaN would pass any comparison, and huge ints any repr.

    Raises
    ------
    ConfigurationError
        Right away, because such a value must not reach a message.
    """
    waiting: list[tuple[KeyPath, Any]] = [((), document.values)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(((*path, name), child) for name, child in value.items())
        elif isinstance(value, list):
            waiting.extend(((*path, index), child) for index, child in enumerate(value))
        elif isinstance(value, float) and not math.isfinite(value):
            document.report(path, f"{value} is not a finite number.")
        elif isinstance(value, int) and abs(value) >= 1 << 63:
            document.report(path, "this number needs more than 64 bits.")
    document.finish()


def _kind(value: Any) -> str:
    names = {str: "text", bool: "a truth value", int: "a number", float: "a number", list: "an array"}
    return names.get(type(value), f"a {type(value).__name__}")
