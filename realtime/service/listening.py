"""The socket of an engine: bound, bounded, and open only to clients that may connect."""

from __future__ import annotations

import zmq

from ...acquire.errors import AddressError
from ...acquire.link.addresses import parse_address, require_keys
from ...acquire.link.keys import Door
from ...acquire.link.messages import LARGEST_MESSAGE
from ..experiment.stream import StreamConfig


def listen(stream: StreamConfig) -> tuple[zmq.Socket[bytes], Door | None]:
    """Return the ROUTER socket of a stream, and what lets its clients in if it has keys.

    Raises
    ------
    AddressError
        If the address cannot be bound, or is not local and there are no keys.
    """
    address = parse_address(stream.address)
    require_keys(address, stream.keys)
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    door = None
    try:
        socket.linger = 0
        socket.maxmsgsize = LARGEST_MESSAGE
        socket.rcvhwm = 64  # per client; the credit keeps an honest one far below
        if stream.keys:
            door = Door(socket, stream.keys)
        socket.bind(str(address))
    except (zmq.ZMQError, AddressError) as error:
        socket.close()
        if door is not None:
            door.stop()
        raise AddressError(f"cannot listen on {address}: {error}") from error
    return socket, door
