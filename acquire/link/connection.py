"""One connection of a client: the socket, its monitor, and the shared-memory ring offered over it."""

from __future__ import annotations

import contextlib
import socket as sockets
from dataclasses import replace
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from ..frame import Frame
from ..governor.standing import Standing
from .addresses import Address
from .keys import ClientKeys
from .messages import LARGEST_MESSAGE, Accepted, encode
from .outbox import Outbox
from .pixels import checksum, header_of
from .ring import RingWriter

_RECONNECT_MS = 20
_LINGER_MS = 200  # so that a BYE gets out


class Connection:
    """A DEALER socket and what belongs to it; used by one thread only.

    Attributes
    ----------
    lost
        Why the connection was lost, or ``""``.
    credit
        How many frames may be unanswered; the ring gets one slot for each.
    """

    def __init__(
        self, address: Address, keys: ClientKeys | None, woken: sockets.socket, *, shared_memory: bool
    ) -> None:
        self.lost = ""
        self.credit = 1
        self._shares_memory = shared_memory and address.is_local and address.scheme != "inproc"
        self._ring: RingWriter | None = None
        self._ring_visible = False
        self._woken = woken
        context = zmq.Context.instance()
        self._socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.maxmsgsize = LARGEST_MESSAGE
        self._socket.sndhwm = self._socket.rcvhwm = 0  # bounded by the credit instead
        self._socket.reconnect_ivl = _RECONNECT_MS
        if keys is not None:
            keys.secure(self._socket)
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        )
        self._poller = zmq.Poller()
        for readable in (self._socket, self._monitor, woken):
            self._poller.register(readable, zmq.POLLIN)
        self._socket.connect(str(address))

    def receive(self, timeout_s: float) -> list[bytes] | None:
        """Wait for a message, a wake-up or the loss of the connection; return the message's parts, if any."""
        with contextlib.suppress(zmq.Again):
            return self._socket.recv_multipart(zmq.NOBLOCK)
        ready = dict(self._poller.poll(int(timeout_s * 1000)))
        if self._woken.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
        if self._monitor in ready:
            event = parse_monitor_message(self._monitor.recv_multipart())["event"]
            self.lost = "closed by the service" if event == zmq.EVENT_DISCONNECTED else "keys not accepted"
        if self._socket in ready:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        return None

    def send(self, part: bytes, *, last: bool = False) -> None:
        """Send a message without pixels; the last one may linger while the socket closes."""
        if last:
            self._socket.linger = _LINGER_MS
        self._send(part)

    def _send(self, part: Any, more: Any = None) -> None:
        """Send without ever blocking: a service that turned us away leaves a socket that takes nothing."""
        try:
            if more is None:
                self._socket.send(part, zmq.NOBLOCK)
                return
            self._socket.send(part, zmq.NOBLOCK | zmq.SNDMORE)
            # Pixels are not copied: the outbox keeps the frame, and nobody changes it, until it is answered.
            self._socket.send(more, zmq.NOBLOCK, copy=len(more) == 0)
        except zmq.Again:
            self.lost = "the service takes no messages from here"

    def send_frames(self, outbox: Outbox, standing: Standing) -> None:
        """Send all frames that the credit allows, each with how the microscope stands."""
        while (item := outbox.next()) is not None:
            posted, skipped = item
            frame = replace(posted.frame, sequence=posted.sequence, sent_s=posted.sent_s, standing=standing)
            self._offer_ring(frame)
            slot = self._ring.put(frame.sequence, frame.pixels) if self._ring and self._ring_visible else -1
            header = encode(header_of(frame, skipped=skipped, slot=slot, check=checksum(frame.pixels)))
            self._send(header, frame.pixels if slot < 0 else b"")

    def _offer_ring(self, frame: Frame) -> None:
        """Offer a ring fit for the frames of this stream, once; they go through the socket until it is accepted."""
        if not self._shares_memory or self._ring is not None:
            return
        try:
            self._ring = RingWriter(self.credit, frame.pixels.nbytes)
        except OSError:  # no shared memory here: the socket carries the pixels
            self._shares_memory = False
            return
        self.send(encode(self._ring.offer))

    def ring_accepted(self, message: Accepted) -> None:
        """Use the ring from now on, if the service can see it."""
        if self._ring is not None and message.name == self._ring.offer.name:
            self._ring_visible = message.visible

    def release(self, sequence: int) -> None:
        """Free what an answered frame holds."""
        if self._ring is not None:
            self._ring.release(sequence)

    def close(self) -> None:
        """Close the socket and give the ring back."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close()
        if self._ring is not None:
            self._ring.close()
