"""Names of measured columns that a format can hold."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NOT_PLAIN = re.compile(r"\W", re.ASCII)


def plain_names(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return each name with letters, digits and ``_`` only; where two would be one, or one is taken, numbered.

    Parameters
    ----------
    names
        As they are in the graph; names of channels may hold anything.
    taken
        Names that the format needs for something else; case does not part names.
    """
    used = {name.lower() for name in taken}
    plain: dict[str, str] = {}
    for name in names:
        base = _NOT_PLAIN.sub("_", name) or "_"
        base = f"_{base}" if base[0].isdigit() else base
        chosen, count = base, 2
        while chosen.lower() in used:
            chosen, count = f"{base}_{count}", count + 1
        used.add(chosen.lower())
        plain[name] = chosen
    return plain
