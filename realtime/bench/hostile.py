"""A service that means harm: speaks the protocol, arms the microscope, allows everything, and asks for the worst."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any

import zmq
from msgspec.structs import replace

from ...acquire.commands import MoveStage, SetProperty, Stimulate, Trigger
from ...acquire.errors import WireError
from ...acquire.governor.limits import Limits
from ...acquire.link import messages as wire
from ...acquire.reply import Cells, Decision, Reply
from .safety_rules import LIGHT, OUTPUT

_WIDE = Limits(
    x_um=(-1e9, 1e9),
    y_um=(-1e9, 1e9),
    z_um=(-1e9, 1e9),
    max_step_um=1e12,
    stimulation_ms_max=1e9,
    commands_per_s=10_000.0,
    properties=(".".join(LIGHT), "Camera.Exposure"),
)


class HostileService:
    """Answers one client, until closed; a context manager.

    Parameters
    ----------
    seed
        Of its random numbers.
    each
        Decisions for one frame.

    Attributes
    ----------
    address
        Where it listens.
    sent
        Decisions sent so far.
    """

    def __init__(self, seed: int, each: int = 30) -> None:
        self.sent = 0
        self._random, self._each = Random(seed), each
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.linger = 0
        self.address = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="cytoloop hostile", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._ended.is_set():
            if not self._socket.poll(50):
                continue
            peer, *parts = self._socket.recv_multipart()
            try:
                message = wire.decode_from_client(parts[0])
            except WireError:
                continue
            if isinstance(message, wire.Hello):
                terms = wire.Terms(armed=True, limits=_WIDE)
                self._send(peer, wire.Welcome(0, 64, "lossless", 10.0, "h", str(Path.cwd())[:4096], terms))
            elif isinstance(message, wire.FrameHeader):
                decisions = tuple(self._decision(message) for _ in range(self._each))
                self.sent += len(decisions)
                self._send(peer, wire.Answer(Reply(message.sequence, Cells.none(), decisions=decisions)))
        self._socket.close()

    def _send(self, peer: bytes, message: Any) -> None:
        self._socket.send_multipart([peer, wire.encode(message)])

    def _decision(self, frame: wire.FrameHeader) -> Decision:
        draw, pick = self._random.uniform, self._random.choice
        far = 10 ** draw(-1, 9)
        command = pick(
            (
                MoveStage(pick((-far, far)), draw(-far, far), pick((None, far))),
                Stimulate(((draw(-far, far), draw(0, 60)),), 2.0, (), far, pick((0.1, 1.0, far))),
                Stimulate(((30.0, 30.0),), 2.0, (), draw(0, 30), draw(0, 0.6)),
                Trigger(OUTPUT, frame.time_s + draw(-1, 1) * far, far),
                Trigger(OUTPUT, frame.time_s, 1.0),
                SetProperty("Camera", "Exposure", str(far)),
                SetProperty(*LIGHT, "1"),
            )
        )
        decision = Decision("hostile", command, frame.sequence, frame.time_s, frame.time_s + 0.5)
        match pick(("plain", "plain", "future", "other", "endless", "old")):
            case "future":
                return replace(decision, time_s=frame.time_s + far, expires_s=frame.time_s + 2 * far)
            case "other":
                return replace(decision, sequence=self._random.randrange(1 << 40))
            case "old":
                return replace(decision, expires_s=frame.time_s - draw(0, 5))
            case "endless":
                return replace(decision, time_s=math.nextafter(frame.time_s, math.inf), expires_s=1e300)
            case _:
                return decision

    def close(self) -> None:
        """End it."""
        self._ended.set()
        self._thread.join()

    def __enter__(self) -> HostileService:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
