"""Reading the tables of a file that choose a segmenter, a tracker or a rule, and constructing each once."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...acquire.errors import ConfigurationError, CytoloopError, nearest_name
from ...acquire.governor.limits import Limits
from ...acquire.governor.strength import strength_refusal
from ...acquire.plugins import OptionError, known_names
from ...models.segmenter import Segmenter
from ...trackers.tracker import Tracker
from ..rules.known import Known
from ..rules.rule import Checking, Rule
from ..trust import Trust
from .document import Document, field_types
from .stream import PluginChoice
from .toml_lines import KeyPath
from .tracker_checks import batch_refusal


class Kind(NamedTuple):
    """A group of plugins, the protocol that they satisfy, and what it asks for."""

    group: str
    protocol: type[Any]
    methods: str


SEGMENTER = Kind("segmenters", Segmenter, "segment(frame) and channel")
TRACKER = Kind("trackers", Tracker, "update(detections)")
RULE = Kind("rules", Rule, "decide(moment), examples() and name")


def read_plugin(document: Document, path: KeyPath, value: Any, kind: Kind) -> tuple[PluginChoice, Any]:
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
        refusal = batch_refusal(use) if kind is TRACKER else ""
        plugin = None if refusal else choice.build(kind.group)
    except OptionError as error:
        for each in (error, *error.more):
            document.report((*path, *each.option.split(".")), each.reason, each.did_you_mean)
    except (Exception, SystemExit) as error:  # anything may happen while someone's module is imported
        reason = f"{use!r} cannot be used: {type(error).__name__}: {error}"
        document.report((*path, "use"), str(error) if isinstance(error, CytoloopError) else reason)
    else:
        if isinstance(plugin, kind.protocol):
            return choice, plugin
        lacking = f"{use!r} is none of the {kind.group}: it lacks {kind.methods}."
        document.report((*path, "use"), refusal or lacking)
    return choice, None


def read_limits(document: Document, path: KeyPath, value: Any) -> Limits:
    """Return the limits of a table, the default ones if it is wrong, which is reported."""
    try:
        return Limits(**document.fields(path, document.table(path, value), field_types(Limits)))
    except ConfigurationError as error:
        document.adopt(error, path)
        return Limits()


def read_trust(document: Document, path: KeyPath, value: Any) -> Trust:
    """Return what must hold for decisions to be trusted, the default if the table is wrong, which is reported."""
    types = {**field_types(Trust), "reference": Any}
    values = document.fields(path, document.table(path, value), types)
    if "reference" in values:
        values["reference"], _ = read_plugin(document, (*path, "reference"), values["reference"], SEGMENTER)
    try:
        return Trust(**values)
    except ConfigurationError as error:
        document.adopt(error, path)
        return Trust()


def read_rules(
    document: Document, path: KeyPath, value: Any, limits: Limits, known: Known | None = None
) -> tuple[PluginChoice, ...]:
    """Return the rules of an array of tables; what is wrong with them is reported.

    Parameters
    ----------
    document, path, value
        The file, where the array stands in it, and what stands there.
    limits
        A rule whose commands they would always refuse is reported.
    known
        What the frames will be like; None: nothing is known.
    """
    if not isinstance(value, list):
        document.report(path, f"expected an array of tables, [[{_header(path)}]].")
        return ()
    choices: list[PluginChoice] = []
    names: dict[str, int] = {}
    for index, table in enumerate(value):
        here = (*path, index)
        choice, rule = read_plugin(document, here, table, RULE)
        choices.append(choice)
        if rule is None:
            continue
        name = str(rule.name)
        if name in names:
            key = "name" if "name" in choice.options else "use"
            reason = f"rules[{names[name]}] is called {name!r} too; give each rule a name of its own."
            document.report((*here, key), reason)
        names.setdefault(name, index)
        try:
            _check_rule(document, here, rule, limits, known or Known())
        except Exception as error:  # a rule is anyone's code
            reason = f"{choice.use!r} failed while it was checked: {type(error).__name__}: {error}"
            document.report((*here, "use"), reason)
    return tuple(choices)


def _check_rule(document: Document, path: KeyPath, rule: Rule, limits: Limits, known: Known) -> None:
    if isinstance(rule, Checking):
        for key, reason, did_you_mean in rule.check(known):
            document.report((*path, *key.split(".")), reason, did_you_mean)
    for command in rule.examples():
        if reason := strength_refusal(command, limits):
            kind = type(command).__name__
            document.report((*path, "use"), f"the limits would refuse every {kind} of this rule: {reason}.")


def _header(path: KeyPath) -> str:
    return ".".join("NAME" if place == 1 and path[0] == "streams" else str(n) for place, n in enumerate(path))
