"""Asking a service something from beside the acquisition: another standing of the microscope, or why it decided so."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TypeVar

import zmq

from ..errors import LinkError, RefusedError, WireError
from ..governor.standing import Standing
from .addresses import DEFAULT_ADDRESS, parse_address, require_keys
from .keys import ClientKeys
from .messages import (
    LARGEST_MESSAGE,
    Because,
    Control,
    FromClient,
    FromService,
    Question,
    Refusal,
    Stands,
    decode_from_service,
    encode,
)

M = TypeVar("M", bound=FromService)


def set_standing(
    standing: Standing,
    *,
    who: str,
    why: str,
    address: str = DEFAULT_ADDRESS,
    stream: str = "default",
    keys: str | Path | None = None,
    timeout_s: float = 10.0,
) -> Stands:
    """Arm, disarm or dry-run the microscope that is connected to a service; return how it stands then.

    Parameters
    ----------
    standing
        ``armed``, ``dry`` or ``disarmed``.
    who, why
        Told in the logs of both sides.
    address, stream, keys
        As for :class:`~cytoloop.acquire.link.client.Client`.
    timeout_s
        Longest wait for the microscope's word in s.

    Raises
    ------
    RefusedError
        If there is no such stream, no microscope is connected, or it does not confirm.
    LinkError
        If the service does not answer.
    AddressError
        If the address is malformed or not allowed without keys.
    """
    message = Control(stream, standing, who[:256], why[:3800])
    return _exchange(message, Stands, address, keys, timeout_s)


def ask_why(
    track: int,
    sequence: int = -1,
    *,
    address: str = DEFAULT_ADDRESS,
    stream: str = "default",
    keys: str | Path | None = None,
    timeout_s: float = 600.0,
) -> Because:
    """Return what the rules of a running service say of a cell.

    Parameters
    ----------
    track
        The cell; 0 asks about the frame as a whole.
    sequence
        The frame; -1: the last one that was judged. Frames before are worked out again from the run's journal, which
        may take as long as the run had frames.
    address, stream, keys, timeout_s
        As for :func:`set_standing`.

    Raises
    ------
    RefusedError
        If there is no such stream, run, cell or frame.
    LinkError
        If the service does not answer.
    AddressError
        If the address is malformed or not allowed without keys.
    """
    answer = _exchange(Question(stream, track, sequence), Because, address, keys, timeout_s)
    if answer.refused:
        raise RefusedError(answer.refused)
    return answer


def _exchange(
    message: FromClient, wanted: type[M], address: str, keys: str | Path | None, timeout_s: float
) -> M:
    """Send one message, and return the answer of the wanted kind."""
    place = parse_address(address)
    require_keys(place, keys)
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    try:
        socket.linger = 0
        socket.maxmsgsize = LARGEST_MESSAGE
        if keys is not None:
            ClientKeys.load(keys).secure(socket)
        socket.connect(str(place))
        socket.send(encode(message))
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0 and socket.poll(int(1000 * left_s) + 1):
            try:
                answer = decode_from_service(socket.recv())
            except WireError as error:
                raise LinkError(f"{address}: the answer cannot be read: {error}") from None
            if isinstance(answer, Refusal):
                raise RefusedError(f"{address}: {answer.reason}")
            if isinstance(answer, wanted):
                return answer
    finally:
        socket.close()
    raise LinkError(f"{address}: no answer within {timeout_s:g} s; is the service running there?")
