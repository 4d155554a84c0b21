"""The experiment file: one TOML document that says all a service does, checked before anything starts."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ...acquire.calibration.stored import read_calibration
from ...acquire.errors import AddressError, CalibrationError, ConfigurationError
from ...acquire.governor.safe import SafeState
from ...acquire.link.addresses import Address, parse_address, require_keys
from ..recording.settings import Record
from ..rules.known import Known
from .channel_checks import check_channels, check_segmenter
from .document import Document, field_types, read_document, see_modules_of
from .patience_checks import check_patience
from .plugin_tables import SEGMENTER, TRACKER, read_limits, read_plugin, read_rules, read_trust
from .rule_files import read_rules_file
from .stream import RuleSet, StreamConfig
from .toml_lines import KeyPath

T = TypeVar("T", bound=msgspec.Struct)
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
    see_modules_of(document)
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
    nested = {
        "segmenter": Any,
        "tracker": Any,
        "rules": Any,
        "limits": Any,
        "safe": Any,
        "record": Any,
        "trust": Any,
        "shadow": tuple[str, ...],
    }
    expected = {**field_types(StreamConfig), **nested}
    del expected["name"]  # the table's own name
    if not isinstance(value, dict):
        document.table(path, value)
        return None
    values = document.fields(path, value, expected)
    if values.get("keys"):
        values["keys"] = str((document.folder / values["keys"]).absolute())
    _read_calibration(document, path, values)
    values["trust"] = read_trust(document, (*path, "trust"), values.get("trust", {}))
    values["limits"] = read_limits(document, (*path, "limits"), values.get("limits", {}))
    values["safe"] = _read_table(document, (*path, "safe"), values.get("safe", {}), SafeState)
    values["record"] = _read_table(document, (*path, "record"), values.get("record", {}), Record)
    built: dict[str, Any] = {}
    for key, kind, default in (("segmenter", SEGMENTER, "net"), ("tracker", TRACKER, "lap")):
        values[key], built[key] = read_plugin(document, (*path, key), values.get(key, default), kind)
    if not any(key in value and key not in values for key in ("channels", "every", "channel", "policy")):
        _check_channels(document, path, values, built["segmenter"])
    known = _known(values, built["segmenter"])
    values["rules"] = read_rules(document, (*path, "rules"), values.get("rules", []), values["limits"], known)
    values["shadow"] = _read_shadows(document, path, values, known)
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


def _read_table(document: Document, path: KeyPath, value: Any, kind: type[T]) -> T:
    """Return what a table of plain values says."""
    return kind(**document.fields(path, document.table(path, value), field_types(kind)))


def _read_calibration(document: Document, path: KeyPath, values: dict[str, Any]) -> None:
    """Report a calibration file that is missing or broken; one that is stale is told while the stream runs."""
    if not values.get("calibration"):
        return
    file = document.folder / values["calibration"]
    values["calibration"] = str(file.absolute())
    try:
        _ = read_calibration(file).map
    except CalibrationError as error:
        document.report((*path, "calibration"), f"{error}.")


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


def _read_shadows(
    document: Document, path: KeyPath, values: dict[str, Any], known: Known
) -> tuple[RuleSet, ...]:
    """Return the rules files of a stream; problems inside them are told with their own file and line."""
    found: list[RuleSet] = []
    for index, name in enumerate(values.get("shadow", ())):
        file = document.folder / name
        if not file.is_file():
            document.report((*path, "shadow", index), f"{name!r}: there is no such file beside this one.")
            continue
        try:
            rules = read_rules_file(file, known, values["limits"])
        except ConfigurationError as error:
            document.problems.extend(error.problems)
            continue
        if any(each.name == rules.name for each in found):
            reason = (
                f"{name!r}: another file is called {rules.name!r} too; decisions are told apart by that name."
            )
            document.report((*path, "shadow", index), reason)
            continue
        found.append(rules)
    return tuple(found)


def _known(values: dict[str, Any], segmenter: Any) -> Known:
    """Return what a stream's table says of its frames; frames may bring the size of a pixel."""
    classes = getattr(segmenter, "classes", None)
    names = values.get("channels", ())
    return Known(tuple(names), tuple(classes) if isinstance(classes, tuple | list) else None)


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
