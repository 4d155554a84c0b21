"""Every message is checked whole before any of it is used."""

from __future__ import annotations

import math
import struct
import zlib

import msgspec
import numpy as np
import pytest
from cytoloop.acquire.commands import MoveStage, Stimulate
from cytoloop.acquire.errors import WireError
from cytoloop.acquire.frame import Frame
from cytoloop.acquire.link import messages as wire
from cytoloop.acquire.link import pixels
from cytoloop.acquire.reply import Cells, Decision, Division, Reply
from hypothesis import given
from hypothesis import strategies as st


def a_frame(**changes: object) -> Frame:
    fields = {
        "pixels": np.arange(12 * 16, dtype=np.uint16).reshape(12, 16),
        "sequence": 7,
        "time_s": 3.5,
        "axes": {"time": 7, "position": "A1"},
        "stage_um": (1.0, -2.0),
        "affine": (0.0, 0.5, -0.5, 0.0),
    }
    return Frame(**{**fields, **changes})  # type: ignore[arg-type]


def a_header(**changes: object) -> wire.FrameHeader:
    frame = a_frame()
    header = pixels.header_of(frame, skipped=0, slot=-1, check=pixels.checksum(frame.pixels))
    return msgspec.structs.replace(header, **changes)


def a_reply(command: object = None) -> Reply:
    cells = Cells(
        np.array([4, 9]), np.array([1.5, 2], "f4"), np.array([3, 4], "f4"), {"area_px": np.ones(2, "f4")}
    )
    decision = Decision("follow", command or MoveStage(1.0, 2.0), 7, 3.5, 4.5, reasons=("because",))  # type: ignore[arg-type]
    return Reply(7, cells, (Division(1, (4, 9)),), (decision,), {"segment": 1.0})


def sealed(payload: bytes) -> bytes:
    """Wrap a payload as a knowing attacker would, with a CRC that is right."""
    return struct.pack("<4sBI", b"CYTO", wire.VERSION, zlib.crc32(payload)) + payload


def test_a_frame_comes_back_as_it_was_sent():
    frame = a_frame()
    header = wire.decode_from_client(wire.encode(a_header()))
    assert isinstance(header, wire.FrameHeader)
    back = pixels.frame_of(header, memoryview(frame.pixels).cast("B"))
    assert np.array_equal(back.pixels, frame.pixels)
    assert back.pixels.dtype == frame.pixels.dtype
    for name in (
        "sequence",
        "time_s",
        "axes",
        "channels",
        "stage_um",
        "z_um",
        "exposure_ms",
        "pixel_size_um",
        "affine",
    ):
        assert getattr(back, name) == getattr(frame, name)


def test_a_reply_comes_back_as_it_was_sent():
    answer = wire.decode_from_service(wire.encode(wire.Answer(a_reply())))
    assert isinstance(answer, wire.Answer)
    assert answer.reply.commands == (MoveStage(1.0, 2.0),)
    assert answer.reply.divisions == (Division(1, (4, 9)),)
    assert answer.reply.cells.track.tolist() == [4, 9]
    assert answer.reply.cells.columns["area_px"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sequence": -1}, "sequence"),
        ({"sequence": 1 << 62}, "sequence"),
        ({"skipped": 8}, "skipped"),
        ({"shape": (0, 16)}, "shape"),
        ({"shape": (12,)}, "shape"),
        ({"shape": (70_000, 16)}, "shape"),
        ({"shape": (64, 65_536, 65_536), "channels": ("",) * 64}, "shape"),
        ({"shape": (2, 12, 16)}, "channels"),
        ({"dtype": "float32"}, "dtype|Invalid enum"),
        ({"dtype": "object"}, "dtype|Invalid enum"),
        ({"slot": -2}, "slot|>= -1"),
        ({"time_s": math.nan}, "nan"),
        ({"stage_um": (math.inf, 0.0)}, "inf"),
        ({"stage_um": (1.0,)}, "stage_um|length"),
        ({"affine": (1.0, math.nan, 0.0, 1.0)}, "nan"),
        ({"affine": (1.0, 0.0, 0.0)}, "affine|length"),
        ({"axes": {"time": 1.5}}, "float"),
        ({"axes": {f"a{i}": i for i in range(33)}}, "length"),
        ({"axes": {"x" * 300: 1}}, "length"),
        ({"channels": ("a", "b")}, "channels"),
        ({"exposure_ms": "10"}, "str"),
        ({"checksum": -1}, ">= 0"),
    ],
)
def test_a_header_with_a_wrong_field_is_refused(changes: dict[str, object], named: str):
    with pytest.raises(WireError, match=named):
        wire.decode_from_client(wire.encode(a_header(**changes)))


@pytest.mark.parametrize("command", [MoveStage(math.nan, 0.0), Stimulate(points_px=((1.0, math.inf),))])
def test_a_decision_with_a_number_that_is_not_finite_is_refused(command: object):
    with pytest.raises(WireError, match="finite"):
        wire.decode_from_service(wire.encode(wire.Answer(a_reply(command))))


def test_columns_of_unequal_length_are_refused():
    payload = msgspec.msgpack.decode(wire.encode(wire.Answer(a_reply()))[9:])
    payload[1]["cells"]["x_px"] = ["<f4", b"\0" * 4]
    with pytest.raises(WireError, match="same length"):
        wire.decode_from_service(sealed(msgspec.msgpack.encode(payload)))


@pytest.mark.parametrize(
    "column", [["<f4", b"\0" * 5], ["|O", b"\0" * 8], ["<i8", b"\0" * 8], b"\0" * 8, ["<f4"], None]
)
def test_a_column_of_another_type_is_refused(column: object):
    payload = msgspec.msgpack.decode(wire.encode(wire.Answer(a_reply()))[9:])
    payload[1]["cells"]["x_px"] = column
    with pytest.raises(WireError, match="malformed"):
        wire.decode_from_service(sealed(msgspec.msgpack.encode(payload)))


def test_another_protocol_version_is_named():
    part = bytearray(wire.encode(wire.Bye()))
    part[4] = wire.VERSION + 1
    with pytest.raises(WireError, match=f"version {wire.VERSION + 1}.*speaks version {wire.VERSION}"):
        wire.decode_from_client(bytes(part))


def test_a_message_for_the_other_side_is_refused():
    with pytest.raises(WireError):
        wire.decode_from_client(wire.encode(wire.Answer(a_reply())))
    with pytest.raises(WireError):
        wire.decode_from_service(wire.encode(wire.Bye()))


@pytest.mark.parametrize("run", ["", "0" * 31, "0" * 33, "0" * 32 + "\n", "../" + "0" * 29, "A" * 32])
def test_a_run_is_32_hexadecimal_digits_and_nothing_else(run: str):
    with pytest.raises(WireError, match="run"):
        wire.decode_from_client(wire.encode(wire.Hello("default", run, "x", 0)))


def test_an_extra_field_is_refused():
    payload = msgspec.msgpack.decode(wire.encode(a_header())[9:])
    with pytest.raises(WireError, match="malformed"):
        wire.decode_from_client(sealed(msgspec.msgpack.encode([*payload, 1])))


def test_deep_nesting_is_refused_and_does_not_overflow_the_stack():
    with pytest.raises(WireError):
        wire.decode_from_client(sealed(b"\x91" * 100_000))


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(data: bytes):
    for part in (data, sealed(data)):
        for decode in (wire.decode_from_client, wire.decode_from_service):
            try:
                message = decode(part)
            except WireError:
                continue
            assert wire.encode(message) == part or len(part) > 9  # only a well-formed message may pass


@given(st.integers(min_value=0), st.integers(1, 255))
def test_one_changed_byte_is_always_noticed(position: int, change: int):
    frame = a_frame()
    head, body = bytearray(wire.encode(a_header())), bytearray(frame.pixels.tobytes())
    target, at = (head, position) if position % 2 else (body, position // 2)
    target[at % len(target)] ^= change
    with pytest.raises(WireError):
        header = wire.decode_from_client(bytes(head))
        assert isinstance(header, wire.FrameHeader)
        pixels.frame_of(header, memoryview(body))


def test_pixels_of_another_length_are_refused():
    with pytest.raises(WireError, match="bytes"):
        pixels.frame_of(a_header(), memoryview(b"\0" * 383))


@pytest.mark.parametrize("hang_s", [math.nan, math.inf, 0.0, -1.0])
def test_a_welcome_with_a_useless_patience_is_refused(hang_s: float):
    welcome = wire.Welcome(0, 3, "lossless", hang_s, "engine", "/runs/1")
    with pytest.raises(WireError):
        wire.decode_from_service(wire.encode(welcome))
