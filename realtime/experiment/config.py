"""The experiment file: one TOML document that says all a service does, checked before anything starts."""

from __future__ import annotations

import re
import sys
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec

from ...acquire.coordinates import Affine
from ...acquire.errors import AddressError, ConfigurationError, CytoloopError, Problem, nearest_name
from ...acquire.link.addresses import DEFAULT_ADDRESS, Address, parse_address, require_keys
from ...acquire.plugins import OptionError, build, find_class, known_names
from ...models.segmenter import Segmenter
from ...trackers.tracker import Tracker
from ..limits import Limits, strength_refusal
from ..rules.rule import Rule
from .channel_checks import check_channels, check_segmenter
from .document import Document, dotted, field_types, read_document
from .patience_checks import check_patience
from .toml_lines import KeyPath
from .tracker_checks import batch_refusal

Matrix: TypeAlias = tuple[tuple[float, float], tuple[float, float]]
Positive = Annotated[float, msgspec.Meta(gt=0)]
ChannelName = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]

_MOST_STREAMS = 64  # each is a process
_ANY_HOST = {"*", "0.0.0.0", "[::]"}

# A stream's name becomes a folder of the log on any operating system.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_RESERVED_ON_WINDOWS = re.compile(r"(?i)con|prn|aux|nul|com\d|lpt\d")


class PluginChoice(msgspec.Struct, frozen=True):
    """A segmenter, tracker or rule: its registered name or ``module:Class``, and its options."""

    use: str
    options: dict[str, Any] = {}

    def build(self, group: str) -> Any:
        """Construct it; ``group`` is ``segmenters``, ``trackers`` or ``rules``.

        Raises
        ------
        PluginError
            An unknown name, or an option (:class:`~cytoloop.acquire.plugins.OptionError`) it does not take.
        """
        return build(find_class(group, self.use), self.options)


class StreamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One stream of frames and all that happens to it.

    Attributes
    ----------
    name
        The stream's name: letters, digits, ``_`` and ``-``. In the file it is the name of the table.
    address
        Where the service listens: ``tcp://HOST:PORT`` (port 0: the system chooses), ``ipc://PATH`` or
        ``inproc://NAME``; another one for each stream. Default ``tcp://127.0.0.1:5790``.
    policy
        ``"lossless"``: every frame is analysed, in order. ``"latest"``: one slot, only the newest waiting
        frame is analysed. Default ``"lossless"``.
    credit
        Frames that the client may have under way at once, 1 to 64. Default 3.
    channels
        Names of the channels that come as separate images and are joined into one frame for each time,
        position and z, in this order; images of others are acknowledged and left alone. Default none: frames
        are taken as they come.
    every
        Of these channels, those that are taken at every n-th time point only (0, n, 2 n, ...), each with its
        n; they stand last in ``channels``. Default none.
    channel
        Name of the channel to segment; the others are measured if they are in the same frame, else
        acknowledged and left alone. Default ``""``: the segmenter's own choice; of frames with one channel
        that are not joined, the channel of the first.
    keys
        Folder made by ``cytoloop keys``, needed for any address that is not loopback; relative to the
        experiment file. Default ``""``: none.
    save_masks
        Write the label image of every frame into the log. Default false.
    hang_s
        Seconds of work on one frame after which the engine process is taken for hung and is started again,
        0.1 to 3600. Default 10.
    start_s
        Seconds that an engine process may take to start and to load the segmenter, 1 to 86400. Default 180.
    pixel_size_um
        Edge of a pixel in the sample in um; goes before what frames say. Default none.
    affine
        Instead of ``pixel_size_um``, for a camera that is rotated or flipped: [[xx, xy], [yx, yy]], stage um
        per px, the row of x first. Default none.
    segmenter, tracker
        What finds and what links the cells. Default ``net`` and ``lap``.
    rules
        What decides, in this order. Default none.
    limits
        What commands may ask for.
    """

    name: str = "default"
    address: str = DEFAULT_ADDRESS
    policy: Literal["lossless", "latest"] = "lossless"
    credit: Annotated[int, msgspec.Meta(ge=1, le=64)] = 3
    channels: Annotated[tuple[ChannelName, ...], msgspec.Meta(max_length=64)] = ()
    every: dict[str, Annotated[int, msgspec.Meta(ge=1)]] = {}
    channel: str = ""
    keys: str = ""
    save_masks: bool = False
    hang_s: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 10.0
    start_s: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 180.0
    pixel_size_um: Positive | None = None
    affine: Matrix | None = None
    segmenter: PluginChoice = PluginChoice("net")
    tracker: PluginChoice = PluginChoice("lap")
    rules: tuple[PluginChoice, ...] = ()
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        if not _NAME.fullmatch(self.name) or _RESERVED_ON_WINDOWS.fullmatch(self.name):
            allowed = "letters, digits, _ and -, at most 64, and no name that Windows reserves"
            problems.append(Problem("", 0, "", f"{self.name!r} cannot name a stream; allowed: {allowed}."))
        for wrong in check_channels(self.channels, self.every, self.channel, self.policy):
            problems.append(Problem("", 0, dotted(wrong.key), wrong.reason, wrong.did_you_mean))
        if self.affine is not None and self.pixel_size_um is not None:
            problems.append(Problem("", 0, "pixel_size_um", "give either pixel_size_um or affine, not both."))
        try:
            self.pixel_map(None)
        except ConfigurationError as error:
            problems.extend(error.problems)
        if problems:
            raise ConfigurationError(problems)

    def pixel_map(self, frame_pixel_size_um: float | None) -> Affine | None:
        """Return the pixel to stage map of a frame with this pixel size in its metadata, or None."""
        if self.affine is not None:
            (xx, xy), (yx, yy) = self.affine
            return Affine(xx, xy, yx, yy)
        size = self.pixel_size_um or frame_pixel_size_um or 0.0  # 0 is Micro-Manager's "not calibrated"
        return Affine.from_pixel_size(size) if size > 0 else None


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
