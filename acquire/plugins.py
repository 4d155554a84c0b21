"""Finding segmenters, trackers, rules, sources and actuators by name, and building them from options.

A name is looked up among the entry points of its group (``cytoloop.segmenters`` and so on); ``module:Class``
needs no registration. Options are checked against the constructor's own annotated keywords, so that a class
needs nothing but a typed ``__init__``. An option that is called like a word of Python has a ``_`` behind it there.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from .errors import PluginError, nearest_name


def known_names(group: str) -> list[str]:
    """Return the registered names of a group, such as ``segmenters``, sorted."""
    return sorted({point.name for point in entry_points(group=f"cytoloop.{group}")})


def find_class(group: str, name: str) -> type[Any]:
    """Return the class behind a registered name or ``module:Class``.

    Raises
    ------
    PluginError
        If there is none; the message lists the known names.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise PluginError(f"{group}: cannot import {name!r}: {error}") from error
    for point in entry_points(group=f"cytoloop.{group}"):
        if point.name == name:
            try:
                return point.load()
            except (ImportError, AttributeError) as error:
                raise PluginError(
                    f"{group}: {name!r} cannot be loaded from {point.value}: {error}"
                ) from error
    known = known_names(group)
    hint = nearest_name(name, known)
    raise PluginError(
        f"{group}: no {name!r}; known: {', '.join(known)}, or 'module:Class'."
        + (f" Did you mean {hint!r}?" if hint else "")
    )


class OptionError(PluginError):
    """One option that a class does not take, or not with this value; ``option`` is its name, ``more`` other ones."""

    def __init__(
        self, option: str, reason: str, did_you_mean: str = "", more: tuple[OptionError, ...] = ()
    ) -> None:
        self.option, self.reason, self.did_you_mean, self.more = option, reason, did_you_mean, more
        super().__init__(f"{option}: {reason}" + (f" Did you mean {did_you_mean!r}?" if did_you_mean else ""))

    def within(self, option: str) -> OptionError:
        """Return the same of options inside another option."""
        more = tuple(each.within(option) for each in self.more)
        return OptionError(f"{option}.{self.option}", self.reason, self.did_you_mean, more)


class Gathered:
    """What is wrong with several options, so that all of it is told at once.

    ::

        wrong = Gathered()
        with wrong.one():
            ...  # may raise an OptionError, which is kept
        wrong.tell()
    """

    def __init__(self) -> None:
        self._errors: list[OptionError] = []

    @contextmanager
    def one(self) -> Generator[None]:
        """Keep the error of a block, and go on after it."""
        try:
            yield
        except OptionError as error:
            self._errors += (error, *error.more)

    def tell(self) -> None:
        """Raise what was kept.

        Raises
        ------
        OptionError
            The first one, with the others as ``more``.
        """
        if self._errors:
            first, *more = self._errors
            raise OptionError(first.option, first.reason, first.did_you_mean, tuple(more))


def convert_option(name: str, value: Any, expected: Any) -> Any:
    """Return the value of an option as the type that its annotation asks for.

    Raises
    ------
    OptionError
        Names the option, its value, what is allowed, and the nearest allowed name where there are names.
    """
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        choices = _choices(expected)
        if not (choices and isinstance(value, str)):
            raise OptionError(name, f"{reprlib.repr(value)}: {error}.") from None
        allowed = ", ".join(map(repr, choices))
        raise OptionError(
            name, f"{value!r} is not allowed; allowed: {allowed}.", nearest_name(value, choices)
        ) from None


def _choices(expected: Any) -> list[str]:
    """Return the strings of every Literal in a type."""
    if get_origin(expected) is Literal:
        return [choice for choice in get_args(expected) if isinstance(choice, str)]
    return [choice for part in get_args(expected) for choice in _choices(part)]


def build(cls: type[Any], options: Mapping[str, Any]) -> Any:
    """Construct a plugin from options whose names and types are checked first.

    Raises
    ------
    OptionError
        Names the option, what was wrong with it and the nearest known name.
    """
    parameters = {
        name.rstrip("_"): parameter
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    hints = get_type_hints(cls.__init__)
    values: dict[str, Any] = {}
    wrong = Gathered()
    for name, value in options.items():
        with wrong.one():
            if name not in parameters:
                allowed = f"allowed: {', '.join(parameters) or 'none'}."
                raise OptionError(name, f"unknown option; {allowed}", nearest_name(name, parameters))
            values[parameters[name].name] = convert_option(name, value, hints.get(parameters[name].name, Any))
    for name, parameter in parameters.items():
        with wrong.one():
            if parameter.default is parameter.empty and name not in options:
                raise OptionError(name, "this option is needed.")
    wrong.tell()
    try:
        return cls(**values)
    except ValueError as error:
        option = next((name for name in values if name in str(error)), next(iter(values), ""))
        raise OptionError(option, f"{error}.") from error
