"""Rules files: rules by themselves in a TOML document, to be checked, tried, and run as shadows.

A rules file holds ``[[rules]]`` as an experiment file does, and may say what frames it is for (``channels``,
``classes``) and what its commands may ask for (``[limits]``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from ...acquire.governor.limits import Limits
from ..rules.known import Known
from .document import Document, read_document, see_modules_of
from .plugin_tables import read_limits, read_rules
from .stream import ChannelName, RuleSet

_EXPECTED: dict[str, Any] = {
    "rules": Any,
    "channels": Annotated[tuple[ChannelName, ...], msgspec.Meta(max_length=64)],
    "classes": tuple[str, ...],
    "limits": Any,
}


def read_rules_file(path: str | Path, known: Known | None = None, limits: Limits | None = None) -> RuleSet:
    """Read and completely check a rules file; every rule is constructed once.

    Parameters
    ----------
    path
        The file. ``module:Class`` is also looked for beside it.
    known
        What is known of the frames, where the file itself does not say.
    limits
        Those of the stream, which hold where the file has none of its own.

    Raises
    ------
    ConfigurationError
        Holds every problem that was found, each with file, line, key, reason and the nearest known name.
    """
    document = read_document(Path(path))
    return rules_of(document, Path(path).stem, known or Known(), limits)


def rules_of(document: Document, name: str, known: Known, limits: Limits | None) -> RuleSet:
    """Return the rules of a document that has been read; see :func:`read_rules_file`.

    Raises
    ------
    ConfigurationError
        Holds every problem that was found.
    """
    see_modules_of(document)
    values = document.fields((), document.values, _EXPECTED)
    own = read_limits(document, ("limits",), values["limits"]) if "limits" in values else None
    channels = values.get("channels", known.channels)
    classes = values.get("classes", known.classes)
    tables = values.get("rules", [])
    if tables == []:
        document.report(("rules",), 'at least one rule is needed, such as [[rules]] with use = "follow".')
    known = Known(channels, classes, known.pixel_size)
    rules = read_rules(document, ("rules",), tables, own or limits or Limits(), known)
    document.finish()
    return RuleSet(name=name, rules=rules, limits=own, channels=channels, classes=classes)
