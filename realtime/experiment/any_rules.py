"""The rules of any file: a rules file, or one stream of an experiment file."""

from __future__ import annotations

from pathlib import Path

from ...acquire.errors import ConfigurationError, Problem, nearest_name
from ...acquire.governor.limits import Limits
from ..rules.known import Known
from .config import load_experiment
from .document import read_document
from .rule_files import rules_of
from .stream import RuleSet


def load_rules(path: str | Path, stream: str | None = None, limits: Limits | None = None) -> RuleSet:
    """Read and completely check the rules of a file.

    Parameters
    ----------
    path
        A rules file, or an experiment file, all of which is then checked.
    stream
        Which of the experiment's streams; needed if it has several.
    limits
        Those that hold where a rules file has none of its own.

    Raises
    ------
    ConfigurationError
        Holds every problem that was found; or the experiment has several streams and none is named, or no such.
    """
    path = Path(path)
    document = read_document(path)
    if "streams" not in document.values:
        return rules_of(document, path.stem, Known(), limits)
    streams = load_experiment(path).streams
    if stream is None and len(streams) > 1:
        reason = f"several streams; choose one with --stream: {', '.join(streams)}."
        raise ConfigurationError([Problem(str(path), 0, "streams", reason)])
    name = stream if stream is not None else next(iter(streams))
    if name not in streams:
        reason = f"no stream {name!r}; known: {', '.join(streams)}."
        raise ConfigurationError([Problem(str(path), 0, "streams", reason, nearest_name(name, streams))])
    chosen = streams[name]
    return RuleSet(name=path.stem, rules=chosen.rules, limits=chosen.limits, channels=chosen.channels)
