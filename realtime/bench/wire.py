"""``cytoloop bench wire``: mutated messages, in memory and against a live engine.

Damaged messages (bytes changed, cut, added, exchanged) must be refused, or mean what they meant before.
Forged ones (fields changed, the CRC made right again) must be refused, or be a message that could have been
sent: consistent in itself, so that it can do no harm that an honest client could not do.
"""

from __future__ import annotations

import math
import struct
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import msgspec
import numpy as np
import zmq

from ...acquire.commands import MoveStage, SetProperty, Stimulate
from ...acquire.errors import WireError
from ...acquire.explanation import Clause, Explanation
from ...acquire.frame import Frame
from ...acquire.governor.limits import Limits
from ...acquire.link import messages as wire
from ...acquire.link import pixels as travelling
from ...acquire.link.client import Client
from ...acquire.outcome import Outcome
from ...acquire.reply import Cells, Decision, Division, Reply
from ..experiment.stream import PluginChoice, StreamConfig
from ..progress import Progress
from ..service.thread import EngineThread
from .blank import BLANK

_ENVELOPE_BYTES = 9
_FORGED_SHARE = 0.25
_HONEST_EVERY = 500
_HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, -(2**63), math.nan, math.inf, -math.inf, 1e308, "", "a" * 5000, "\0",
    b"", b"\xff" * 16, [], [[]], {}, {"a": {}}, [1, "<f4"],
)  # fmt: skip


class _Sample(NamedTuple):
    """A valid message with its pixels, and the function that reads it."""

    part: bytes
    pixels: bytes
    read: Callable[[bytes, bytes], Any]


def run(progress: Progress, *, messages: int = 100_000, seed: int = 0, live: bool = True) -> dict[str, Any]:
    """Mutate valid messages at random and count what becomes of them."""
    random = Random(seed)
    samples = _samples()
    counts: Counter[str] = Counter()
    hostile: list[list[bytes]] = []
    for number in range(messages):
        sample = random.choice(samples)
        forged = random.random() < _FORGED_SHARE
        part, pixels = _forge(random, sample) if forged else _damage(random, sample)
        counts[_judge(sample, part, pixels, forged)] += 1
        hostile.append([part, pixels] if pixels else [part])
        if number % 1000 == 0:
            progress("mutating messages", number, messages)
    result: dict[str, Any] = {
        "mutated": messages,
        "refused": counts["refused"],
        "accepted_unchanged_meaning": counts["unchanged"],
        "accepted_wrong": counts["wrong"],
        "accepted_forged_but_consistent": counts["consistent"],
        "crashed": counts["crashed"],
    }
    if live:
        result["live"] = _against_live_engine(hostile, progress)
    sound = not counts["wrong"] and not counts["crashed"] and result.get("live", {}).get("survived", True)
    return result | {"ok": bool(sound)}


def _samples() -> list[_Sample]:
    pixels = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32)
    frame = Frame(
        pixels, 5, 2.5, {"time": 5, "position": "A1", "z": 0}, ("DAPI",), (10.0, -4.0), 1.5, 20.0, 0.65
    )
    stacked = Frame(np.stack([pixels, pixels]).astype(np.uint8), 6, 3.0, {"time": 6}, ("DAPI", "GFP"))
    cells = Cells(
        np.array([3, 8]), np.array([1.0, 2.0], "f4"), np.array([3.0, 4.0], "f4"), {"mean": np.ones(2, "f4")}
    )
    decisions = (
        Decision(
            "follow",
            MoveStage(1.0, 2.0),
            5,
            2.5,
            3.5,
            3,
            (4.0, 5.0),
            (1.0, 1.0, 0.0),
            (10.0, -4.0),
            ("near",),
        ),
        Decision("light", Stimulate(((4.0, 5.0),), duration_ms=50.0), 5, 2.5, 3.5, 8),
        Decision("shutter", SetProperty("Shutter", "State", "1"), 5, 2.5, 3.5, refused="not allowed"),
    )
    reply = Reply(5, cells, (Division(1, (3, 8)),), decisions, {"segment": 3.5}, ("a message",))
    said = Explanation("light", 8, 5, True, "It fired.", (Clause("area > 3", 4.0, 3.0),))
    from_client = [
        wire.Hello("default", "0123456789abcdef" * 2, "microscope pid 1", 5),
        wire.Offer("psm_1234", 3, 1 << 20, bytes(range(16))),
        wire.Beat(5),
        wire.Stands("armed", "the script"),
        wire.Outcomes(3, (Outcome(5, "light", 8, "Stimulate", "refused", 0.25, "dose_ms_per_cell"),)),
        wire.Control("default", "disarmed", "page", "the sample is changed"),
        wire.Question("default", 8, 5),
        wire.Bye(),
    ]
    from_service = [
        wire.Welcome(5, 3, "lossless", 10.0, "engine", "/runs/1", wire.Terms(True, Limits(x_um=(-5.0, 5.0)))),
        wire.Accepted("psm_1234", True),
        wire.Answer(reply),
        wire.Refusal("again", "CRC"),
        wire.Beat(6),
        wire.Order("dry", "a person"),
        wire.Stands("dry", "a person", True),
        wire.Noted(4),
        wire.Because(8, 5, 2.5, True, {"armed": (said,)}, (1, 3), b"abc"),
    ]
    samples = [_Sample(wire.encode(message), b"", _read_from_client) for message in from_client]
    samples += [_Sample(wire.encode(message), b"", _read_from_service) for message in from_service]
    for image in (frame, stacked):
        header = travelling.header_of(image, skipped=0, slot=-1, check=travelling.checksum(image.pixels))
        samples += 3 * [_Sample(wire.encode(header), image.pixels.tobytes(), _read_from_client)]
    return samples


def _read_from_client(part: bytes, pixels: bytes) -> Any:
    message = wire.decode_from_client(part)
    if isinstance(message, wire.FrameHeader) and message.slot < 0:
        travelling.frame_of(message, memoryview(pixels))
    return message


def _read_from_service(part: bytes, pixels: bytes) -> Any:
    return wire.decode_from_service(part)


def _judge(sample: _Sample, part: bytes, pixels: bytes, forged: bool) -> str:
    try:
        message = sample.read(part, pixels)
    except WireError:
        return "refused"
    except Exception:
        return "crashed"
    if wire.encode(message) == sample.part and pixels == sample.pixels:
        return "unchanged"
    return "consistent" if forged and _is_consistent(message, pixels) else "wrong"


def _is_consistent(message: Any, pixels: bytes) -> bool:
    """Check a decoded message anew, by other means than the decoder's."""
    numbers = _numbers(msgspec.to_builtins(message, enc_hook=lambda array: array.tolist()), [])
    if not isinstance(message, wire.Answer):
        return all(math.isfinite(number) for number in numbers) and _fits(message, pixels)
    commands = _numbers(msgspec.to_builtins(message.reply.decisions), [])
    cells = message.reply.cells
    lengths = {len(column) for column in (cells.track, cells.x_px, cells.y_px, *cells.columns.values())}
    return all(math.isfinite(number) for number in commands) and len(lengths) == 1


def _fits(message: Any, pixels: bytes) -> bool:
    if not isinstance(message, wire.FrameHeader) or message.slot >= 0:
        return True
    size = int(np.prod(message.shape)) * np.dtype(message.dtype).itemsize
    return size == len(pixels) and 0 <= message.skipped <= message.sequence


def _numbers(value: Any, found: list[float]) -> list[float]:
    if isinstance(value, float):
        found.append(value)
    for inner in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    ):
        _numbers(inner, found)
    return found


def _damage(random: Random, sample: _Sample) -> tuple[bytes, bytes]:
    """Change the bytes of the message, or of its pixels, as a bad cable, a bug or a fuzzer would."""
    part, pixels = bytearray(sample.part), bytearray(sample.pixels)
    target = pixels if pixels and random.random() < 0.3 else part
    at = random.randrange(len(target))
    match random.randrange(7):
        case 0:
            target[at] ^= 1 << random.randrange(8)
        case 1:
            target[at : at + 4] = random.randbytes(len(target[at : at + 4]))
        case 2:
            del target[at:]
        case 3:
            target += random.randbytes(random.randint(1, 64))
        case 4:
            target[at:at] = target[: random.randint(1, 16)]
        case 5:
            other = random.randrange(len(target))
            target[at], target[other] = target[other], target[at]
        case _:
            for _ in range(random.randint(2, 32)):
                target[random.randrange(len(target))] = random.randrange(256)
    return bytes(part), bytes(pixels)


def _forge(random: Random, sample: _Sample) -> tuple[bytes, bytes]:
    """Put a hostile value anywhere into the message, and make its CRC right."""
    fields = msgspec.msgpack.decode(sample.part[_ENVELOPE_BYTES:])
    holder: Any = fields
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = random.choice(keys)
        inner = holder[key]
        if isinstance(inner, list | dict) and inner and random.random() < 0.7:
            holder = inner
            continue
        holder[key] = random.choice(_HOSTILE_VALUES)
        break
    payload = msgspec.msgpack.encode(fields)
    return struct.pack("<4sBI", b"CYTO", wire.VERSION, zlib.crc32(payload)) + payload, sample.pixels


def _against_live_engine(hostile: list[list[bytes]], progress: Progress) -> dict[str, Any]:
    """Flood a real engine over tcp while an honest client works; it must get every reply."""
    stream = StreamConfig(address="tcp://127.0.0.1:0", segmenter=PluginChoice(BLANK))
    image = Frame(np.zeros((64, 64), np.uint16))
    with (
        tempfile.TemporaryDirectory() as log,
        EngineThread(stream, log) as engine,
        Client(engine.address) as client,
    ):
        connected = client.wait_connected(10.0)
        attacker: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        attacker.linger = 0
        attacker.connect(engine.address)
        for number, parts in enumerate(hostile):
            attacker.send_multipart(parts)
            if number % _HONEST_EVERY == 0:
                client.send(image)
                progress("flooding a live engine", number, len(hostile))
        drained = _all_read(attacker)
        answered = client.drain(60.0)
        attacker.close()
        stats, damaged = client.stats(), engine.status.damaged
        return {
            "sent": len(hostile),
            "refused_by_engine": damaged,
            "honest_frames": stats.sent,
            "honest_answered": stats.acknowledged,
            "survived": bool(connected and drained and answered and stats.acknowledged == stats.sent),
        }


def _all_read(attacker: zmq.Socket[bytes]) -> bool:
    """Wait until the engine has read the whole flood: until it refuses what was sent last."""
    attacker.send(wire.encode(wire.Hello("the end of the flood", "0" * 32, "attacker", 0)))
    while attacker.poll(30_000):
        message = wire.decode_from_service(attacker.recv())
        if isinstance(message, wire.Refusal) and "the end of the flood" in message.reason:
            return True
    return False
