"""The client's end of the link: one background thread between the acquisition and the service.

Nothing here ever makes the acquisition wait: :meth:`Client.send` appends to a queue and returns. The thread
says HELLO, sends what the service's credit allows, keeps every frame until it is answered, and begins again
when the service is gone, hung or restarted.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import platform
import socket as sockets
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeAlias

from msgspec.structs import replace

from ..errors import RefusedError, VersionError, WireError
from ..frame import Frame
from ..reply import Decision, Reply
from .addresses import DEFAULT_ADDRESS, parse_address, require_keys
from .connection import Connection
from .inbox import FreshReplies
from .keys import ClientKeys
from .messages import (
    Accepted,
    Answer,
    Beat,
    Bye,
    FromService,
    Hello,
    Noted,
    Refusal,
    Welcome,
    decode_from_service,
    encode,
)
from .outbox import Outbox
from .safeguard import Safeguard

State: TypeAlias = Literal["connecting", "connected", "silent", "refused", "closed"]

_LOG = logging.getLogger("cytoloop.link")
_RECENT_REPLIES = 256  # for wait()
_KEPT_REPLIES = 10_000
_KEPT_CELLS = 1_000_000  # about 50 MB
_KEPT_DECISIONS = 10_000
_BEAT_S = 0.25
_RETRY_REFUSED_S = 3.0
_RETRY_AGAIN_S = 0.02
_RETRY_FAILED_S = 0.5
_MOST_REFUSALS = 5


@dataclass(frozen=True, slots=True)
class ClientStats:
    """Where the link stands.

    Attributes
    ----------
    sent, acknowledged, dropped
        Frames handed over, answered, and left out by policy or for want of memory.
    damaged
        Messages of the service that failed their checks.
    reconnects
        How often the link had to begin again.
    state, reason
        ``connecting``, ``connected``, ``silent`` (no sign of life), ``refused`` or ``closed``, and why.
    folder
        The run's folder on the service's computer, once known.
    """

    sent: int
    acknowledged: int
    dropped: int
    damaged: int
    reconnects: int
    state: State
    reason: str
    folder: str


class Client:
    """Sends the frames of one acquisition run and receives its replies.

    Parameters
    ----------
    address
        ``inproc://``, ``ipc://`` or ``tcp://``; see :mod:`cytoloop.acquire.link.addresses`.
    stream
        Name of the stream in the service's experiment file.
    keys
        This client's folder of CURVE keys; needed unless the address is local.
    buffer_mb
        Memory in MB for frames that are not answered yet.
    silence_s
        Time in s without a sign of life after which the link begins again; once the service has said how long
        it may work on one frame (``hang_s`` of its stream), at least that.
    shared_memory
        Let the pixels go through shared memory where both ends are on one host.

    Attributes
    ----------
    safeguard
        Terms, standing and outcomes, for what carries decisions out.

    Raises
    ------
    AddressError
        If the address is malformed or not allowed without keys, or the keys cannot be read.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        stream: str = "default",
        keys: str | Path | None = None,
        buffer_mb: int = 1024,
        silence_s: float = 2.0,
        shared_memory: bool = True,
    ) -> None:
        self._address = parse_address(address)
        require_keys(self._address, keys)
        self._keys = None if keys is None else ClientKeys.load(keys)
        self._stream, self._silence_s = stream, silence_s
        self._shared_memory = shared_memory
        self._run = uuid.uuid4().hex
        self._name = f"{platform.node()} pid {os.getpid()}"[:256]
        self._outbox = Outbox(buffer_mb << 20)
        self.safeguard = Safeguard()
        self._changed = threading.Condition()
        self._replies: deque[Reply] = deque(maxlen=_RECENT_REPLIES)
        self._fresh = FreshReplies(_KEPT_REPLIES, _KEPT_CELLS)
        self._decisions: deque[Decision] = deque(maxlen=_KEPT_DECISIONS)
        self._acknowledged = self._damaged = self._reconnects = 0
        self._state: State = "connecting"
        self._reason = self._folder = ""
        self._refused, self._refusals = -1, 0  # the frame that was refused last, and how often in a row
        self._closing = False
        self._wake, self._woken = sockets.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._thread = threading.Thread(target=self._work, name="cytoloop link", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    # --- called by the acquisition, from any thread ---------------------------------------------------------

    def send(self, frame: Frame) -> int:
        """Hand a frame over and return its sequence number; returns at once, whatever the service does.

        The pixels are not copied here: they must not be changed afterwards.
        """
        sequence, _ = self._outbox.put(frame)
        self._rouse()
        return sequence

    def decisions(self) -> list[Decision]:
        """Return the decisions since the last call, in frame order; those the limits refused are left out."""
        with self._changed:
            fresh = list(self._decisions)
            self._decisions.clear()
        return fresh

    def replies(self) -> list[Reply]:
        """Return the replies since the last call, in frame order (at most the last 10 000, or 1 000 000 cells).

        ``timings_ms["round_trip"]`` is the time from :meth:`send` to the reply's arrival.
        """
        with self._changed:
            return self._fresh.take()

    def wait(self, sequence: int, timeout_s: float) -> Reply | None:
        """Wait for the reply to a frame; None if it does not come in time or the frame was left out."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._outbox.awaiting > sequence or self._state == "closed", timeout_s
            )
            return next((reply for reply in reversed(self._replies) if reply.sequence == sequence), None)

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the service has answered; False if it does not in time.

        Raises
        ------
        RefusedError
            If the service turned this client away.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._state in ("connected", "refused", "closed"), timeout_s)
            if self._state == "refused":
                raise RefusedError(f"{self._address}, stream {self._stream!r}: {self._reason}")
            return self._state == "connected"

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything sent is answered, and what came of it noted; False if that takes longer."""
        self._rouse()
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._outbox.pending or self.safeguard.pending), timeout_s
            )

    def stats(self) -> ClientStats:
        """Return where the link stands."""
        with self._changed:
            return ClientStats(
                sent=self._outbox.sent,
                acknowledged=self._acknowledged,
                dropped=self._outbox.dropped,
                damaged=self._damaged,
                reconnects=self._reconnects,
                state=self._state,
                reason=self._reason,
                folder=self._folder,
            )

    def close(self, drain_s: float = 5.0) -> None:
        """Wait up to ``drain_s`` s for the last replies, then end the link."""
        if self._closing:
            return
        if self._state != "refused":
            self.drain(drain_s)
        self._closing = True
        self._rouse()
        self._thread.join()
        atexit.unregister(self.close)
        left = self._outbox.pending
        if left:
            _LOG.warning("link closed with %d frames unanswered", left)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the background thread ------------------------------------------------------------------------------

    def _rouse(self) -> None:
        # A full pipe means that the thread has been woken already; a closed one that it has ended.
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")

    def _work(self) -> None:
        try:
            while not self._closing:
                try:
                    self._connect_and_converse()
                except Exception as error:  # whatever it is, the experiment goes on and so must the link
                    _LOG.exception("the link failed and begins again")
                    self._begin_again("connecting", f"{type(error).__name__}: {error}")
                    self._pause(_RETRY_FAILED_S)
        finally:
            self._enter("closed", self._reason)
            self._wake.close()
            self._woken.close()

    def _connect_and_converse(self) -> None:
        connection = Connection(self._address, self._keys, self._woken, shared_memory=self._shared_memory)
        try:
            self._converse(connection)
        finally:
            connection.close()

    def _converse(self, connection: Connection) -> None:
        """Speak with one service over one connection, until it is lost, silent or no longer wanted."""
        connection.send(encode(Hello(self._stream, self._run, self._name, self._outbox.awaiting)))
        self.safeguard.begin_again()
        heard = beaten = time.monotonic()
        patience = self._silence_s
        welcomed = False
        while not self._closing:
            parts = connection.receive(min(_BEAT_S, patience))
            now = time.monotonic()
            if connection.lost:
                return self._begin_again("connecting", connection.lost)
            if parts is not None:
                heard = now
                message = self._read(parts)
                if isinstance(message, Refusal):
                    if message.code == "rejected":
                        self._enter("refused", message.reason)
                    if message.code == "again":
                        self._give_up_refused(message.reason)
                    self._pause(_RETRY_REFUSED_S if message.code == "rejected" else _RETRY_AGAIN_S)
                    return self._begin_again(None, message.reason)
                if message is None:  # it may have been an answer: have all that is unanswered repeated
                    self._pause(_RETRY_FAILED_S)
                    return self._begin_again("connecting", "a message of the service was damaged")
                if isinstance(message, Welcome):
                    welcomed, patience = True, max(patience, message.hang_s)
                if welcomed:
                    self.safeguard.take(message)
                self._take(message, connection)
            elif now - heard > patience:
                # Asked again over a new connection: the service may be new behind the same address. One that is
                # only slow repeats the answers to what it has taken.
                return self._begin_again("silent", f"no sign of life for {now - heard:.1f} s")
            if welcomed:
                for due in self.safeguard.due():
                    connection.send(encode(due))
                connection.send_frames(self._outbox, self.safeguard.safety.standing)
                if now - beaten > _BEAT_S:
                    beaten = now
                    connection.send(encode(Beat(self._outbox.awaiting)))
        connection.send(encode(Bye()), last=True)
        return None

    def _begin_again(self, state: State | None, reason: str) -> None:
        if self._state == "connected":
            self._reconnects += 1
            _LOG.warning("link to %s lost: %s", self._address, reason)
        if state is not None:
            self._enter(state, reason)

    def _give_up_refused(self, reason: str) -> None:
        """Leave a frame out that the service refuses time and again: the frames behind it must go on."""
        sequence = self._outbox.awaiting
        self._refusals = self._refusals + 1 if sequence == self._refused else 1
        self._refused = sequence
        if self._refusals >= _MOST_REFUSALS:
            with self._changed:
                self._outbox.leave_out(sequence)
                self._changed.notify_all()
            _LOG.error("frame %d is left out; the service refuses it: %s", sequence, reason)

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._closing and time.monotonic() < deadline:
            time.sleep(0.05)

    def _enter(self, state: State, reason: str) -> None:
        with self._changed:
            self._state, self._reason = state, reason
            self._changed.notify_all()

    def _read(self, parts: list[bytes]) -> FromService | None:
        try:
            if len(parts) != 1:
                raise WireError(f"{len(parts)} parts where one is allowed")
            return decode_from_service(parts[0])
        except VersionError as error:
            return Refusal("rejected", str(error))
        except WireError as error:
            self._damaged += 1
            _LOG.warning("message of the service dropped: %s", error)
            return None

    def _take(self, message: FromService, connection: Connection) -> None:
        """Act on a checked message."""
        match message:
            case Welcome(next_sequence=number) if number > self._outbox.sent:
                connection.lost = f"the service expects frame {number}, which does not exist yet"
            case Welcome():
                self._outbox.rewind(message.next_sequence, message.credit, message.policy)
                connection.credit = message.credit
                self._folder = message.folder
                self._enter("connected", "")
            case Answer():
                self._deliver(message.reply, connection)
            case Accepted():
                connection.ring_accepted(message)
            case Noted():
                with self._changed:
                    self._changed.notify_all()
            case _:
                pass

    def _deliver(self, reply: Reply, connection: Connection) -> None:
        """Keep the first reply to a frame; a repeated one has been acted on already."""
        with self._changed:
            posted = self._outbox.answered(reply.sequence)
            if posted is not None:
                self._acknowledged += 1
                round_trip_ms = (time.monotonic() - posted.sent_s) * 1000
                reply = replace(reply, timings_ms=reply.timings_ms | {"round_trip": round_trip_ms})
                self._replies.append(reply)
                self._fresh.add(reply)
                self._decisions.extend(decision for decision in reply.decisions if not decision.refused)
                self._changed.notify_all()
        connection.release(reply.sequence)
