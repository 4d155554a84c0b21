"""The engine of one stream: intake -> step -> reply, in one loop of one thread.

It answers clients over a ROUTER socket. One client at a time holds the stream; it may have ``credit`` frames
unanswered. Signs of life are sent from this loop, so that a hung engine is silent.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import msgspec
import zmq

from ...acquire.errors import CytoloopError, VersionError, WireError
from ...acquire.frame import Frame
from ...acquire.link.messages import (
    Accepted,
    Answer,
    Beat,
    Bye,
    Control,
    FrameHeader,
    FromService,
    Hello,
    Noted,
    Offer,
    Outcomes,
    Question,
    Refusal,
    Stands,
    Welcome,
    decode_from_client,
    encode,
)
from ...acquire.link.pixels import frame_of
from ...acquire.link.ring import RingReader
from ...models.segmenter import Remembering, Segmenter
from ..experiment.stream import StreamConfig
from ..recording.feed import RecorderFeed
from ..recording.ring import RecordRing
from .listening import listen
from .requests import Requests
from .run import Run

_BEAT_S = 0.25
_GRACE_S = 0.2
_CLIENT_SILENCE_S = 5.0
_MOST_MESSAGES = 64  # taken in at a time, so that a flood does not keep the engine from its work


class EngineStatus(msgspec.Struct):
    """What an engine tells its supervisor.

    Attributes
    ----------
    address
        Where it listens, the port resolved.
    processed, damaged
        Frames answered, messages that failed a check.
    client
        Who holds the stream, or ``""``.
    folder
        Folder of the run.
    step_ms
        Time of the last frame's step in ms.
    standing, safe
        How the microscope stands, ``""`` while none has said so, and whether it has fallen to its safe state.
    messages
        What a person should read, since the last status.
    """

    address: str
    processed: int = 0
    damaged: int = 0
    client: str = ""
    folder: str = ""
    step_ms: float = 0.0
    standing: str = ""
    safe: bool = False
    messages: tuple[str, ...] = ()


class _Task(NamedTuple):
    header: FrameHeader
    frame: Frame


class Engine:
    """One stream's service; :meth:`turn` is called in a loop by one thread, which made the engine.

    Parameters
    ----------
    stream
        Its configuration; a port of 0 is resolved by the system, see ``status.address``.
    log
        Folder for the runs' journals.
    report
        Called with the status about four times a second, from the same thread.
    segmenter
        The stream's segmenter, loaded, for the first run: building one when a client comes would keep the engine
        silent, perhaps for longer than ``hang_s``. None builds it then.
    ring
        Name of the memory between engine and recorder; ``""``: frames are not recorded.

    Raises
    ------
    LinkError
        If there is no such memory.
    AddressError
        If the address cannot be bound, or is not local and there are no keys.
    """

    def __init__(
        self,
        stream: StreamConfig,
        log: Path,
        report: Callable[[EngineStatus], None],
        segmenter: Segmenter | None = None,
        ring: str = "",
    ) -> None:
        self._stream, self._log, self._report = stream, log, report
        self._segmenter, self._segmenter_used = segmenter, False
        self._identity = uuid.uuid4().hex
        self._feed = RecorderFeed(stream.record, RecordRing.attach(ring)) if ring else None
        self._socket, self._door = listen(stream)
        self.status = EngineStatus(str(self._socket.getsockopt_string(zmq.LAST_ENDPOINT)).rstrip("\0"))
        self._run: Run | None = None
        self._peer = b""
        self._peer_seen = 0.0
        self._expected = 0  # the next frame to arrive; those in between are queued
        self._queue: deque[_Task] = deque()
        self._ring: RingReader | None = None
        self._requests = Requests(stream.name, self._send)
        self._turned_away: deque[tuple[float, bytes, Hello]] = deque()
        self._beaten = 0.0
        self._messages: list[str] = []

    def turn(self, timeout_s: float) -> None:
        """Take in all messages that wait, process one frame, give a sign of life."""
        busy = self._queue and (self._feed is None or not self._feed.waits)
        if self._socket.poll(0 if busy else int(timeout_s * 1000)):
            self._take_in()
        while self._turned_away and self._turned_away[0][0] < time.monotonic():
            self._welcome(*self._turned_away.popleft()[1:])
        if self._queue and (self._feed is None or self._feed.has_room(self._queue[0].header.nbytes)):
            self._process(self._queue.popleft())
        self._give_sign_of_life()

    def _give_sign_of_life(self) -> None:
        now = time.monotonic()
        if now - self._beaten < _BEAT_S:
            return
        self._beaten = now
        if self._door is not None and self._door.refresh():
            self._say("the keys of clients have changed; those that are there now may enter")
        self._requests.turn()
        if self._run is not None and self._peer:
            self._send(self._peer, Beat(self._run.next_sequence))
        self.status.messages, self._messages = tuple(self._messages), []
        self._report(self.status)

    def close(self) -> None:
        """Close run, ring and socket."""
        self._leave()
        if self._feed is not None:
            self._feed.close()
        self._requests.close()
        self._socket.close(linger=200)
        if self._door is not None:
            self._door.stop()

    # --- messages -------------------------------------------------------------------------------------------

    def _take_in(self) -> None:
        for _ in range(_MOST_MESSAGES):
            if len(self._queue) > self._stream.credit:
                return
            try:
                peer, *parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            sender = peer.bytes
            if self._door is not None and not (parts and self._door.admits(parts[0])):
                self._lock_out(sender)
                continue
            try:
                self._act(sender, [part.buffer for part in parts])
            except WireError as error:
                self.status.damaged += 1
                self._say(f"message refused: {error}")
                if isinstance(error, VersionError):
                    self._send(sender, Refusal("rejected", str(error)))
                elif sender == self._peer:
                    self._ask_again(str(error))

    def _lock_out(self, sender: bytes) -> None:
        """Turn a client away whose key was withdrawn while it was connected."""
        self._send(sender, Refusal("rejected", "its key may not enter any more"))
        if sender == self._peer:
            self._say(f"client {self.status.client} is locked out: its key was withdrawn")
            self._leave()

    def _act(self, sender: bytes, parts: list[memoryview]) -> None:
        if not parts:
            raise WireError("an empty message")
        message = decode_from_client(parts[0])
        if len(parts) != (2 if isinstance(message, FrameHeader) else 1):
            raise WireError(f"{len(parts)} parts for a {type(message).__name__}")
        match message:
            case Hello() if self._why_not(message):  # the BYE of the one before may be right behind
                self._turned_away.append((time.monotonic() + _GRACE_S, sender, message))
                return None
            case Hello():
                return self._welcome(sender, message)
            case Control():
                return self._say(self._requests.control(sender, message, self._peer))
            case Question():
                return self._requests.explain(sender, message, self._run)
            case _:
                pass
        if sender != self._peer:
            return self._send(sender, Refusal("stranger", "say HELLO first"))
        self._peer_seen = time.monotonic()
        match message:
            case FrameHeader():
                self._enqueue(message, parts[1])
            case Offer():
                self._open_ring(message)
            case Stands():
                self._stands(message)
            case Outcomes():
                self._note(message)
            case Bye():
                self._leave()
            case Beat():
                pass
        return None

    def _stands(self, stands: Stands) -> None:
        if stands.standing != self.status.standing or stands.safe != self.status.safe:
            fallen = ", in its safe state" if stands.safe else ""
            self._say(f"the microscope is {stands.standing}{fallen}: {stands.why}")
        self.status.standing, self.status.safe = stands.standing, stands.safe
        self._requests.confirmed(stands)

    def _note(self, outcomes: Outcomes) -> None:
        if self._run is None:
            return
        number = self._run.note(outcomes)
        if number is None:
            self._say("what came of decisions could not be written to the log; the microscope keeps it")
        else:
            self._send(self._peer, Noted(number))

    def _welcome(self, sender: bytes, hello: Hello) -> None:
        refusal = self._why_not(hello)
        if refusal:
            self._say(f"client {hello.client} turned away: {refusal}")
            return self._send(sender, Refusal("rejected", refusal))
        try:
            run = self._enter(hello)
        except (OSError, CytoloopError) as error:
            self._leave()
            self._say(f"the run of {hello.client} cannot be opened: {error}")
            return self._send(sender, Refusal("rejected", f"the service cannot open the run's log: {error}"))
        self._queue.clear()
        self._close_ring()
        self._peer, self._peer_seen, self._expected = sender, time.monotonic(), run.next_sequence
        self.status.client, self.status.folder = hello.client, str(run.folder.resolve())
        run.events.add("client", name=hello.client, awaiting=hello.awaiting)
        stream = self._stream
        credit = 1 if stream.policy == "latest" else stream.credit
        self._send(
            sender,
            Welcome(
                next_sequence=run.next_sequence,
                credit=credit,
                policy=stream.policy,
                hang_s=stream.hang_s,
                engine=self._identity,
                folder=self.status.folder[-4096:],
                terms=run.terms,
            ),
        )
        for reply in run.replies_from(hello.awaiting):
            self._send(sender, Answer(reply))
        return None

    def _why_not(self, hello: Hello) -> str:
        if hello.stream != self._stream.name:
            return f"no stream {hello.stream!r} here; this address serves {self._stream.name!r}"
        held = self._run is not None and self._run.name != hello.run and self._peer
        if held and time.monotonic() - self._peer_seen < _CLIENT_SILENCE_S:
            return f"stream {hello.stream!r} is in use by {self.status.client}"
        return ""

    def _enter(self, hello: Hello) -> Run:
        if self._run is None or self._run.name != hello.run:
            self._leave()
            self._run = Run(
                self._stream,
                self._log,
                hello.run,
                self._give_sign_of_life,
                self._fresh_segmenter(),
                self._feed,
            )
            if self._run.next_sequence:
                self._say(f"run taken over at frame {self._run.next_sequence}")
        return self._run

    def _fresh_segmenter(self) -> Segmenter:
        """Return a segmenter that knows no frames: if possible the one that is loaded already."""
        segmenter = self._segmenter
        if self._segmenter_used:
            if isinstance(segmenter, Remembering):
                segmenter.reset()
            else:  # what it kept nobody knows; let go of before another one takes memory
                segmenter = self._segmenter = None
        if segmenter is None:
            segmenter = cast(Segmenter, self._stream.segmenter.build("segmenters"))
        self._segmenter, self._segmenter_used = segmenter, True
        return segmenter

    def _enqueue(self, header: FrameHeader, inline: memoryview) -> None:
        if header.sequence - header.skipped != self._expected:
            raise WireError(f"frame {header.sequence} is out of order; {self._expected} is next")
        if len(self._queue) >= self._stream.credit:
            raise WireError(f"more than {self._stream.credit} unanswered frames")
        if header.slot < 0:
            pixels = inline
        elif self._ring is not None:
            pixels = self._ring.view(header.slot, header.nbytes)
        else:
            raise WireError(f"slot {header.slot} of a ring that was not accepted")
        self._queue.append(_Task(header, frame_of(header, pixels)))
        self._expected = header.sequence + 1

    def _process(self, task: _Task) -> None:
        if self._run is None:
            return
        started = time.perf_counter()
        reply = self._run.process(*task)
        self.status.step_ms = (time.perf_counter() - started) * 1000
        self.status.processed += 1
        self._messages.extend(reply.messages)
        self._send(self._peer, Answer(reply))
        self._peer_seen = time.monotonic()  # while we worked nobody looked whether it was there

    def _ask_again(self, reason: str) -> None:
        """Have the client say HELLO and send again all that is unanswered.

        What is queued is sound and is worked on meanwhile, so that every round comes further.
        """
        self._send(self._peer, Refusal("again", reason[:4096]))

    def _send(self, peer: bytes, message: FromService) -> None:
        with contextlib.suppress(zmq.Again):  # a peer that does not read: it will say HELLO and get it again
            self._socket.send_multipart([peer, encode(message)], zmq.NOBLOCK)

    def _say(self, message: str) -> None:
        if message and len(self._messages) < 100:
            self._messages.append(message)
            if self._run is not None:
                self._run.events.add("message", text=message)

    # --- rings and runs -------------------------------------------------------------------------------------

    def _open_ring(self, offer: Offer) -> None:
        self._close_ring()
        try:
            self._ring = RingReader(offer)
        except WireError as error:
            self._say(f"{error}; pixels come through the socket")
        self._send(self._peer, Accepted(offer.name, self._ring is not None))

    def _close_ring(self) -> None:
        if self._run is not None:
            self._run.forget_image()
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def _leave(self) -> None:
        self._queue.clear()
        self._close_ring()
        if self._run is not None:
            for message in self._run.unfinished():
                self._say(message)
            with contextlib.suppress(OSError):  # what was acknowledged is in the file already
                self._run.close()
        self._run, self._peer = None, b""
        self.status.client = self.status.standing = ""
        self.status.safe = False
