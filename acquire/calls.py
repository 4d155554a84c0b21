"""Calls: Python functions at the microscope that the service may ask for, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from .commands import Call
from .errors import ActuatorError, nearest_name
from .reply import Decision

_DECISION = "decision"


class CallActuator:
    """Carries out :class:`~cytoloop.acquire.commands.Call`: only functions that are registered here are called.

    A function is called with the command's arguments as keywords, between two events, in the thread that runs the
    hardware; the next event waits for it. One that has a parameter ``decision`` gets the whole decision there. What
    it returns is ignored; an exception becomes an :class:`~cytoloop.acquire.errors.ActuatorError`, and the
    acquisition goes on.

    Parameters
    ----------
    functions
        By the name under which the service may call them.

    Raises
    ------
    ActuatorError
        If one of them cannot be called, or its parameters cannot be known or given by name.
    """

    commands: tuple[type, ...] = (Call,)

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        self._functions = dict(functions)
        self._signatures: dict[str, inspect.Signature] = {}
        for name, function in self._functions.items():
            if not callable(function):
                raise ActuatorError(f"function {name!r}: {function!r} cannot be called")
            try:
                signature = inspect.signature(function)
            except ValueError:
                raise ActuatorError(
                    f"function {name!r}: its parameters cannot be known; wrap it in a def"
                ) from None
            if any(each.kind is each.POSITIONAL_ONLY for each in signature.parameters.values()):
                raise ActuatorError(f"function {name!r}{signature}: all parameters must be taken by name")
            self._signatures[name] = signature

    def actuate(self, decision: Decision) -> None:
        """Call the function; blocks for as long as it takes.

        Raises
        ------
        ActuatorError
            If no such function is registered, it does not take the arguments, or it raises.
        """
        command = decision.command
        if not isinstance(command, Call):
            raise ActuatorError(f"{type(command).__name__} is not for CallActuator")
        name = command.function
        if name not in self._functions:
            near = nearest_name(name, self._functions)
            hint = f" Did you mean {near!r}?" if near else ""
            known = ", ".join(sorted(self._functions)) or "none"
            raise ActuatorError(f"no function {name!r}; registered: {known}.{hint}")
        arguments: dict[str, Any] = dict(command.arguments)
        signature = self._signatures[name]
        if _DECISION in arguments:
            raise ActuatorError(f"function {name!r}: argument {_DECISION!r} is given by the loop itself")
        if _DECISION in signature.parameters:
            arguments[_DECISION] = decision
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise ActuatorError(f"function {name!r} takes {signature}: {error}") from None
        try:
            self._functions[name](**arguments)
        except Exception as error:
            raise ActuatorError(f"function {name!r} failed: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Do nothing: the functions belong to the script."""
