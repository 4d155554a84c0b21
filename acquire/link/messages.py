"""The messages between microscope and service, and the checks that every one of them must pass.

A message is one ZeroMQ part: a magic number, the protocol's version (these two stand in every version), a
CRC-32 of the rest, and a msgpack array whose first element names its kind. A frame has a second part, its
pixels, which the header describes and whose 64-bit checksum it carries; with a shared-memory ring the second
part is empty and the header names the slot. Nothing is used before all of it was checked; whatever fails is
a :class:`WireError`.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from itertools import chain
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from ..errors import ConfigurationError, VersionError, WireError
from ..explanation import Explanation
from ..frame import LONGEST_SIDE_PX
from ..governor.limits import Limits
from ..governor.safe import SafeState
from ..governor.standing import Standing
from ..outcome import Outcome
from ..reply import Decision, Reply, decode_array, encode_array

VERSION = 2
_MAGIC = b"CYTO"
_ENVELOPE = struct.Struct("<4sBI")
LARGEST_MESSAGE = 1 << 30  # bytes of one part, pixels included; ZeroMQ drops the sender of anything larger
_LARGEST_HEADER = 1 << 26  # bytes; a reply with 100 000 cells has about 5 MB

Policy: TypeAlias = Literal["lossless", "latest"]
_Name = Annotated[str, Meta(max_length=256)]
_Text = Annotated[str, Meta(max_length=4096)]
_Sequence = Annotated[int, Meta(ge=0, lt=1 << 62)]
_Side = Annotated[int, Meta(ge=1, le=LONGEST_SIDE_PX)]
_PIXEL_BYTES = {"uint8": 1, "uint16": 2}


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all messages: arrays on the wire, for size and speed."""


class Hello(_Message, frozen=True, tag="hello"):
    """A client introduces itself: at the start, and again whenever it may have lost the service.

    ``run`` identifies one acquisition (32 hexadecimal digits); ``awaiting`` is the first frame for which
    it has no reply yet.
    """

    stream: _Name
    run: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    client: _Name
    awaiting: _Sequence


class Offer(_Message, frozen=True, tag="offer"):
    """A client offers a shared-memory ring; ``token`` stands at its start and proves that it is the same one."""

    name: _Name
    slots: Annotated[int, Meta(ge=1, le=1024)]
    slot_bytes: Annotated[int, Meta(ge=1, le=LARGEST_MESSAGE)]
    token: Annotated[bytes, Meta(min_length=16, max_length=16)]


class FrameHeader(_Message, frozen=True, tag="frame"):
    """All of a frame but its pixels; ``slot`` is -1 when they follow as the second part.

    ``skipped`` counts the frames just before this one that the client left out by policy: the service
    accepts a frame only if it follows the last one, or declares the gap.
    """

    sequence: _Sequence
    skipped: _Sequence
    shape: Annotated[tuple[_Side, ...], Meta(min_length=2, max_length=3)]
    dtype: Literal["uint8", "uint16"]
    checksum: Annotated[int, Meta(ge=0)]
    slot: Annotated[int, Meta(ge=-1, lt=1024)]
    time_s: float
    sent_s: float
    axes: Annotated[dict[_Name, Annotated[int, Meta(ge=-(1 << 62), lt=1 << 62)] | _Name], Meta(max_length=32)]
    channels: Annotated[tuple[_Name, ...], Meta(max_length=64)]
    stage_um: tuple[float, float] | None
    z_um: float | None
    exposure_ms: float | None
    pixel_size_um: float | None
    affine: tuple[float, float, float, float] | None = None
    standing: Standing = "armed"

    @property
    def nbytes(self) -> int:
        """Bytes of pixels that belong to it."""
        return math.prod(self.shape) * _PIXEL_BYTES[self.dtype]


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the experiment file says of what may reach the hardware; the microscope side holds to it by itself.

    Attributes
    ----------
    armed
        Whether decisions are carried out from the start.
    limits
        What commands may ask for.
    safe
        What to do when the service is silent.
    affine
        (xx, xy, yx, yy) from px to stage um if it is the same for all frames; None: as each frame says.
    uncalibrated
        Why the stage must not be moved, or ``""``.
    """

    armed: bool = False
    limits: Limits = Limits()
    safe: SafeState = SafeState()
    affine: tuple[float, float, float, float] | None = None
    uncalibrated: _Text = ""


class Welcome(_Message, frozen=True, tag="welcome"):
    """The service takes the client: send from ``next_sequence`` on, at most ``credit`` unanswered at a time.

    Work on one frame may take up to ``hang_s`` s, in which there is no sign of life. ``terms`` say what may reach the
    hardware.
    """

    next_sequence: _Sequence
    credit: Annotated[int, Meta(ge=1, le=1024)]
    policy: Policy
    hang_s: Annotated[float, Meta(gt=0, le=3600)]
    engine: _Name
    folder: _Text
    terms: Terms = Terms()


class Accepted(_Message, frozen=True, tag="accepted"):
    """The service can, or cannot, see the ring that was offered."""

    name: _Name
    visible: bool


class Answer(_Message, frozen=True, tag="answer"):
    """The reply to one frame, and its acknowledgement."""

    reply: Reply


class Refusal(_Message, frozen=True, tag="refusal"):
    """The service did not take something.

    ``code`` is ``stranger`` (say HELLO first), ``again`` (say HELLO and send again what is unanswered) or
    ``rejected`` (do not come back without a change).
    """

    code: Literal["stranger", "again", "rejected"]
    reason: _Text


class Beat(_Message, frozen=True, tag="beat"):
    """Still alive, said from the work loop, so that a hung one is silent; ``sequence`` is the next expected."""

    sequence: _Sequence


class Control(_Message, frozen=True, tag="control"):
    """Someone with the right to connect asks for another standing of the microscope; needs no HELLO."""

    stream: _Name
    standing: Standing
    who: _Name
    why: _Text


class Order(_Message, frozen=True, tag="order"):
    """The service hands on what was asked for by someone with the right to."""

    standing: Standing
    why: _Text


class Stands(_Message, frozen=True, tag="stands"):
    """How the microscope stands: its client says so when it changes, and the service to whoever asked for it.

    ``safe`` tells that it has fallen to its safe state.
    """

    standing: Standing
    why: _Text
    safe: bool = False


class Outcomes(_Message, frozen=True, tag="outcomes"):
    """What came of decisions at the microscope; the first of them has this number in its run."""

    first: _Sequence
    outcomes: Annotated[tuple[Outcome, ...], Meta(max_length=1000)]


class Noted(_Message, frozen=True, tag="noted"):
    """The service has written down all outcomes before this number."""

    next: _Sequence


class Question(_Message, frozen=True, tag="question"):
    """Why was, or was not, something decided about a cell? Needs no HELLO.

    ``sequence`` -1 asks about the last frame that was judged.
    """

    stream: _Name
    track: Annotated[int, Meta(ge=0, lt=1 << 62)]
    sequence: Annotated[int, Meta(ge=-1, lt=1 << 62)] = -1


class Because(_Message, frozen=True, tag="because"):
    """The answer to a question: what each rule says, or why there is no answer.

    ``rules`` holds what each file of rules says, those that are armed under ``armed``; ``image`` is the cell's
    surroundings, (y, x) uint8 of ``shape``, empty where the pixels are gone, and ``box`` x0, y0, x1, y1 of the cell
    in it in px.
    """

    track: int
    sequence: Annotated[int, Meta(ge=-1)]
    time_s: float = 0.0
    seen: bool = False
    rules: Annotated[dict[_Name, tuple[Explanation, ...]], Meta(max_length=1000)] = {}
    shape: tuple[int, int] = (0, 0)
    image: bytes = b""
    box: tuple[float, float, float, float] | None = None
    refused: _Text = ""


class Bye(_Message, frozen=True, tag="bye"):
    """The client has all its replies and leaves."""


FromClient: TypeAlias = Hello | Offer | FrameHeader | Beat | Stands | Outcomes | Control | Question | Bye
FromService: TypeAlias = Welcome | Accepted | Answer | Refusal | Beat | Order | Stands | Noted | Because

_encoder = msgspec.msgpack.Encoder(enc_hook=encode_array)
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {
    side: msgspec.msgpack.Decoder(side, dec_hook=decode_array) for side in (FromClient, FromService)
}


def encode(message: FromClient | FromService) -> bytes:
    """Return the wire form of a message."""
    payload = _encoder.encode(message)
    return _ENVELOPE.pack(_MAGIC, VERSION, zlib.crc32(payload)) + payload


def decode_from_client(part: bytes | memoryview) -> FromClient:
    """Check and read a message that a client sent.

    Raises
    ------
    WireError
        Names the check that failed.
    """
    message: FromClient = _decode(part, FromClient)
    if isinstance(message, FrameHeader):
        _check_header(message)
    if isinstance(message, Outcomes):
        _check_finite(message, "outcomes")
    return message


def decode_from_service(part: bytes | memoryview) -> FromService:
    """Check and read a message that the service sent.

    Raises
    ------
    WireError
        Names the check that failed.
    """
    message: FromService = _decode(part, FromService)
    match message:
        case Answer():
            for decision in chain(message.reply.decisions, *message.reply.shadow.values()):
                _check_decision(decision)
        case Welcome():
            _check_finite(message, "welcome")
        case _:
            pass
    return message


def _decode(part: bytes | memoryview, side: Any) -> Any:
    if len(part) < _ENVELOPE.size or len(part) > _LARGEST_HEADER:
        raise WireError(f"a message of {len(part)} bytes; {_ENVELOPE.size} to {_LARGEST_HEADER} are allowed")
    magic, version, crc = _ENVELOPE.unpack_from(part)
    if magic != _MAGIC:
        raise WireError("not a cytoloop message (wrong magic number)")
    if version != VERSION:
        raise VersionError(
            f"protocol version {version}; this side speaks version {VERSION}: update the older one"
        )
    payload = memoryview(part)[_ENVELOPE.size :]
    if zlib.crc32(payload) != crc:
        raise WireError("CRC mismatch: the message was damaged on the way")
    try:
        return _decoders[side].decode(payload)
    except (
        ValueError,
        OverflowError,
        RecursionError,
        ConfigurationError,
    ) as error:  # msgspec's are ValueErrors too
        raise WireError(f"malformed message: {_with_field_name(error, payload)}") from None


def _with_field_name(error: Exception, payload: memoryview) -> str:
    """Say which field is meant where msgspec gives an index into the array."""
    place = re.search(r"\$\[(\d+)\]", str(error))
    try:
        kind = next(iter(msgspec.msgpack.decode(payload)))
        fields = next(known.__struct_fields__ for known in _Message.__subclasses__() if _tag(known) == kind)
        return (
            f"{kind} message, {fields[int(place[1]) - 1]}: {error}" if place else f"{kind} message: {error}"
        )
    except (ValueError, TypeError, IndexError, StopIteration, RecursionError):
        return str(error)


def _tag(kind: type[_Message]) -> Any:
    return kind.__struct_config__.tag


def _check_header(header: FrameHeader) -> None:
    channels = 1 if len(header.shape) == 2 else header.shape[0]
    if len(header.channels) != channels:
        raise WireError(f"channels: {len(header.channels)} names for {channels} channel(s)")
    if header.nbytes > LARGEST_MESSAGE:
        raise WireError(f"shape: {header.shape} has more than {LARGEST_MESSAGE} bytes")
    if header.skipped > header.sequence:
        raise WireError(f"skipped: {header.skipped} frames cannot be left out before frame {header.sequence}")
    _check_finite(header, "frame")


def _check_decision(decision: Decision) -> None:
    _check_finite(decision, f"decision of rule {decision.rule!r}")


def can_travel(decision: Decision) -> bool:
    """Tell whether the other side would take a decision: all of its numbers are finite."""
    try:
        _check_decision(decision)
    except WireError:
        return False
    return True


def _check_finite(value: Any, what: str) -> None:
    """Refuse NaN and infinity anywhere in a value: they pass every comparison that guards hardware."""
    pending = [msgspec.to_builtins(value)]
    while pending:
        item = pending.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                raise WireError(f"{what}: {item} is not a finite number")
        elif isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list | tuple):
            pending.extend(item)
