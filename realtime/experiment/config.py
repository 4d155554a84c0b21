"""The experiment file: one TOML document that says all a service does, checked before anything starts."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ...acquire.errors import AddressError, ConfigurationError, CytoloopError, nearest_name
from ...acquire.link.addresses import Address, parse_address, require_keys
from ...acquire.plugins import OptionError, known_names
from ...models.segmenter import Segmenter
from ...trackers.tracker import Tracker
from ..limits import Limits, strength_refusal
from ..rules.rule import Rule
from .channel_checks import check_channels, check_segmenter
from .document import Document, field_types, read_document
from .patience_checks import check_patience
from .stream import PluginChoice, StreamConfig
from .toml_lines import KeyPath
from .tracker_checks import batch_refusal

_MOST_STREAMS = 64  # each is a process
_ANY_HOST = {"*", "0.0.0.0", "[::]"}


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """All that one service does.

    Attributes
    ----------
    streams
        The streams by name; they are independent of each other.
    log
        Folder that runs are written to; in the file relative to it. Default ``runs``.
    """

    streams: dict[str, StreamConfig]
    log: str = "runs"


def single_stream(stream: StreamConfig | None = None, *, log: str | Path = "runs") -> Experiment:
    """Return an experiment of one stream, for scripts and tests that have no file."""
    stream = stream or StreamConfig()
    return Experiment(streams={stream.name: stream}, log=str(log))


def load_experiment(path: str | Path) -> Experiment:
    """Read and completely check an experiment file.

    Every segmenter, tracker and rule is constructed once, so that what starts afterwards cannot fail for its
    options. Folders named in the file are relative to it; in the result they are absolute. ``module:Class``
    is also looked for beside the file, whose folder joins the end of ``sys.path`` (engine processes get it).

    Raises
    ------
    ConfigurationError
        Holds every problem that was found, each with file, line, key, reason and the nearest known name.
    """
    document = read_document(Path(path))
    folder = str(document.folder.absolute())
    if folder not in sys.path:
        sys.path.append(folder)
    experiment = _read_experiment(document)
    document.finish()
    return experiment


def _read_experiment(document: Document) -> Experiment:
    values = document.fields((), document.values, {**field_types(Experiment), "streams": Any})
    tables = document.table(("streams",), values.get("streams", {}))
    if not tables and not document.problems:
        document.report(("streams",), "at least one stream is needed, such as [streams.default].")
    if len(tables) > _MOST_STREAMS:
        document.report(
            ("streams",), f"{len(tables)} streams; at most {_MOST_STREAMS} are served by one file."
        )
        tables = {}
    found = {name: _read_stream(document, name, table) for name, table in tables.items()}
    streams = {name: stream for name, stream in found.items() if stream is not None}
    _check_apart(document, streams)
    return Experiment(streams=streams, log=str((document.folder / values.get("log", "runs")).absolute()))


def _read_stream(document: Document, name: str, value: Any) -> StreamConfig | None:
    path: KeyPath = ("streams", name)
    nested = {"segmenter": Any, "tracker": Any, "rules": Any, "limits": Any}
    expected = {**field_types(StreamConfig), **nested}
    del expected["name"]  # the table's own name
    if not isinstance(value, dict):
        document.table(path, value)
        return None
    values = document.fields(path, value, expected)
    if values.get("keys"):
        values["keys"] = str((document.folder / values["keys"]).absolute())
    values["limits"] = _read_limits(document, (*path, "limits"), values.get("limits", {}))
    built: dict[str, Any] = {}
    for key, kind, default in (("segmenter", _SEGMENTER, "net"), ("tracker", _TRACKER, "lap")):
        values[key], built[key] = _read_plugin(document, (*path, key), values.get(key, default), kind)
    if not any(key in value and key not in values for key in ("channels", "every", "channel", "policy")):
        _check_channels(document, path, values, built["segmenter"])
    values["rules"] = _read_rules(document, (*path, "rules"), values.get("rules", []), values["limits"])
    try:
        stream = StreamConfig(name=name, **values)
    except ConfigurationError as error:
        document.adopt(error, path)
        return None
    for wrong in check_patience(stream.hang_s, stream.start_s, built["segmenter"]):
        if wrong.key[0] in values or wrong.key[0] not in value:  # else it is reported already
            document.report((*path, *wrong.key), wrong.reason)
    _check_address(document, path, stream)
    return stream


def _check_channels(document: Document, path: KeyPath, values: dict[str, Any], segmenter: Any) -> None:
    """Report what is wrong with the channels, each at its own line, and leave wrong ones out."""
    names, every = values.get("channels", ()), values.get("every", {})
    channel = values.get("channel", "")
    wrong = list(check_channels(names, every, channel, values.get("policy", "lossless")))
    if not wrong and segmenter is not None:
        wrong = list(check_segmenter(names, every, channel, segmenter))
    for each in wrong:
        document.report((*path, *each.key), each.reason, each.did_you_mean)
    if wrong:
        for key in ("channels", "every", "channel"):
            values.pop(key, None)


def _read_limits(document: Document, path: KeyPath, value: Any) -> Limits:
    try:
        return Limits(**document.fields(path, document.table(path, value), field_types(Limits)))
    except ConfigurationError as error:
        document.adopt(error, path)
        return Limits()


def _read_rules(document: Document, path: KeyPath, value: Any, limits: Limits) -> tuple[PluginChoice, ...]:
    if not isinstance(value, list):
        document.report(path, "expected an array of tables, [[streams.NAME.rules]].")
        return ()
    choices: list[PluginChoice] = []
    names: dict[str, int] = {}
    for index, table in enumerate(value):
        here = (*path, index)
        choice, rule = _read_plugin(document, here, table, _RULE)
        choices.append(choice)
        if rule is None:
            continue
        name = str(rule.name)
        if name in names:
            key = "name" if "name" in choice.options else "use"
            reason = f"rules[{names[name]}] is called {name!r} too; give each rule a name of its own."
            document.report((*here, key), reason)
        names.setdefault(name, index)
        for command in rule.examples():
            if reason := strength_refusal(command, limits):
                kind = type(command).__name__
                document.report(
                    (*here, "use"), f"the limits would refuse every {kind} of this rule: {reason}."
                )
    return tuple(choices)


class _Kind(NamedTuple):
    group: str
    protocol: type[Any]
    methods: str


_SEGMENTER = _Kind("segmenters", Segmenter, "segment(frame) and channel")
_TRACKER = _Kind("trackers", Tracker, "update(detections)")
_RULE = _Kind("rules", Rule, "decide(moment), examples() and name")


def _read_plugin(document: Document, path: KeyPath, value: Any, kind: _Kind) -> tuple[PluginChoice, Any]:
    """Return the choice and, if it can be constructed, what it makes (else None)."""
    table = document.table(path, {"use": value} if isinstance(value, str) else value)
    options = {key: option for key, option in table.items() if key != "use"}
    use = table.get("use")
    if not isinstance(use, str):
        known = ", ".join(known_names(kind.group))
        if isinstance(value, dict):
            document.report((*path, "use"), f"expected a name; known: {known}, or 'module:Class'.")
        return PluginChoice("", options), None
    choice = PluginChoice(use, options)
    known = known_names(kind.group)
    if ":" not in use and use not in known:
        reason = f"no {use!r} among the {kind.group}; known: {', '.join(known)}, or 'module:Class'."
        document.report((*path, "use"), reason, nearest_name(use, known))
        return choice, None
    try:
        refusal = batch_refusal(use) if kind is _TRACKER else ""
        plugin = None if refusal else choice.build(kind.group)
    except OptionError as error:
        document.report((*path, *error.option.split(".")), error.reason, error.did_you_mean)
    except (Exception, SystemExit) as error:  # anything may happen while someone's module is imported
        reason = f"{use!r} cannot be used: {type(error).__name__}: {error}"
        document.report((*path, "use"), str(error) if isinstance(error, CytoloopError) else reason)
    else:
        if isinstance(plugin, kind.protocol):
            return choice, plugin
        lacking = f"{use!r} is none of the {kind.group}: it lacks {kind.methods}."
        document.report((*path, "use"), refusal or lacking)
    return choice, None


def _check_address(document: Document, path: KeyPath, stream: StreamConfig) -> None:
    try:
        require_keys(parse_address(stream.address), stream.keys or None)
    except AddressError as error:
        document.report((*path, "address"), f"{error}.")
    if stream.keys and not (Path(stream.keys) / "service.key_secret").is_file():
        reason = f"{stream.keys} holds no service.key_secret; make it with 'cytoloop keys'."
        document.report((*path, "keys"), reason)


def _check_apart(document: Document, streams: dict[str, StreamConfig]) -> None:
    """Report streams that would listen at the same place or write into the same folder."""
    wrong = {problem.key for problem in document.problems}
    for (first, a), (second, b) in combinations(streams.items(), 2):
        if first.casefold() == second.casefold():
            reason = f"differs from stream {first!r} by case only, which some file systems do not tell apart."
            document.report(("streams", second), reason)
        checked = not {f"streams.{first}.address", f"streams.{second}.address"} & wrong
        if checked and _same_place(parse_address(a.address), parse_address(b.address)):
            reason = f"stream {first!r} listens at {a.address!r} too; each needs an address of its own."
            document.report(("streams", second, "address"), reason)


def _same_place(a: Address, b: Address) -> bool:
    if a.scheme != "tcp" or b.scheme != "tcp":
        return a.text == b.text
    hosts = {"127.0.0.1" if address.host == "localhost" else address.host for address in (a, b)}
    return a.port == b.port != 0 and (len(hosts) == 1 or bool(hosts & _ANY_HOST))
