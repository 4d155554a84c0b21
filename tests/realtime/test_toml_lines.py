from __future__ import annotations

import tomllib
from typing import Any

import pytest
from cytoloop.realtime.experiment.toml_lines import key_lines
from hypothesis import given, settings
from hypothesis import strategies as st

SCALARS = [
    "1",
    "0x1F",
    "1.5e-3",
    "true",
    "1979-05-27T07:32:00Z",
    '"a # not a comment"',
    '"quote \\" = [ { \\\\"',
    "'C:\\no\\escape]'",
    '"""\nk = 1\n[z]\n""quotes""\n"""',
    '"""ends in a quote""""',
    '"""ends in two"""""',
    '""""starts with one"""',
    '""""""',
    "'''\nraw = \\\n]]\n'''",
    "'''two''at the end'''''",
    '""',
    "''",
    '"""one \\\n   line"""',
]
QUOTES = ["{}", '"{}"', "'{}'", "'{} with \"quotes'", '"{}.dot"', '"{} # = [x]"', "'é {}'"]
ENDS = ["\n", "  # comment = 1\n", "\n\n", "\t#[x]\n\n  "]


class Writer:
    """Writes a random valid document; every name is used once but where tables repeat on purpose."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.count = 0

    def pick(self, options: list[Any]) -> Any:
        return self.draw(st.sampled_from(options))

    def name(self) -> str:
        self.count += 1
        return self.pick(QUOTES).format(f"k{self.count}")

    def value(self, depth: int = 0) -> str:
        kind = self.pick(["scalar"] * 3 + ["array", "table"]) if depth < 3 else "scalar"
        if kind == "scalar":
            return self.pick(SCALARS)
        items = range(self.draw(st.integers(0, 3)))
        if kind == "table":
            pairs = [f"{self.dotted()} = {self.value(depth + 1)}" for _ in items]
            return "{ " + ", ".join(pairs) + " }"
        gap = self.pick(["", " ", "\n  ", " # ] , \n"])
        return f"[{gap}" + f",{gap}".join(self.value(depth + 1) + gap for _ in items) + "]"

    def dotted(self) -> str:
        dot = self.pick([".", " . "])
        return dot.join(self.name() for _ in range(self.draw(st.integers(1, 3))))

    def body(self) -> str:
        lines = range(self.draw(st.integers(0, 3)))
        return "".join(f"{self.dotted()} = {self.value()}{self.pick(ENDS)}" for _ in lines)

    def document(self) -> str:
        text = self.pick(["", "# first\n", "\n\n"]) + self.body()
        for _ in range(self.draw(st.integers(0, 4))):
            header = self.dotted()
            if self.pick([True, False]):
                text += f"[ {header} ]{self.pick(ENDS)}{self.body()}"
                continue
            below = self.name()
            for _ in range(self.draw(st.integers(1, 3))):
                text += f"[[{header}]]{self.pick(ENDS)}{self.body()}[{header}.{below}]\n{self.body()}"
                text += f"[[{header}.{below}.{self.name()}]]\n{self.body()}"
        return text


def keys_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [found for key, child in children for found in ((*path, key), *keys_of(child, (*path, key)))]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_key_of_a_document_has_the_line_on_which_its_name_stands(data: st.DataObject) -> None:
    text = Writer(data.draw).document()
    document = tomllib.loads(text)
    lines = key_lines(text)
    rows = text.split("\n")
    names = [path for path in keys_of(document) if isinstance(path[-1], str)]
    for path in names:
        assert path[-1] in rows[lines[path] - 1], path
    assert {path for path in lines if isinstance(path[-1], str)} == set(names)


def test_an_item_of_an_array_of_tables_stands_at_its_own_header() -> None:
    lines = key_lines("[[a]]\nx = 1\n\n[[a]]\nx = 2\n[a.b]\ny = 3\n")
    assert lines["a", 0] == 1
    assert lines["a", 1] == 4
    assert lines["a", 1, "x"] == 5
    assert lines["a", 1, "b"] == 6
    assert lines["a", 1, "b", "y"] == 7


def test_a_table_that_is_named_by_several_headers_stands_where_it_was_named_first() -> None:
    lines = key_lines("[a.b]\nx = 1\n[a]\ny = 2\n")
    assert lines["a",] == 1
    assert lines["a", "y"] == 4


def test_escaped_names_are_read_as_tomllib_reads_them() -> None:
    assert key_lines('\n"caf\\u00e9" = 1')["café",] == 2


def test_text_that_is_no_toml_is_refused_with_its_line() -> None:
    with pytest.raises(ValueError, match="line 2"):
        key_lines("a = 1\n= 2")
