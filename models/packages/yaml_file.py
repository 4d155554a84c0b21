"""Reading the YAML of packages that others wrote: as YAML 1.2 has numbers, and within bounds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ...acquire.errors import ModelError

LARGEST_BYTES = 1 << 18
MOST_VALUES = 100_000
"""Values in a file, those that are repeated by reference counted each time."""


class _Loader(yaml.SafeLoader):
    """Plain values only; ``1e-6`` is a number, and there are no merge keys, as in YAML 1.2."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge nothing: chains of merges grow without bound."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a file holds.

    Raises
    ------
    ModelError
        If it cannot be read, is too large, no YAML, or no mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > LARGEST_BYTES:
        raise ModelError(f"{path}: larger than {LARGEST_BYTES} bytes; a description has some thousand")
    try:
        value = yaml.load(content, _Loader)
        size = _count(value, {})
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: no valid YAML: {reason}") from error
    except RecursionError:
        raise ModelError(f"{path}: no valid YAML: too deep") from None
    if size > MOST_VALUES:
        raise ModelError(f"{path}: more than {MOST_VALUES} values; a description has some hundred")
    if not isinstance(value, dict):
        raise ModelError(f"{path}: no mapping but {type(value).__name__}")
    return {str(key): held for key, held in value.items()}


def _count(value: Any, known: dict[int, int]) -> int:
    """Return how many values there are; the size of what is referred to is found once only."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST_VALUES  # what holds itself is too large
        held = value.values() if isinstance(value, dict) else value
        known[id(value)] = min(1 + sum(_count(each, known) for each in held), 2 * MOST_VALUES)
    return known[id(value)]
